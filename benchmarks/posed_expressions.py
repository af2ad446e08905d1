"""What a rendered face does when it shows an expression: for the clips of the studies."""

from __future__ import annotations

from typing import Final

import numpy as np

from data_builders.rendered.units import OTHER_SHAPES, unit_weights

# EMFACS's prototypes; what may be missing stands behind. Two are shapes that no unit names.
PROTOTYPES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "neutral": ((), ()),
    "happiness": (("AU12",), ("AU6", "AU25")),
    "sadness": (("AU1", "AU15"), ("AU4", "AU17")),
    "surprise": (("AU1", "AU2", "AU26"), ("eyeWide", "AU25")),
    "fear": (("AU1", "AU2", "AU4"), ("eyeWide", "mouthStretch", "AU25")),
    "anger": (("AU4", "AU24"), ("AU7", "AU17")),
    "disgust": (("AU9",), ("AU10", "AU17")),
}
STRAY: Final = ("AU14", "AU7", "AU17", "AU1", "AU25")


def apex_weights(name: str, rng: np.random.Generator) -> dict[str, float]:
    """Shape weights of an expression at its apex, with a motion now and then that is not its."""
    always, sometimes = PROTOTYPES[name]
    units = [*always, *(unit for unit in sometimes if rng.random() < 0.6)]
    if rng.random() < 0.3:
        units.append(str(rng.choice(STRAY)))
    weights: dict[str, float] = {}
    for unit in dict.fromkeys(units):
        strength = float(rng.uniform(1.6, 4.2))
        if unit in OTHER_SHAPES:
            names = (f"{unit}_R", f"{unit}_L") if OTHER_SHAPES[unit] else (unit,)
            weights |= dict.fromkeys(names, strength / 5)
        else:
            weights |= unit_weights(unit, strength, strength * float(rng.uniform(0.8, 1)))
    return weights
