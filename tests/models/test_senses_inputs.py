"""What the sensing networks are given equals what their published preparations compute, to 1e-4.

Those preparations are not installed (torchvision, torchaudio) or are (transformers' own): the former are written out
here in torch, as formulas, another way than in the product. Sounds and pictures are the samples where they were
fetched, and made ones otherwise.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from full_models import clap_inputs, imagebind_inputs, mmva_inputs, pictures
from full_models.export import TOKENIZERS, write_clip_tokenizer
from full_models.text_tokens import CONTEXT, ClipTokens, cleaned, pieces
from PIL import Image
from transformers import ClapFeatureExtractor, CLIPImageProcessorPil, Wav2Vec2FeatureExtractor

from networks import imagebind

SAMPLES = Path.home() / ".cache" / "promenade" / "samples"
TOLERANCE = 1e-4


def made_pictures() -> list[Any]:
    """Pictures of several shapes: soft colours, hard edges, noise."""
    random = np.random.default_rng(1)
    found = []
    for height, width in ((224, 224), (300, 451), (641, 227), (97, 130), (1024, 300)):
        rows, columns = np.mgrid[0:height, 0:width]
        soft = 127 + 120 * np.sin(rows / 31)[..., None] * np.cos(columns[..., None] / np.array([17, 23, 29]))
        hard = ((rows // 8 + columns // 8) % 2 * 60)[..., None]
        found.append(np.clip(soft - hard + random.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8))
    return found


def real_pictures() -> list[Any]:
    """The fetched samples, at most eight."""
    paths = sorted(path for kind in ("jpg", "webp") for path in SAMPLES.rglob(f"*.{kind}"))[:8]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def made_sounds() -> list[Any]:
    """30 s, 5 s and half a second at 16 kHz: chords with noise that swells, then silence."""
    random = np.random.default_rng(2)
    found = []
    for seconds in (30.0, 5.0, 0.5):
        time = np.arange(int(seconds * 16_000)) / 16_000
        tone = sum(np.sin(2 * np.pi * hertz * time) for hertz in (110.0, 277.2, 1318.5, 5000.0)) / 8
        noise = random.normal(0, 0.05, len(time)) * (1 + np.sin(2 * np.pi * time / 3)) / 2
        found.append(((tone + noise) * (time < 0.8 * seconds)).astype(np.float32))
    return found


def real_sounds() -> list[Any]:
    """Half a minute of three of the fetched samples."""
    found = []
    for path in sorted(SAMPLES.rglob("*.ogg"))[:3]:
        with soundfile.SoundFile(path) as file:
            samples = file.read(30 * file.samplerate, dtype="float32", always_2d=True).mean(axis=1)
            found.append(soxr.resample(samples, file.samplerate, 16_000)[: 30 * 16_000].astype(np.float32))
    return found


# -- pictures ----------------------------------------------------------------------------------------------


def resized(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pillow's bicubic resampling of 8-bit pixels as a formula: what torchvision's Resize does with a picture.

    Each output pixel is a weighted mean with the cubic kernel (a = -1/2) stretched by the scale, weights rounded to
    22 bits; columns first, rows second, each rounded and limited to 0-255.
    """

    def kernel(x: torch.Tensor) -> torch.Tensor:
        x = x.abs()
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))

    def along_columns(image: torch.Tensor, size: int) -> torch.Tensor:
        scale = image.shape[1] / size
        stretch = max(scale, 1.0)
        made = []
        for place in range(size):
            centre = (place + 0.5) * scale
            first = max(int(centre - 2 * stretch + 0.5), 0)
            last = min(int(centre + 2 * stretch + 0.5), image.shape[1])
            weights = kernel((torch.arange(first, last, dtype=torch.float64) - centre + 0.5) / stretch)
            weights = weights / weights.sum()
            fixed = (weights * (1 << 22)).abs().add(0.5).floor() * weights.sign()
            summed = torch.einsum("hwc,w->hc", image[:, first:last].double(), fixed) + (1 << 21)
            made.append(torch.div(summed, 1 << 22, rounding_mode="floor").clamp(0, 255))
        return torch.stack(made, dim=1)

    across = along_columns(pixels, width) if width != pixels.shape[1] else pixels.double()
    if height == pixels.shape[0]:
        return across
    return along_columns(across.transpose(0, 1), height).transpose(0, 1)


