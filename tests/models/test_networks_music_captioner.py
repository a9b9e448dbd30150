"""LP-MusicCaps: its published size and names, its filter bank, its checkpoint's form, and batches without a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from networks.checkpoints import CheckpointError
from networks.music_captioner import (
    SAMPLES,
    MelSpectrogram,
    MusicCaptioner,
    MusicCaptionerNetwork,
    bart_base,
    load,
    mel_filters,
    places,
)
from tests.models import tiny_words


def _chunks() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    time = np.arange(SAMPLES) / 16_000
    return np.stack(
        [
            0.3 * np.sin(2 * np.pi * 220 * time),
            np.random.default_rng(0).normal(0, 0.2, SAMPLES),
            0.5 * np.sin(2 * np.pi * 3000 * time) * (time % 0.5 < 0.1),
        ]
    ).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_words.music_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def captioner(folders: tuple[Path, Path]) -> MusicCaptioner:
    return load(*folders)


def test_the_network_has_its_published_size_and_names() -> None:
    """BART-base has 139,420,416 parameters (facebook/bart-base); six convolutions 128-768 and 768-768 wide, three
    taps each, make up the rest (the public code of seungheondoh/lp-music-caps, music_captioning/model)."""
    with torch.device("meta"):
        network = MusicCaptionerNetwork(bart_base())
    count = sum({id(each): each.numel() for each in network.parameters()}.values())
    encoder = 128 * 768 * 3 + 768 + 5 * (768 * 768 * 3 + 768)
    assert count == 139_420_416 + encoder == 148_567_296
    names = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert names["audio_encoder.mel_encoder.spec_fn.window"] == (1024,)
    assert names["audio_encoder.mel_encoder.mel_scale.fb"] == (513, 128)
    assert names["audio_encoder.conv1.weight"] == (768, 128, 3)
    assert names["audio_encoder.conv_stack.4.weight"] == (768, 768, 3)
    assert names["audio_encoder.positional_embedding"] == (32, 768)
    assert names["bart.model.shared.weight"] == (50_265, 768)
    assert names["bart.final_logits_bias"] == (1, 50_265)


def test_the_filter_bank_is_the_one_of_the_mel_scale() -> None:
    wanted = mel_filter_bank(513, 128, 0.0, 8000.0, 16_000, norm=None, mel_scale="htk")
    assert np.abs(mel_filters().numpy() - wanted).max() < 2e-4


def test_only_the_real_part_of_the_transform_is_heard() -> None:
    sound = _chunks()[1:2]
    made = MelSpectrogram()(torch.from_numpy(sound)).numpy()[0]
    assert made.shape == (128, 1001)
    frame = 500
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    spectrum = np.fft.rfft(window * sound[0, frame * 160 - 512 : frame * 160 + 512])
    power = spectrum.real**2 @ mel_filters().numpy()
    assert np.abs(made[:, frame] - 10 * np.log10(np.maximum(power, 1e-10))).max() < 2e-2


def test_silence_is_the_floor_and_never_infinite() -> None:
    assert torch.equal(MelSpectrogram()(torch.zeros(1, SAMPLES)), torch.full((1, 128, 1001), -100.0))


def test_places_are_sines_then_cosines_of_falling_frequencies() -> None:
    made = places(32, 8)
    assert torch.allclose(made[3, 0], torch.tensor(3.0).sin()) and torch.allclose(made[3, 4], torch.tensor(3.0).cos())
    assert torch.allclose(made[3, 3], torch.tensor(3e-4).sin())


def test_a_chunk_gets_the_same_words_alone_and_among_others(captioner: MusicCaptioner) -> None:
    chunks = _chunks()
    together = captioner.caption(chunks, tokens=24)
    assert together == [captioner.caption(chunk[None], tokens=24)[0] for chunk in chunks]
    assert len(set(together)) == 3
    assert together != captioner.caption(chunks, tokens=24, beams=1)


def test_in_half_precision_the_spectrogram_stays_in_full(folders: tuple[Path, Path]) -> None:
    half = load(*folders, dtype=torch.bfloat16)
    assert half.network.bart.dtype == half.network.audio_encoder.conv1.weight.dtype == torch.bfloat16
    sound = torch.from_numpy(_chunks())
    assert torch.equal(half.network.audio_encoder.mel_encoder(sound), MelSpectrogram()(sound))
    assert all(isinstance(each, str) for each in half.caption(_chunks(), tokens=8))


def test_the_stored_state_is_what_runs(folders: tuple[Path, Path], captioner: MusicCaptioner) -> None:
    state = torch.load(folders[0] / "transfer.pth", weights_only=True)["state_dict"]
    loaded = captioner.network.state_dict()
    assert {f"module.{name}" for name in loaded} == set(state)
    assert all(torch.equal(loaded[name.removeprefix("module.")], value) for name, value in state.items())


def test_a_state_that_leaves_shared_words_out_loads_all_the_same(
    folders: tuple[Path, Path], captioner: MusicCaptioner, tmp_path: Path
) -> None:
    state = captioner.network.state_dict()
    for name in ("bart.model.encoder.embed_tokens.weight", "bart.lm_head.weight", "bart.final_logits_bias"):
        del state[name]
    torch.save(state, tmp_path / "transfer.pth")
    again = load(tmp_path, folders[1])
    chunk = _chunks()[:1]
    assert again.caption(chunk, tokens=16) == captioner.caption(chunk, tokens=16)


def test_what_is_no_checkpoint_is_refused_by_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint of LP-MusicCaps"):
        load(tmp_path, folders[1])
    torch.save({"something.weight": torch.zeros(2)}, tmp_path / "transfer.pth")
    with pytest.raises(CheckpointError, match="LP-MusicCaps"):
        load(tmp_path, folders[1])
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(folders[0], tmp_path)


def test_chunks_of_another_length_are_refused(captioner: MusicCaptioner) -> None:
    with pytest.raises(ValueError, match="160000"):
        captioner.caption(np.zeros((1, 16_000), np.float32))
