"""What tests of every package share."""

from __future__ import annotations

import os

import pytest

from facellava.environment import find_chromium


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to drive; without one the test is skipped, and fails where CI=true."""
    path = find_chromium()
    if not path:
        reason = "no Chromium on PATH: apt-get install chromium, or set FACELLAVA_CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
