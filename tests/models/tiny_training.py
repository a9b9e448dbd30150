"""Made data for the trainings, where the right answer is known.

For the aligner a hidden mood that both picture and sound follow; for the towers valence and arousal that show in each
modality's features in its own way (`made_emotions`).

A mood is two numbers. A picture's vector is a fixed linear map of it with noise; a sound's latents are two patterns,
as strong as the mood says, with noise. AudioLDM 2 stands in for the published one: tiny, first trained to denoise
such latents under tokens that say the mood, then frozen. So the aligner can only succeed by finding the mood in the
vector and saying it in the tokens that the frozen networks understand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from networks.audioldm2 import AudioLDM2, language_of_audio
from tests.models.tiny import audioldm2_parts
from training.aligner import FixedText
from training.objective import cosine, noised, target_of
from training.randomness import generator
from training.splits import stratified_split
from training.tables import Dataset, Shards, write_dataset


@pytest.fixture(autouse=True)
def one_thread(quiet_torch: None) -> Iterator[None]:
    """Networks this small lose more by sharing work among threads than they gain."""
    torch.set_num_threads(1)
    yield


VECTOR = 24
LATENT = (4, 4, 4)
"""Channels, frames, width."""


def moods(count: int, seed: int = 0) -> Tensor:
    """[count, 2], evenly spread in [-1, 1]."""
    return torch.rand((count, 2), generator=generator(seed, "moods")) * 2 - 1


def picture_vectors(given: Tensor, seed: int = 0, noise: float = 0.05) -> Tensor:
    """[count, VECTOR] of unit length, as ImageBind's are."""
    seen = generator(0, "eye")
    hidden = torch.cat([given, torch.ones(len(given), 1)], 1) @ torch.randn((3, VECTOR), generator=seen)
    hidden = hidden + noise * torch.randn(hidden.shape, generator=generator(seed, "picture noise"))
    return hidden / hidden.norm(dim=1, keepdim=True)


def patterns() -> Tensor:
    """[2, *LATENT], orthogonal, each of mean square 1: levels of the channels, the same everywhere.

    What differs from place to place would be no fair question: a UNet has no sense of absolute place.
    """
    drawn = torch.randn((LATENT[0], 2), generator=generator(0, "patterns")).double()
    levels = torch.linalg.qr(drawn).Q.T.float() * LATENT[0] ** 0.5
    return levels[:, :, None, None].expand(2, *LATENT).contiguous()


def sound_latents(given: Tensor) -> Tensor:
    """[count, *LATENT]: the patterns, as strong as the mood."""
    return torch.einsum("bm,mcft->bcft", given, patterns())


def heard_moods(latents: Tensor) -> Tensor:
    """The mood that latents express: [count, 2]."""
    return torch.einsum("bcft,mcft->bm", latents, patterns()) / float(np.prod(LATENT))


def model(seed: int = 0) -> AudioLDM2:
    """A tiny AudioLDM 2 with random weights."""
    return AudioLDM2(**audioldm2_parts(seed))


def fixed_text(of: AudioLDM2) -> FixedText:
    """The prompts' states."""
    return FixedText.from_model(of)


def taught(steps: int = 400, batch: int = 32, seed: int = 0) -> tuple[AudioLDM2, FixedText]:
    """A tiny AudioLDM 2 whose UNet learned to denoise made latents under tokens that say the mood; frozen again."""
    made = model(seed)
    torch.manual_seed(seed)
    # As a network begins that is to be trained: not with the large random weights that tests of shapes want.
    # One group in its norms: with one channel a group they would wipe out just the levels that carry the mood.
    made.unet = type(made.unet).from_config({**made.unet.config, "norm_num_groups": 1})
    # It predicts velocity: under much noise, a small fault in predicted noise is a large one in what comes out, and a
    # few hundred steps do not teach so small a network to be that exact.
    made.scheduler = DDIMScheduler.from_config(made.scheduler.config, prediction_type="v_prediction")
    fixed = fixed_text(made)
    mood = moods(512, seed + 1)
    tokens = (mood @ torch.randn((2, 2 * 16), generator=generator(seed, "speak"))).reshape(-1, 2, 16)
    with torch.no_grad():
        said = language_of_audio(made.language_model, tokens)
    optimizer = torch.optim.Adam(made.unet.parameters(), lr=4e-3)
    kept = made.scheduler.alphas_cumprod
    for step in range(steps):
        drawn = generator(seed, "teach", step)
        rows = torch.randint(len(mood), (batch,), generator=drawn)
        clean = sound_latents(mood[rows]) + 0.1 * torch.randn((batch, *LATENT), generator=drawn)
        noise = torch.randn(clean.shape, generator=drawn)
        time = torch.randint(len(kept), (batch,), generator=drawn)
        predicted = made.unet(
            noised(clean, noise, kept, time),
            time,
            encoder_hidden_states=said[rows],
            encoder_hidden_states_1=fixed.prompt.t5.expand(batch, -1, -1),
            encoder_attention_mask_1=fixed.prompt.mask.expand(batch, -1),
        ).sample
        (predicted - target_of(clean, noise, kept, time, "v_prediction")).square().mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * cosine(step, steps)
        optimizer.step()
        optimizer.zero_grad()
    made.unet.requires_grad_(False).eval()
    return made, fixed


