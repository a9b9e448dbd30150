"""AudioLDM 2 as Art2Mus uses it, beside the stock pipeline of diffusers with the same parts: the language of audio,
text alone, picture tokens, solvers, candidates, and pieces out of windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AudioLDM2Pipeline
from torch import Tensor
from transformers import RobertaTokenizer, T5Tokenizer

from networks.aligner import ImageAligner
from networks.audioldm2 import AudioLDM2, Conditioning, MissingPart, Settings, Vocoding, language_of_audio, reach_of
from tests.models import tiny

PROMPTS = ["music representing the content of this artwork", "a quiet evening by the sea"]
NEGATIVE = ["low quality", "low quality"]
# 0.02 s are 80 frames of log-mel with the tiny vocoder, 40 of latents.
SHORT = Settings(steps=4, window_seconds=0.02, overlap_seconds=0.005)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return tiny.audioldm2_parts()


@pytest.fixture(scope="module")
def model(parts: dict[str, Any]) -> AudioLDM2:
    return AudioLDM2(**parts)


@pytest.fixture(scope="module")
def stock(parts: dict[str, Any]) -> AudioLDM2Pipeline:
    pipeline = AudioLDM2Pipeline(**parts, feature_extractor=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def whole(model: AudioLDM2, *arguments: Any, **named: Any) -> Tensor:
    return torch.cat(list(model.compose(*arguments, **named)), 1)


# The language of audio


def test_the_loop_is_that_of_the_stock_pipeline(model: AudioLDM2, stock: AudioLDM2Pipeline) -> None:
    embeddings, mask = model.project_text(model.encode_text(PROMPTS))
    assert mask.min() == 0, "the shorter text is padded, so that the mask matters"
    ours = language_of_audio(model.language_model, embeddings, mask)
    theirs = stock.generate_language_model(embeddings, attention_mask=mask, max_new_tokens=8)
    assert ours.shape == (2, 8, 16)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_full_recompute_equals_the_cached_loop(model: AudioLDM2) -> None:
    embeddings, mask = model.project_text(model.encode_text(PROMPTS))
    cached = language_of_audio(model.language_model, embeddings, mask)
    again = language_of_audio(model.language_model, embeddings, mask, recompute=True)
    assert torch.allclose(cached, again, atol=1e-5)


@pytest.mark.parametrize("recompute", [True, False])
def test_the_gradient_reaches_the_picture_tokens(model: AudioLDM2, recompute: bool) -> None:
    aligner = ImageAligner(4, token_size=16, staging_size=24, vector_size=24, hidden_size=20)
    made = language_of_audio(model.language_model, aligner(torch.randn(2, 24)), recompute=recompute)
    made.square().mean().backward()  # type: ignore[no-untyped-call]
    gradient = aligner.projection1.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.language_model.parameters())


# Text alone


@pytest.mark.parametrize("seconds", [0.02, 0.0149])
def test_text_alone_is_the_stock_pipeline_given_the_same_embeddings_and_seed(
    model: AudioLDM2, stock: AudioLDM2Pipeline, seconds: float
) -> None:
    condition, negative = model.conditions(PROMPTS, NEGATIVE)
    ours = whole(model, condition, negative, seconds, [7, 8], SHORT)
    theirs = stock(
        prompt_embeds=condition.text,
        attention_mask=condition.mask,
        generated_prompt_embeds=condition.audio,
        negative_prompt_embeds=negative.text,
        negative_attention_mask=negative.mask,
        negative_generated_prompt_embeds=negative.audio,
        num_inference_steps=4,
        guidance_scale=3.5,
        audio_length_in_s=seconds,
        generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)],
        output_type="pt",
    ).audios
    assert ours.shape == theirs.shape == (2, int(seconds * 16000))
    assert ours.std() > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_text_becomes_the_same_conditioning_as_in_the_stock_pipeline(parts: dict[str, Any]) -> None:
    # The stock pipeline wants tokenisers of these very classes.
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz", *("Ġ" + c for c in "abcdefg")]
    roberta = RobertaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    roberta.model_max_length = 24
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((c, -3.0) for c in words[5:31])]
    t5 = T5Tokenizer(vocab=pieces, extra_ids=0)
    t5.model_max_length = 24
    named = parts | {"tokenizer": roberta, "tokenizer_2": t5}
    ours = AudioLDM2(**named)
    stock = AudioLDM2Pipeline(**named, feature_extractor=None)
    for prompts in (["music of the sea"], ["music of the sea", "a photo"]):
        condition, negative = ours.conditions(prompts, ["low"] * len(prompts))
        assert negative.text.shape == condition.text.shape
        text, mask, audio = stock.encode_prompt(prompts, "cpu", 1, True, negative_prompt=["low"] * len(prompts))
        assert torch.allclose(torch.cat([negative.text, condition.text]), text, atol=1e-5)
        assert torch.equal(torch.cat([negative.mask, condition.mask]), mask)
        assert torch.allclose(torch.cat([negative.audio, condition.audio]), audio, atol=1e-5)


# Picture tokens


def test_the_picture_alone_reaches_gpt2_bare_and_the_text_reaches_the_unet(model: AudioLDM2) -> None:
    texts = model.encode_text(PROMPTS)
    tokens = torch.randn(2, 4, 16)
    alone = model.condition(texts, tokens, text_in_language_model=False)
    ones = torch.ones(2, 4, dtype=torch.long)
    assert torch.allclose(alone.audio, language_of_audio(model.language_model, tokens, ones), atol=1e-6)
    assert torch.equal(alone.text, texts.t5)


def test_with_both_the_picture_follows_the_text(model: AudioLDM2) -> None:
    texts = model.encode_text(PROMPTS)
    tokens = torch.randn(2, 4, 16)
    both = model.condition(texts, tokens)
    projected, mask = model.project_text(texts)
    embeddings = torch.cat([projected, tokens], 1)
    mask = torch.cat([mask, torch.ones(2, 4, dtype=torch.long)], 1)
    assert torch.allclose(both.audio, language_of_audio(model.language_model, embeddings, mask), atol=1e-6)
    text_alone, picture_alone = model.condition(texts), model.condition(texts, tokens, text_in_language_model=False)
    assert not torch.allclose(both.audio, text_alone.audio, atol=1e-3)
    assert not torch.allclose(both.audio, picture_alone.audio, atol=1e-3)


def test_another_picture_is_another_piece(model: AudioLDM2) -> None:
    texts = model.encode_text(PROMPTS[:1])
    negative = model.condition(model.encode_text(NEGATIVE[:1], length=texts.t5.shape[1]))
    heard = [
        whole(model, model.condition(texts, tokens, False), negative, 0.02, [3], SHORT)
        for tokens in (torch.randn(1, 4, 16), torch.randn(1, 4, 16))
    ]
    assert not torch.allclose(*heard, atol=1e-3)


# Solvers, guidance, candidates


class Gaussian(torch.nn.Module):
    """The exact predictor of noise where the data are normal: what a solver must reach is known."""

    def __init__(self, unet: Any, levels: Tensor, deviation: float) -> None:
        super().__init__()
        self.config = unet.config
        self.levels = levels
        self.deviation = deviation
        self.one = torch.nn.Parameter(torch.ones(1))

    def forward(self, latents: Tensor, time: Tensor, **_: Any) -> tuple[Tensor]:
        level = self.levels[int(time)]
        return (latents * (1 - level).sqrt() / (level * self.deviation**2 + 1 - level),)

    def end(self, latents: Tensor) -> Tensor:
        level = self.levels[-1]
        return latents * self.deviation / (level * self.deviation**2 + 1 - level).sqrt()


def test_both_solvers_reach_the_known_end_and_the_fast_one_needs_few_steps(parts: dict[str, Any]) -> None:
    exact = Gaussian(parts["unet"], parts["scheduler"].alphas_cumprod, 0.5)
    model = AudioLDM2(**parts | {"unet": exact})
    condition, _ = model.conditions(PROMPTS[:1], NEGATIVE[:1])
    noise = model.noise(16, [5])

    def error(solver: Any, steps: int) -> float:
        made = model.denoise(condition, None, noise, Settings(steps=steps, guidance=1.0, solver=solver))
        return float((made - exact.end(noise)).norm() / noise.norm())

    errors = {(solver, steps): error(solver, steps) for solver in ("ddim", "fast") for steps in (20, 200)}
    assert errors["ddim", 200] < 0.01, errors
    assert errors["ddim", 200] < 0.5 * errors["ddim", 20], errors
    # After 20 steps within twice of what DDIM reaches in 200.
    assert errors["fast", 20] < 0.2 * errors["ddim", 20], errors
    assert errors["fast", 20] < 2 * errors["ddim", 200], errors


def test_without_guidance_the_negative_side_is_not_asked(model: AudioLDM2) -> None:
    condition, negative = model.conditions(PROMPTS, NEGATIVE)
    plain = Settings(steps=2, guidance=1.0)
    noise = model.noise(8, [1, 2])
    assert torch.equal(model.denoise(condition, None, noise, plain), model.denoise(condition, negative, noise, plain))
    with pytest.raises(ValueError, match="needs a negative"):
        model.denoise(condition, None, noise, Settings(steps=2))


def test_a_batch_is_its_pieces(model: AudioLDM2) -> None:
    condition, negative = model.conditions(PROMPTS, NEGATIVE)
    together = whole(model, condition, negative, 0.05, [7, 8], SHORT)
    for row in range(2):
        alone = whole(model, condition.row(row), negative.row(row), 0.05, [7 + row], SHORT)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-4)


def test_of_candidates_the_chosen_one_goes_on(model: AudioLDM2) -> None:
    condition, negative = (side.repeated(3) for side in model.conditions(PROMPTS[:1], NEGATIVE[:1]))
    heard: list[Tensor] = []

    def choose(sound: Tensor) -> int:
        heard.append(sound)
        return 2

    chosen = whole(model, condition, negative, 0.05, [1, 2, 3], SHORT, choose=choose)
    alone = whole(model, condition.row(0), negative.row(0), 0.05, [3], SHORT)
    assert [sound.shape for sound in heard] == [(3, 320)]
    assert chosen.shape == (1, 800)
    assert torch.allclose(chosen, alone, atol=1e-4)


def test_a_piece_rests_before_each_step_and_can_be_given_up(model: AudioLDM2) -> None:
    condition, negative = model.conditions(PROMPTS[:1], NEGATIVE[:1])
    steps: list[int] = []

    def rest() -> None:
        steps.append(1)
        if len(steps) == 6:
            raise TimeoutError("given up")

    piece = model.compose(condition, negative, 0.05, [1], SHORT, rest=rest)
    assert next(piece).shape[0] == 1
    assert len(steps) == 4
    with pytest.raises(TimeoutError, match="given up"):
        list(piece)


# Windows


def test_a_longer_piece_has_its_length_and_comes_window_by_window(model: AudioLDM2) -> None:
    condition, negative = model.conditions(PROMPTS, NEGATIVE)
    chunks = list(model.compose(condition, negative, 0.0501, [1, 2], SHORT))
    assert len(chunks) > 2
    assert sum(chunk.shape[1] for chunk in chunks) == round(0.0501 * 16000)
    repeated = list(model.compose(condition, negative, 0.0501, [1, 2], SHORT))
    assert all(torch.equal(one, other) for one, other in zip(chunks, repeated, strict=True))
    assert not torch.allclose(chunks[0][:, :100], chunks[1][:, :100], atol=1e-3), (
        "a window is not the one before again"
    )


@pytest.mark.parametrize("solver", ["ddim", "fast"])
def test_in_the_overlap_a_window_is_the_one_before(model: AudioLDM2, solver: Any) -> None:
    condition, negative = model.conditions(PROMPTS, NEGATIVE)
    settings = Settings(steps=5, solver=solver)
    kept: list[Tensor] = []
    first = model.denoise(condition, negative, model.noise(40, [1, 2]), settings, kept=kept, keep=10)
    second = model.denoise(condition, negative, model.noise(40, [3, 4]), settings, path=kept)
    assert len(kept) == 6
    assert torch.equal(second[:, :, :10], first[:, :, -10:])
    # What follows the overlap was denoised in sight of it: another past, another future.
    other = model.denoise(condition, negative, model.noise(40, [3, 4]), settings)
    assert not torch.allclose(second[:, :, 10:20], other[:, :, 10:20], atol=1e-3)


def test_windows_are_joined_without_a_seam(model: AudioLDM2) -> None:
    reach, hop = reach_of(model.vocoder.config), model.hop
    torch.manual_seed(3)
    frames, overlap = 160, 40
    assert frames > overlap + reach
    sounding = Vocoding(model, overlap)
    windows = [torch.randn(2, frames, 8) for _ in range(4)]
    chunks = [sounding.add(window, last=number == 3) for number, window in enumerate(windows)]
    # The joined log-mel, made by hand.
    joined = windows[0]
    rising = torch.linspace(0, 1, overlap + 2)[1:-1, None]
    for window in windows[1:]:
        faded = joined[:, -overlap:] * (1 - rising) + window[:, :overlap] * rising
        joined = torch.cat([joined[:, :-overlap], faded, window[:, overlap:]], 1)
    at_once = model.vocode(joined)
    streamed = torch.cat(chunks, 1)
    assert streamed.shape == at_once.shape == (2, (4 * frames - 3 * overlap) * hop)
    assert torch.allclose(streamed, at_once, atol=1e-5)
    assert chunks[0].shape[1] == (frames - overlap - reach) * hop, "as early as it can be certain"


def test_a_sample_hears_no_further_than_the_reach(model: AudioLDM2) -> None:
    reach, hop = reach_of(model.vocoder.config), model.hop
    mel = torch.randn(1, 4 * reach, 8)
    changed = mel.clone()
    changed[:, :reach] += 1.0
    difference = (model.vocode(mel) - model.vocode(changed)).abs()[0]
    assert difference[: reach * hop].max() > 1e-3
    assert difference[2 * reach * hop :].max() == 0


def test_impossible_pieces_are_refused(model: AudioLDM2) -> None:
    condition, negative = model.conditions(PROMPTS, NEGATIVE)
    with pytest.raises(ValueError, match="as many seeds"):
        list(model.compose(condition, negative, 0.02, [1], SHORT))
    with pytest.raises(ValueError, match="at least"):
        list(model.compose(condition, negative, 0.0, [1, 2], SHORT))
    with pytest.raises(ValueError, match="windows overlap"):
        list(model.compose(condition, negative, 1.0, [1, 2], Settings(window_seconds=0.02, overlap_seconds=0.015)))


# Loading


def test_a_folder_laid_out_as_published_is_loaded(parts: dict[str, Any], model: AudioLDM2, tmp_path: Path) -> None:
    tiny.save_audioldm2(tmp_path, parts)
    loaded = AudioLDM2.from_folder(tmp_path)
    ours, theirs = (side.conditions(PROMPTS, NEGATIVE)[0] for side in (model, loaded))
    assert torch.allclose(ours.audio, theirs.audio, atol=1e-6)
    noise = model.noise(16, [1, 2])
    settings = Settings(steps=2, guidance=1.0)
    expected = model.denoise(ours, None, noise, settings)
    assert torch.allclose(loaded.denoise(theirs, None, noise, settings), expected, atol=1e-5)
    assert torch.allclose(loaded.vocode(loaded.decode(expected)), model.vocode(model.decode(expected)), atol=1e-5)
    silent = AudioLDM2.from_folder(tmp_path, text=False)
    with pytest.raises(MissingPart, match="text encoders"):
        silent.encode_text(PROMPTS)


def test_half_precision_is_near(parts: dict[str, Any], model: AudioLDM2, tmp_path: Path) -> None:
    tiny.save_audioldm2(tmp_path, parts)
    half = AudioLDM2.from_folder(tmp_path, precision="bf16")
    assert (half.dtype, half.vae.dtype) == (torch.bfloat16, torch.float32)
    condition, negative = half.conditions(PROMPTS, NEGATIVE)
    sound = whole(half, condition, negative, 0.02, [1, 2], SHORT)
    assert torch.isfinite(sound).all()
    full, full_negative = model.conditions(PROMPTS, NEGATIVE)
    cosine = torch.nn.functional.cosine_similarity(condition.audio.float().flatten(), full.audio.flatten(), dim=0)
    assert cosine > 0.99
    assert full_negative.audio.shape == negative.audio.shape


def test_an_incomplete_folder_says_what_is_missing(parts: dict[str, Any], tmp_path: Path) -> None:
    tiny.save_audioldm2(tmp_path, {name: part for name, part in parts.items() if name not in ("unet", "scheduler")})
    with pytest.raises(FileNotFoundError, match="it has no unet, scheduler"):
        AudioLDM2.from_folder(tmp_path)


def test_repeated_keeps_the_candidates_of_a_piece_together() -> None:
    made = Conditioning(*(torch.arange(2.0)[:, None] for _ in range(3))).repeated(2)
    assert made.audio[:, 0].tolist() == [0, 0, 1, 1]
    assert len(made.row(3)) == 1
