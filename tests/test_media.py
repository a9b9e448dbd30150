"""Decoding and cutting: formats, colours, levels, limits, children that die, hang or idle, and the five parts.

Bad input has its own file, test_bad_media.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from PIL import Image, ImageCms

from schemas.failures import Lasting
from schemas.media import SAMPLE_RATE, Kind
from tests.bad_corpus import encoded, m4a, picture, sound, tone
from workers.media import sounds
from workers.media.detect import EXTENSIONS, PICTURES, SOUNDS, SUPPORTED, detect, mismatch
from workers.media.limits import Limits
from workers.media.parts import WINDOW_SAMPLES, picture_parts, sound_parts, sound_spans
from workers.media.pool import DecoderPool, Prepared


async def prepared(original: bytes | Path, limits: Limits | None = None) -> Prepared:
    async with DecoderPool(limits, workers=1) as pool:
        return await pool.prepare(original)


def pixels(prepared: Prepared) -> np.ndarray:
    shown: np.ndarray = np.asarray(Image.open(io.BytesIO(prepared.rendition)).convert("RGB")).astype(int)
    return shown


def heard(prepared: Prepared) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(prepared.rendition), dtype="float32")
    assert rate == SAMPLE_RATE == sounds.RATE
    return np.asarray(samples)


def loudest_hertz(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize("form", PICTURES)
async def test_each_picture_format_is_read(form: str) -> None:
    content = encoded(picture(300, 200), form)
    result = await prepared(content)
    assert (result.kind, result.facts.format, result.rendition_name) == (Kind.ARTWORK, form, "picture.jpg")
    assert (result.facts.width, result.facts.height, result.facts.byte_count) == (300, 200, len(content))
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert result.item == f"artwork-{result.sha256}"
    shown = pixels(result)
    assert shown.shape == (200, 300, 3)
    assert np.abs(shown[40, 40] - (220, 30, 30)).max() < 25
    assert np.abs(shown[160, 260] - (30, 30, 220)).max() < 25


SOUND_FILES = {
    "WAV": lambda: sound(tone(3.0, 44_100, 2), 44_100, "WAV"),
    "FLAC": lambda: sound(tone(3.0, 44_100, 2), 44_100, "FLAC"),
    "OGG": lambda: sound(tone(3.0, 44_100, 2), 44_100, "OGG", "VORBIS"),
    "OGG Opus": lambda: sound(tone(3.0, 48_000, 2), 48_000, "OGG", "OPUS"),
    "MP3": lambda: sound(tone(3.0, 44_100, 2), 44_100, "MP3"),
    "M4A": lambda: m4a(tone(3.0, 44_100, 2)),
}


@pytest.mark.parametrize("form", SOUND_FILES)
async def test_each_sound_format_is_read(form: str) -> None:
    result = await prepared(SOUND_FILES[form]())
    assert (result.kind, result.facts.format, result.rendition_name) == (Kind.TRACK, form.split()[0], "sound.flac")
    assert result.facts.channels == 2
    assert result.facts.seconds == pytest.approx(3.0, abs=0.06)
    samples = heard(result)
    assert len(samples) == pytest.approx(3.0 * SAMPLE_RATE, abs=0.06 * SAMPLE_RATE)
    middle = samples[SAMPLE_RATE : 2 * SAMPLE_RATE]
    assert loudest_hertz(middle) == pytest.approx(440, abs=1)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


async def test_long_m4a_has_no_seams_between_its_stretches() -> None:
    # 40 s are decoded in two stretches; a seam would be a click, heard as a jump of the sine's second difference.
    result = await prepared(m4a(tone(40.0, 44_100, 1, hertz=200.0)))
    samples = heard(result)[SAMPLE_RATE:-SAMPLE_RATE]
    curve = np.abs(np.diff(samples, 2))
    expected = 0.5 * (2 * np.pi * 200 / SAMPLE_RATE) ** 2
    assert curve.max() < 2 * expected
    assert loudest_hertz(samples) == pytest.approx(200, abs=0.5)


async def test_channels_are_mixed_by_their_mean() -> None:
    samples = tone(1.0, channels=4) * np.array([1.0, 0.5, 0.0, 0.5], np.float32)
    result = await prepared(sound(samples, SAMPLE_RATE, "WAV"))
    assert np.abs(heard(result)).max() == pytest.approx(0.25, abs=0.001)


async def test_profile_colours_become_srgb() -> None:
    # A profile of linear light: what it calls dark is brighter in sRGB.
    linear = _linear_profile()
    grey = Image.new("RGB", (64, 64), (55, 55, 55))
    result = await prepared(encoded(grey, "PNG", icc_profile=linear))
    assert result.facts.notes == ()
    assert pixels(result).mean() == pytest.approx(128, abs=4)  # 255 * (1.055 (55/255)^(1/2.4) - 0.055)


def _linear_profile() -> bytes:
    """The sRGB profile with its three curves replaced by gamma 1 (ICC.1, 10.6: a curve of count 0)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for number in range(count):
        entry = 132 + 12 * number
        if bytes(profile[entry : entry + 4]) in (b"rTRC", b"gTRC", b"bTRC"):
            place = int.from_bytes(profile[entry + 4 : entry + 8], "big")
            profile[place : place + 12] = b"curv" + bytes(8)
            profile[entry + 8 : entry + 12] = (12).to_bytes(4, "big")
    return bytes(profile)


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("direction", range(1, 9))
async def test_pictures_are_turned_upright(form: str, direction: int) -> None:
    upright = picture(120, 80)
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[direction]
    exif = Image.Exif()
    exif[0x0112] = direction
    result = await prepared(encoded(upright if back is None else upright.transpose(back), form, exif=exif))
    assert (result.facts.width, result.facts.height) == (120, 80)
    shown = pixels(result)
    assert np.abs(shown[20, 30] - (220, 30, 30)).max() < 30
    assert np.abs(shown[60, 90] - (30, 30, 220)).max() < 30


