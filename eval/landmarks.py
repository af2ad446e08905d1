"""What the landmarks are worth: the same faces asked about again with wrong ones, and with none.

The pictures stay. Three ways, and the verdict is read from the words in each, as in the run:

as_they_are: nothing is changed.
shuffled: each face with the landmarks of another, in FRLP's region tokens and in FRGCA's mask
    alike. Crops are laid by their landmarks, so another face's lie about where they should.
removed: FRGCA is left out; the image tokens go on as the projector gives them.

Writing a verdict costs no more than scoring its label would, the vision encoder being most of
either, and lists (units, attributes) cannot be scored before they are written: what was said of one
name bears on the next. So answers are written in all three ways, probabilities serve the AUC alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from tqdm import tqdm

from eval.comparison import compare
from eval.engines import ModelEngine
from eval.figures import Scorer, intervals
from eval.items import Item
from eval.protocols import Protocol
from eval.run import item_of
from eval.verification import derangement
from facellava.errors import BadSample
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.records import FaceRecord
from facellava.region_attention import Enriched

AS_THEY_ARE: Final = "as_they_are"
CHANGES: Final = ("shuffled", "removed")


def landmarks_worth(
    protocol: Protocol,
    records: Sequence[FaceRecord],
    engine: ModelEngine,
    question: str,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The protocol's figures with the faces' own landmarks, with others', and without FRGCA.

    Args:
        protocol: whose figures are taken.
        records: its faces or clips, or a sample of them.
        engine: the model; `label_only` spares the reasons, which are not read.
        question: what is asked.
        seed: who gets whose landmarks.

    Returns:
        "n"; and for each of the three ways its "figures", each a "value" with its 95% interval,
        the answers that are "unreadable", and, but for the first, the "change" from the first:
        of each figure "difference", "low", "high" and "p", paired face by face as
        :func:`eval.comparison.compare` has it.

    Raises:
        BadSample: there are fewer than two faces.
    """
    if len(records) < 2:
        raise BadSample(
            f"{protocol.key} has {len(records)} face(s) here; landmarks are shuffled between two "
            "or more, so ask about more of them."
        )
    donors = derangement(len(records), seed)
    items: dict[str, list[Item]] = {way: [] for way in (AS_THEY_ARE, *CHANGES)}

    def ask(way: str, faces: Sequence[FaceRecord]) -> None:
        replies = engine.ask(faces, question, probabilities="AUC" in protocol.figures)
        items[way] += map(item_of, [protocol] * len(faces), faces, replies)
        bar.update(len(faces))

    with tqdm(total=len(items) * len(records), unit="face", desc=protocol.key) as bar:
        for start in range(0, len(records), engine.batch):
            part = records[start : start + engine.batch]
            others = [records[place] for place in donors[start : start + engine.batch]]
            ask(AS_THEY_ARE, part)
            ask("shuffled", [*map(with_landmarks_of, part, others)])
            with without_region_attention(engine.model.model):
                ask("removed", part)
    found: dict[str, Any] = {
        way: {
            "figures": intervals(Scorer(protocol, answered)),
            "unreadable": sum(item.given is None for item in answered),
        }
        for way, answered in items.items()
    }
    for way in CHANGES:
        figures = compare(protocol, items[AS_THEY_ARE], items[way])["figures"]
        found[way]["change"] = {
            name: {key: row[key] for key in ("difference", "low", "high", "p")}
            for name, row in figures.items()
        }
    return {"n": len(records), **found}


def with_landmarks_of(record: FaceRecord, other: FaceRecord) -> FaceRecord:
    """The record's pictures with the landmarks of another.

    A clip's frames get those of the other's frames, spread evenly over it.
    """
    frames = np.linspace(0, len(other.landmarks) - 1, len(record.landmarks)).round().astype(int)
    return replace(record, landmarks=other.landmarks[frames])


def without_region_attention(model: FaceLlavaForConditionalGeneration) -> RemovableHandle:
    """Leaves FRGCA out, until the handle is removed; use it as a context."""

    def pass_on(module: nn.Module, inputs: tuple[Tensor, ...], enriched: Enriched) -> Enriched:
        return enriched._replace(tokens=inputs[0])

    return model.face_encoder.region_attention.register_forward_hook(pass_on)