def reference_picture(pixels: Any) -> Any:
    """Resize(224, bicubic), CenterCrop(224), ToTensor, Normalize, as formulas."""
    height, width = pixels.shape[:2]
    short, long = min(height, width), max(height, width)
    scaled = int(224 * long / short)
    high, wide = (224, scaled) if height <= width else (scaled, 224)
    image = resized(torch.from_numpy(pixels.copy()), high, wide)
    top, left = round((high - 224) / 2.0), round((wide - 224) / 2.0)
    cut = image[top : top + 224, left : left + 224].permute(2, 0, 1) / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    spread = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    return ((cut - mean) / spread).numpy()


@pytest.mark.parametrize("pixels", [*made_pictures(), *real_pictures()[:3]], ids=lambda pixels: str(pixels.shape))
def test_a_picture_is_prepared_as_torchvision_would(pixels: Any) -> None:
    ours = pictures.normalised(pixels)
    assert (ours.shape, ours.dtype) == ((3, 224, 224), np.float32)
    np.testing.assert_allclose(ours, reference_picture(pixels), atol=TOLERANCE)


def test_a_picture_is_prepared_as_clips_own_processor_does() -> None:
    processor = CLIPImageProcessorPil()
    compared = 0
    for pixels in [*made_pictures(), *real_pictures()]:
        height, width = pixels.shape[:2]
        rest = 224 * max(height, width) // min(height, width) - 224
        if round(rest / 2) != rest // 2 or height > width:
            continue  # another rounding of the middle, another order of rows and columns: see full_models.pictures
        theirs = np.asarray(processor(images=Image.fromarray(pixels), return_tensors="np")["pixel_values"][0])
        np.testing.assert_allclose(pictures.normalised(pixels), theirs, atol=TOLERANCE)
        compared += 1
    assert compared >= 2


# -- sounds ------------------------------------------------------------------------------------------------


def kaldi(wave: torch.Tensor) -> torch.Tensor:
    """Kaldi's filter bank as torchaudio computes it with ImageBind's settings, as formulas: [128, frames]."""
    frames = wave.double().unfold(0, 400, 160)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.nn.functional.pad(frames[None], (1, 0), mode="replicate")[0][:, :-1]
    frames = (frames - 0.97 * previous) * torch.hann_window(400, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft(torch.nn.functional.pad(frames, (0, 112))).abs().square()

    def mel(hertz: torch.Tensor) -> torch.Tensor:
        return 1127.0 * (1.0 + hertz / 700.0).log()

    lowest, highest = mel(torch.tensor(20.0, dtype=torch.float64)), mel(torch.tensor(8000.0, dtype=torch.float64))
    step = (highest - lowest) / 129
    number = torch.arange(128, dtype=torch.float64).unsqueeze(1)
    left, centre, right = lowest + number * step, lowest + (number + 1) * step, lowest + (number + 2) * step
    at = mel(16_000 / 512 * torch.arange(256, dtype=torch.float64)).unsqueeze(0)
    rising, falling = (at - left) / (centre - left), (right - at) / (right - centre)
    banks = torch.nn.functional.pad(torch.max(torch.zeros(1), torch.min(rising, falling)), (0, 1))
    return (power @ banks.T).clamp(min=torch.finfo(torch.float32).eps).log().T


def reference_clip(clip: Any) -> Any:
    """One clip as ImageBind's published preparation gives it: [1, 128, 204]."""
    wave = torch.from_numpy(clip)
    bank = kaldi(wave - wave.mean()) if len(clip) >= 400 else torch.zeros(128, 0, dtype=torch.float64)
    filled = torch.nn.functional.pad(bank, (0, 204 - bank.shape[1])) if bank.shape[1] < 204 else bank[:, :204]
    return ((filled + 4.268) / 9.138).unsqueeze(0).numpy()


def test_a_sound_is_prepared_as_imagebind_would() -> None:
    for sound in [*made_sounds(), *real_sounds()]:
        ours = imagebind_inputs.audio_clips(sound)
        assert (ours.shape, ours.dtype) == ((3, 1, 128, 204), np.float32)
        for start, clip in zip(imagebind_inputs.clip_starts(len(sound)), ours, strict=True):
            np.testing.assert_allclose(clip, reference_clip(sound[start : start + 32_000]), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("clips", "seconds", "starts"),
    [
        ("ends", 30, (0, 14, 28)),
        ("thirds", 30, (0, 28 / 3, 56 / 3)),
        ("ends", 10, (0, 4, 8)),
        ("ends", 2, (0, 0, 0)),
        ("thirds", 1, (0, 0, 0)),
    ],
)
def test_clips_lie_where_either_version_of_the_library_puts_them(
    clips: Any, seconds: float, starts: tuple[float, ...]
) -> None:
    found = imagebind_inputs.clip_starts(int(seconds * 16_000), clips)
    assert np.allclose(np.array(found) / 16_000, starts, atol=1 / 16_000)


def test_an_unknown_way_of_cutting_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="ends, thirds"):
        imagebind_inputs.clip_starts(16_000, "middle")  # type: ignore[arg-type]


