"""Cross-entropy, and the places whose logits a loss needs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from facellava.processor import IGNORED_LABEL


class PlainLoss(nn.Module):
    """Cross-entropy on the tokens that are learned, for tokenizers without label tokens."""

    def weight_of(self, labels: Tensor) -> Tensor:
        """How many tokens are learned, labels (B, L)."""
        return (labels[:, 1:] != IGNORED_LABEL).sum()

    def summed(
        self, logits: Tensor, labels: Tensor, uncoded: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """Sum over the tokens that are learned; arguments as of `VerdictLoss.summed`."""
        errors = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            labels[:, 1:].flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="sum" if rows is None else "none",
        )
        return errors if rows is None else (errors.view(len(labels), -1) * rows[:, None]).sum()


def learned_places(labels: Tensor, decided: Sequence[int] = ()) -> Tensor:
    """Where logits are needed: tokens that some row learns, and those before them.

    Only there, since images and questions teach nothing themselves. What is left of labels (B, L)
    at these places has the same pairs of a token and a learned token behind it.

    Args:
        labels: of a batch.
        decided: places of further tokens that are learned otherwise, by twins or soft labels.
    """
    learned = (labels[:, 1:] != IGNORED_LABEL).any(dim=0)
    needed = functional.pad(learned, (1, 0)) | functional.pad(learned, (0, 1))
    needed[[place - 1 for place in decided]] = True
    return needed.nonzero()[:, 0]
