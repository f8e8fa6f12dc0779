"""The commands for one study that README and docs show begin. Sweeps, plans, and those about a reader's own files are left out."""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.test_main import ROOT, attempt

DATA = os.environ.get("MFGP_DATA_DIR")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Sweeps, and what only a reader has.
NOT_HERE = ("-m ", "--multirun", "resume=", "<", "--explain", "--help", "--cfg", "...", "…", "$", "my_", "address", "tables/")


def commands():
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"python -m experiments\.main ([^`\n]*)", text):
            arguments = line.split("  #")[0].strip()
            if not any(mark in f"{arguments} " for mark in NOT_HERE):
                yield pytest.param(arguments, id=f"{page.stem}: {arguments}")


@pytest.mark.parametrize("arguments", commands())
def test_a_command_that_is_shown_begins(arguments: str, tmp_path: Path) -> None:
    try:
        attempt(tmp_path, *shlex.split(arguments))
    except ValueError as error:
        if DATA is None and "data_dir" in str(error):
            pytest.skip(f"needs MFGP_DATA_DIR: {error}")
        if "this machine shows no GPU" in str(error) or "needs the package" in str(error):
            pytest.skip(str(error))
        raise
