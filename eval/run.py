"""Faces through an engine into a file of answers, and back out as items that can be scored.

Every face is asked the protocol's one question; the verdict is read from the words that a user
would see. Our own grammar is read strictly; where a text does not follow it, the lenient parser
looks for one clear statement, and how often that was needed is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from eval.answers import AnswerFile, Reply, read_answers
from eval.engines import Engine
from eval.faces_table import FacesTable
from eval.items import Item
from eval.protocols import Protocol, age_group
from facellava.errors import BadCorpus, FacellavaError, UnreadableAnswer
from facellava.records import FaceRecord
from facellava.tasks import parse_answer
from facellava.tasks.closed_question import PromptStyle, question_in
from facellava.tasks.prose import read_prose
from facellava.tasks.task import Verdict

_QUOTED: Final = 60


def head_of(
    protocol: Protocol, table: FacesTable, engine: Engine, prompt: PromptStyle
) -> dict[str, Any]:
    """What decides the answers of a protocol."""
    return {
        "faces": protocol.table,
        "question": question_in(prompt, protocol.task, protocol.labels),
        "data_sha256": table.data_sha256,
        "engine": {**engine.describe(), "prompt": prompt},
    }


def ask_all(
    protocol: Protocol,
    table: FacesTable,
    engine: Engine,
    path: Path,
    *,
    prompt: PromptStyle = "question",
) -> int:
    """Ask about every face that has no answer yet; returns how many were asked now.

    Raises:
        BadCorpus: no face has part in the protocol.
        FacellavaError: `path` holds answers of another run, or the engine stops; what was answered
            before stays.
    """
    table.check()
    head = head_of(protocol, table, engine, prompt)
    asked, count = 0, sum(1 for _ in table.records(protocol))
    if not count:
        raise BadCorpus(
            f"No face of '{table.folder}' has part in {protocol.key}; give the dataset of "
            f"{protocol.title}."
        )
    with AnswerFile(path, head) as file:
        done = file.replies.keys()
        waiting = (record for record in table.records(protocol) if record.face_id not in done)
        with tqdm(total=count, unit="face", desc=protocol.key) as bar:
            while part := list(islice(waiting, engine.batch)):
                file.append(engine.ask(part, head["question"]))
                asked += len(part)
                bar.update(len(part))
            bar.update(count - asked)  # those that had an answer
    return asked


def items_of(protocol: Protocol, table: FacesTable, path: Path) -> list[Item]:
    """The answers beside the truth, in the table's order.

    Raises:
        FacellavaError: the answers are about other faces, or some are missing.
    """
    table.check()
    head, replies = read_answers(path)
    found = (head.get("faces"), head.get("data_sha256"))
    if found != (protocol.table, table.data_sha256):
        raise FacellavaError(
            f"'{path}' holds answers about other faces ({found[0]}) than those of {protocol.key}; "
            "a figure must not mix them, so score it with its own faces."
        )
    items, missing = [], 0
    for record in table.records(protocol):
        reply = replies.get(record.face_id)
        if reply is None:
            missing += 1
        else:
            items.append(item_of(protocol, record, reply))
    if missing or not items:
        raise FacellavaError(
            f"'{path}' lacks answers about {missing} faces; run the evaluation again, it asks "
            "about those only."
        )
    return items


def item_of(protocol: Protocol, record: FaceRecord, reply: Reply) -> Item:
    """One face with its truth and what was read from its answer."""
    given, problem, strict = _read(protocol, reply)
    return Item(
        face_id=record.face_id,
        truth=protocol.truth(record),
        given=given,
        text=reply.text,
        problem=problem,
        strict=strict,
        table=reply.table if given is not None else {},
        calibrated=reply.calibrated if given is not None else {},
        claims=reply.claims,
        fold=record.fold if protocol.folds else None,
        subject=record.subject,
        groups=groups_of(record),
    )


def _read(protocol: Protocol, reply: Reply) -> tuple[Any, str, bool]:
    """The verdict in the truth's form, why there is none, and whether it is our grammar."""
    if reply.problem:
        return None, reply.problem, False
    try:
        verdict: Verdict = parse_answer(reply.text)
        strict = True
    except UnreadableAnswer:
        strict = False
        try:
            verdict = read_prose(protocol.task, reply.text)
        except UnreadableAnswer as error:
            return None, _reason(error), False
    if verdict.task != protocol.task:
        return None, f"answered as {verdict.task}", strict
    given = protocol.given(verdict.label)
    return given, "" if given is not None else "not a label of the protocol", strict


def _reason(error: UnreadableAnswer) -> str:
    """The kind of failure, without the words that were quoted."""
    return str(error).partition(":")[0][:_QUOTED].rstrip(".")


def groups_of(record: FaceRecord) -> dict[str, str]:
    """What the dataset says about the person and the picture, to slice by; nothing is guessed."""
    labels, people = record.labels, record.demographics
    groups = {name: str(people[name]) for name in ("gender", "race", "skin_tone") if name in people}
    if "age_group" in people:
        groups["age"] = str(people["age_group"])
    elif "age" in labels:
        groups["age"] = age_group(int(labels["age"]))
    attributes: Mapping[str, bool] = labels.get("attributes") or {}
    if "male" in attributes and "gender" not in groups:
        groups["gender"] = "male" if attributes["male"] else "female"
    if "young" in attributes and "age" not in groups:
        groups["age"] = "young" if attributes["young"] else "not young"
    return groups | {
        name: str(labels[name]) for name in ("method", "blend_ratio") if name in labels
    }
