"""Every choice of every group composes and builds, or says in one sentence what it lacks; the README shows what runs."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.build import build
from experiments.cli import CONFIG_DIR
from schedulers.types import Recording

ROOT = CONFIG_DIR.parent
GROUPS = ("benchmark", "scheduler", "searcher", "surrogate", "acquisition", "backend")


def choices(group):
    return [pytest.param(group, path.stem, id=f"{group}={path.stem}") for path in sorted((CONFIG_DIR / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "choice"), [pair for group in GROUPS for pair in choices(group)])
def test_every_choice_builds_or_says_what_it_lacks(group, choice, tmp_path):
    overrides = [f"{group}={choice}"] + (["benchmark=curves"] if group != "benchmark" else [])
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("main", overrides)
    try:
        parts = build(cfg, tmp_path, Recording([]))
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        lacks = ("missing", "not here", "data_dir", "says nothing", "needs a searcher that", "needs the package")
        assert any(text in str(error) for text in lacks), str(error)
    else:
        assert parts.scheduler.ask() is not None


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in sorted((CONFIG_DIR / "preset").glob("*.yaml"))])
def test_every_preset_applies_to_the_default_study(path, tmp_path):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("main", [f"+preset={path.stem}", "benchmark=curves", "backend=simulated"])
    assert build(cfg, tmp_path, Recording([])).scheduler.ask() is not None


def test_the_readme_shows_the_example_that_the_tests_run():
    readme = (ROOT / "README.md").read_text()
    for name in ("train_sgd.py", "space.yaml"):
        assert (ROOT / "examples" / name).read_text().strip() in readme
    assert len((ROOT / "examples" / "train_sgd.py").read_text().splitlines()) <= 25


def test_the_readme_names_every_choice():
    readme = (ROOT / "README.md").read_text()
    for group in GROUPS:
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{group}` |"))
        for path in (CONFIG_DIR / group).glob("*.yaml"):
            assert f"`{path.stem}`" in row, f"README's row {group} lacks {path.stem}"


def test_no_file_names_a_path_of_somebodys_machine():
    for path in [*ROOT.glob("*.md"), *ROOT.rglob("conf/**/*.yaml"), *ROOT.rglob("docs/*.md")]:
        assert str(Path.home()) not in path.read_text(), path
