"""`facellava doctor` as a whole: its two forms, its exit code, and this very machine."""

from __future__ import annotations

import json

import pytest

from facellava import doctor as doctor_module
from facellava.checks import Check
from facellava.doctor import can_ask, doctor, examine

WHOLE = Check("torch", "ok", "2.13.0+cpu")
NO_CHROMIUM = Check("chromium", "missing", "not on PATH", "apt-get install chromium", "tests")
LONG_LINE = (
    "/a/rather/long/path/to/the/virtual/environment/bin/python -m pip uninstall -y torchvision"
)
BAD_COMPANION = Check("torchvision & co.", "broken", "[nms] is not there", LONG_LINE)


@pytest.mark.parametrize(
    ("checks", "exit_code"),
    [([WHOLE], 0), ([WHOLE, NO_CHROMIUM], 0), ([WHOLE, NO_CHROMIUM, BAD_COMPANION], 1)],
)
def test_exit_code_is_about_the_main_job(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checks: list[Check],
    exit_code: int,
) -> None:
    monkeypatch.setattr(doctor_module, "examine", lambda: checks)
    assert doctor(as_json=True) == exit_code
    findings = json.loads(capsys.readouterr().out)
    assert findings["ok"] == (exit_code == 0)
    assert [entry["name"] for entry in findings["checks"]] == [check.name for check in checks]


def test_table_keeps_each_mending_line_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(doctor_module, "examine", lambda: [WHOLE, BAD_COMPANION])
    assert doctor() == 1
    shown = capsys.readouterr().out
    assert f"  {LONG_LINE}\n" in shown
    assert "[nms] is not there" in shown
    assert "facellava ask does not work yet." in shown


def test_this_machine_is_examined() -> None:
    found = {check.name: check for check in examine()}
    for name in ("python", "torch", "transformers", "dlib", "68-point file", "cv2"):
        assert found[name].status == "ok", found[name]
    assert found["torch"].found.startswith("2.13.")
    assert all(bool(check.mend) == (check.status != "ok") for check in found.values())
    assert can_ask([check for check in found.values() if check.status == "ok"])