def made_pairs(folder: Path, count: int = 200, seed: int = 0, latents: bool = True, **changes: Any) -> Dataset:
    """A data set of pairs with latents, as `promenade train data` and `prepare` leave it."""
    given = moods(count, seed)
    vectors = picture_vectors(given, seed)
    styles = ["calm" if mood[0] < 0 else "lively" for mood in given.tolist()]
    names = [f"artwork-{number:04d}" for number in range(count)]
    parts = stratified_split(styles, names, changes.pop("test_share", 0.2), 100, seed)
    rows = [
        {
            "id": f"{name}+track",
            "artwork": name,
            "track": f"track-{number:04d}",
            "title": f"Picture {number}",
            "style": styles[number],
            "vector": vectors[number].tolist(),
            "sound": f"sounds/{number:04d}.flac",
            "part": parts[number],
        }
        for number, name in enumerate(names)
    ]
    write_dataset(folder, "pairs", rows, source="made", space="made-1")
    dataset = Dataset(folder, "pairs")
    if latents:
        values = torch.stack([sound_latents(given), torch.full((count, *LATENT), 0.1)], 1)[:, None]
        version = dataset.description.version
        shards = Shards(folder, "latents", tuple(values.shape[1:]), {"made": seed}, count, version)
        shards.begin()
        for number in range(shards.count):
            chosen = shards.rows_of(number)
            shards.write(number, values[chosen.start : chosen.stop].numpy())
    return dataset


LAYERS, WIDTH, PICTURE = 4, 12, 16
"""Of the made encoders: layers and width of what stands for MERT and RoBERTa, numbers of a picture's vector."""

SMALL_VA: dict[str, Any] = {"epochs": 40, "batch": 32, "hidden": 32, "dropout": 0.2, "learning_rate": 2e-3}
"""Settings by which MMVA's towers learn the made rule in a second or two."""


def made_emotions(
    folder: Path, pictures: int = 120, songs: int = 30, clips: int = 4, noise: float = 0.3, seed: int = 0
) -> Dataset:
    """Items with a planted rule: valence and arousal show in each modality's features in its own way, noisily.

    Another seed is another rule, other items and another split.
    """
    drawn = np.random.default_rng(seed)
    eyes, ears, words = (drawn.normal(size=(2, size)) for size in (PICTURE, LAYERS * WIDTH, LAYERS * WIDTH))
    rows: list[dict[str, Any]] = []
    features: dict[str, list[np.ndarray]] = {"picture": [], "sound": [], "text": []}

    def add(
        modality: str, name: str, group: str, point: np.ndarray, showing: np.ndarray, shape: tuple[int, ...]
    ) -> None:
        centred = np.sin(3 * (point - 0.5))
        features[modality].append((centred @ showing + noise * drawn.normal(size=showing.shape[1])).reshape(shape))
        rows.append(
            {
                "id": f"{modality}-{name}",
                "modality": modality,
                "group": group,
                "valence": point[0],
                "arousal": point[1],
            }
        )

    for number in range(pictures):
        add("picture", str(number), f"p{number}", drawn.uniform(size=2), eyes, (PICTURE,))
    for song in range(songs):
        middle = drawn.uniform(0.1, 0.9, size=2)
        for clip in range(clips):
            point = np.clip(middle + 0.1 * drawn.normal(size=2), 0, 1)
            add("sound", f"{song}-{clip}", f"s{song}", point, ears, (LAYERS, WIDTH))
            add("text", f"{song}-{clip}", f"s{song}", point, words, (LAYERS, WIDTH))
    parts = stratified_split([row["group"][0] for row in rows], [row["group"] for row in rows], 0.3, 10, seed)
    for row, part in zip(rows, parts, strict=True):
        row["part"] = part
    write_dataset(folder, "emotions", rows, source="made")
    dataset = Dataset(folder, "emotions")
    for modality, each in features.items():
        values = np.stack(each)
        shards = Shards(
            folder, modality, values.shape[1:], {"source": "made"}, len(values), dataset.description.version
        )
        shards.begin()
        shards.write(0, values)
    return dataset
