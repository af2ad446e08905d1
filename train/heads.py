"""Linear heads on mean-pooled tokens, their losses and their figures: what supervises pixels.

The encoder's pre-training and stage 1 both learn from these; neither keeps them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from train.face_arrays import (
    ABSENT,
    ATTRIBUTES,
    EXPRESSIONS,
    UNITS,
    VOTES,
    FaceArrays,
)

AGES = 117


class FaceHeads(nn.Module):
    """One linear head a label kind.

    Args:
        width: D, of the tokens.
        measured: how many measured quantities are regressed.
    """

    def __init__(self, width: int, measured: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        self.expression = nn.Linear(width, len(EXPRESSIONS))
        self.votes = nn.Linear(width, len(VOTES))
        self.age = nn.Linear(width, AGES)
        self.attributes = nn.Linear(width, len(ATTRIBUTES))
        self.units = nn.Linear(width, len(UNITS))
        self.fake = nn.Linear(width, 1)
        self.measured = nn.Linear(width, measured)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Tokens (B, N, D) to the logits of every head, each (B, .) float32."""
        pooled = self.dropout(tokens.mean(dim=1))
        return {
            name: head(pooled).float() for name, head in self.named_children() if name != "dropout"
        }


def expression_targets(expression: Tensor) -> Tensor:
    """Class indices (B,), -1 where absent, as shares (B, 7), rows of -1 where absent."""
    shares = functional.one_hot(expression.clamp(min=0), len(EXPRESSIONS)).float()
    return shares.masked_fill((expression < 0)[:, None], ABSENT)


def losses(outputs: dict[str, Tensor], batch: dict[str, Tensor], smoothing: float) -> Tensor:
    """The sum of every head's loss over the faces that carry its label.

    Args:
        outputs: of FaceHeads.
        batch: labels as in FaceArrays, but for "expression": shares of the classes, (B, 7).
        smoothing: of the expression's labels.
    """
    total = outputs["expression"].new_zeros(())
    known = batch["expression"][:, 0] >= 0
    if known.any():
        total = total + functional.cross_entropy(
            outputs["expression"][known], batch["expression"][known], label_smoothing=smoothing
        )
    known = batch["votes"][:, 0] >= 0
    if known.any():
        total = total + 0.5 * functional.cross_entropy(
            outputs["votes"][known], batch["votes"][known]
        )
    known = batch["age"] >= 0
    if known.any():
        total = total + age_loss(outputs["age"][known], batch["age"][known])
    known = batch["attributes"] >= 0
    if known.any():
        total = total + 4.0 * functional.binary_cross_entropy_with_logits(
            outputs["attributes"][known], batch["attributes"][known].float()
        )
    known = batch["units"] >= 0
    if known.any():
        total = total + 2.0 * functional.binary_cross_entropy_with_logits(
            outputs["units"][known], batch["units"][known].float()
        )
    known = batch["fake"] >= 0
    if known.any():
        total = total + functional.binary_cross_entropy_with_logits(
            outputs["fake"][known, 0], batch["fake"][known].float()
        )
    known = batch["measured"].isfinite()
    if known.any():
        total = total + functional.smooth_l1_loss(
            outputs["measured"][known], batch["measured"][known]
        )
    return total


def age_loss(logits: Tensor, ages: Tensor) -> Tensor:
    """Cross-entropy to a Gaussian over the neighbouring years, plus the error of its mean.

    Neighbouring ages look alike, so the target is spread (deep label distribution learning).
    """
    years = torch.arange(AGES, dtype=torch.float32, device=logits.device)
    spread = (1.0 + 0.04 * ages.float())[:, None]
    target = torch.softmax(-((years - ages[:, None]) ** 2) / (2 * spread**2), dim=1)
    expected = (logits.softmax(dim=1) * years).sum(dim=1)
    error = functional.smooth_l1_loss(expected / 10, ages.float() / 10)
    return 0.3 * functional.cross_entropy(logits, target) + error


def distillation(outputs: dict[str, Tensor], taught: dict[str, Tensor]) -> Tensor:
    """How far a student's heads are from its teacher's, each head in its own measure.

    The teacher speaks of every face, also where a dataset has no label: Hinton et al.,
    "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), at temperature 1.
    """
    total = outputs["expression"].new_zeros(())
    for name in ("expression", "votes", "age"):
        total = total + functional.cross_entropy(outputs[name], taught[name].softmax(dim=1))
    for name, weight in (("attributes", 4.0), ("units", 2.0), ("fake", 1.0)):
        total = total + weight * functional.binary_cross_entropy_with_logits(
            outputs[name], taught[name].sigmoid()
        )
    return total + functional.smooth_l1_loss(outputs["measured"], taught["measured"])


def measured_scale(arrays: FaceArrays) -> NDArray[np.float32]:
    """(2, M) mean and deviation of the measured quantities over the faces that have them."""
    known = np.isfinite(arrays.measured)
    filled = np.where(known, arrays.measured, 0.0)
    count = np.maximum(known.sum(axis=0), 1)
    mean = filled.sum(axis=0) / count
    variance = np.where(known, (arrays.measured - mean) ** 2, 0.0).sum(axis=0) / count
    return np.stack([mean, np.sqrt(variance) + 1e-6]).astype(np.float32)


def figures(outputs: dict[str, NDArray[np.float32]], arrays: FaceArrays) -> dict[str, float]:
    """The heads' figures on faces that were not trained on: WAR, MAE, mAcc, F1, AUC."""
    found: dict[str, float] = {}
    known = arrays.expression >= 0
    if known.any():
        correct = outputs["expression"][known].argmax(axis=1) == arrays.expression[known]
        found["expression_WAR"] = float(correct.mean())
    known = arrays.age >= 0
    if known.any():
        weights = torch.from_numpy(outputs["age"][known]).softmax(dim=1).numpy()
        found["age_MAE"] = float(np.abs(weights @ np.arange(AGES) - arrays.age[known]).mean())
    known = arrays.attributes[:, 0] >= 0
    if known.any():
        correct = (outputs["attributes"][known] > 0) == (arrays.attributes[known] == 1)
        found["attributes_mAcc"] = float(correct.mean())
    scores = [
        f1_score(arrays.units[known, unit], outputs["units"][known, unit] > 0, zero_division=0.0)
        for unit in range(len(UNITS))
        if (known := arrays.units[:, unit] >= 0).any()
    ]
    if scores:
        found["units_F1"] = float(np.mean(scores))
    known = arrays.fake >= 0
    # An AUC needs both kinds.
    if len(np.unique(arrays.fake[known])) == 2:
        found["fake_AUC"] = float(roc_auc_score(arrays.fake[known], outputs["fake"][known, 0]))
    return found
