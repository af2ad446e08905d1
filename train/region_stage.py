"""Stage 1: FRLP and FRGCA learn what landmarks say about a face, under a frozen encoder.

The paper trains them through its pre-trained language model. Nano has none yet, so the heads of
the encoder's pre-training stand in: the enriched tokens have to hold the face's labels, its
measured quantities and its landmarks. The projector learns along, since it starts from nothing too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers.trainer_utils import EvalPrediction

from facellava.face_encoder import FaceEncoder
from train.face_arrays import FaceArrays
from train.face_batches import LABELS
from train.features import FeatureCache
from train.heads import FaceHeads, expression_targets, figures, losses
from train.run_config import RunConfig
from train.shape_head import ShapeHead
from train.stage_trainer import StageTrainer, last_whole_checkpoint, stage_arguments
from train.sure_reasons import Readings, deviations

BATCH = 512


class RegionStage(nn.Module):
    """Projector, FRLP and FRGCA under the supervised heads."""

    def __init__(self, face_encoder: FaceEncoder, shape: ShapeHead, measured: int) -> None:
        super().__init__()
        self.face_encoder, self.shape = face_encoder, shape
        self.face_encoder.vision_tower.requires_grad_(False)
        self.heads = FaceHeads(face_encoder.config.hidden_size, measured)

    def forward(
        self, image_features: Tensor, landmarks: Tensor, **labels: Tensor
    ) -> dict[str, Any]:
        """image_features (B, N, W), landmarks (B, 68, 2) and every label of LABELS."""
        tokens = self.face_encoder(image_features, landmarks).tokens
        outputs = self.heads(tokens)
        loss = losses(outputs, labels, smoothing=0.05) + self.shape(tokens, landmarks)
        return {"loss": loss, "logits": outputs}


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
    shape: ShapeHead,
    train: FaceRows,
    held_out: FaceRows,
    out: Path,
    config: RunConfig,
) -> tuple[list[dict[str, float]], Readings]:
    """Train FRLP, FRGCA, projector and shape head in place; goes on from the last checkpoint.

    Returns:
        The log of the steps, whose last entry holds the heads' figures on the faces set aside; and
        what its tokens tell of the measurements of the faces that were learned from.
    """
    stage = RegionStage(face_encoder, shape, train.arrays.measured.shape[1])

    def score(prediction: EvalPrediction) -> dict[str, float]:
        return figures(prediction.predictions, held_out.arrays)

    trainer = StageTrainer(
        stage=config.regions,
        model=stage,
        args=stage_arguments(
            config,
            "regions",
            out,
            per_device_eval_batch_size=BATCH,
            eval_strategy="epoch",
            label_names=list(LABELS),
            # Rows draw their variants in this process, so that a resumed run draws the same.
            dataloader_num_workers=0,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        compute_metrics=score,
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(out))
    trainer.evaluate()
    history: list[dict[str, float]] = trainer.state.log_history

    off = deviations(_read(stage, held_out), held_out.arrays.measured)
    return history, Readings(_read(stage, train), off)


@torch.inference_mode()
def _read(stage: RegionStage, rows: FaceRows) -> NDArray[np.float32]:
    """(N, M) measurements as the head reads them from the faces as they are, in their units."""
    stage.eval()
    device = next(stage.parameters()).device
    read = []
    for start in tqdm(range(0, len(rows), BATCH), unit="batch", desc="readings"):
        features, landmarks = (
            torch.from_numpy(np.asarray(part[0, start : start + BATCH], np.float32)).to(device)
            for part in (rows.cache.features, rows.cache.landmarks)
        )
        tokens = stage.face_encoder(features, landmarks).tokens
        read.append(stage.heads(tokens)["measured"].cpu().numpy())
    scaled: NDArray[np.float32] = np.concatenate(read) * rows.scale[1] + rows.scale[0]
    return scaled
