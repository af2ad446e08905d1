"""The library's own model reads the endings that `facellava.probabilities` plans."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from facellava.conversation import FaceItem, Message
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.probabilities import ScoredEnding, plan
from facellava.processor import EncodedText, FaceLlavaProcessor
from facellava.tasks import Verdict

Conversation = Sequence[Message]
ROWS = 64


class LabelScorer:
    """Scores the labels of answers that were given.

    Args:
        model: in evaluation mode.
        processor: of the same checkpoint.
    """

    def __init__(
        self, model: FaceLlavaForConditionalGeneration, processor: FaceLlavaProcessor
    ) -> None:
        self.model, self.processor = model, processor

    def score(
        self,
        conversations: Sequence[Conversation],
        items: Sequence[FaceItem],
        verdicts: Sequence[Verdict],
    ) -> list[dict[str, float]]:
        """Probability of each label, one table an answer; empty for refusals.

        Expression, age and deepfake: over the labels, summing to 1. Attributes and action units:
        of presence, each between 0 and 1.

        Args:
            conversations: up to the question, one face or clip each.
            items: the faces or clips.
            verdicts: what was answered.
        """
        plans = [plan(verdict, self.processor.tokenizer) for verdict in verdicts]
        found = self._log_probabilities(conversations, items, [each.endings for each in plans])
        return [each.read(scored) for each, scored in zip(plans, found, strict=True)]

    @torch.inference_mode()
    def _log_probabilities(
        self,
        conversations: Sequence[Conversation],
        items: Sequence[FaceItem],
        endings: Sequence[Sequence[str]],
    ) -> list[list[ScoredEnding]]:
        """Each conversation's endings, scored in batches; the frames are encoded once."""
        found: list[list[ScoredEnding]] = [[] for _ in endings]
        tokenizer = self.processor.tokenizer
        rows = [
            (n, tokenizer(ending, add_special_tokens=False)["input_ids"])
            for n, texts in enumerate(endings)
            for ending in texts
        ]
        if not rows:
            return found
        encoded = self.processor.encode(conversations, items)
        prompts = [
            ids[mask == 1].tolist()
            for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        frames = [len(self.processor.frames_of(item)) for item in items]
        seen = self.model.encode_frames(encoded["input_ids"], encoded["pixel_values"])
        features = seen.split(frames)
        landmarks = encoded["landmarks"].split(frames)
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            text = self.processor.pad(
                [EncodedText(prompts[n] + ids) for n, ids in part], side="right"
            )
            # Logits are wanted from the last token of the shortest prompt on.
            skipped = min(len(prompts[n]) for n, _ in part) - 1
            logits = self.model(
                **text,
                image_features=torch.cat([features[n] for n, _ in part]),
                landmarks=torch.cat([landmarks[n] for n, _ in part]),
                logits_to_keep=text["input_ids"].shape[1] - skipped,
            ).logits
            for row, (n, ids) in enumerate(part):
                first = len(prompts[n]) - 1 - skipped
                logs = logits[row, first : first + len(ids) + 1].float().log_softmax(dim=-1)
                found[n].append(ScoredEnding(ids, logs))
        return found
