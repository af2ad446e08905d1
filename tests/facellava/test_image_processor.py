from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from facellava.errors import BadModelInput
from facellava.image_processor import FaceLlavaImageProcessor


def test_pixels_are_scaled_normalised_and_channels_first(astronaut_face):
    processor = FaceLlavaImageProcessor((192, 192), (0.1, 0.2, 0.3), (0.5, 0.25, 1.0))
    pixels = processor(astronaut_face.crop, return_tensors="pt")["pixel_values"]
    assert pixels.dtype == torch.float32
    assert pixels.shape == (1, 3, 192, 192)
    colour = astronaut_face.crop[50, 120].astype(np.float32) / 255
    expected = (colour - [0.1, 0.2, 0.3]) / [0.5, 0.25, 1.0]
    np.testing.assert_allclose(pixels[0, :, 50, 120], expected, rtol=1e-6)


def test_resize_keeps_positions_and_takes_height_before_width():
    crop = np.zeros((192, 192, 3), np.uint8)
    crop[96:, :96] = 255  # lower left quarter
    resized = FaceLlavaImageProcessor((96, 48)).resize(crop)
    assert resized.shape == (96, 48, 3)
    assert resized[72, 12].min() > 250
    assert resized[24, 12].max() < 5
    assert resized[72, 36].max() < 5


def test_halving_averages_instead_of_dropping_pixels():
    crop = np.zeros((192, 192, 3), np.uint8)
    crop[:, ::2] = 255  # stripes of one pixel
    resized = FaceLlavaImageProcessor((96, 96)).resize(crop)[10:-10, 10:-10].astype(int)
    assert abs(resized - 127).max() <= 3


def test_pillow_pictures_and_lists_give_the_same(astronaut_face):
    processor = FaceLlavaImageProcessor((96, 96))
    array = processor([astronaut_face.crop])["pixel_values"]
    picture = processor(Image.fromarray(astronaut_face.crop))["pixel_values"]
    np.testing.assert_array_equal(array, picture)


@pytest.mark.parametrize(
    "crop",
    [
        np.zeros((192, 192), np.uint8),
        np.zeros((192, 192, 4), np.uint8),
        np.zeros((192, 192, 3), np.float32),
        np.zeros((0, 192, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_crop(crop):
    with pytest.raises(BadModelInput, match="RGB uint8"):
        FaceLlavaImageProcessor((96, 96))([crop])
