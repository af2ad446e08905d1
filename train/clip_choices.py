"""Where the answer about a clip says its one label, and which label words could stand there.

The first token in which the answers for the labels of a task differ is where the model chooses.
That needs no tokenizer whose label words are single tokens: labels that begin with the same token
count as one choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from facellava.errors import BadModelInput
from facellava.processor import EncodedText
from facellava.records import Sample
from facellava.tasks import TASKS, Task
from train.clip_weights import RunningMean, class_weights, noise_weights

# Tasks whose label is one word.
WEIGHTED_TASKS: Final = ("expression", "deepfake")
NO_PLACE: Final = -1


@dataclass(frozen=True)
class Choice:
    """The place of a label in a sample's tokens.

    Attributes:
        place: index of the label's first token.
        tokens: the first tokens of the task's labels, each once.
        own: which of them is the label's.
        class_weight: see :func:`train.clip_weights.class_weights`.
    """

    place: int
    tokens: tuple[int, ...]
    own: int
    class_weight: float


class ClipChoices:
    """Finds the choice of a clip's sample.

    Args:
        tokenizer: the processor's.
        weights: class weight of each (task, label).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, weights: Mapping[tuple[str, str], float]
    ) -> None:
        self.weights = weights
        self.heads = {
            (task, form): {
                label: tokenizer(head, add_special_tokens=False)["input_ids"]
                for label, head in _heads(TASKS[task], form).items()
            }
            for task in WEIGHTED_TASKS
            for form in ("prose", "json")
        }

    def of(self, sample: Sample, text: EncodedText) -> Choice | None:
        """The choice in a sample; None where its label is not one word.

        Raises:
            BadModelInput: the answer does not say the label in tokens of its own.
        """
        if sample.task not in WEIGHTED_TASKS:
            return None
        label = str(sample.label)
        ids = self.heads[sample.task, sample.form]
        columns = enumerate(zip(*ids.values(), strict=False))
        behind = next(place for place, column in columns if len(set(column)) > 1)
        # The first token may be written differently behind the chat template's words.
        start = _last(text.input_ids, ids[label][1 : behind + 1])
        if start is None:
            raise BadModelInput(
                f"The answer does not say the label {label!r}, which clip_noise_weights needs; set "
                "that to false."
            )
        tokens = tuple(dict.fromkeys(row[behind] for row in ids.values()))
        return Choice(
            place=start + behind - 1,
            tokens=tokens,
            own=tokens.index(ids[label][behind]),
            class_weight=self.weights.get((sample.task, label), 1.0),
        )


def _heads(task: Task, form: str) -> dict[str, str]:
    """How the answer for each label begins, the label and what ends it included."""
    if form == "prose":
        return {label: task.lead(label) for label in task.labels}
    return {label: task.write_json(label, ()) for label in task.labels}


def _last(ids: Sequence[int], wanted: Sequence[int]) -> int | None:
    """Where `wanted` stands in `ids` for the last time."""
    size = len(wanted)
    for start in range(len(ids) - size, -1, -1):
        if list(ids[start : start + size]) == list(wanted):
            return start
    return None


def label_weights(labels: Iterable[tuple[str, Any]]) -> dict[tuple[str, str], float]:
    """The class weight of each (task, label) of one word; its mean over a task's samples is 1."""
    counts = Counter((task, str(label)) for task, label in labels if task in WEIGHTED_TASKS)
    found: dict[tuple[str, str], float] = {}
    for task in sorted({task for task, _ in counts}):
        of_task = sorted(pair for pair in counts if pair[0] == task)
        numbers = class_weights(np.array([counts[pair] for pair in of_task]))
        found |= dict(zip(of_task, numbers.tolist(), strict=True))
    return found


def choice_tensors(choices: Sequence[Choice | None]) -> dict[str, Tensor]:
    """The choices of a batch as tensors; nothing where no sample has one.

    Returns:
        clip_places (B,), -1 for a sample without; clip_tokens (B, K), -1 behind the last;
        clip_own (B,); clip_class_weights (B,).
    """
    if not any(choices):
        return {}
    most = max(len(choice.tokens) for choice in choices if choice)
    none = Choice(NO_PLACE, (), 0, 1.0)
    rows = [choice or none for choice in choices]
    padded = [[*row.tokens, *[NO_PLACE] * (most - len(row.tokens))] for row in rows]
    return {
        "clip_places": torch.tensor([row.place for row in rows]),
        "clip_tokens": torch.tensor(padded),
        "clip_own": torch.tensor([row.own for row in rows]),
        "clip_class_weights": torch.tensor([row.class_weight for row in rows]),
    }


class ClipWeigher:
    """The weight of each row of a batch: of clips by what the model says of their label, else 1.

    Attributes:
        mean: of the weights so far, by which they are divided. It is the only state; all else
            follows from the batch and the step.
    """

    def __init__(self) -> None:
        self.mean = RunningMean()

    def rows(
        self,
        logits: Tensor,
        places: Tensor,
        clips: Mapping[str, Tensor],
        progress: float,
        accelerator: Accelerator,
    ) -> Tensor:
        """(B,) weights, and all processes' are taken into the mean.

        Args:
            logits: (B, L, V); those of place p choose the token at p + 1.
            places: (L,) the tokens' places that `logits` are of, in order; see
                :func:`train.plain_loss.learned_places`.
            clips: of :func:`choice_tensors`; empty where the batch has none.
            progress: share of the training that is done.
            accelerator: of the trainer.
        """
        weights = torch.ones(len(logits), device=logits.device)
        total = torch.zeros(2, dtype=torch.float64, device=logits.device)
        if clips:
            there = torch.nonzero(clips["clip_places"] != NO_PLACE)[:, 0]
            tokens = clips["clip_tokens"][there]
            columns = torch.searchsorted(places, clips["clip_places"][there] - 1)
            scores = logits[there, columns].detach().float()
            scores = scores.gather(1, tokens.clamp(min=0)).masked_fill(tokens < 0, -torch.inf)
            found = noise_weights(scores.softmax(dim=1), clips["clip_own"][there], progress)
            found = found * clips["clip_class_weights"][there]
            weights[there] = found / self.mean.mean
            total = torch.stack([found.double().sum(), torch.full_like(total[0], len(found))])
        self.mean.update(*accelerator.reduce(total, "sum").tolist())
        return weights
