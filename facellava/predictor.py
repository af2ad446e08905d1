"""The public door: a photo and a question in, explained and checked answers out.

from facellava.predictor import FaceLlava

model = FaceLlava.load()
answer = model.ask("photo.jpg", "How old is she?")[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from threading import Event, Thread
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from facellava import checkpoint
from facellava.answer import Answer, measured_face, read_answer, verdict_of
from facellava.conversation import FaceItem, Message, Turn, face_conversation
from facellava.errors import BadModelInput, NoFaceFound
from facellava.evidence import supported_claims
from facellava.faces import Face, find_faces, measure, read_photo
from facellava.faces.clips import Track, read_clip, track_faces
from facellava.faces.measurements import Measurement
from facellava.faces.photo import PhotoSource
from facellava.faces.shown_frames import looked_at, shown_of
from facellava.held_reasons import HeldReasons, OnlyHeldReasons
from facellava.label_scorer import LabelScorer
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.tasks import TASKS, Verdict, find_task, has_whole_lead

MAX_NEW_TOKENS = 320
# As many as the longest clips that the embedded model was trained on.
CLIP_FRAMES = 4
FaceChoice = Literal["largest", "all"] | int
Found = TypeVar("Found", Face, Track)


def embedded_weights() -> Path:
    """The folder of nano, the model inside the package."""
    return Path(str(files("facellava") / "assets" / "nano"))


class FaceLlava:
    """A loaded model and everything around it. Build it with :meth:`load`."""

    def __init__(
        self,
        model: FaceLlavaForConditionalGeneration,
        processor: FaceLlavaProcessor,
        *,
        free_reasons: bool = False,
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.scorer = LabelScorer(self.model, processor)
        self.held_reasons = None if free_reasons else HeldReasons(processor.tokenizer)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        adapter: str | Path | None = None,
        *,
        free_reasons: bool = False,
    ) -> FaceLlava:
        """Load a checkpoint folder; None is the embedded nano.

        Args:
            path: the folder.
            adapter: folder of a PEFT adapter that was trained on it, of whatever parts.
            free_reasons: reasons may also be such as the face's measurements do not support
                (see facellava.held_reasons).

        Raises:
            BadCheckpoint: a folder is missing, incomplete or damaged, or the two do not belong
                together.
        """
        folder = embedded_weights() if path is None else Path(path)
        model, processor = checkpoint.load(folder)
        if adapter is not None:
            # Importing PEFT takes a second, and few ask with an adapter.
            from facellava.adapter import adapted_model

            model = adapted_model(model, folder, Path(adapter)).merge_and_unload()
        return cls(model, processor, free_reasons=free_reasons)

    def ask(
        self,
        photo: PhotoSource,
        question: str | None = None,
        *,
        task: str | None = None,
        face: FaceChoice = "largest",
        history: Sequence[Turn] = (),
        declared_crop: bool = False,
    ) -> list[Answer]:
        """Ask about the faces of a photo.

        Args:
            photo: path, bytes, Pillow image or (H, W, 3) uint8 RGB array.
            question: in free words; or
            task: a task's name instead, which asks its one canonical question.
            face: "largest", "all", or the face's index (0 is the largest).
            history: earlier turns about the same face.
            declared_crop: the picture is one tightly cropped face.

        Returns:
            One answer a face.

        Raises:
            BadMedia: the photo cannot be read.
            NoFaceFound: it shows no face, or not the one asked for.
            UnknownTask: no such task.
            BadModelInput: neither a question nor a task, or both.
        """
        wording = canonical_question(question, task)
        faces = choose(find_faces(read_photo(photo), declared_crop=declared_crop), face)
        return self.ask_many(faces, [wording] * len(faces), [history] * len(faces))

    def ask_clip(
        self,
        clip: str | Path | bytes,
        question: str | None = None,
        *,
        task: str | None = None,
        face: FaceChoice = "largest",
    ) -> list[Answer]:
        """Ask about the persons of a clip, from frames spread over it and the one that tells most.

        As many as the model's encoder for clips wants; without one, CLIP_FRAMES. More of them are
        looked at (`facellava.faces.shown_frames`).

        Args:
            clip: path or bytes of an MP4, WebM, AVI ... file.
            question: in free words; or
            task: a task's name.
            face: "largest", "all", or the person's index (0 has the largest face).

        Returns:
            One answer a person; `Answer.face` is the frame with the strongest expression.

        Raises:
            BadMedia, NoFaceFound, UnknownTask, BadModelInput: as :meth:`ask`.
        """
        wording = canonical_question(question, task)
        frames = self.processor.clip_frames or CLIP_FRAMES
        tracks = choose(track_faces(read_clip(clip, looked_at(frames))), face)
        shown = [shown_of(track, frames).frames for track in tracks]
        return self.ask_many(shown, [wording] * len(tracks))

    def ask_many(
        self,
        faces: Sequence[FaceItem],
        questions: Sequence[str],
        histories: Sequence[Sequence[Turn]] | None = None,
        *,
        probabilities: bool = True,
        label_only: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[Answer]:
        """One question a face (or clip), answered as one batch, greedily.

        Args:
            faces: faces, or clips as sequences of one person's faces.
            questions: as many.
            histories: earlier turns of each.
            probabilities: score the labels too; evaluation that needs words only can do without.
            label_only: end each prose answer with its verdict, before the reasons.
            max_new_tokens: answers longer than this are cut and then unreadable.
        """
        if not faces:
            return []
        conversations = self._conversations(faces, questions, histories)
        # Measured once, for writing the reasons and for checking them.
        measured = [None if label_only else measure(measured_face(item)) for item in faces]
        texts = self._generate(conversations, faces, measured, max_new_tokens, label_only)
        verdicts = [verdict_of(text) for text in texts]
        tables: list[dict[str, float]] = [{} for _ in texts]
        if probabilities:
            readable = [n for n, verdict in enumerate(verdicts) if isinstance(verdict, Verdict)]
            scored = self.scorer.score(
                [conversations[n] for n in readable],
                [faces[n] for n in readable],
                [verdict for verdict in verdicts if isinstance(verdict, Verdict)],
            )
            for n, table in zip(readable, scored, strict=True):
                tables[n] = table
        return [
            read_answer(question, text, verdict, item, table, self.model.config.calibration, known)
            for question, text, verdict, item, table, known in zip(
                questions, texts, verdicts, faces, tables, measured, strict=True
            )
        ]

    def stream(self, item: FaceItem, question: str, history: Sequence[Turn] = ()) -> Iterator[str]:
        """The answer's text as it is written, piece by piece.

        Raises:
            BadModelInput: the question cannot be read by the model.
        """
        [conversation] = self._conversations([item], [question], [history])
        encoded = self._encode([conversation], [item])
        held = self._only_held([measure(measured_face(item))], encoded)
        streamer = TextIteratorStreamer(
            self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        failures: list[BaseException] = []
        left = Event()

        def reader_left(input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            return torch.full((input_ids.shape[0],), left.is_set(), device=input_ids.device)

        def write() -> None:
            try:
                self._run_generate(encoded, MAX_NEW_TOKENS, [reader_left], held, streamer)
            except BaseException as error:  # handed to the reader below, never lost
                failures.append(error)
                streamer.end()

        writer = Thread(target=write, daemon=True)
        writer.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            # A reader that goes away ends the writing too.
            left.set()
        writer.join()
        if failures:
            raise failures[0]

    def read(
        self, item: FaceItem, question: str, text: str, history: Sequence[Turn] = ()
    ) -> Answer:
        """The full answer for text that :meth:`stream` wrote.

        An unreadable text gives an answer that says so.
        """
        [conversation] = self._conversations([item], [question], [history])
        verdict = verdict_of(text)
        table: dict[str, float] = {}
        if isinstance(verdict, Verdict):
            [table] = self.scorer.score([conversation], [item], [verdict])
        return read_answer(question, text, verdict, item, table, self.model.config.calibration)

    @torch.inference_mode()
    def region_attention(self, face: Face) -> NDArray[np.float32]:
        """How much the image tokens look at each of the nine regions: (N, 9), heads averaged."""
        encoded = self.processor.encode_faces([face])
        attention = self.model.region_attention_map(encoded["pixel_values"], encoded["landmarks"])
        return np.asarray(attention[0].float().mean(dim=0), np.float32)

    def _conversations(
        self,
        faces: Sequence[FaceItem],
        questions: Sequence[str],
        histories: Sequence[Sequence[Turn]] | None,
    ) -> list[list[Message]]:
        return [
            face_conversation("video" if isinstance(item, Sequence) else "image", question, history)
            for item, question, history in zip(
                faces, questions, histories or [()] * len(faces), strict=True
            )
        ]

    def _generate(
        self,
        conversations: Sequence[Sequence[Message]],
        faces: Sequence[FaceItem],
        measured: Sequence[Mapping[str, Measurement] | None],
        max_new_tokens: int,
        label_only: bool,
    ) -> list[str]:
        encoded = self._encode(conversations, faces)
        held = self._only_held([known for known in measured if known is not None], encoded)
        start = encoded["input_ids"].shape[1]

        def verdict_is_said(input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            said = [has_whole_lead(text) for text in self._texts(input_ids, start)]
            return torch.tensor(said, device=input_ids.device)

        stops = [verdict_is_said] if label_only else []
        return self._texts(self._run_generate(encoded, max_new_tokens, stops, held), start)

    def _only_held(
        self, measured: Sequence[Mapping[str, Measurement]], encoded: Mapping[str, torch.Tensor]
    ) -> list[LogitsProcessor]:
        """What keeps the reasons to the measurements of each row; nothing where there are none."""
        if self.held_reasons is None or not measured:
            return []
        held = [supported_claims(known) for known in measured]
        return [OnlyHeldReasons(self.held_reasons, encoded["input_ids"].shape[1], held)]

    def _texts(self, ids: torch.Tensor, start: int) -> list[str]:
        texts: list[str] = self.processor.tokenizer.batch_decode(
            ids[:, start:], skip_special_tokens=True
        )
        return [text.strip() for text in texts]

    def _encode(
        self, conversations: Sequence[Sequence[Message]], faces: Sequence[FaceItem]
    ) -> Mapping[str, torch.Tensor]:
        encoded: Mapping[str, torch.Tensor] = self.processor.encode(conversations, faces)
        length = encoded["input_ids"].shape[1]
        most = self.model.config.text_config.max_position_embeddings
        if length >= most:
            raise BadModelInput(
                f"The conversation has {length} tokens and the model reads {most}; ask a shorter "
                "question, or start anew."
            )
        return encoded

    @torch.inference_mode()
    def _run_generate(
        self,
        encoded: Mapping[str, torch.Tensor],
        max_new_tokens: int,
        stops: Sequence[Callable[..., torch.Tensor]],
        held: Sequence[LogitsProcessor],
        streamer: TextIteratorStreamer | None = None,
    ) -> torch.Tensor:
        ids: torch.Tensor = self.model.generate(
            **encoded,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList(stops),
            logits_processor=LogitsProcessorList(held),
            pad_token_id=self.processor.tokenizer.pad_token_id,
            eos_token_id=self.processor.tokenizer.eos_token_id,
        )
        return ids


def canonical_question(question: str | None, task: str | None) -> str:
    """The wording to ask: the user's, or the task's own one.

    Raises:
        BadModelInput: neither or both are given.
        UnknownTask: no such task.
    """
    if (question is None) == (task is None):
        raise BadModelInput(
            "Give a question, or a task with --task, and not both: one of "
            + ", ".join(name for name in TASKS if TASKS[name].scored_words)
            + "."
        )
    return question if question is not None else find_task(str(task)).canonical_question


def choose(faces: Sequence[Found], choice: FaceChoice) -> list[Found]:
    """The faces, or the persons of a clip, that were asked for.

    Raises:
        NoFaceFound: the photo has no face of that index.
        BadModelInput: another word than "largest" or "all".
    """
    if choice == "all":
        return list(faces)
    if choice == "largest":
        return [faces[0]]
    if not isinstance(choice, int):
        raise BadModelInput(f"face is {choice!r}; use largest, all, or a face's number from 0.")
    matching = [face for face in faces if face.index == choice]
    if not matching:
        raise NoFaceFound(
            f"The photo has {len(faces)} face(s), numbered from 0; there is no face {choice}."
        )
    return matching
