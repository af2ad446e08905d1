"""A model behind an OpenAI-compatible facellava server, asked like one that is loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, Literal

import openai

from facellava.answer import Answer, read_answer, verdict_of
from facellava.conversation import PLACEHOLDER_OF, Turn, face_conversation
from facellava.errors import FacellavaError
from facellava.faces import Face
from facellava.faces.face_png import data_url, to_png

AT_ONCE: Final = 16  # requests under way; the server batches them
SECONDS: Final = 300.0
# A faces table keeps a clip's frames and not their times, and nothing is read off the times.
FRAMES_A_SECOND: Final = 25.0


class ServedModel:
    """Answers of a server, in the form that `facellava.predictor.FaceLlava` gives them.

    Faces travel as they were found, landmarks included: the server searches nothing again.

    Args:
        address: the API's address, ending in /v1.
        api_key: the server's key; servers without one take any word.
        model: which of its models; None takes the first that it lists.

    Raises:
        FacellavaError: no server answers there, or it has no such model.
    """

    def __init__(self, address: str, api_key: str | None = None, model: str | None = None) -> None:
        self.address = address
        self.client = openai.OpenAI(
            base_url=address, api_key=api_key or "none", timeout=SECONDS, max_retries=4
        )
        try:
            names = [served.id for served in self.client.models.list()]
        except openai.OpenAIError as error:
            raise FacellavaError(_why(error, address)) from error
        if model is not None and model not in names:
            raise FacellavaError(f"{address} serves no model {model!r}; it has {', '.join(names)}.")
        self.model = model or names[0]

    def ask_many(
        self,
        faces: Sequence[Face | Sequence[Face]],
        questions: Sequence[str],
        histories: Sequence[Sequence[Turn]] | None = None,
        *,
        probabilities: bool = True,
    ) -> list[Answer]:
        """One question a face or clip, many under way at once; see `FaceLlava.ask_many`.

        The server takes no more frames of a clip than its model was made for.

        Raises:
            FacellavaError: the server refuses, or does not answer.
        """
        turns = histories or [()] * len(faces)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [
                pool.submit(self._ask, face, question, history, probabilities)
                for face, question, history in zip(faces, questions, turns, strict=True)
            ]
            return [each.result() for each in asked]

    def _ask(
        self,
        face: Face | Sequence[Face],
        question: str,
        history: Sequence[Turn],
        probabilities: bool,
    ) -> Answer:
        kind: Literal["image", "video"]
        if isinstance(face, Sequence):
            seconds = [number / FRAMES_A_SECOND for number in range(len(face))]
            kind, url = "video", data_url(to_png(face, seconds), clip=True)
        else:
            kind, url = "image", data_url(to_png(face), clip=False)
        messages: list[Any] = [
            {**message, "content": _openai_content(message["content"], url)}
            for message in face_conversation(kind, question, history)
        ]
        try:
            reply = self.client.chat.completions.create(
                model=self.model, messages=messages, extra_body={"answer": probabilities}
            )
        except openai.OpenAIError as error:
            raise FacellavaError(_why(error, self.address)) from error
        text = (reply.choices[0].message.content or "").strip()
        given: dict[str, Any] = (reply.model_extra or {}).get("answer") or {}
        tables: dict[str, dict[str, float]] = given.get("probabilities", {})
        answer = read_answer(question, text, verdict_of(text), face, tables.get("raw", {}), {})
        # The temperatures are the server's.
        return replace(answer, calibrated=tables.get("calibrated", {}))


def _openai_content(content: Any, url: str) -> Any:
    """Our parts as OpenAI's: the place of the photo or the clip becomes its address."""
    if isinstance(content, str):
        return content
    return [
        {"type": f"{part['type']}_url", f"{part['type']}_url": {"url": url}}
        if part["type"] in PLACEHOLDER_OF
        else part
        for part in content
    ]


def _why(error: openai.OpenAIError, address: str) -> str:
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("message") or f"status {error.status_code}"
        return f"{address} refuses: {said}"
    return f"No server answers at {address}; start one with `facellava serve`."
