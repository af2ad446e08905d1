"""Every error that a caller may meet. Each message is one sentence that says what to do.

FacellavaError
├── BadMedia (ValueError)            not a readable photo or clip
│   └── MediaTooLarge                over the byte, pixel or frame cap
├── NoFaceFound (ValueError)         a readable photo without a usable face
├── UnknownTask (ValueError)         a task name that facellava.tasks does not hold
├── UnreadableAnswer (ValueError)    model text that does not follow the answer grammar
├── BadModelInput (ValueError)       tensors of a wrong shape, count or range; no landmarks
├── BadSample (ValueError)           a row of a dataset or corpus that cannot be used
├── BadCorpus                        a corpus or dataset folder that cannot be read as a whole
├── BadCheckpoint                    a weights folder that cannot be loaded
├── BadSettings (ValueError)         a settings file or --set that cannot be used
├── TrainingStopped                  a training run that cannot go on; its checkpoints are kept
├── EndpointStopped                  a run of questions to an endpoint that cannot go on
│   └── OutOfBudget                  the next question could cost more than is left
└── MissingBackend                   a package or model file that is not installed
"""

from __future__ import annotations


class FacellavaError(Exception):
    """Base of all errors that facellava raises on purpose."""


class BadMedia(FacellavaError, ValueError):
    """The bytes are not a photo or clip that can be read."""


class MediaTooLarge(BadMedia):
    """The photo or clip is over the byte, pixel or frame cap."""


class NoFaceFound(FacellavaError, ValueError):
    """The photo can be read and shows no face that can be used."""


class UnknownTask(FacellavaError, ValueError):
    """No task has this name."""


class UnreadableAnswer(FacellavaError, ValueError):
    """The model's text does not follow the answer grammar."""


class BadModelInput(FacellavaError, ValueError):
    """Pixels, landmarks or token counts do not fit each other or the model."""


class BadSample(FacellavaError, ValueError):
    """A row of a dataset or corpus cannot be used."""


class BadCorpus(FacellavaError):
    """A dataset or corpus on disk cannot be read as a whole."""


class BadCheckpoint(FacellavaError):
    """A weights folder cannot be loaded."""


class BadSettings(FacellavaError, ValueError):
    """A settings file, or a setting given beside it, cannot be used."""


class TrainingStopped(FacellavaError):
    """A training run cannot go on. Its checkpoints are kept, and the same command goes on."""


class MissingBackend(FacellavaError):
    """A package or model file is not installed."""


class EndpointStopped(FacellavaError):
    """A run cannot go on. Every reply that came is kept, and the next run starts from there."""


class OutOfBudget(EndpointStopped):
    """The next request could cost more than is left."""
