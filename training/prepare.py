"""What is computed once for a data set, so that no step of training computes it again: latents and vectors.

Latents are kept as the autoencoder's mean and deviation, so that training still draws a fresh sample each time, as if
it encoded each time. Work goes shard by shard and goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from networks.audioldm2 import WINDOW_SECONDS, AudioLDM2
from networks.checkpoints import pretrained
from training.pictures import clip_pixels
from training.sound import frames_of, log_mel, read_sound, windows
from training.tables import MOST_BAD, Array, BadData, Dataset, Shards, Skipped, batches

Told = Callable[[int, int], None]

LATENTS = "latents"
VECTORS = "vectors"
READERS = 4
"""Threads that decode files: enough to keep one GPU's autoencoder busy with compressed sound."""


def weights_digest(module: torch.nn.Module) -> str:
    """16 hexadecimal digits that tell one network's weights from another's."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def encoded(model: AudioLDM2, sounds: Array) -> Tensor:
    """Windows of sound -> mean and deviation of their latents, scaled: [B, S] -> [B, 2, C, F, M]."""
    mel = log_mel(
        torch.from_numpy(sounds).to(model.device),
        int(model.vocoder.config.model_in_dim),
        model.hop,
        model.sampling_rate,
    )
    found = model.vae.encode(mel.to(next(model.vae.parameters()).dtype)).latent_dist
    return torch.stack([found.mean, found.std], 1).float() * model.vae.config.scaling_factor


def _decoded(jobs: Sequence[tuple[str, Path]], read: Callable[[Path], Array], skipped: Skipped) -> list[Array | None]:
    """Read files side by side; None, and a line in `skipped`, for what cannot be read."""

    def one(job: tuple[str, Path]) -> Array | str:
        try:
            return read(job[1])
        except BadData as error:
            return str(error)

    with ThreadPoolExecutor(READERS) as threads:
        found = list(threads.map(one, jobs))
    results: list[Array | None] = []
    for (name, _), each in zip(jobs, found, strict=True):
        if isinstance(each, str):
            skipped.add(each, name)
            results.append(None)
        else:
            results.append(each)
    return results


def make_latents(
    dataset: Dataset,
    model: AudioLDM2,
    *,
    count: int = 3,
    seconds: float = WINDOW_SECONDS,
    batch: int = 16,
    most_bad: float = MOST_BAD,
    rows_a_shard: int = 256,
    told: Told = lambda done, total: None,
) -> Skipped:
    """Compute the latents of every row's sound, once.

    Args:
        dataset: of pairs.
        model: whose autoencoder.
        count: windows of each track, from its beginning to its end; training draws one of them each time.
        seconds: of a window.
        batch: tracks encoded at once.
        most_bad: the share of rows that may be bad.
        rows_a_shard: after how many rows work is safe.
        told: hears of rows done.

    Returns the rows of this call that have no latents, by reason. Raises BadData where they are too many.
    """
    frames = frames_of(seconds, model.hop, model.sampling_rate, model.shrink)
    channels = int(model.vae.config.latent_channels)
    width = int(model.vocoder.config.model_in_dim) // model.shrink
    shape = (count, 2, channels, frames // model.shrink, width)
    settings: dict[str, Any] = {
        "windows": count,
        "frames": frames,
        "autoencoder": weights_digest(model.vae),
        "scaling": float(model.vae.config.scaling_factor),
    }
    shards = Shards(
        dataset.folder, LATENTS, shape, settings, len(dataset), dataset.description.version, rows_a_shard=rows_a_shard
    )
    names, files = dataset.column("id"), dataset.column("sound")
    skipped = Skipped()

    def read(path: Path) -> Array:
        return windows(read_sound(path, model.sampling_rate), frames * model.hop, count)

    for number in shards.begin():
        rows = shards.rows_of(number)
        values = np.full((len(rows), *shape), np.nan, np.float32)
        for part in batches(len(rows), batch):
            chosen = [rows[each] for each in part]
            read_rows = _decoded([(names[row], dataset.path(files[row] or "")) for row in chosen], read, skipped)
            good = [place for place, each in zip(part, read_rows, strict=True) if each is not None]
            if good:
                stacked = np.concatenate([each for each in read_rows if each is not None])
                latents = encoded(model, stacked).cpu().numpy().reshape(len(good), *shape)
                for place, each in zip(good, latents, strict=True):
                    if np.isfinite(each).all():
                        values[place] = each
                    else:
                        skipped.add("latents that are not finite", names[rows[place]])
            told(rows[0] + part[-1] + 1, len(dataset))
        skipped.refuse_above(most_bad, len(dataset), str(dataset.folder))
        shards.write(number, values)
    return skipped


def encoded_each(encode: Callable[[list[Any]], Array], given: list[Any]) -> Iterator[Array | str]:
    """What an encoder says of several items, or why it cannot; one bad item does not spoil its batch.

    Args:
        encode: items -> [B, ...]; raises BadData where one cannot be read.
        given: B items.
    """
    try:
        yield from encode(given)
        return
    except BadData as error:
        if len(given) == 1:
            yield str(error)
            return
    for each in given:
        yield from encoded_each(encode, [each])


def make_vectors(
    dataset: Dataset,
    encode: Callable[[list[Path]], Array],
    *,
    source: str,
    size: int,
    weights: str = "",
    batch: int = 32,
    most_bad: float = MOST_BAD,
    told: Told = lambda done, total: None,
) -> Skipped:
    """Compute the vectors of every row's picture, once, where the data set came without.

    Args:
        dataset: of pairs.
        encode: paths of pictures -> [B, size]; raises BadData where one cannot be read.
        source: what makes the vectors, for the record: the name of their space.
        size: numbers in a vector.
        weights: digest of the encoder's weights; vectors by others are made anew.
        batch, most_bad, told: as for `make_latents`.
    """
    settings = {"source": source, "weights": weights}
    shards = Shards(dataset.folder, VECTORS, (size,), settings, len(dataset), dataset.description.version, "float32")
    names, files = dataset.column("id"), dataset.column("picture")
    skipped = Skipped()
    for number in shards.begin():
        rows = shards.rows_of(number)
        values = np.full((len(rows), size), np.nan, np.float32)
        for part in batches(len(rows), batch):
            paths = [dataset.path(files[rows[place]] or "") for place in part]
            for place, found in zip(part, encoded_each(encode, paths), strict=True):
                if isinstance(found, str):
                    skipped.add(found, names[rows[place]])
                elif not np.isfinite(found).all():
                    skipped.add("a vector with numbers that are not finite", names[rows[place]])
                else:
                    values[place] = found
            told(rows[0] + part[-1] + 1, len(dataset))
        skipped.refuse_above(most_bad, len(dataset), str(dataset.folder))
        shards.write(number, values)
    return skipped


def clip_encoder(folder: Path, device: str = "cpu") -> tuple[Callable[[list[Path]], Array], int, str]:
    """What makes CLIP's picture vectors (ViT-B/32: 512 numbers), their size, and the digest of its weights.

    Args:
        folder: holds the model, whole or its picture side, and how pictures are prepared for it.
        device: as torch names it.

    Raises CheckpointError where tensors are missing.
    """
    from transformers import CLIPVisionModelWithProjection

    network = pretrained(CLIPVisionModelWithProjection, folder).to(device)
    prepare = clip_pixels(folder)

    @torch.inference_mode()
    def encode(paths: list[Path]) -> Array:
        vectors: Array = network(pixel_values=prepare(paths).to(device)).image_embeds.float().cpu().numpy()
        return vectors

    return encode, int(network.config.projection_dim), weights_digest(network)
