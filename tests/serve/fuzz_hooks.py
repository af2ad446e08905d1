"""Loaded by schemathesis: made-up media become a face that can be read, so that requests go on.

A schema can say that a string is a data: URL, not that a face is in it.
"""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.serve.abuse_rig import crop_url


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Every data: URL of a photo is the portrait's face."""
    return _shown(body)


def _shown(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _face(name, value) for name, value in node.items()}
    return [_shown(item) for item in node] if isinstance(node, list) else node


def _face(name: str, value: Any) -> Any:
    if name in ("image", "url") and isinstance(value, str) and value[:5].lower() == "data:":
        return crop_url()
    return _shown(value)
