"""Does a clip get the answer of its apex, and does the expression over time follow the face?

    python -m benchmarks.expression_ramps rendered --pack data/ict_facekit --out ramps.npz
    python -m benchmarks.clip_agreement ramps.npz --model runs/nano/model

Rendered people whose face goes from rest to the apex of an expression and back: onset, apex,
offset. The clip is asked for its expression, and so is the apex as a photo: how often are the two
the same? The clip is shown by the frames that `ask_clip` would show of it, and once more by frames
that are evenly spread. Then each frame is read as a photo, as the server's timeline does: how well
does the probability of the apex's expression follow how far the face has gone (Pearson's r, one a
clip)?
Clips whose apex is answered "neutral" have no r (nothing is seen to rise there); those that are not
answered as an expression count as different.
One JSON line; intervals are of people drawn anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.clip_tokens import interval
from benchmarks.expression_ramps import LEVELS, Ramps
from facellava.conversation import FaceItem, face_conversation
from facellava.faces import Face, canonical_face
from facellava.faces.clips import Track, evenly
from facellava.faces.shown_frames import looked_at, shown_of
from facellava.predictor import CLIP_FRAMES, FaceLlava
from facellava.tasks import TASKS, Verdict
from facellava.tasks.expression import BASIC

MOMENTS: Final = 13
TASK: Final = TASKS["expression"]


def course(frames: int) -> NDArray[np.int64]:
    """(frames,) places in LEVELS: up, at least one frame at the apex, and down again."""
    height = np.minimum(np.arange(frames), np.arange(frames)[::-1]) / ((frames - 1) // 2)
    return np.rint(height * (len(LEVELS) - 1)).astype(np.int64)


def clip_of(ramps: Ramps, ramp: int, levels: NDArray[np.int64]) -> list[Face]:
    """The ramp's pictures in that order; two frames of a level have different views."""
    views = ramps.landmarks.shape[2]
    return [
        canonical_face(crop, points * len(crop), source="rendered")
        for place, level in enumerate(levels)
        for crop, points in [
            (ramps.crops[ramp, level, place % views], ramps.landmarks[ramp, level, place % views])
        ]
    ]


def shown_and_evenly(moments: Sequence[Face], count: int) -> tuple[list[Face], list[Face]]:
    """The frames that the product shows of a clip with these frames, and evenly spread ones."""
    seconds = [float(place) for place in range(len(moments))]
    looked = evenly(seconds, looked_at(count))
    track = Track(tuple(moments[int(second)] for second in looked), tuple(looked), 0)
    even = [moments[int(second)] for second in evenly(seconds, count)]
    return list(shown_of(track, count).frames), even


def correlation(table: Sequence[dict[str, float]], label: str, levels: NDArray[np.int64]) -> float:
    """Pearson's r of a label's probability over the frames with the level; 0 where it is flat."""
    probabilities = np.array([each[label] for each in table])
    if probabilities.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(probabilities, levels)[0, 1])


def main(
    file: Annotated[Path, typer.Argument(help="What benchmarks.expression_ramps wrote.")],
    model: Annotated[Path | None, typer.Option(help="Checkpoint; else the embedded one.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Clips at most; 0 for all.")] = 0,
) -> None:
    """Ask about the clips of the people who are tested."""
    asked = FaceLlava.load(model)
    ramps = Ramps.load(file)
    chosen = np.flatnonzero(ramps.test)
    if limit:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:limit])
    levels = course(MOMENTS)
    frames = asked.processor.clip_frames or CLIP_FRAMES
    apex = int(levels.argmax())
    question = TASK.canonical_question
    answered, same, same_evenly, right, followed, people = [], [], [], [], [], []
    for ramp in tqdm(chosen, unit="clip", disable=None):
        moments = clip_of(ramps, ramp, levels)
        shown: list[FaceItem] = [*shown_and_evenly(moments, frames), moments[apex]]
        of_clip, of_even, of_apex = asked.ask_many(shown, [question] * 3, label_only=True)
        answered.append(of_clip.task == of_apex.task == TASK.name)
        same.append(answered[-1] and of_clip.label == of_apex.label)
        same_evenly.append(of_even.task == TASK.name and of_even.label == of_apex.label)
        right.append(answered[-1] and of_clip.label == BASIC[ramps.labels[ramp]])
        if not answered[-1] or of_apex.label == "neutral":
            continue
        words = face_conversation("image", question)
        verdict = Verdict(TASK.name, str(of_apex.label), "")
        table = asked.scorer.score([words] * MOMENTS, moments, [verdict] * MOMENTS)
        followed.append(correlation(table, str(of_apex.label), levels))
        people.append(ramps.person[ramp])
    every = ramps.person[chosen]
    line = {
        "model": str(model or "nano"),
        "clips": len(chosen),
        "people": len(np.unique(every)),
        "frames": frames,
        "moments": MOMENTS,
        "answered": round(100 * float(np.mean(answered)), 1),
        "same_as_apex": round(100 * float(np.mean(same)), 1),
        "same_interval": interval(np.array(same, float), every),
        "same_as_apex_evenly": round(100 * float(np.mean(same_evenly)), 1),
        "same_evenly_interval": interval(np.array(same_evenly, float), every),
        "clip_right": round(100 * float(np.mean(right)), 1),
        "seen_to_rise": len(followed),
        "correlation": round(float(np.mean(followed)), 3) if followed else None,
        "correlation_interval": [
            round(end / 100, 3) for end in interval(np.array(followed), np.array(people))
        ]
        if followed
        else None,
    }
    typer.echo(json.dumps(line))


if __name__ == "__main__":
    typer.run(main)
