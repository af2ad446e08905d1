"""One temperature a task, fitted on faces set aside (Guo et al., ICML 2017).

The temperature divides the logits of the label words; it changes how sure an answer sounds and
never what it says.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from facellava.model import FaceLlavaForConditionalGeneration
from facellava.predictor import FaceLlava
from facellava.probabilities import calibrate
from facellava.processor import FaceLlavaProcessor
from facellava.records import FaceRecord
from facellava.tasks import TASKS

logger = logging.getLogger(__name__)

FACES_A_TASK = 600
BATCH = 64
# The reasons behind the lead change no probability.
LONGEST_LEAD = 96
# Action units have no human-coded labels to fit on.
FITTED = ("expression", "age", "attributes", "deepfake")


def fit_temperatures(
    model: FaceLlavaForConditionalGeneration,
    processor: FaceLlavaProcessor,
    aside: Sequence[FaceRecord],
) -> dict[str, float]:
    """Task to temperature; a task without labelled faces gets none.

    Args:
        model: trained.
        processor: of the same checkpoint.
        aside: faces that were not trained on.
    """
    predictor = FaceLlava(model, processor)
    found: dict[str, float] = {}
    for task in FITTED:
        labelled = [record for record in aside if record.labels.get(task) is not None]
        labelled = labelled[:: max(1, len(labelled) // FACES_A_TASK)]
        scored: list[tuple[dict[str, float], Any]] = []
        for start in range(0, len(labelled), BATCH):
            part = labelled[start : start + BATCH]
            faces = [record.faces()[0] for record in part]
            answers = predictor.ask_many(
                faces,
                [TASKS[task].canonical_question] * len(faces),
                max_new_tokens=LONGEST_LEAD,
            )
            scored += [
                (answer.raw, record.labels[task])
                for answer, record in zip(answers, part, strict=True)
                # A word of a larger set than the scored one has no probability to fit.
                if answer.task == task and _fits(record.labels[task], answer.raw)
            ]
        if scored:
            found[task] = fit_temperature(scored)
    logger.info("temperatures: %s", found)
    return found


def _fits(truth: Any, table: Mapping[str, float]) -> bool:
    return set(truth) == set(table) if isinstance(truth, Mapping) else str(truth) in table


def fit_temperature(scored: Sequence[tuple[Mapping[str, float], Any]]) -> float:
    """The temperature with the least cross-entropy of the true labels.

    Args:
        scored: (label to probability, true label); the true label is a word or number, or for
            labels that may go together a table of name to bool.
    """

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        total = []
        for table, truth in scored:
            together = isinstance(truth, Mapping)
            values = calibrate(dict(table), temperature, exclusive=not together)
            if together:
                total += [
                    -np.log((values[n] if truth[n] else 1 - values[n]) + 1e-9) for n in values
                ]
            else:
                total.append(-np.log(values[str(truth)] + 1e-9))
        return float(np.mean(total))

    best = minimize_scalar(loss, bounds=(np.log(0.25), np.log(4.0)), method="bounded")
    return round(float(np.exp(best.x)), 4)
