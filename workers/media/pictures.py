"""Pictures: any supported file to one upright sRGB JPEG. Runs inside the decoding child.

Every costly step comes after the picture has been made small, so memory is bounded by one decoded original.
A picture that ends too early is refused rather than filled with grey, because the grey would be measured.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
from typing import Any, BinaryIO, Final

from PIL import Image, ImageCms, UnidentifiedImageError

from schemas.failures import Lasting
from workers.media.limits import Limits

Image.MAX_IMAGE_PIXELS = None  # our own limit comes first, with our own words

JPEG_QUALITY: Final = 95
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BROKEN: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
    ArithmeticError,
    AttributeError,
    RuntimeError,
)
"""What the library raises on damaged files, found by feeding it such; MemoryError is not among them."""


def prepare_picture(file: BinaryIO, form: str, limits: Limits) -> tuple[dict[str, Any], bytes]:
    """Decode, turn upright, convert to sRGB, flatten on white, shrink to `limits.picture_side`.

    Args:
        file: seekable, at its start.
        form: the format found in its bytes, one of `detect.PICTURES`.

    Returns: facts (width, height of the upright original; notes) and a JPEG (quality 95, 4:4:4).

    Raises:
        Lasting: outside the limits, or broken.
        MemoryError: the child's limit was met.
    """
    notes: list[str] = []
    try:
        image = Image.open(file, formats=["JPEG", "MPO"] if form == "JPEG" else [form])
    except (UnidentifiedImageError, *_BROKEN):
        raise _unreadable(form, "its header is broken or missing") from None
    width, height = image.size
    _check_size(width, height, limits)
    frames = _frames(image)
    if frames > 1:
        notes.append(f"first of {frames} {'pages' if form in ('TIFF', 'JPEG') else 'frames'}")
    profile = image.info.get("icc_profile")
    if form == "JPEG":
        # The decoder itself can leave out detail that will not be kept: whole-number scales of the DCT.
        image.draft(None, (limits.picture_side * 2, limits.picture_side * 2))
    try:
        image.load()
    except _BROKEN as trouble:
        raise _unreadable(form, _why(trouble)) from None
    orientation = _orientation(image, notes)
    # TIFF is turned by the library while it loads; its size may have changed places.
    turned = form == "TIFF" and image.size == (height, width) and width != height
    if turned or orientation >= 5:
        width, height = height, width
    try:
        small = _shrunk(image, limits.picture_side)
        del image  # the large one is no longer needed
        if orientation != 1:
            small = small.transpose(_UPRIGHT[orientation])
            notes.append("turned upright")
        upright = _to_srgb(small, profile, notes)
    except _BROKEN:
        raise _unreadable(form, "its colours cannot be read") from None
    target = io.BytesIO()
    upright.save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return {"width": width, "height": height, "notes": notes}, target.getvalue()


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.maximum_pixels:
        raise Lasting(
            f"the picture says it has {width} x {height} pixels, more than "
            f"{limits.maximum_pixels // 1_000_000} megapixels.",
            "Bring a smaller version.",
        )
    if min(width, height) < limits.minimum_side:
        raise Lasting(
            f"the picture has {width} x {height} pixels; too small to measure anything in its four parts.",
            f"Bring one of at least {limits.minimum_side} pixels a side.",
        )
    if max(width, height) > limits.maximum_aspect * min(width, height):
        raise Lasting(
            f"the picture has {width} x {height} pixels: a stripe longer than "
            f"{limits.maximum_aspect:.0f} times its breadth.",
            "Bring a section of it.",
        )


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except _BROKEN:
        return 1
    finally:
        with contextlib.suppress(*_BROKEN):
            image.seek(0)


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _UPRIGHT else 1
    except MemoryError:
        raise
    except Exception:
        # EXIF is written by a thousand programs; whatever is wrong in it, the pixels are still there.
        notes.append("unreadable EXIF data passed over")
        return 1


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """At most `side` pixels a side, in the mode that it came in where that can be resampled."""
    if image.mode in ("P", "PA", "1") or (image.mode in ("L", "RGB") and "transparency" in image.info):
        transparent = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "L" if image.mode == "1" else "RGB")
    elif image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image, side)
    if max(image.size) > side:
        factor = side / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _eight_bits(image: Image.Image, side: int) -> Image.Image:
    """16 or 32 bits of grey to 8: 16-bit files by their full scale, others by the range that they use."""
    import numpy as np

    step = max(1, max(image.size) // (4 * side))
    values = np.asarray(image)[::step, ::step].astype(np.float32)
    values[~np.isfinite(values)] = 0.0
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535):
        values *= 255.0 / 65535.0
    elif image.mode == "F" and values.min() >= 0 and values.max() <= 1:
        values *= 255.0
    elif values.min() < 0 or values.max() > 255:
        low, high = float(values.min()), float(values.max())
        values = (values - low) * (255.0 / (high - low))
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """RGB on white in the sRGB colours; a profile that cannot be used is passed over with a note."""
    alpha: Image.Image | None = None
    if image.mode in ("RGBA", "LA", "RGBa", "La"):
        image = image.convert(image.mode.replace("a", "A"))
        alpha = image.getchannel("A")
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    converted: Image.Image | None = None
    if image.mode == "LAB":
        converted = ImageCms.applyTransform(image, _lab_transform())
    elif profile:
        try:
            converted = ImageCms.applyTransform(image, _transform(bytes(profile), image.mode))
        except (ImageCms.PyCMSError, *_BROKEN):
            notes.append("unusable colour profile passed over")
    if image.mode == "CMYK":
        notes.append("CMYK to sRGB" if converted is not None else "CMYK to sRGB without a profile")
    if converted is None:
        converted = image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", converted.size, (255, 255, 255))
        white.paste(converted, mask=alpha)
        converted = white
        notes.append("transparency laid on white")
    return converted


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


@functools.lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _why(trouble: BaseException) -> str:
    text = str(trouble).lower()
    if "truncated" in text or "unexpected end" in text or isinstance(trouble, EOFError):
        return "the file ends before the picture does"
    return "its contents are damaged"


def _unreadable(form: str, why: str) -> Lasting:
    return Lasting(f"the {form} picture cannot be decoded: {why}.", "Bring the original file again.")