async def test_renditions_are_at_most_1024_pixels_a_side() -> None:
    result = await prepared(encoded(picture(3000, 1500), "JPEG"))
    assert pixels(result).shape == (512, 1024, 3)
    assert (result.facts.width, result.facts.height) == (3000, 1500)


async def test_transparency_lies_on_white() -> None:
    glass = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert pixels(await prepared(encoded(glass, "PNG"))).min() >= 254


async def test_sixteen_bits_keep_their_scale() -> None:
    grey = Image.fromarray(np.full((40, 40), 32768, np.uint16))
    assert pixels(await prepared(encoded(grey, "PNG"))).mean() == pytest.approx(128, abs=1)


async def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    content = sound(tone(), SAMPLE_RATE, "FLAC")
    (tmp_path / "tone.flac").write_bytes(content)
    assert await prepared(tmp_path / "tone.flac") == await prepared(content)


async def test_files_larger_than_the_limit_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(encoded(picture(), "PNG"))
    os.truncate(large, Limits().maximum_bytes + 1)
    with pytest.raises(Lasting, match="more than 200"):
        await prepared(large)
    with pytest.raises(Lasting, match="MiB"):
        await prepared(bytes(2000), Limits(maximum_bytes=1000))


async def test_a_picture_beyond_the_memory_limit_is_refused_and_the_pool_goes_on() -> None:
    # 200 MiB of addresses hold the interpreter and its libraries, but not 60 megapixels as well.
    limits = Limits(memory_bytes=200 * 2**20)
    async with DecoderPool(limits, workers=1) as pool:
        with pytest.raises(Lasting, match="memory"):
            await pool.prepare(encoded(Image.new("RGB", (10_000, 6000)), "PNG", compress_level=1))
        assert (await pool.prepare(encoded(picture(), "PNG"))).kind is Kind.ARTWORK


async def test_a_file_beyond_the_processor_limit_is_refused_and_the_pool_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "noise.flac"
    noise = np.random.default_rng(0).integers(-9000, 9000, 48_000 * 60).astype(np.int16)
    with soundfile.SoundFile(path, "w", 48_000, 1, format="FLAC") as sink:
        for _ in range(20):
            sink.write(noise)
    async with DecoderPool(Limits(processor_seconds=0), workers=1) as pool:
        with pytest.raises(Lasting, match="processor time"):
            await pool.prepare(path)
        assert (await pool.prepare(encoded(picture(), "PNG"))).kind is Kind.ARTWORK


