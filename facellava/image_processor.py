"""Face crops to the vision encoder's pixels, with Pillow and numpy only.

Transformers picks its own image code by what is installed, so that two machines may resize
differently; this one is the same everywhere. Crops are RGB uint8; F crops, H W the encoder's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from facellava.errors import BadModelInput


class FaceLlavaImageProcessor(BaseImageProcessor):
    """Crops to the encoder's pixels, with Pillow and numpy only: the same on every machine.

    Args:
        size: (height, width) of the encoder's input, or {"height": ..., "width": ...}.
        image_mean: per channel R, G, B, of pixels in [0, 1].
        image_std: likewise.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: Sequence[int] | Mapping[str, int] = (224, 224),
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        height, width = (size["height"], size["width"]) if isinstance(size, Mapping) else size
        self.size = {"height": int(height), "width": int(width)}
        self.image_mean = [float(value) for value in image_mean]
        self.image_std = [float(value) for value in image_std]

    def resize(self, crop: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
        """One crop (any height, any width, 3) to (H, W, 3) uint8, Lanczos.

        Raises:
            BadModelInput: not an RGB uint8 array or a Pillow image.
        """
        if isinstance(crop, Image.Image):
            crop = np.asarray(crop.convert("RGB"))
        crop = np.asarray(crop)
        if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3 or not crop.size:
            raise BadModelInput(
                f"A crop has shape {crop.shape} and type {crop.dtype}; allowed is "
                "(height, width, 3) RGB uint8."
            )
        target = (self.size["width"], self.size["height"])
        if crop.shape[:2] == target[::-1]:
            return crop
        return np.asarray(Image.fromarray(crop).resize(target, Image.Resampling.LANCZOS))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Resized crops (F, H, W, 3) uint8 to (F, 3, H, W) float32."""
        mean = np.asarray(self.image_mean, dtype=np.float32)
        std = np.asarray(self.image_std, dtype=np.float32)
        scaled = (pixels.astype(np.float32) / np.float32(255.0) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

    def preprocess(
        self,
        images: Sequence[NDArray[np.uint8] | Image.Image] | NDArray[np.uint8] | Image.Image,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Crops, or one crop, to {"pixel_values": (F, 3, H, W) float32}.

        Raises:
            BadModelInput: a crop that is not RGB uint8.
        """
        if isinstance(images, Image.Image):
            images = [images]
        elif isinstance(images, np.ndarray) and images.ndim == 3:
            images = images[np.newaxis]
        resized = [self.resize(crop) for crop in images]
        empty = np.empty((0, self.size["height"], self.size["width"], 3), np.uint8)
        pixels = np.stack(resized) if resized else empty
        return BatchFeature({"pixel_values": self.normalise(pixels)}, tensor_type=return_tensors)