def test_a_sound_is_prepared_as_claps_own_extractor_does() -> None:
    extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad", frequency_min=50)
    for sound in [*made_sounds()[1:], *[each[: 9 * 16_000] for each in real_sounds()]]:
        samples = soxr.resample(sound, 16_000, 48_000).astype(np.float32)
        theirs = extractor(samples, sampling_rate=48_000, return_tensors="np")["input_features"][0]
        (clip,) = clap_inputs.clips_of(samples)
        np.testing.assert_allclose(clap_inputs.features(clip), theirs, atol=TOLERANCE)


@pytest.mark.parametrize("module", [clap_inputs, mmva_inputs])
def test_a_long_sound_is_heard_over_its_whole_length(module: Any) -> None:
    seconds = 27
    ramp = np.arange(seconds * module.SAMPLE_RATE, dtype=np.float32)
    clips = module.clips_of(ramp)
    assert len(clips) == math.ceil(seconds / 10)
    assert all(len(clip) == module.CLIP for clip in clips)
    if module is clap_inputs:
        assert (clips[0][0], clips[-1][-1]) == (0, ramp[-1])


def test_mmvas_clips_are_normalised_as_merts_own_extractor_does() -> None:
    extractor = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=24_000, do_normalize=True)
    sound = soxr.resample(made_sounds()[0][: 10 * 16_000], 16_000, 24_000).astype(np.float32)
    theirs = extractor(sound, sampling_rate=24_000, return_tensors="np")["input_values"][0]
    (clip,) = mmva_inputs.clips_of(sound)
    np.testing.assert_allclose(clip, theirs, atol=TOLERANCE)
    assert not mmva_inputs.normalised(np.zeros(10)).any()
    short = mmva_inputs.clips_of(sound[:100_000])[0]
    assert len(short) == mmva_inputs.CLIP
    assert np.allclose(short[:100_000], short[100_000:200_000])


# -- texts -------------------------------------------------------------------------------------------------

TEXTS = (
    "A calm river runs through a warm valley.",
    "It's the artist’s “Great Wave”, 1831 — déjà vu &amp; thunder!!",
    "  Many\n\nspaces\tand   LINES ",
    "音楽 and crème brûlée, 3½ cups; don't, we've, I'd, they'll",
    "x",
    "supercalifragilisticexpialidocious " * 30,
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ClipTokens:
    """The tokeniser as the export writes it, from the list of merges in ImageBind's package."""
    repository = tmp_path_factory.mktemp("repository") / "model_repository" / "full"
    (repository / "embed_text").mkdir(parents=True)
    (repository / "embed_text" / "config.pbtxt").write_text('name: "embed_text"')
    write_clip_tokenizer(repository, {})
    assert TOKENIZERS, "networks bring tokenisers of their own beside this one"
    return ClipTokens(repository / "embed_text" / "1" / "clip_tokenizer.json")


def test_texts_become_the_numbers_that_imagebinds_own_tokeniser_gives(tokens: ClipTokens) -> None:
    theirs = imagebind.tokeniser()
    for text in TEXTS:
        expected = theirs(text).numpy()
        numbers = tokens.numbers(text)
        ours = tokens.row(numbers)
        np.testing.assert_array_equal(ours, expected, err_msg=text)
    assert (tokens.start, tokens.end) == (49406, 49407)


def test_a_long_text_is_cut_at_sentences_and_nothing_of_it_is_lost(tokens: ClipTokens) -> None:
    def count(text: str) -> int:
        return len(tokens.numbers(text))

    text = "The sea is calm today. " * 20 + "A last word! " + "wave " * 100
    found = pieces(text, count, CONTEXT - 2)
    assert all(count(piece) <= CONTEXT - 2 for piece in found)
    assert " ".join(found).split() == text.split()
    assert all(piece.endswith((".", "!")) for piece in found[:2])
    assert found[0].count(".") > 1, "sentences are packed"
    assert pieces("", count, 75) == [""]
    assert cleaned("Ａ&amp;B\u00a0c") == "a&b c"
