"""What a trained checkpoint says of itself: README.md for people, training_data.json for eval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from facellava.checkpoint import TRAINING_FILE
from facellava.corpus import read_manifest, sha256
from facellava.whole_files import write_text

LIMITS: Final = """## Limits

- Written by the training; nothing has been measured yet. `facellava eval run` gives figures for a
  test set: put them here, with the group sizes, before anybody relies on an answer.
- A face shows an expression, not a feeling; apparent age is not age; attribute words are their
  dataset's. Do not use it to decide anything about a person, and not to identify anybody.
- A reason that is true of the face does not make the verdict true."""


def write_training_data(folder: Path, corpus: Path) -> None:
    """Write which faces were trained on, so that an evaluation can say which ones were not.

    Args:
        folder: the checkpoint.
        corpus: that it was trained on: its training split.
    """
    manifest = read_manifest(corpus)
    faces: Mapping[str, Mapping[str, int]] = manifest["counts"].get("faces", {})
    facts = {
        "corpus_sha256": sha256(corpus / "manifest.json"),
        "fold": manifest["settings"].get("fold"),
        "sources": {
            source: {"train": splits["train"]}
            for source, splits in sorted(faces.items())
            if splits.get("train")
        },
    }
    write_text(folder / TRAINING_FILE, json.dumps(facts, indent=1) + "\n")


def write_model_card(folder: Path, name: str, manifest: Mapping[str, Any]) -> None:
    """Write the card of a checkpoint folder; what is there is replaced.

    Args:
        folder: the checkpoint.
        name: of the model.
        manifest: of the corpus that it was trained on (`facellava.corpus.read_manifest`).
    """
    write_text(folder / "README.md", model_card(name, manifest))


def model_card(name: str, manifest: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    faces = manifest["counts"].get("faces", {})
    rows = [
        f"| {terms['title']} | {_trained(faces, source)} | {terms['licence']} | "
        f"{terms.get('consent', 'not said')} |"
        for source, terms in manifest["sources"].items()
    ]
    annotator = manifest["settings"].get("annotator") or "an endpoint; see the corpus's card"
    return "\n".join(
        [
            "---",
            "license: other",
            "library_name: transformers",
            "pipeline_tag: image-text-to-text",
            "---",
            f"# {name}",
            "",
            "A Face-LLaVA (arXiv 2504.07198) trained with facellava: it answers questions about a "
            "face with reasons that are measured again.",
            "",
            "## Data, terms and consent",
            "",
            "| data | faces in training | terms | people shown |",
            "|---|---|---|---|",
            *rows,
            "",
            "The weights are bound by the strictest of these terms. Reasons were written by: "
            f"{annotator}.",
            "",
            LIMITS,
            "",
        ]
    )


def _trained(faces: Mapping[str, Mapping[str, int]], source: str) -> str:
    """Faces of the training split, those made from them counted apart."""
    own = faces.get(source, {}).get("train", 0)
    made = faces.get(f"{source}_self_blended", {}).get("train", 0)
    return f"{own:,}" + (f", and {made:,} made from them" if made else "")
