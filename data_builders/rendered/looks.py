"""What a rendered face looks like: the person (shape, skin, hair, eyes) and the shot (pose, light).

Skin colours lie around the ten of the Monk Skin Tone scale (Monk, 2019; skintone.google), drawn
evenly, so that no part of the range is rare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
"""sRGB in [0, 1]."""

MONK_TONES: Final = (
    0xF6EDE4, 0xF3E7DB, 0xF7EAD0, 0xEADABA, 0xD7BD96, 0xA07E56, 0x825C43, 0x604134, 0x3A312A,
    0x292420,
)  # fmt: skip
TONE_SPREAD: Final = 0.35  # of the way to a neighbouring tone, at most
# Skin on photos is redder than the scale's swatches; how much was judged by eye.
BLOOD: Final = (1.09, 0.90, 0.81)
LIFT: Final = 0.8  # exponent: photos of dark skin are exposed for it
HAIR: Final = (0x090806, 0x1C1410, 0x2C1E16, 0x3B2417, 0x55371F, 0x6E4B2A, 0x8D6A42, 0xB08F5E)
GREY_HAIR: Final = (0.56, 0.55, 0.53)
LIGHT_HAIR_UP_TO: Final = 4  # tones that have the lighter hair and eye colours too
DARK_HAIR: Final = 4
IRIS: Final = (0x23150D, 0x37210F, 0x4D3218, 0x6A5A2C, 0x5B6F58, 0x5F7C94, 0x7C93A0)
DARK_IRIS: Final = 3
LIPSTICK: Final = (0x9C2F3C, 0xB4484F, 0x7C2230, 0xC0656B)

LARGEST_WEIGHT: Final = 2.5  # of identity shapes; beyond, faces get out of the ordinary
YAW, PITCH, ROLL = 35.0, 20.0, 15.0  # degrees, at most
SIZES: Final = (256, 320)  # pixels
EYE_DISTANCE: Final = (0.2, 0.3)  # of the picture's side
CAMERA_DISTANCE: Final = (45.0, 160.0)  # model units; near ones see the nose large


@dataclass(frozen=True, eq=False)
class Person:
    """What stays the same in all pictures of one person.

    Attributes:
        weights: (I,) of the identity shapes.
        tone: 1 to 10 of the Monk scale, the nearest.
        skin, lips, hair, iris: colours; `hair` is that of the brows too.
        painting: seed of what is painted on the skin.
        brow_width: half, in model units.
        brow_density: 0 to 1.
        bald: has no hair but brows and stubble.
        hairline: height of the forehead over the brows in model units.
        hair_length: how far hair stands off, in model units.
        stubble: 0 to 1.
        freckles: how many.
    """

    weights: NDArray[np.float64]
    tone: int
    skin: Colour
    lips: Colour
    hair: Colour
    iris: Colour
    painting: int
    brow_width: float
    brow_density: float
    bald: bool
    hairline: float
    hair_length: float
    stubble: float
    freckles: int


@dataclass(frozen=True)
class Light:
    """A far lamp: where it stands seen from the face (x, y, z), its colour and strength."""

    direction: tuple[float, float, float]
    colour: Colour
    strength: float


@dataclass(frozen=True)
class Shot:
    """What changes from picture to picture.

    Attributes:
        yaw, pitch, roll: degrees; positive to the person's left, upwards, and to the left shoulder.
        size: of the picture, pixels a side.
        eye_distance: pixels between the eyes' centres for a frontal face.
        distance: of the camera, in model units.
        centre: of the face in the picture, in shares of its side.
        lights: the first is the main one.
        roughness: of the skin, 0 (oil) to 1 (powder).
        ground: how the background is painted.
        ground_colours: two colours.
        cloth: colour of the clothes.
        blur: sigma in pixels.
        noise: sigma in levels of 255.
        gamma: of the finished picture.
        painting: seed of noise and background.
    """

    yaw: float
    pitch: float
    roll: float
    size: int
    eye_distance: float
    distance: float
    centre: tuple[float, float]
    lights: tuple[Light, ...]
    roughness: float
    ground: Literal["plain", "gradient", "blobs"]
    ground_colours: tuple[Colour, Colour]
    cloth: Colour
    blur: float
    noise: float
    gamma: float
    painting: int


def draw_person(rng: np.random.Generator, shapes: int) -> Person:
    """A person of the model, whose identity shapes are `shapes` in number."""
    place = float(rng.integers(1, 11) + rng.uniform(-TONE_SPREAD, TONE_SPREAD))
    swatch = _between(MONK_TONES, place - 1)
    skin = np.clip(swatch**LIFT * BLOOD * (1 + rng.normal(0, 0.015, 3)), 0.05, 0.97)
    light = place <= LIGHT_HAIR_UP_TO
    hair = _between(HAIR, rng.uniform(0, len(HAIR) - 1 if light else DARK_HAIR))
    if rng.random() < 0.08:
        hair = np.asarray(GREY_HAIR) * rng.uniform(0.7, 1.3)
    bare_lips = skin * rng.uniform([0.86, 0.62, 0.62], [0.95, 0.74, 0.76])
    painted = np.asarray(colour(int(rng.choice(LIPSTICK))))
    bearded = rng.random() < 0.3
    return Person(
        weights=np.clip(rng.normal(size=shapes), -LARGEST_WEIGHT, LARGEST_WEIGHT),
        tone=round(min(max(place, 1), 10)),
        skin=_colour_of(skin),
        lips=_colour_of(painted * 0.7 + skin * 0.15 if rng.random() < 0.15 else bare_lips),
        hair=_colour_of(hair),
        iris=_colour_of(_between(IRIS, rng.uniform(0, len(IRIS) - 1 if light else DARK_IRIS))),
        painting=int(rng.integers(2**31)),
        brow_width=float(rng.uniform(0.28, 0.55)),
        brow_density=float(rng.uniform(0.45, 1.0)),
        bald=bool(rng.random() < 0.15),
        hairline=float(rng.uniform(3.2, 5.2)),
        hair_length=float(rng.uniform(0.05, 1.3)),
        stubble=float(rng.uniform(0.15, 0.8)) if bearded else 0.0,
        freckles=int(rng.integers(20, 120)) if light and rng.random() < 0.3 else 0,
    )


def draw_shot(rng: np.random.Generator) -> Shot:
    """A pose before a camera, under lights and before a ground."""
    yaw, pitch, roll = (
        float(np.clip(rng.normal(0, limit / 2), -limit, limit)) for limit in (YAW, PITCH, ROLL)
    )
    size = int(rng.integers(SIZES[0], SIZES[1] + 1))
    return Shot(
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        size=size,
        eye_distance=size * float(rng.uniform(*EYE_DISTANCE)),
        distance=float(rng.uniform(*CAMERA_DISTANCE)),
        centre=(float(rng.uniform(0.44, 0.56)), float(rng.uniform(0.44, 0.56))),
        lights=_draw_lights(rng),
        roughness=float(rng.uniform(0.42, 0.75)),
        ground=(("plain", "gradient", "blobs")[rng.integers(3)]),
        ground_colours=(_muted(rng), _muted(rng)),
        cloth=_muted(rng),
        blur=float(rng.uniform(0, 0.9)),
        noise=float(rng.uniform(0, 5)),
        gamma=float(rng.uniform(0.85, 1.15)),
        painting=int(rng.integers(2**31)),
    )


def _draw_lights(rng: np.random.Generator) -> tuple[Light, ...]:
    """A main lamp, weaker lamps around it, and what the surroundings throw back."""
    side = float(rng.uniform(-70, 70))
    main = _lamp(side, float(rng.uniform(-5, 55)), _tint(rng), float(rng.uniform(0.9, 1.5)))
    lights = [main]
    for _ in range(rng.integers(0, 3)):
        turn = float(np.clip(-side + rng.normal(0, 40), -120, 120))
        lights.append(
            _lamp(turn, float(rng.uniform(-20, 50)), _tint(rng), float(rng.uniform(0.1, 0.7)))
        )
    surround = float(rng.uniform(0.2, 0.5))
    tint = _tint(rng)
    lights += [_lamp(turn, 10.0, tint, surround) for turn in (-75.0, 0.0, 75.0)]
    lights += [_lamp(0.0, 80.0, tint, surround), _lamp(0.0, -70.0, tint, surround / 2)]
    return tuple(lights)


def _lamp(turn: float, height: float, tint: Colour, strength: float) -> Light:
    across, up = np.radians([turn, height])
    direction = (np.sin(across) * np.cos(up), np.sin(up), np.cos(across) * np.cos(up))
    x, y, z = map(float, direction)
    return Light((x, y, z), tint, strength)


def _tint(rng: np.random.Generator) -> Colour:
    """White with some of the orange of a bulb or of the blue of the sky."""
    warm = float(rng.normal(0, 0.035))
    return _colour_of(np.clip([1 + warm, 1.0, 1 - 1.3 * warm], 0.7, 1.3))


def _muted(rng: np.random.Generator) -> Colour:
    """Any brightness, little colour: walls, leaves, cloth."""
    return _colour_of(rng.uniform(0.03, 0.95) + rng.normal(0, 0.09, 3))


def colour(number: int) -> Colour:
    """0xRRGGBB as a colour."""
    return (number >> 16 & 255) / 255, (number >> 8 & 255) / 255, (number & 255) / 255


def _between(numbers: tuple[int, ...], place: float) -> NDArray[np.float64]:
    """The colour at a place of a row of colours, 0 for the first."""
    place = min(max(place, 0.0), len(numbers) - 1.0)
    low = min(int(place), len(numbers) - 2)
    first, second = np.asarray(colour(numbers[low])), np.asarray(colour(numbers[low + 1]))
    return first + (second - first) * (place - low)


def _colour_of(values: NDArray[np.floating]) -> Colour:
    red, green, blue = (float(min(max(value, 0.0), 1.0)) for value in values)
    return red, green, blue