async def test_a_child_that_hangs_is_stopped_and_the_pool_goes_on() -> None:
    async with DecoderPool(Limits(wall_seconds=2.0), workers=1) as pool:
        await pool.prepare(encoded(picture(), "PNG"))
        os.kill(pool.processes()[0], signal.SIGSTOP)
        with pytest.raises(Lasting, match="took more than 2 s"):
            await pool.prepare(encoded(picture(), "PNG"))
        assert (await pool.prepare(encoded(picture(), "PNG"))).kind is Kind.ARTWORK


async def test_a_child_killed_from_outside_is_replaced_without_anyone_noticing() -> None:
    async with DecoderPool(workers=1) as pool:
        await pool.prepare(encoded(picture(), "PNG"))
        (victim,) = pool.processes()
        os.kill(victim, signal.SIGKILL)
        assert (await pool.prepare(encoded(picture(), "PNG"))).kind is Kind.ARTWORK
        assert pool.processes() != [victim]


async def test_a_cancelled_caller_leaves_a_pool_that_works() -> None:
    async with DecoderPool(workers=1) as pool:
        task = asyncio.create_task(pool.prepare(encoded(picture(4000, 4000), "PNG", compress_level=1)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = await pool.prepare(encoded(picture(50, 40), "PNG"))
        assert (result.facts.width, result.facts.height) == (50, 40)


async def test_idle_children_are_let_go() -> None:
    async with DecoderPool(workers=1, idle_seconds=0.05) as pool:
        await pool.prepare(encoded(picture(), "PNG"))
        (child,) = pool.processes()
        for _ in range(100):
            if not psutil.pid_exists(child):
                break
            await asyncio.sleep(0.05)
        assert not psutil.pid_exists(child)
        assert pool.processes() == []


async def test_idle_children_are_small() -> None:
    async with DecoderPool(workers=1) as pool:
        await pool.prepare(encoded(picture(), "PNG"))
        await pool.prepare(sound(tone(), SAMPLE_RATE, "WAV"))
        assert psutil.Process(pool.processes()[0]).memory_info().rss < 100 * 2**20


async def test_children_die_with_their_parent() -> None:
    program = (
        "import asyncio, sys\n"
        "from tests.bad_corpus import encoded, picture\n"
        "from workers.media.pool import DecoderPool\n"
        "async def main():\n"
        "    pool = DecoderPool(workers=1)\n"
        "    await pool.prepare(encoded(picture(), 'PNG'))\n"
        "    print(pool.processes()[0], flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    os.kill(child, signal.SIGSTOP)  # it cannot see the end of its input; only the kernel can end it
    parent.kill()
    await parent.wait()
    for _ in range(100):
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def test_every_supported_format_has_extensions_and_is_named_to_people() -> None:
    assert set(EXTENSIONS) == {*PICTURES, *SOUNDS}
    for form in EXTENSIONS:
        assert form.lower() in SUPPORTED.lower()
        assert mismatch("name" + EXTENSIONS[form][0].upper(), form) is None
    assert mismatch("a.mp3", "JPEG") == "named .mp3 but holds JPEG"
    assert detect(b"\xff\xd8\xff\xe0") == "JPEG"


def test_fragments_keep_their_pixels_and_the_whole_is_the_rendition() -> None:
    rendition = encoded(picture(161, 121), "JPEG", quality=95, subsampling=0)
    parts = picture_parts(rendition)
    assert parts[4] == rendition
    opened = [np.asarray(Image.open(io.BytesIO(part))).astype(int) for part in parts]
    assert [each.shape[:2] for each in opened[:4]] == [(60, 80), (60, 81), (61, 80), (61, 81)]
    joined = np.vstack([np.hstack(opened[:2]), np.hstack(opened[2:4])])
    assert np.abs(joined - opened[4]).mean() < 1.5


@pytest.mark.parametrize("samples", [6400, 480_000, 480_001, 1_920_000, 1_920_003, 115_200_000])
def test_windows_follow_the_stated_formulas(samples: int) -> None:
    spans = sound_spans(samples)
    assert [len(each) for each in spans[:4]] == [1, 1, 1, 1]
    assert 1 <= len(spans[4]) <= 4
    for part in spans:
        for start, stop in part:
            assert 0 <= start < stop <= samples
            assert stop - start <= WINDOW_SAMPLES
    for number, ((start, stop),) in enumerate(spans[:4]):
        begin, end = number * samples // 4, (number + 1) * samples // 4
        assert abs((start - begin) - (end - stop)) <= 1
    assert spans[4][0][0] == 0
    assert spans[4][-1][1] == samples
    if samples <= 4 * WINDOW_SAMPLES:
        assert all(before[1] == after[0] for before, after in zip(spans[4], spans[4][1:], strict=False))


@pytest.mark.parametrize("seconds", [2.0, 70.0, 200.0])
def test_sound_parts_hold_what_the_spans_say(seconds: float) -> None:
    ramp = np.linspace(-0.9, 0.9, int(seconds * SAMPLE_RATE)).astype(np.float32)[:, None]
    parts = sound_parts(sound(ramp, SAMPLE_RATE, "FLAC", "PCM_16"))
    assert len(parts) == 5
    for part, spans in zip(parts, sound_spans(len(ramp)), strict=True):
        assert part.windows.dtype == np.float32 and part.lengths.dtype == np.int32
        assert part.windows.shape == (len(spans), max(part.lengths))
        for row, (start, stop) in enumerate(spans):
            assert part.lengths[row] == stop - start
            assert np.abs(part.windows[row, : stop - start] - ramp[start:stop, 0]).max() < 1e-4
            assert not part.windows[row, stop - start :].any()


@pytest.mark.parametrize("broken", [b"", b"nothing", encoded(picture(), "JPEG")[:900], encoded(picture(), "PNG")])
def test_broken_picture_renditions_are_refused(broken: bytes) -> None:
    with pytest.raises(Lasting, match="rendition is broken"):
        picture_parts(broken)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"nothing",
        sound(tone(), 44_100, "FLAC"),
        sound(tone(channels=2), SAMPLE_RATE, "FLAC"),
        sound(tone(), SAMPLE_RATE, "WAV"),
        sound(np.random.default_rng(0).uniform(-1, 1, (90_000, 1)).astype(np.float32), SAMPLE_RATE, "FLAC")[:60_000],
    ],
)
def test_broken_sound_renditions_are_refused(broken: bytes) -> None:
    with pytest.raises(Lasting, match="rendition is broken"):
        sound_parts(broken)


@pytest.mark.parametrize("form", SOUND_FILES)
async def test_a_listening_copy_is_opus_that_sounds_like_the_original(form: str) -> None:
    async with DecoderPool(workers=1) as pool:
        copy = await pool.listening_copy(SOUND_FILES[form](), 60.0)
    with soundfile.SoundFile(io.BytesIO(copy)) as sound_file:
        assert (sound_file.format, sound_file.subtype) == ("OGG", "OPUS")
        assert (sound_file.samplerate, sound_file.channels) == (sounds.LISTENING_RATE, 2)
        samples = sound_file.read()
    assert len(samples) == pytest.approx(3.0 * sounds.LISTENING_RATE, abs=0.06 * sounds.LISTENING_RATE)
    middle = samples[sounds.LISTENING_RATE : 2 * sounds.LISTENING_RATE, 1]
    assert float(np.abs(np.fft.rfft(middle)).argmax()) == pytest.approx(440, abs=1)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


async def test_a_listening_copy_ends_where_it_is_told_to_and_mixes_many_channels() -> None:
    six = tone(3.0, SAMPLE_RATE, 6) * np.array([1.0, 0, 0, 0, 0.5, 0], np.float32)
    async with DecoderPool(workers=1) as pool:
        samples, _ = soundfile.read(io.BytesIO(await pool.listening_copy(sound(six, SAMPLE_RATE, "WAV"), 1.5)))
        assert samples.shape == (pytest.approx(1.5 * sounds.LISTENING_RATE, rel=0.01), 2)
        middle = samples[len(samples) // 4 : len(samples) // 2]
        assert np.abs(middle).max(axis=0) == pytest.approx([0.125, 0.125], rel=0.1)
        with pytest.raises(Lasting, match="picture"):
            await pool.listening_copy(encoded(picture(100, 80), "PNG"), 1.5)
        with pytest.raises(Lasting):
            await pool.listening_copy(b"RIFF\x00\x00\x00\x00WAVEnothing", 1.5)
