"""Soft labels: how sure one can be of a face by stage 1's tokens, for stage 2's verdicts to learn.

A label says what somebody chose; a probability says how sure one can be, given what the tokens
show. Words that learn both decide better than words that learn the label alone (Hinton et al.,
"Distilling the Knowledge in a Neural Network", arXiv 1503.02531), and two forms of an answer that
learn the same probabilities fall on the same side. A face's soft labels are those of small networks
that did not learn from it or from another picture of its person, so that no label is learned by
heart; faces without a label get some, too.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from facellava.face_encoder import FaceEncoder
from facellava.whole_files import open_to_others
from train.device import training_device
from train.face_arrays import ABSENT, ATTRIBUTES, EXPRESSIONS, UNITS, FaceArrays
from train.features import FeatureCache
from train.heads import AGES, age_loss, figures

logger = logging.getLogger(__name__)

Kind = Literal["expression", "age", "attributes", "units", "fake"]
FOLDS: Final = 4
BATCH: Final = 256
READ_AT_ONCE: Final = 512
HIDDEN: Final = 384
LEARNING_RATE: Final = 1.5e-3
MIXUP: Final = 0.4
_WIDTHS: Final[dict[Kind, int]] = {
    "expression": len(EXPRESSIONS),
    "age": AGES,
    "attributes": len(ATTRIBUTES),
    "units": len(UNITS),
    "fake": 1,
}
# Rendered units have no noise in their labels and bear more.
_EPOCHS: Final[dict[Kind, int]] = {
    "expression": 14,
    "age": 14,
    "attributes": 10,
    "units": 24,
    "fake": 14,
}


@dataclass(frozen=True)
class SoftLabels:
    """Probabilities of N faces; NaN where there was nobody else to learn a kind from.

    Attributes:
        expression: (N, 7) probabilities, in the order of EXPRESSIONS.
        years: (N,) expected age.
        attributes: (N, 40) probabilities of yes.
        units: (N, U) probabilities of being active; 0 where nobody coded them.
        fake: (N,) probability.
    """

    expression: NDArray[np.float32]
    years: NDArray[np.float32]
    attributes: NDArray[np.float32]
    units: NDArray[np.float32]
    fake: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write them as safetensors; the file appears only when it is whole."""
        partial = path.with_suffix(".partial")
        save_file(asdict(self), partial)
        open_to_others(partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> SoftLabels:
        """What `save` wrote."""
        return cls(**load_file(path))

    def with_labels(self, arrays: FaceArrays, share: float) -> SoftLabels:
        """Mixed with the labels of those faces that have them.

        Args:
            arrays: the labels.
            share: of what is here, from 0 to 1; the rest is the label's.
        """
        labels: dict[str, NDArray[Any]] = {
            "expression": np.eye(len(EXPRESSIONS))[arrays.expression],
            "years": arrays.age,
            "attributes": arrays.attributes,
            "units": arrays.units,
            "fake": arrays.fake,
        }
        known = {
            "expression": (arrays.expression != ABSENT)[:, None],
            "years": arrays.age != ABSENT,
            "attributes": arrays.attributes != ABSENT,
            "units": arrays.units != ABSENT,
            "fake": arrays.fake != ABSENT,
        }
        mixed = {}
        for name, said in asdict(self).items():
            blend = share * said + (1 - share) * labels[name]
            blend = np.where(np.isnan(said), labels[name], blend)
            mixed[name] = np.where(known[name], blend, said).astype(np.float32)
        return SoftLabels(**mixed)


def soft_labels_of(
    face_encoder: FaceEncoder,
    cache: FeatureCache,
    arrays: FaceArrays,
    people: Sequence[str],
    seed: int = 0,
) -> SoftLabels:
    """Train networks on every kind of label that the faces have, and let them see all faces.

    Of a kind of which no other person has a label nothing is known: NaN.

    Args:
        face_encoder: as stage 1 left it.
        cache: of the faces.
        arrays: their labels.
        people: who each face is; one person's faces are seen by the same networks.
        seed: of the networks and of what they see when.
    """
    inputs = [pooled_tokens(face_encoder, cache, variant) for variant in range(cache.variants)]
    fold = np.array([zlib.crc32(f"{seed} {person}".encode()) % FOLDS for person in people])
    logits: dict[str, NDArray[np.float32]] = {}
    unknown: dict[str, NDArray[np.bool_]] = {}
    bar = tqdm(total=FOLDS * len(_WIDTHS), unit="network", desc="soft labels")
    for kind, width in _WIDTHS.items():
        labels, rows = _labels_of(kind, arrays)
        said, seen = np.zeros((len(arrays), width), np.float32), np.zeros(len(arrays), bool)
        # A face with a label by the networks that do not know it, any other one by all.
        count = np.full(len(arrays), FOLDS)
        count[rows] = 1
        for number in range(FOLDS):
            learned = rows[fold[rows] != number]
            others = np.ones(len(arrays), bool)
            others[rows] = fold[rows] == number
            if len(learned):
                network = _Network(inputs, learned, width)
                network.learn(kind, labels, arrays.source[learned], seed + number)
                said[others] += network.says(others) / count[others, None]
                seen |= others
            bar.update()
        logits[kind], unknown[kind] = said, ~seen
    bar.close()
    logger.info(
        "soft labels of faces that their networks did not learn from: %s", figures(logits, arrays)
    )
    for name, faces in unknown.items():
        logits[name][faces] = np.nan
    return SoftLabels(
        expression=_softmax(logits["expression"]),
        years=_softmax(logits["age"]) @ np.arange(AGES, dtype=np.float32),
        attributes=_sigmoid(logits["attributes"]),
        units=np.where(arrays.units == ABSENT, np.float32(0), _sigmoid(logits["units"])),
        fake=_sigmoid(logits["fake"][:, 0]),
    )


def _labels_of(kind: Kind, arrays: FaceArrays) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A kind's labels of all faces, and the places of the faces that have one."""
    labels = np.asarray(getattr(arrays, kind)).astype(np.int64)
    known = labels != ABSENT
    return labels, np.flatnonzero(known.any(axis=1) if known.ndim > 1 else known)


@torch.inference_mode()
def pooled_tokens(face_encoder: FaceEncoder, cache: FeatureCache, variant: int) -> Tensor:
    """Stage 1's tokens averaged over all and over nine fields of the face, and the landmarks.

    Returns:
        (N, 10 D + 136) float16 of N faces and tokens of width D.
    """
    device = training_device()
    face_encoder.eval().to(device)
    side = round(face_encoder.config.tokens_per_frame**0.5)
    parts = []
    for start in range(0, len(cache), READ_AT_ONCE):
        rows = slice(start, start + READ_AT_ONCE)
        features = torch.from_numpy(np.asarray(cache.features[variant, rows], np.float32))
        points = torch.from_numpy(cache.landmarks[variant, rows])
        tokens = face_encoder(features.to(device), points.to(device)).tokens.float().cpu()
        grid = tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        fields = functional.adaptive_avg_pool2d(grid, 3).flatten(1)
        parts.append(torch.cat([tokens.mean(dim=1), fields, points.flatten(1)], dim=1).half())
    face_encoder.to("cpu")
    return torch.cat(parts)


class _Network:
    """One network, which learns from some of the faces.

    Args:
        inputs: of `pooled_tokens`, one a variant.
        learned: the faces to learn from.
        width: of what it says.
    """

    def __init__(self, inputs: list[Tensor], learned: NDArray[np.int64], width: int) -> None:
        self.inputs, self.learned, self.width = inputs, torch.from_numpy(learned), width
        seen = inputs[0][self.learned].float()
        self.mean, self.deviation = seen.mean(dim=0), seen.std(dim=0, correction=0) + 1e-3

    def learn(
        self, kind: Kind, labels: NDArray[np.int64], source: NDArray[np.str_], seed: int
    ) -> None:
        device = training_device()
        draw = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Dropout(0.2),
                nn.Linear(len(self.mean), HIDDEN),
                nn.GELU(),
                nn.Dropout(0.5),
                nn.Linear(HIDDEN, self.width),
            ).to(device)
            optimiser = torch.optim.AdamW(self.net.parameters(), weight_decay=0.1)
            steps = max(1, _EPOCHS[kind] * len(self.learned) // BATCH)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps)
            targets = torch.from_numpy(labels)[self.learned]
            weights = torch.ones(len(self.learned))
            if kind == "fake":
                # As in the encoder's batches, a small set of fakes is seen more often.
                counts = Counter(source.tolist())
                weights = torch.tensor([counts[name] ** -0.5 for name in source.tolist()])
            shares = np.random.default_rng(seed).beta(MIXUP, MIXUP, steps)
            for share in shares.tolist():
                picks = torch.multinomial(weights, BATCH, replacement=True, generator=draw)
                variants = torch.randint(len(self.inputs), (BATCH, 1), generator=draw)
                seen = torch.stack([self._read(each, self.learned[picks]) for each in self.inputs])
                chosen = seen.gather(0, variants[None].expand(1, -1, seen.shape[2]))[0]
                loss = self._loss(kind, chosen.to(device), targets[picks].to(device), share)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        self.net.eval()

    def _loss(self, kind: Kind, seen: Tensor, labels: Tensor, share: float) -> Tensor:
        if kind == "age":
            return age_loss(self.net(seen), labels)
        if kind == "expression":
            # Mixup, Zhang et al., arXiv 1710.09412: with the next face of the batch.
            other = seen.roll(1, dims=0), labels.roll(1)
            said = self.net(share * seen + (1 - share) * other[0])
            here, there = (functional.cross_entropy(said, each) for each in (labels, other[1]))
            return share * here + (1 - share) * there
        said, known = self.net(seen), (labels != ABSENT).float()
        wanted = labels.clamp(min=0).float().reshape(said.shape)
        errors = functional.binary_cross_entropy_with_logits(said, wanted, reduction="none")
        return (errors * known.reshape(said.shape)).sum() / known.sum()

    @torch.inference_mode()
    def says(self, faces: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Logits of these faces, the mean over their variants."""
        device = training_device()
        places = torch.from_numpy(np.flatnonzero(faces))
        parts = [
            torch.stack([self.net(self._read(each, part).to(device)) for each in self.inputs])
            .mean(dim=0)
            .cpu()
            .numpy()
            for part in places.split(4 * READ_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def _read(self, inputs: Tensor, places: Tensor) -> Tensor:
        return (inputs[places].float() - self.mean) / self.deviation


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.from_numpy(logits).softmax(dim=1).numpy()


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.from_numpy(logits).sigmoid().numpy()
