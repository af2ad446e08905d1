"""Does an answer say the same in JSON as in prose?

The faces of a run are asked again, each in one of the wordings in which users ask for JSON. Its
prose answers are the run's own. What cannot be read agrees with nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from eval.answers import AnswerFile, Reply
from eval.engines import LOCAL_BATCH, face_item
from eval.intervals import mean_interval, share_interval
from eval.items import Item
from eval.protocols import Protocol
from facellava.errors import UnreadableAnswer
from facellava.predictor import MAX_NEW_TOKENS, FaceLlava
from facellava.records import FaceRecord
from facellava.tasks import Verdict, ask_for_json, parse_json

DIFFERING: Final = 12  # answers that are kept to look at


def ask_in_json(
    protocol: Protocol,
    records: Sequence[FaceRecord],
    model: FaceLlava,
    path: Path,
    head: Mapping[str, Any],
) -> dict[str, str]:
    """Ask about every face that has no answer in the file yet.

    Args:
        protocol: whose question is asked; the wording of the request is drawn by the face's id.
        records: the faces.
        model: what is asked, greedily.
        path: the file of answers.
        head: what decides the answers.

    Returns:
        Face id to the answer, word for word.

    Raises:
        FacellavaError: `path` holds answers of another run or cannot be written.
    """
    with AnswerFile(path, head) as file:
        waiting = [record for record in records if record.face_id not in file.replies]
        with tqdm(total=len(waiting), unit="face", desc=f"{protocol.key} in JSON") as bar:
            for start in range(0, len(waiting), LOCAL_BATCH):
                part = waiting[start : start + LOCAL_BATCH]
                answers = model.ask_many(
                    [face_item(record) for record in part],
                    [json_question(protocol, record.face_id) for record in part],
                    probabilities=False,
                )
                file.append(
                    Reply(record.face_id, answer.text)
                    for record, answer in zip(part, answers, strict=True)
                )
                bar.update(len(part))
        return {record.face_id: file.replies[record.face_id].text for record in records}


def json_question(protocol: Protocol, face_id: str) -> str:
    """The protocol's question as one who wants JSON may ask it."""
    return ask_for_json(protocol.question, random.Random(face_id))


def compare_forms(
    protocol: Protocol,
    items: Sequence[Item],
    in_json: Mapping[str, str],
    count_tokens: Callable[[str], int],
) -> dict[str, Any]:
    """How often both forms say the same.

    Args:
        protocol: what was asked.
        items: the prose answers.
        in_json: face id to the JSON answer.
        count_tokens: of a text, by the model's tokenizer.

    Returns:
        "n" answers; each a share with its 95% interval: "json_read" (whole JSON of the task, which
        `facellava.tasks.parse_json` accepts), "prose_read", "same" (verdicts; lists as a whole), of
        ages "within_one" year, of lists "same_entries", and "json_cut" and "prose_cut", the answers
        as long as an answer may be; "unread", why JSON could not be read, with counts; "differing",
        the first answers that disagree.
    """
    verdicts, unread = _verdicts(protocol, items, in_json)
    said = [None if verdict is None else protocol.given(verdict.label) for verdict in verdicts]
    pairs = [(item.given, given) for item, given in zip(items, said, strict=True)]
    same = [prose is not None and prose == given for prose, given in pairs]
    found = {
        "json_read": _share([verdict is not None for verdict in verdicts]),
        "prose_read": _share([prose is not None for prose, _ in pairs]),
        "same": _share(same),
    }
    if protocol.kind == "years":
        found["within_one"] = _share(
            [None not in pair and abs(pair[0] - pair[1]) <= 1 for pair in pairs]
        )
    elif protocol.kind in ("units", "attributes"):
        found["same_entries"] = mean_interval([same_entries(*pair) for pair in pairs])
    found["json_cut"] = _share([_is_cut(in_json[item.face_id], count_tokens) for item in items])
    found["prose_cut"] = _share([_is_cut(item.text, count_tokens) for item in items])
    differing = [item for item, agree in zip(items, same, strict=True) if not agree]
    return {
        "n": len(items),
        **found,
        "unread": dict(unread.most_common()),
        "differing": [
            {"face_id": item.face_id, "prose": item.text, "json": in_json[item.face_id]}
            for item in differing[:DIFFERING]
        ],
    }


def _verdicts(
    protocol: Protocol, items: Sequence[Item], in_json: Mapping[str, str]
) -> tuple[list[Verdict | None], Counter[str]]:
    """What each JSON answer says, None where it says nothing of the task, and why not."""
    found: list[Verdict | None] = []
    unread = Counter[str]()
    for item in items:
        verdict = None
        try:
            verdict = parse_json(in_json[item.face_id])
        except UnreadableAnswer as error:
            unread[str(error).partition(":")[0].rstrip(".")] += 1
        if verdict is not None and verdict.task != protocol.task:
            unread[f"answered as {verdict.task}"] += 1
            verdict = None
        found.append(verdict)
    return found, unread


def same_entries(one: Mapping[str, bool] | None, other: Mapping[str, bool] | None) -> float:
    """The share of units or attributes of which two answers say the same; of no answer 0."""
    if one is None or other is None:
        return 0.0
    return float(np.mean([one[name] == other[name] for name in one]))


def _is_cut(text: str, count_tokens: Callable[[str], int]) -> bool:
    return count_tokens(text) >= MAX_NEW_TOKENS


def _share(hits: Sequence[bool]) -> dict[str, float]:
    return share_interval(sum(hits), len(hits))
