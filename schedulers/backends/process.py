"""A worker process on this machine and the pipe to it."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PATIENCE = 5.0  # seconds
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends, however it does; on Linux, elsewhere nothing happens.

    It is the end of the thread that started it that counts: one of a pool is started by the main thread or by the pool's own.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it ended before
            os._exit(1)


class WorkerProcess:
    """`python -m schedulers.backends.worker` with this environment; `benchmark` is the pickled one, `log` gets what it prints."""

    def __init__(self, benchmark: bytes, environment: Mapping[str, str], log: Path) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self.is_ready = False
        self.log = log
        # Its own session: Ctrl-C is the driver's to handle, and a kill reaches what the training has started itself.
        with theirs, log.open("ab") as file:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "schedulers.backends.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=dict(environment) | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.send(benchmark)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def send(self, message: Any) -> None:
        """Nothing is raised when the process is dead: `receive` will find out."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(message, bytes):
                self.connection.send_bytes(message)
            else:
                self.connection.send(message)

    def receive(self) -> Iterator[tuple[Any, ...]]:
        """The messages that have come; raises EOFError after the last one of a process that died."""
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if message[0] == "ready":
                    self.is_ready = True
                else:
                    yield message
        except ConnectionResetError:
            raise EOFError from None

    def reap(self) -> int:
        """Its exit code, or minus the signal that ended it, once it has ended or closed its pipe."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(PATIENCE)
        return self.kill()

    def kill(self) -> int:
        """End it, and what it has started; returns as `reap` does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait()
        self.connection.close()
        return code

    def dismiss(self) -> None:
        """Let an idle process find its pipe closed, after it has cleaned up behind its last trial; `wait` for it then."""
        self.connection.close()

    def wait(self) -> None:
        try:
            self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def last_words(self) -> str:
        """The last line that it, or one before it, printed."""
        return (self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"])[0]
