"""A corpus of bad and odd media and file names, made by code: what people bring by mistake, and what attackers do.

`make_corpus` is for every test that wants to know how a part of the house treats such files. Each case says how it
has to end: as a good item, or refused with a reason that contains the given words. Nothing is downloaded, and no
file of anybody else is kept; M4A and films are encoded by the development-only package `av`.
"""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageCms

ORIENTATION = 0x0112


@dataclass(frozen=True)
class Case:
    """One file (or what pretends to be one).

    Attributes:
        name: what is odd about it.
        path: where it lies.
        expectation: how it has to end.
        reason_contains: words of the reason, lower case, for refused ones.
        note_contains: words of one of the notes, for good ones that were mended.
        kind: for good ones.
    """

    name: str
    path: Path
    expectation: Literal["good", "refused"]
    reason_contains: str = ""
    note_contains: str = ""
    kind: Literal["artwork", "track", ""] = ""


def picture(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    """A small RGB picture: red in its top-left corner, blue at the bottom right, some texture."""
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 120, (height, width, 3)).astype(np.uint8)
    pixels[: height // 2, : width // 2] = (220, 30 + seed % 60, 30)
    pixels[height // 2 :, width // 2 :] = (30, 30, 220)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The picture in a format of Pillow's."""
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def tone(seconds: float = 2.0, rate: int = 16_000, channels: int = 1, hertz: float = 440.0) -> NDArray[np.float32]:
    """A sine at half of full scale, float32 [samples, channels]."""
    time = np.arange(int(seconds * rate)) / rate
    return np.repeat((0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[:, None], channels, axis=1)


def sound(samples: NDArray[np.float32], rate: int, form: str, subtype: str | None = None) -> bytes:
    """The samples in a format of libsndfile's."""
    target = io.BytesIO()
    soundfile.write(target, samples, rate, format=form, subtype=subtype)
    return target.getvalue()


def m4a(samples: NDArray[np.float32], rate: int = 44_100, *, film: bool = False, fast: bool = False) -> bytes:
    """AAC in MP4; with `film`, pictures beside it (without samples: only pictures)."""
    import av

    # A real file: to move the table to the front it is read again.
    file = tempfile.NamedTemporaryFile(suffix=".m4a")  # noqa: SIM115 - closed, and so deleted, below
    options = {"movflags": "faststart"} if fast else {}
    with av.open(file.name, "w", format="mp4" if film else "ipod", options=options) as container:
        video = container.add_stream("mpeg4", rate=10) if film else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        audio = container.add_stream("aac", rate=rate) if len(samples) else None
        if audio is not None:
            audio.layout = layout
        for number in range(10 if film else 0):
            assert video is not None
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 20, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode(None))
        for start in range(0, len(samples), 1024) if audio is not None else ():
            assert audio is not None
            block = np.ascontiguousarray(samples[start : start + 1024].T)
            sounding = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            sounding.rate, sounding.pts = rate, start
            container.mux(audio.encode(sounding))
        if audio is not None:
            container.mux(audio.encode(None))
    with file:
        return Path(file.name).read_bytes()


def png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 0) -> bytes:
    """A PNG from its chunks, also one that lies: IHDR, the given chunks, `data` as IDAT, IEND."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunk(*each) for each in chunks)
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory at byte 8: (tag, type, count, value or offset), then `data`."""
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *each) for each in sorted(entries))
    return b"II*\x00" + struct.pack("<I", 8) + body + struct.pack("<I", following) + data


def _wav_header(data_bytes: int, rate: int = 16_000, channels: int = 1, bits: int = 16) -> bytes:
    step = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * step & 0xFFFFFFFF, step & 0xFFFF, bits)
    riff = b"RIFF" + struct.pack("<I", data_bytes + 36) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return riff + b"data" + struct.pack("<I", data_bytes)


def _smashed(content: bytes, start: float, stop: float, seed: int = 7) -> bytes:
    """The content with random bytes between two shares of its length."""
    begin, end = int(len(content) * start), int(len(content) * stop)
    return content[:begin] + np.random.default_rng(seed).bytes(end - begin) + content[end:]


def make_corpus(folder: Path) -> list[Case]:
    """Make all cases in an existing folder, in about three seconds; needs about 40 MB of disk."""
    cases: list[Case] = []

    def refused(what: str, file: str, content: bytes | None, reason: str) -> None:
        path = folder / file
        if content is not None:
            path.write_bytes(content)
        cases.append(Case(what, path, "refused", reason_contains=reason))

    def good(what: str, file: str, content: bytes, kind: Literal["artwork", "track"], note: str = "") -> None:
        path = folder / file
        path.write_bytes(content)
        cases.append(Case(what, path, "good", note_contains=note, kind=kind))

    _odd_pictures(good, refused)
    _odd_sounds(good, refused, folder)
    _not_media(refused)
    _odd_files(good, refused, folder)
    return cases


