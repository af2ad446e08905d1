"""A build that is broken off: its workers end at once, and what was finished is noted."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

BUILD = """
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from data_builders.executors import build_local
from data_builders.media import Unusable
from data_builders.raw_face import RawFace
from data_builders.shard import ShardJob, ShardSettings

@dataclass(frozen=True)
class Slow:
    begun: Path
    seconds: float

    def digest(self):
        return b""

    def face(self, look):
        self.begun.touch()
        time.sleep(self.seconds)
        raise Unusable("no face found")

def job(number, out, size=0):
    slow = Slow(out / f"begun-{number}", 300.0 if number else 0.0)
    # A job is more than a pipe holds: it waits half sent for a worker that will not take it.
    row = RawFace(f"{number}" + "x" * size, slow, {}, "train", "", "")
    return ShardJob(out, "slow", "train", number, (row,), ShardSettings())

if __name__ == "__main__":
    out = Path(sys.argv[1])
    for report in build_local([job(n, out, 10**6) for n in range(6)], workers=2):
        pass
"""


@pytest.mark.parametrize("broken_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_build_and_finished_shards_are_noted(tmp_path, broken_by):
    script, out = tmp_path / "build.py", tmp_path / "corpus"
    script.write_text(BUILD)
    out.mkdir()
    build = subprocess.Popen(
        [sys.executable, str(script), str(out)],
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background of a shell has Ctrl-C ignored, by heirs too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    note = out / ".progress" / "train-slow-00000.json"
    while not (note.is_file() and (out / "begun-1").is_file() and (out / "begun-2").is_file()):
        assert build.poll() is None, build.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    helpers = psutil.Process(build.pid).children(recursive=True)
    assert len(helpers) >= 3, "the fork server and two workers"
    build.send_signal(broken_by)
    _, trouble = build.communicate(timeout=120)
    _, alive = psutil.wait_procs(helpers, timeout=120)
    assert alive == []
    assert build.returncode == -broken_by
    assert [path.name for path in note.parent.iterdir()] == [note.name]
    if broken_by == signal.SIGINT:
        assert trouble.splitlines()[-1] == b"KeyboardInterrupt"
