"""Claims counted by hand on faces whose lip corners are drawn, and on others' faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage import data

from eval.items import Item
from eval.verification import verify_items
from facellava.errors import BadSample
from facellava.faces import Face, find_faces
from facellava.faces.measurements import measure


@pytest.fixture(scope="module")
def faces() -> dict[str, Face]:
    """A smile, and the same face with its inner lips pressed together."""
    smiling = find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]
    landmarks = smiling.landmarks.copy()
    landmarks[60:68, 1] = landmarks[60:68, 1].mean()
    closed = replace(smiling, landmarks=landmarks)
    assert measure(smiling)["mouth_opening"].value == pytest.approx(0.2, abs=0.1)
    assert measure(closed)["mouth_opening"].value == pytest.approx(0, abs=1e-3)
    return {"smiling": smiling, "closed": closed}


def said(face_id: str, text: str) -> Item:
    return Item(face_id, "happiness", "happiness", text=text)


def test_claims_are_counted_on_the_own_face_and_on_the_other(faces: dict[str, Face]) -> None:
    asked: list[str] = []

    def face_of(face_id: str) -> Face:
        asked.append(face_id)
        return faces[face_id]

    items = [
        said("smiling", "Expression: happiness. The lips are parted and a gap shows between the "
             "lips, and the mouth is closed."),
        said("closed", "Expression: happiness. The mouth is closed, it seems to me."),
    ]  # fmt: skip
    assert verify_items(items, face_of) == {
        "n_answers": 2,
        "supported": 3,
        "contradicted": 1,
        "unmeasurable": 0,
        "distinct_per_answer": 1.5,
        "without_claims": 0,
        # On the closed mouth the first text is right once of three times, the second is wrong.
        "on_other_faces": {"supported": 1, "contradicted": 3, "unmeasurable": 0},
        "by_claim": {
            "lips_parted": {"supported": 2, "contradicted": 0, "unmeasurable": 0},
            "mouth_closed": {"supported": 1, "contradicted": 1, "unmeasurable": 0},
        },
    }
    assert sorted(asked) == ["closed", "smiling"]


def test_a_face_too_small_to_measure_is_neither_right_nor_wrong(faces: dict[str, Face]) -> None:
    tiny = replace(faces["smiling"], crop_to_photo=np.array([[0.05, 0, 0], [0, 0.05, 0]]))
    found = verify_items([said("x", "The skin of the cheeks is smooth.")], lambda _: tiny)
    assert found["by_claim"] == {
        "cheeks_smooth": {"supported": 0, "contradicted": 0, "unmeasurable": 1}
    }
    # There is no other face.
    assert found["on_other_faces"] is None


def test_other_prose_holds_few_clauses_of_the_inventory(faces: dict[str, Face]) -> None:
    items = [
        said("smiling", "She beams at the camera, so I would say happy."),
        said("closed", "Happy: THE LIPS\nARE PARTED, maybe."),
        Item("closed", "happiness", None, problem="refused"),
    ]
    found = verify_items(items, faces.__getitem__)
    assert (found["n_answers"], found["without_claims"]) == (2, 1)
    assert found["distinct_per_answer"] == 0.5
    assert found["contradicted"] == found["on_other_faces"]["supported"] == 1


def test_every_text_meets_another_face(faces: dict[str, Face]) -> None:
    # One mouth is closed: its own text is right, and of the others the one that it is shown to.
    items = [said(str(n), "The mouth is closed.") for n in range(5)]
    for seed in range(3):
        found = verify_items(
            items, lambda name: faces["closed" if name == "3" else "smiling"], seed=seed
        )
        assert (found["supported"], found["contradicted"]) == (1, 4)
        assert found["on_other_faces"] == {"supported": 1, "contradicted": 4, "unmeasurable": 0}
    # Were a text shown to its own face, both of these would be right there.
    pair = [said("smiling", "The lips are parted."), said("closed", "The mouth is closed.")]
    assert verify_items(pair, faces.__getitem__)["on_other_faces"]["supported"] == 0


def test_without_answers_there_is_nothing_to_verify(faces: dict[str, Face]) -> None:
    with pytest.raises(BadSample, match="no claims to verify"):
        verify_items([Item("closed", "happiness", None, problem="refused")], faces.__getitem__)
