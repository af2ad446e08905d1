"""Stage 1: FRLP and FRGCA learn what landmarks say about a face, under a frozen encoder.

The paper trains them through its pre-trained language model. Nano has none yet, so the heads of
the encoder's pre-training stand in: the enriched tokens have to hold the face's labels and its
measured quantities. The projector learns along, since it starts from nothing too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from facellava.face_encoder import FaceEncoder
from train.face_arrays import FaceArrays
from train.face_batches import LABELS
from train.features import FeatureCache
from train.heads import FaceHeads, expression_targets, figures, losses
from train.trainer_runs import last_checkpoint, loader_workers, log_quietly


class RegionStage(nn.Module):
    """Projector, FRLP and FRGCA under the supervised heads."""

    def __init__(self, face_encoder: FaceEncoder, measured: int) -> None:
        super().__init__()
        self.face_encoder = face_encoder
        self.face_encoder.vision_tower.requires_grad_(False)
        self.heads = FaceHeads(face_encoder.config.hidden_size, measured)

    def forward(
        self, image_features: Tensor, landmarks: Tensor, **labels: Tensor
    ) -> dict[str, Any]:
        """image_features (B, N, W), landmarks (B, 68, 2) and every label of LABELS."""
        tokens = self.face_encoder(image_features, landmarks).tokens
        outputs = self.heads(tokens)
        return {"loss": losses(outputs, labels, smoothing=0.05), "logits": outputs}


class FaceRows(Dataset[dict[str, Tensor]]):
    """Cached faces with their labels, in a random variant each time."""

    def __init__(
        self, cache: FeatureCache, arrays: FaceArrays, scale: NDArray[np.float32], *, vary: bool
    ) -> None:
        self.cache, self.arrays, self.scale, self.vary = cache, arrays, scale, vary

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        variant = int(torch.randint(self.cache.variants, ())) if self.vary else 0
        measured = (self.arrays.measured[index] - self.scale[0]) / self.scale[1]
        # Copies: arrays mapped from disk are read-only, and torch warns about those.
        row = {n: torch.tensor(np.array(getattr(self.arrays, n)[index])) for n in LABELS[:-1]}
        row["expression"] = expression_targets(row["expression"][None])[0]
        return row | {
            "image_features": torch.from_numpy(
                np.asarray(self.cache.features[variant, index], np.float32)
            ),
            "landmarks": torch.from_numpy(self.cache.landmarks[variant, index]),
            "measured": torch.from_numpy(measured.clip(-4, 4).astype(np.float32)),
        }


def train_regions(
    face_encoder: FaceEncoder,
    train: FaceRows,
    held_out: FaceRows,
    out: Path,
    *,
    epochs: float = 4.0,
    learning_rate: float = 1e-3,
    batch: int = 128,
    seed: int = 0,
) -> dict[str, float]:
    """Train FRLP, FRGCA and projector in place; goes on from the last checkpoint in `out`.

    Returns:
        The heads' figures on the faces set aside.
    """
    stage = RegionStage(face_encoder, train.arrays.measured.shape[1])

    def score(prediction: EvalPrediction) -> dict[str, float]:
        return figures(prediction.predictions, held_out.arrays)

    trainer = Trainer(
        model=stage,
        args=TrainingArguments(
            output_dir=str(out),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=512,
            learning_rate=learning_rate,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            # Below 1: a share of all steps.
            warmup_steps=0.05,
            max_grad_norm=1.0,
            use_cpu=not torch.cuda.is_available(),
            dataloader_num_workers=loader_workers(),
            bf16=True,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            logging_steps=100,
            report_to="none",
            remove_unused_columns=False,
            label_names=list(LABELS),
            seed=seed,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        compute_metrics=score,
    )
    log_quietly(trainer)
    trainer.train(resume_from_checkpoint=last_checkpoint(out))
    found: dict[str, float] = trainer.evaluate()
    return found
