"""Picture files as CLIP's picture encoder takes them: the one place where training opens pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.tables import BadData

if TYPE_CHECKING:
    from torch import Tensor

Prepare = Callable[[Sequence[Path]], "Tensor"]


def read_picture(path: Path) -> Any:
    """A picture file as Pillow's image in RGB, decoded whole.

    Raises BadData where the file is missing, cannot be decoded, or unfolds into more pixels than Pillow takes.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise BadData("no such file") from None
    # Pillow's decoders raise many kinds of exception for damaged files (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise BadData(f"cannot be decoded ({type(error).__name__})") from None


def clip_pixels(folder: Path) -> Prepare:
    """CLIP's preparation by the numbers that its publishers keep beside the weights: B files -> [B, 3, 224, 224].

    Args:
        folder: holds preprocessor_config.json; nothing is fetched.

    What it returns raises BadData for a file that cannot be read (see `read_picture`).
    """
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)

    def prepare(paths: Sequence[Path]) -> Tensor:
        pixels: Tensor = processor(images=[read_picture(path) for path in paths], return_tensors="pt")["pixel_values"]
        return pixels

    return prepare
