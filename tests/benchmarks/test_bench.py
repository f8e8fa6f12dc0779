"""The measurements of training run, and say what they could not measure."""

from pathlib import Path

import pytest

from experiments.bench import levels, training


def test_training_speed_is_measured_without_pytorch_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho no torch >&2\nexit 1\n")
    fake.chmod(0o755)
    training.main(["--dataset", "wine", "--units", "16", "--batch", "16", "--epochs", "2", "--torch-python", str(fake)])
    said = capsys.readouterr().out
    assert "JAX: " in said and "epochs/s" in said and "PyTorch is not installed here" in said and "its first step starts after" in said


def test_a_pytorch_that_fails_is_no_missing_pytorch(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho boom >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(RuntimeError, match="the PyTorch side failed: boom"):
        training.main(["--dataset", "wine", "--units", "16", "--batch", "16", "--epochs", "1", "--torch-python", str(fake)])


def test_a_level_that_is_missed_is_a_failure(small_data: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["resnet", "--data-dir", small_data, "--epochs", "1", "--folder", str(tmp_path)]
    for _ in range(2):  # the second goes on from the checkpoint and finds the same
        with pytest.raises(SystemExit) as ended:
            levels.main(arguments)
        assert ended.value.code == 1
        assert "NOT reached" in capsys.readouterr().out
