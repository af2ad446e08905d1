"""Which faces are kept out of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from facellava.corpus import read_faces
from train.held_out import set_aside


def test_one_persons_faces_are_set_aside_together(mini_corpus: Path) -> None:
    one = next(read_faces(mini_corpus))
    records = [replace(one, face_id=f"x-{n}") for n in range(300)]
    kept_out = [record for record in records if set_aside(record, 0.2)]
    assert 30 < len(kept_out) < 90
    for record in records:
        made = replace(
            record,
            face_id=f"{record.face_id}-blend-fake",
            source="mini_self_blended",
            origin=record.face_id,
        )
        assert set_aside(made, 0.2) == set_aside(record, 0.2)
    same = [replace(record, subject="Ann") for record in records]
    assert len({set_aside(record, 0.2) for record in same}) == 1
