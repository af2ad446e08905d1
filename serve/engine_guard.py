"""Stands between the server and its engine, so that no process of the engine outlives the server.

The server runs this file as a script with the plain standard library, and talks to it by its
standard input. When the server is killed, the system closes its pipes, so that the input ends.

    server ── guard ── engine ── the engine's own processes
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 0.1
KILL_SECONDS: Final = 10.0  # a process inside a broken driver may never go
CLEANER: Final = b"multiprocessing.resource_tracker"
CLEANING_SECONDS: Final = 2.0
ENDED_BY_ORDER: Final = 1

# What the server writes.
ASK: Final = b"T"  # SIGTERM to the engine
KILL: Final = b"K"  # the end of all its processes, at once
GONE: Final = b""  # nothing any more: it has ended, and all must go

# linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def main(folder: str, command: list[str]) -> int:
    """Run the command until it ends, or until the server asks for that or is gone.

    Args:
        folder: the server's private folder, removed where the server can no longer do it.
        command: the engine's command line.

    Returns:
        The exit code: the engine's, 128 + N where signal N ended it, 1 after KILL or GONE.
    """
    server = os.getppid()
    on_linux = sys.platform == "linux"
    libc = ctypes.CDLL(None) if on_linux else None
    if libc is not None:
        # Processes whose parent has died become children of this one, and can be found.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def follow_guard() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    engine = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=follow_guard, close_fds=True
    )
    while engine.poll() is None:
        order = _next_order() if os.getppid() == server else GONE
        if order == ASK:
            engine.terminate()
        elif order is not None:
            _end_all()
            if order == GONE:
                shutil.rmtree(folder, ignore_errors=True)
            return ENDED_BY_ORDER
    _end_all()
    return engine.returncode if engine.returncode >= 0 else 128 - engine.returncode


def _next_order() -> bytes | None:
    """Wait a moment for an order."""
    if not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
        return None
    return os.read(sys.stdin.fileno(), 1)


def _end_all() -> None:
    """Kill every descendant, those too that have lost their parent or changed their group."""
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < KILL_SECONDS:
        for pid in _children():
            # Python's own cleaner goes by itself after the others, and takes along the shared
            # memory that they had no time to give back.
            if seconds > CLEANING_SECONDS or not _is_cleaner(pid):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.01)
    if sys.platform != "linux":
        os.killpg(0, signal.SIGKILL)


def _children() -> Iterator[int]:
    me = str(os.getpid())
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue  # it ended meanwhile
        # "pid (name) state parent ..."; the name may hold spaces and brackets.
        if text.rpartition(")")[2].split()[1] == me:
            yield int(status.parent.name)


def _is_cleaner(pid: int) -> bool:
    try:
        return CLEANER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
