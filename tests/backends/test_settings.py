"""Mistakes in the settings of a backend: one clear sentence before any trial starts."""

import pytest

from tests.test_main import EXAMPLE, attempt


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["backend.devices=[7]"], r"backend.devices=\[7\]: there is no device 7; CUDA_VISIBLE_DEVICES=0,1,GPU-ab shows devices 0 to 2"),
        (["backend.devices=[GPU-cd]"], "there is no device GPU-cd"),
        (["backend.devices=[0,GPU-ab]", "workers=3"], r"workers=3 is more than 2 devices \(0, GPU-ab\) x backend.workers_per_device=1"),
        (["backend.workers_per_device=0"], "backend.workers_per_device=0"),
        (["backend.threads_per_worker=0"], "backend.threads_per_worker=0 must be at least 1"),
        (["backend.report_timeout=0"], "backend.report_timeout=0 must be a positive number of seconds"),
        (["backend.checkpoint_quota_mb=-5"], "backend.checkpoint_quota_mb=-5 must be positive"),
        (["retries=-1"], "retries=-1 must be a whole number of at least 0"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence_before_any_trial(overrides, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,GPU-ab")
    with pytest.raises(ValueError, match=sentence) as caught:
        attempt(tmp_path, *EXAMPLE, *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "workers").exists()
