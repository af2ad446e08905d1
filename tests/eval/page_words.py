"""What a reader sees of a page."""

from __future__ import annotations

import re


def text_of(page: str) -> str:
    """The words of the page, tags and styles taken away."""
    bare = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", bare)
