"""A table is downloaded once from a server that speaks the Hub's protocol, checked, and never half cached."""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks import blackbox_format, hub
from experiments.benchmarks.blackbox import Blackbox
from tests.benchmarks.test_blackbox import small_table

pytest.importorskip("huggingface_hub")
REPOSITORY, COMMIT = "lab/tables", "0" * 40


class Server:
    """Serves the files of `root` as a dataset repository; `damage` changes what is sent, not what is announced."""

    def __init__(self, root: Path) -> None:
        self.root, self.requests, self.damage, self.cut = root, [], "", ""  # type: ignore[var-annotated]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                outer.answer(self, with_body=False)

            def do_GET(self) -> None:
                outer.answer(self, with_body=True)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, with_body: bool) -> None:
        prefix = f"/datasets/{REPOSITORY}/resolve/main/"
        path = self.root / request.path.split("?")[0].removeprefix(prefix)
        if not request.path.startswith(prefix) or not path.is_file():
            request.send_response(404)
            request.send_header("X-Error-Code", "EntryNotFound")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        content = path.read_bytes()
        # As the Hub does it: large (here: array) files are known by their sha256, the others by git's checksum.
        large = path.suffix == ".npy"
        etag = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        request.send_response(200)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("X-Linked-Etag" if large else "ETag", f'"{etag}"')
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if with_body:
            self.requests.append(path.name)
            if path.name == self.damage:
                content = bytes([content[0] ^ 1]) + content[1:]
            request.wfile.write(content[: len(content) // 2] if path.name == self.cut else content)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    blackbox_format.write(tmp_path / "served" / "pets", small_table())
    server = Server(tmp_path / "served")
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("MFGP_CACHE_DIR", str(tmp_path / "cache"))
    yield server
    server.http.shutdown()


def open_table() -> Blackbox:
    return Blackbox("pets", "cats", repository=REPOSITORY)


def test_a_table_is_downloaded_once_and_read_as_it_was_written(server: Server, tmp_path: Path) -> None:
    remote, local = open_table(), Blackbox(str(tmp_path / "served" / "pets"), "cats")
    assert sorted(server.requests) == sorted(blackbox_format.FILES)
    for row in range(12):
        assert np.array_equal(remote.curve(row), local.curve(row))
    open_table()
    assert len(server.requests) == len(blackbox_format.FILES)


@pytest.mark.skipif("MFGP_DATA_DIR" not in os.environ, reason="MFGP_DATA_DIR names no folder with the real table")
def test_a_real_table_comes_through_unchanged(server: Server, tmp_path: Path) -> None:
    source = Path(os.environ["MFGP_DATA_DIR"]) / "blackbox_nasbench201_200"
    (tmp_path / "served" / "nasbench201").symlink_to(source)
    remote, local = Blackbox("nasbench201", repository=REPOSITORY), Blackbox(str(source))
    assert (remote.pool_size, remote.optimum) == (local.pool_size, local.optimum) and remote.pool_size == 200
    assert all(np.array_equal(remote.curve(row), local.curve(row)) for row in range(200))


def test_a_table_whose_tasks_have_files_of_their_own_is_fetched_by_task(server: Server, tmp_path: Path) -> None:
    whole, own = tmp_path / "served" / "pets", tmp_path / "served" / "own"
    own.mkdir()
    for name, target in zip(blackbox_format.FILES, blackbox_format.files_of("cats"), strict=True):
        (own / target).write_bytes((whole / name).read_bytes())
    np.save(own / "cats-objectives_evaluations.npy", small_table().values[0])
    remote, local = Blackbox("own", "cats", repository=REPOSITORY), Blackbox(str(whole), "cats")
    assert all(np.array_equal(remote.curve(row), local.curve(row)) for row in range(12))


def test_a_local_folder_is_preferred_to_the_hub(server: Server, tmp_path: Path) -> None:
    Blackbox("pets", "cats", repository=REPOSITORY, data_dir=str(tmp_path / "served"))
    assert server.requests == []


@pytest.mark.parametrize("name", ["objectives_evaluations.npy", "configspace.json"])
def test_a_damaged_file_is_removed_and_fetched_again(server: Server, name: str) -> None:
    server.damage = name
    with pytest.raises(ValueError, match=rf"{name} was damaged on its way .* and is removed: try again"):
        open_table()
    server.damage = ""
    assert open_table().task == "cats"


def test_an_interrupted_download_leaves_nothing_that_counts(server: Server, tmp_path: Path) -> None:
    server.cut = "objectives_evaluations.npy"
    with pytest.raises(ValueError, match=r"objectives_evaluations.npy is not cached and could not be fetched from the dataset"):
        open_table()
    assert not list((tmp_path / "cache").rglob(server.cut))
    whole = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "served" / "pets").iterdir()}
    halves = [path for path in (tmp_path / "cache").rglob("blobs/*") if len(path.name) == 64 and path.name not in whole]
    assert not halves  # what was cut has another name until all of it is there
    server.cut = ""
    assert open_table().task == "cats"


def test_a_cached_file_that_is_damaged_later_is_noticed(server: Server, tmp_path: Path) -> None:
    open_table()
    blob = next(path for path in (tmp_path / "cache").rglob("blobs/*") if len(path.name) == 64)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="was damaged"):
        open_table()


def test_what_the_hub_does_not_have_is_one_sentence(server: Server) -> None:
    with pytest.raises(ValueError, match=r"benchmark.folder='plants': metadata.json is not cached and could not be fetched") as error:
        Blackbox("plants", repository=REPOSITORY)
    assert "\n" not in str(error.value)


def test_without_the_package_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        hub.fetch(REPOSITORY, "pets", blackbox_format.FILES)
