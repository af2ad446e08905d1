"""Pages of an evaluation: one HTML file each that needs no network and no script.

Pictures are data URLs, and a content policy in the page's head forbids all else. Answers and names
come from outside and are escaped.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2

from eval.run_folder import write_text


def write_page(template: str, out: Path, **values: Any) -> None:
    """Fill a template of this package and write the page whole or not at all.

    Raises:
        FacellavaError: the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eval"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(out, environment.get_template(template).render(values))


def data_url(kind: str, data: bytes) -> str:
    """A picture of this media type, such as "image/jpeg", as a URL that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