def _odd_pictures(good: Any, refused: Any) -> None:
    plain = picture()
    jpeg = encoded(plain, "JPEG", quality=90)
    png_plain = encoded(plain, "PNG")
    # Cut off, damaged
    refused("JPEG cut in its header", "cut-header.jpg", jpeg[:40], "cannot be decoded")
    refused("JPEG cut in the middle", "cut-middle.jpg", jpeg[: len(jpeg) // 2], "ends before the picture does")
    refused("PNG cut in the middle", "cut-middle.png", png_plain[: len(png_plain) // 2], "cannot be decoded")
    refused("PNG cut after its signature", "cut-signature.png", png_plain[:8], "cannot be decoded")
    refused("WebP cut in the middle", "cut.webp", encoded(plain, "WEBP")[:900], "cannot be decoded")
    gif = encoded(plain, "GIF")
    refused("GIF cut in the middle", "cut.gif", gif[: len(gif) // 2], "cannot be decoded")
    tiff_plain = encoded(plain, "TIFF")
    refused("TIFF cut in the middle", "cut.tif", tiff_plain[: len(tiff_plain) // 2], "cannot be decoded")
    refused("PNG with damaged pixels", "smashed.png", _smashed(png_plain, 0.3, 0.7), "cannot be decoded")
    # Names that lie
    good("PNG named .jpg", "really-a-png.jpg", encoded(picture(seed=1), "PNG"), "artwork", "named .jpg but holds PNG")
    good(
        "JPEG named .wav",
        "really-a-jpeg.wav",
        encoded(picture(seed=2), "JPEG"),
        "artwork",
        "named .wav but holds JPEG",
    )
    good("JPEG without extension", "no-extension", encoded(picture(seed=3), "JPEG"), "artwork")
    # Too small, too thin, too large
    refused("1x1 picture", "one.png", encoded(picture(1, 1), "PNG"), "too small")
    refused("1xN stripe", "stripe.png", encoded(picture(1, 500), "PNG"), "too small")
    refused("thin stripe", "ribbon.png", encoded(picture(2000, 20), "PNG"), "stripe")
    good("handscroll", "handscroll.jpg", encoded(picture(2400, 100), "JPEG"), "artwork")
    refused("40,000x40,000 PNG bomb", "bomb.png", png(40_000, 40_000, zlib.compress(bytes(1000))), "megapixels")
    refused("PNG as large as numbers go", "largest.png", png(2**31 - 1, 2**31 - 1, b""), "megapixels")
    rows = zlib.compressobj(1)
    packed = b"".join(rows.compress(bytes(8801)) for _ in range(8800)) + rows.flush()
    good("77 megapixels in few bytes", "huge-but-allowed.png", png(8800, 8800, packed), "artwork")
    screen = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    gif_bomb = screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;"
    refused("GIF bomb of 65,535x65,535", "bomb.gif", gif_bomb, "megapixels")
    text_bomb = (b"zTXt", b"note\x00\x00" + zlib.compress(bytes(64_000_000), 9))
    refused(
        "PNG with a text bomb",
        "text-bomb.png",
        png(64, 64, zlib.compress(bytes(65 * 64)), text_bomb),
        "cannot be decoded",
    )
    # TIFF tricks
    square = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    place = 8 + 2 + 12 * 9 + 4
    strips = [*square, (273, 4, 1, place), (278, 4, 1, 64), (279, 4, 1, 4096)]
    pixels = bytes(range(256)) * 16
    good("TIFF whose directories run in a circle", "circle.tif", tiff(strips, pixels, following=8), "artwork")
    refused(
        "TIFF whose directory lies beyond the end",
        "beyond.tif",
        b"II*\x00" + struct.pack("<I", 10**9),
        "cannot be decoded",
    )
    beyond = [*square, (273, 4, 1, 10**9), (278, 4, 1, 64), (279, 4, 1, 4096)]
    refused("TIFF whose pixels lie beyond the end", "far-strip.tif", tiff(beyond, pixels), "cannot be decoded")
    many = [each if each[0] != 277 else (277, 3, 1, 65535) for each in strips]
    refused("TIFF of 65,535 channels", "channels.tif", tiff(many, pixels), "cannot be decoded")
    wide = [(256, 4, 1, 4_000_000_000), (257, 4, 1, 4_000_000_000), *strips[2:]]
    refused("TIFF of 4 thousand million pixels a side", "wide.tif", tiff(wide, pixels), "megapixels")
    pages = encoded(plain, "TIFF", save_all=True, append_images=[plain] * 3)
    good("TIFF of four pages", "pages.tif", pages, "artwork", "first of 4 pages")
    # Colours
    good("CMYK JPEG", "cmyk.jpg", encoded(plain.convert("CMYK"), "JPEG"), "artwork", "CMYK to sRGB")
    good("CMYK TIFF", "cmyk.tif", encoded(plain.convert("CMYK"), "TIFF"), "artwork", "CMYK to sRGB")
    grey = np.linspace(0, 65535, 160 * 120).reshape(120, 160).astype(np.uint16)
    good("16-bit PNG", "deep.png", encoded(Image.fromarray(grey), "PNG"), "artwork")
    good("16-bit TIFF", "deep.tif", encoded(Image.fromarray(grey), "TIFF"), "artwork")
    broken_grey = (grey / 65535).astype(np.float32)
    broken_grey[3, 4:9] = np.nan
    good("float TIFF with NaN", "float.tif", encoded(Image.fromarray(broken_grey), "TIFF"), "artwork")
    good("1-bit PNG", "bits.png", encoded(plain.convert("1"), "PNG"), "artwork")
    palette = plain.convert("P", palette=Image.Palette.ADAPTIVE)
    good(
        "palette with transparency",
        "palette.png",
        encoded(palette, "PNG", transparency=0),
        "artwork",
        "laid on white",
    )
    glass = plain.convert("RGBA")
    glass.putalpha(Image.linear_gradient("L").resize(glass.size))
    good("PNG with alpha", "alpha.png", encoded(glass, "PNG"), "artwork", "laid on white")
    good("Lab TIFF", "lab.tif", encoded(_lab(plain), "TIFF"), "artwork")
    good(
        "broken ICC profile",
        "icc.jpg",
        encoded(plain, "JPEG", icc_profile=b"no profile" * 40),
        "artwork",
        "colour profile",
    )
    grey_profile = encoded(
        plain, "JPEG", quality=89, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    )
    good("ICC profile of another colour model", "icc-lab.jpg", grey_profile, "artwork", "colour profile")
    # Movement, direction
    others = [picture(seed=seed) for seed in range(3, 8)]
    good(
        "animated GIF",
        "animated.gif",
        encoded(plain, "GIF", save_all=True, append_images=others),
        "artwork",
        "first of 6 frames",
    )
    webp = encoded(plain, "WEBP", save_all=True, append_images=others)
    good("animated WebP", "animated.webp", webp, "artwork", "first of 6 frames")
    for direction in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = direction
        note = "turned upright" if direction > 1 else ""
        good(
            f"EXIF direction {direction}",
            f"exif-{direction}.jpg",
            encoded(picture(seed=20), "JPEG", exif=exif),
            "artwork",
            note,
        )
    exif = Image.Exif()
    exif[ORIENTATION] = 99
    good("EXIF direction that does not exist", "exif-99.jpg", encoded(picture(seed=21), "JPEG", exif=exif), "artwork")
    good(
        "EXIF that is noise",
        "exif-noise.jpg",
        encoded(picture(seed=22), "JPEG", exif=b"Exif\x00\x00II*\x00" + bytes(range(200))),
        "artwork",
    )
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    good("huge EXIF", "exif-huge.jpg", encoded(picture(seed=23), "JPEG", exif=exif), "artwork")


def _lab(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def _odd_sounds(good: Any, refused: Any, folder: Path) -> None:
    # Too short, too long, silent
    refused("0.1 s track", "blink.wav", sound(tone(0.1), 16_000, "WAV"), "too short")
    refused("WAV without a sample", "nothing.wav", _wav_header(0), "holds no sound")
    good("silent track", "silent.wav", sound(tone(1.0) * 0, 16_000, "WAV"), "track", "silent throughout")
    hours = folder / "three-hours.flac"
    with soundfile.SoundFile(hours, "w", samplerate=8000, channels=1, format="FLAC", subtype="PCM_16") as sink:
        minute = np.zeros(8000 * 60, np.int16)
        for _ in range(180):
            sink.write(minute)
    refused("3-hour track", hours.name, None, "hours")
    second = sound(tone(1.0, 8000) * 0, 8000, "MP3")
    frame = second[len(second) // 2 :]
    frame = frame[frame.index(b"\xff\xe3") :]
    step = frame.index(b"\xff\xe3", 4)
    # One frame of MPEG 2.5 lasts 576 samples.
    refused(
        "MP3 of more than two hours, of one frame again and again",
        "endless.mp3",
        frame[:step] * (int(7300 * 8000 / 576)),
        "hours",
    )
    # Samples
    for count, what in ((3, "a few"), (12_000, "many")):
        samples = tone(2.0, hertz=441.0 + count)
        samples[1000 : 1000 + count] = np.nan
        samples[900] = np.inf
        content = sound(samples, 16_000, "WAV", "FLOAT")
        if count == 3:
            good(f"WAV with {what} NaN samples", "nan-few.wav", content, "track", "4 broken samples set to 0")
        else:
            refused(f"WAV with {what} NaN samples", "nan-many.wav", content, "not numbers")
    good("WAV far beyond full scale", "loud.wav", sound(tone() * 1e20, 16_000, "WAV", "FLOAT"), "track", "clipped")
    good("8 channels", "eight.wav", sound(tone(channels=8), 16_000, "WAV"), "track")
    good("192 kHz", "fast.flac", sound(tone(1.0, 192_000), 192_000, "FLAC"), "track")
    good("8-bit WAV", "eight-bit.wav", sound(tone(hertz=300.0), 11_025, "WAV", "PCM_U8"), "track")
    good("24-bit FLAC", "deep.flac", sound(tone(), 48_000, "FLAC", "PCM_24"), "track")
    good("Opus", "voice.opus", sound(tone(2.0, 48_000, 2), 48_000, "OGG", "OPUS"), "track")
    refused("WAV of 3 Hz", "slow.wav", _wav_header(8000, rate=3) + bytes(8000), "sample rate of 3 hz")
    refused("WAV of 65,535 channels", "wide.wav", _wav_header(8000, channels=65535) + bytes(8000), "")
    refused(
        "WAV of an unknown codec",
        "codec.wav",
        sound(tone(), 16_000, "WAV").replace(b"fmt \x10\0\0\0\x01\0", b"fmt \x10\0\0\0\x99\x77"),
        "codec",
    )
    # Cut off, damaged, lying
    wav = sound(tone(hertz=500.0), 16_000, "WAV")
    good("WAV cut off", "cut.wav", wav[: len(wav) // 2], "track", "the header speaks of")
    good(
        "WAV whose header says 2 GB",
        "lying.wav",
        _wav_header(2_000_000_000) + wav[44:],
        "track",
        "the header speaks of",
    )
    refused("WAV cut in its header", "cut-header.wav", wav[:30], "cannot be decoded")
    noise = (np.random.default_rng(5).standard_normal((96_000, 1)) * 0.1).astype(np.float32)
    for form, file in (("FLAC", "cut.flac"), ("OGG", "cut.ogg")):
        content = sound(noise, 16_000, form)
        good(
            f"{form} cut off", file, content[: len(content) // 2], "track", "could be read" if form == "FLAC" else ""
        )
        refused(f"{form} cut in its header", f"header-{file}", content[:40], "cannot be decoded")
    smashed = _smashed(sound(noise, 16_000, "FLAC"), 0.5, 0.6)
    good("FLAC with damaged frames", "smashed.flac", smashed, "track", "could be read")
    mp3 = sound(tone(4.0, 44_100, 2), 44_100, "MP3")
    good("MP3 with damaged frames", "smashed.mp3", _smashed(mp3, 0.4, 0.5), "track")
    good("MP3 cut off", "cut.mp3", mp3[: len(mp3) // 2 + 11], "track")
    tag = b"ID3\x04\x00\x00" + bytes((0, 0, 8, 0)) + b"TIT2" + bytes(1020)
    good(
        "MP3 with an ID3 tag and garbage before the sound",
        "tagged.mp3",
        tag + bytes(range(48, 120)) * 5 + mp3,
        "track",
    )
    good("MP3 with garbage behind the sound", "tailed.mp3", mp3 + b"TAG" + bytes(125) + os.urandom(3000), "track")
    refused("ID3 tag and nothing behind it", "only-a-tag.mp3", tag, "cannot be decoded")
    track = tone(3.0, 44_100, 2)
    good("M4A", "song.m4a", m4a(track), "track")
    good("M4A with its table first", "fast.m4a", m4a(track[:, :1], fast=True), "track")
    good(
        "M4A with its table first, cut off",
        "cut-fast.m4a",
        _half(m4a(track * 0.5, fast=True)),
        "track",
        "could be read",
    )
    refused("M4A with its table last, cut off", "cut.m4a", _half(m4a(track)), "table of contents")
    refused("M4A in six channels", "six.m4a", m4a(tone(1.0, 48_000, 6), 48_000), "channels")
    good("film with sound", "film.mp4", m4a(track, film=True), "track", "film")
    refused("film without sound", "mute.mp4", m4a(track[:0], film=True), "no sound")


def _half(content: bytes) -> bytes:
    return content[: len(content) * 6 // 10]


def _not_media(refused: Any) -> None:
    refused("empty file", "empty.jpg", b"", "empty")
    refused("text named .jpg", "text.jpg", b"Dear curator,\nplease find the picture enclosed.\n" * 20, "a text")
    refused("UTF-16 text named .mp3", "text.mp3", "Dear curator, nothing to hear.\n".encode("utf-16") * 20, "a text")
    refused("zeros named .wav", "zeros.wav", bytes(5000), "zeros")
    refused("noise named .png", "noise.png", b"\x93" + np.random.default_rng(1).bytes(5000), "unknown kind")
    refused(
        "SVG with a script",
        "drawing.svg",
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "svg",
    )
    refused("web page named .gif", "page.gif", b"<!DOCTYPE html><html><body>404</body></html>", "web page")
    refused("HEIC", "photo.heic", struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100), "heic")
    refused("AVIF named .jpg", "photo.jpg", encoded(picture(), "AVIF"), "avif")
    refused(
        "MIDI",
        "notes.mid",
        b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", 4) + b"\x00\xff\x2f\x00",
        "midi",
    )
    refused("PDF", "poster.pdf", b"%PDF-1.7\n" + bytes(200), "pdf")
    refused("BMP", "old.bmp", encoded(picture(), "BMP"), "bmp")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(50_000_000))
    refused("ZIP bomb named .flac", "archive.flac", bomb.getvalue(), "zip archive")


def _odd_files(good: Any, refused: Any, folder: Path) -> None:
    (folder / "folder.jpg").mkdir()
    refused("folder named .jpg", "folder.jpg", None, "a folder")
    os.mkfifo(folder / "pipe.wav")
    refused("pipe named .wav", "pipe.wav", None, "a pipe")
    (folder / "device.png").symlink_to("/dev/zero")
    refused("link to an endless device", "device.png", None, "a pipe, socket or device")
    (folder / "circle-a.jpg").symlink_to("circle-b.jpg")
    (folder / "circle-b.jpg").symlink_to("circle-a.jpg")
    refused("links in a circle", "circle-a.jpg", None, "in a circle")
    (folder / "dangling.jpg").symlink_to("gone.jpg")
    refused("link to nothing", "dangling.jpg", None, "no such file")
    refused("file that is not there", "missing.jpg", None, "no such file")
    refused("name of 300 characters", "n" * 300 + ".jpg", None, "name is longer")
    secret = folder / "secret.jpg"
    secret.write_bytes(encoded(picture(seed=30), "JPEG"))
    secret.chmod(0)
    if os.geteuid() == 0:  # rights do not bind root
        good("file without rights", "secret.jpg", encoded(picture(seed=30), "JPEG"), "artwork")
    else:
        refused("file without rights", "secret.jpg", None, "may not be read")
    names = {
        "newline": "two\nlines.jpg",
        "quotes": 'it\'s "quoted" `here`.jpg',
        "emoji": "🎻 violín — скрипка.jpg",
        "leading dash": "-rf.jpg",
        "dots": "..up..and..away.jpg",
        "backslashes": "..\\..\\windows.jpg",
        "a shell's own signs": "$(touch x);&|*?.jpg",
        "spaces": "   .jpg",
        "percent signs": "%s%n%2e%2e%2f.jpg",
        "255 bytes": "ü" * 125 + "l.jpg",
        "right-to-left mark": "picture\u202egpj.jpg",
    }
    for number, (what, file) in enumerate(names.items()):
        good(f"name with {what}", file, encoded(picture(seed=40 + number), "JPEG"), "artwork")
    raw = Path(os.fsdecode(os.fsencode(folder) + b"/latin-\xe9t\xe9.jpg"))
    good("name that is not UTF-8", raw.name, encoded(picture(seed=60), "JPEG"), "artwork")
    (folder / "link.jpg").symlink_to("-rf.jpg")
    good("the same bytes again", "twin.jpg", encoded(picture(seed=20), "JPEG"), "artwork")
    good("the same bytes a third time", "twin again.jpg", encoded(picture(seed=20), "JPEG"), "artwork")
