"""Small data sets for the networks, written once."""

from pathlib import Path

import pytest

from tests.benchmarks.small_files import write_cifar_chunks, write_wikitext


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data_dir with 60 + 20 images and a text of 20 words."""
    folder: Path = tmp_path_factory.mktemp("data")
    write_cifar_chunks(folder)
    write_wikitext(folder)
    return str(folder)
