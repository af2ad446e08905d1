import time

import numpy as np
import pytest
import skimage.data

from facellava.errors import BadSample
from facellava.faces import Face, find_faces
from facellava.faces.self_blend import RATIOS, SHAPES, self_blend
from facellava.regions import REGIONS


@pytest.fixture(scope="module")
def astronaut() -> Face:
    return find_faces(skimage.data.astronaut())[0]


def at_native_size(face: Face, side: float) -> Face:
    scale = side / 192
    return Face(
        crop=face.crop,
        landmarks=face.landmarks,
        box=face.box,
        index=0,
        score=face.score,
        source=face.source,
        crop_to_photo=np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]),
    )


def test_the_same_generator_state_gives_the_same_pixels(astronaut):
    first, again, other = (self_blend(astronaut, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.fake.crop, again.fake.crop)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert (first.ratio, first.shape, first.inside) == (again.ratio, again.shape, again.inside)
    assert not np.array_equal(first.fake.crop, other.fake.crop)


@pytest.mark.parametrize("side", [60, 110, 192, 400])
def test_the_real_differs_from_the_fake_inside_the_mask_only(astronaut, side):
    face = at_native_size(astronaut, side)
    for seed in range(8):
        blend = self_blend(face, np.random.default_rng(seed), 1.0)
        difference = np.abs(blend.fake.crop.astype(int) - blend.real.crop.astype(int)).max(axis=2)
        # Magnifying carries a blended pixel two pixels of its own size further.
        reach = int(np.ceil(2 * 192 / min(side, 192))) if side < 192 else 0
        near = np.zeros_like(blend.mask, dtype=bool)
        rows, columns = np.nonzero(blend.mask > 1e-3)
        for row, column in zip(rows, columns, strict=True):
            near[
                max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1
            ] = True
        assert difference[~near].max() <= 1
        assert difference[near].mean() > 0.3


def test_a_smaller_ratio_changes_the_face_less(astronaut):
    def change(ratio: float) -> float:
        blends = [self_blend(astronaut, np.random.default_rng(s), ratio) for s in range(6)]
        assert all(np.isclose(blend.mask.max(), ratio, atol=0.02) for blend in blends)
        return float(
            np.mean([np.abs(b.fake.crop.astype(int) - b.real.crop.astype(int)) for b in blends])
        )

    changes = [change(ratio) for ratio in (0.25, 0.5, 0.75, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] < 0.5 * changes[-1]


def test_other_draws_do_not_depend_on_the_ratio(astronaut):
    quarter, full = (self_blend(astronaut, np.random.default_rng(5), r) for r in (0.25, 1.0))
    np.testing.assert_array_equal(quarter.real.crop, full.real.crop)
    np.testing.assert_allclose(quarter.mask * 4, full.mask, atol=1e-5)


def test_ratios_and_shapes_are_all_drawn(astronaut):
    rng = np.random.default_rng(0)
    blends = [self_blend(astronaut, rng) for _ in range(60)]
    assert {blend.ratio for blend in blends} == set(RATIOS)
    assert {blend.shape for blend in blends} == set(SHAPES)
    assert sum(blend.ratio == 1.0 for blend in blends) > 20


def test_regions_name_where_the_blend_lies(astronaut):
    rng = np.random.default_rng(1)
    for _ in range(20):
        blend = self_blend(astronaut, rng)
        assert not set(blend.inside) & set(blend.crossed)
        assert set(blend.inside + blend.crossed) <= set(REGIONS)
        assert blend.inside or blend.crossed
        for name in blend.inside:
            points = (blend.real.landmarks[REGIONS[name]] * 192).astype(int)
            assert (blend.mask[points[:, 1], points[:, 0]] > 0.85 * blend.ratio).all()


def test_a_magnified_face_gets_no_detail_finer_than_its_own_pixels(astronaut):
    """The spectrum above the native resolution's limit holds next to nothing, in real and fake."""
    face = at_native_size(astronaut, 48)
    for seed in range(6):
        blend = self_blend(face, np.random.default_rng(seed), 1.0)
        for made in (blend.real, blend.fake):
            grey = made.crop.mean(axis=2)
            grey = grey[24:168, 24:168] * np.hanning(144)[:, None] * np.hanning(144)
            power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
            cycles = np.abs(np.fft.fftfreq(144))
            fine = np.maximum(cycles[:, None], cycles[None]) > 1.5 * 48 / 192 / 2
            assert power[fine].sum() / power.sum() < 0.01


def test_a_grey_face_stays_grey(astronaut):
    grey = np.repeat(astronaut.crop.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    face = Face(**{**vars(astronaut), "crop": grey})
    for seed in range(12):
        blend = self_blend(face, np.random.default_rng(seed))
        assert np.ptp(blend.fake.crop.astype(int), axis=2).max() <= 1
        assert np.ptp(blend.real.crop.astype(int), axis=2).max() <= 1


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.01])
def test_ratios_outside_the_range_are_refused(astronaut, ratio):
    with pytest.raises(BadSample, match="above 0 and at most 1"):
        self_blend(astronaut, np.random.default_rng(0), ratio)


def test_a_blend_takes_milliseconds(astronaut):
    rng = np.random.default_rng(0)
    self_blend(astronaut, rng)
    fastest = min(_seconds(astronaut, rng) for _ in range(10))
    assert fastest < 0.03  # about 5 ms on one idle core


def _seconds(face: Face, rng: np.random.Generator) -> float:
    start = time.perf_counter()
    self_blend(face, rng)
    return time.perf_counter() - start
