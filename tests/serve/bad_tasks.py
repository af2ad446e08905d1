"""What a task may do to the process that works on it; imports little, as the workers do."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from serve.face_worker import Seen


def sleep_long() -> Seen:
    time.sleep(60)
    return Seen(())


def die() -> Seen:
    os.kill(os.getpid(), signal.SIGKILL)
    return Seen(())


def run_wild() -> Seen:
    """Like native code that does not come back: Python's signal handlers are not run."""
    ctypes.PyDLL(None).sleep(60)
    return Seen(())
