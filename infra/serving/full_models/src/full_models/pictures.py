"""Pictures as CLIP's and ImageBind's networks take them. Decoding is `edge_models.picture.read_picture`.

Both were trained with the same preparation (ImageBind, appendix B; CLIP, section 2.5 and its published
preprocessor): the shorter side becomes 224 by bicubic resampling, the middle 224 x 224 pixels are cut out, and each
colour is normalised by the mean and spread of CLIP's training pictures. Where an odd number of pixels is cut away,
the middle is rounded as torchvision rounds it (half to even); transformers rounds down, one pixel away.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from edge_models.picture import read_picture
from PIL import Image

SIDE: Final = 224
MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
SPREAD: Final = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

Floats = npt.NDArray[np.float32]


def network_input(data: bytes) -> Floats:
    """An encoded picture as the networks' input, float32 [3, 224, 224].

    Raises:
        Invalid: it cannot be decoded (see `read_picture`).
    """
    return normalised(read_picture(data))


def normalised(pixels: npt.NDArray[Any]) -> Floats:
    """RGB pixels, uint8 [height, width, 3], as the networks' input, float32 [3, 224, 224]."""
    height, width = pixels.shape[:2]
    # The longer side is cut, not rounded, to a whole pixel, as the published preparation does.
    scaled = (
        (SIDE, max(SIDE, SIDE * height // width)) if width <= height else (max(SIDE, SIDE * width // height), SIDE)
    )
    # Columns first, rows second: newer versions of Pillow choose the order by the shape, which moves single pixels by
    # a few levels; those that the networks were trained with did not.
    image = Image.fromarray(pixels).resize((scaled[0], height), Image.Resampling.BICUBIC)
    image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - SIDE) / 2), round((scaled[1] - SIDE) / 2)
    cut = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32)
    return np.ascontiguousarray(((cut / 255 - MEAN) / SPREAD).transpose(2, 0, 1), np.float32)
