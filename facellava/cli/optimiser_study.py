"""`facellava train optimisers`: is a model fairer for the optimiser that trained it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from facellava.cli.arguments import JsonFlag


def optimisers(
    faces: Annotated[
        Path, typer.Argument(help="A finished corpus, or the faces.parquet of an earlier study.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    optim: Annotated[
        Optional[list[str]],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Option(help="adamw, adam, rmsprop or sgd; repeatable; by default all."),
    ] = None,
    task: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="gender-by-race (UTKFace), smiling-by-gender or attractive-by-gender (CelebA); "
            "repeatable; by default the first two."
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(help="Of the large group in training; 0.9 is 90 to 10.")
    ] = 0.9,
    most: Annotated[int, typer.Option(help="Most training faces of a task.")] = 4000,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 64,
    seeds: Annotated[int, typer.Option(help="Trainings of each optimiser.")] = 10,
    epochs: Annotated[int, typer.Option(help="Passes over the training faces.")] = 12,
    batch: Annotated[int, typer.Option(help="Faces of a step.")] = 64,
    faces_only: Annotated[
        bool, typer.Option("--faces-only", help="Write OUT/faces.parquet and train nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train one small network under each optimiser on faces mostly of one group; compare the gaps.

    Each optimiser gets the learning rate of a small grid that is most accurate on validation faces.
    Equalized odds, equal opportunity and demographic parity stand beside accuracy, with 95%
    intervals over seeds, in OUT/results.md, results.json and gaps.svg. Run it again after a stop
    and it goes on. A faces.parquet has its tasks, share and size; options about them do not change
    it.
    """
    from train.fairness_split import SplitSettings, read_split
    from train.fairness_study import StudySettings, run_study
    from train.fairness_training import TrainingSettings

    tasks = tuple(task) if task else SplitSettings.tasks
    settings = StudySettings(
        optimisers=tuple(optim) if optim else StudySettings.optimisers,
        seeds=seeds,
        training=TrainingSettings(epochs=epochs, batch=batch),
    )
    if faces.is_file():
        split = read_split(faces)
    else:
        # Reading a corpus takes the face finder's packages, which such a file does without.
        from train.fairness_faces import drawn_faces

        split = drawn_faces(faces, out, SplitSettings(tasks, share, most, size))
    if faces_only:
        typer.echo(f"The faces are in {faces if faces.is_file() else out / 'faces.parquet'}")
        return
    results = run_study(split, out, settings)
    typer.echo(json.dumps(results) if as_json else f"The results are in {out / 'results.md'}")
