"""What a file is, told from its first bytes and never from its name.

Whether the rest of the file keeps the promise of its first bytes is left to the decoders.
"""

from __future__ import annotations

from typing import Final

from schemas.failures import Lasting

PICTURES: Final = ("JPEG", "PNG", "WEBP", "TIFF", "GIF")
SOUNDS: Final = ("WAV", "FLAC", "OGG", "MP3", "M4A")

SUPPORTED: Final = (
    "Supported are the pictures JPEG, PNG, WebP, TIFF and GIF and the sounds WAV, FLAC, OGG (Vorbis, Opus), MP3 "
    "and M4A (AAC)."
)

EXTENSIONS: Final[dict[str, tuple[str, ...]]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "WAV": (".wav", ".wave"),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "M4A": (".m4a", ".mp4", ".m4b"),
}
"""Format -> the usual endings of its names, lower case; used for a note and for finding candidates in a folder."""

HEAD_BYTES: Final = 64 * 1024
"""How many first bytes `detect` wants to see; fewer are fine for a shorter file."""

_OTHERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"MThd", "a MIDI file, which holds notes and no sound"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BM", "a BMP picture"),
    (b"8BPS", "a Photoshop document"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM film"),
    (b"FORM", "an AIFF or IFF file"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x7fELF", "a program"),
    (b"\x00\x00\x01\x00", "an icon"),
)
_STILLS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")


def detect(head: bytes) -> str:
    """The format whose signature these first bytes (up to `HEAD_BYTES`) carry.

    Returns: one of `PICTURES` or `SOUNDS`.

    Raises:
        Lasting: empty, or none of the supported formats; the reason names what it seems to be.
    """
    if not head:
        raise Lasting("the file is empty.", "Bring the original file again.")
    found = _signature(head)
    if found is not None:
        return found
    raise Lasting(f"this is {_seems(head)}, not a supported picture or track.", SUPPORTED)


def mismatch(name: str, found: str) -> str | None:
    """A note when a file's name promises another format than its bytes hold; None when it fits or says nothing."""
    dot = name.rfind(".")
    extension = name[dot:].lower() if dot > 0 else ""
    if not extension or extension in EXTENSIONS[found]:
        return None
    if any(extension in endings for endings in EXTENSIONS.values()) or extension in (".txt", ".zip", ".pdf", ".csv"):
        return f"named {extension} but holds {found}"
    return None


def _signature(head: bytes) -> str | None:
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
        return "WAV"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head.startswith(b"fLaC"):
        return "FLAC"
    if head.startswith(b"OggS"):
        return "OGG"
    if head[4:8] == b"ftyp" and head[8:12] not in _STILLS:
        return "M4A"
    if head.startswith(b"ID3") and len(head) >= 10:
        after = head[tag_bytes(head) :][:4]
        # A large tag (a cover picture) hides what follows; MP3 is what such tags are for.
        return "FLAC" if after == b"fLaC" else "MP3"
    return "MP3" if _is_frame(head, 0) else None


def tag_bytes(head: bytes) -> int:
    """Bytes of the ID3v2 tag (id3.org, ID3v2.4, 3.1) that stands at the start; 0 without one."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    return 10 + ((head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | (head[9] & 127))


def first_frame(head: bytes, at: int) -> int | None:
    """Where, from `at` on, the first MPEG audio layer III frame seems to start; None where none is seen."""
    while (at := head.find(b"\xff", at)) >= 0:
        if _is_frame(head, at):
            return at
        at += 1
    return None


def _is_frame(head: bytes, at: int) -> bool:
    """True where an MPEG audio layer III frame header stands (ISO 11172-3, 2.4.1.3)."""
    if len(head) < at + 4 or head[at] != 0xFF or head[at + 1] & 0xE6 != 0xE2:
        return False
    version, bitrate, rate = head[at + 1] >> 3 & 3, head[at + 2] >> 4, head[at + 2] >> 2 & 3
    return version != 1 and bitrate not in (0, 15) and rate != 3


def _seems(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        return "an AVIF picture" if head[8:12] in (b"avif", b"avis") else "a HEIC picture"
    for signature, what in _OTHERS:
        if head.startswith(signature):
            return what
    start = head[:2048].lstrip().lower()
    if b"<svg" in start:
        return "an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if not head.strip(b"\x00"):
        return "a file of zeros"
    if _is_text(head[:2048]):
        return "a text"
    return "a file of an unknown kind"


def _is_text(head: bytes) -> bool:
    for encoding in ("utf-8", "utf-16") if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8",):
        try:
            text = head[: len(head) // 4 * 4 or len(head)].decode(
                encoding, errors="ignore" if len(head) > 2000 else "strict"
            )
        except UnicodeDecodeError:
            continue
        printable = sum(character.isprintable() or character.isspace() for character in text)
        if text and printable > 0.95 * len(text) and len(text) * 4 >= len(head) // 2:
            return True
    return False
