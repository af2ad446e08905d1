"""The shortest run of an evaluation, of the `packs` of the tests."""

from __future__ import annotations

from pathlib import Path

KEY = "fer2013/public-test"


def asked(packs: Path, out: Path, *more: object) -> list[object]:
    return ["eval", "run", KEY, "--root", packs, "--out", out, "--workers", 1, *more]
