"""Training MMVA: valence and arousal of pictures, sounds and texts, and how well a picture goes with a sound.

MMVA, sections "Random Matching Based on Valence and Arousal" and "VA Prediction": each step draws pictures and clips
independently, so that any picture may meet any clip; their match score S = exp(-d / sigma) is known from their
valence and arousal. The loss is the sum of four mean square errors: valence and arousal of each modality, and S.
AdamW at 3e-4 with weight decay 0.01, batch 128, cosine schedule, 1000 epochs.

The encoders stay as published, and what they say is computed once (`make_features`); the layer mixes and the
predictors are trained. The paper's two ablations are options: pairs that are fixed beforehand, as IMEMNet has them,
and no predictor of similarity.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from networks.checkpoints import read_checkpoint
from networks.mmva import MMVA, MODALITIES, SOUND_RATE, Modality, Reading, Sizes, match_score
from training.objective import cosine, sigma_of, squared_error
from training.pictures import clip_pixels
from training.prepare import encoded_each
from training.randomness import Order, generator
from training.runs import Progress, Run, peak_memory, spoken
from training.settings import VaSettings, document_of
from training.sound import read_sound
from training.splits import TEST, TRAIN, VALIDATION
from training.tables import MOST_BAD, Array, BadData, Dataset, Shards, Skipped, batches

CLIP_SECONDS = 10.0
"""What the sound tower hears: a clip that is shorter is repeated, of a longer one the middle is heard."""

MEASURED_PAIRS = 8192
"""On how many pairs similarity is measured at most: that of few pairs says more of the draw than of the model."""

Encode = Callable[[list[Any]], Array]
"""What an encoder says: paths or texts of one modality -> [B, ...]. Raises BadData for what cannot be read."""


def make_features(
    dataset: Dataset,
    encoders: dict[Modality, tuple[Encode, tuple[int, ...], str]],
    *,
    batch: int = 16,
    most_bad: float = MOST_BAD,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Skipped:
    """Compute what the encoders say of every item, once; goes on where it was stopped.

    Args:
        dataset: of emotions.
        encoders: modality -> what encodes it, the shape of one item's features, and what it is, for the record.
        batch: items encoded at once.
        most_bad: the share of items that may be bad.
        told: hears of items done.

    Returns the items of this call that have no features, by reason. Raises BadData where they are too many.
    """
    skipped = Skipped()
    names, files, texts = dataset.column("id"), dataset.column("file"), dataset.column("text")
    starts, lengths = dataset.column("start"), dataset.column("seconds")
    done = 0
    for modality, (encode, shape, source) in encoders.items():
        rows = rows_of(dataset, modality)
        shards = Shards(dataset.folder, modality, shape, {"source": source}, len(rows), dataset.description.version)
        todo = set(shards.begin())
        for number in range(shards.count):
            inside = shards.rows_of(number)
            if number in todo:
                values = np.full((len(inside), *shape), np.nan, np.float32)
                for part in batches(len(inside), batch):
                    chosen = [int(rows[inside[place]]) for place in part]
                    given: list[Any] = [
                        texts[row]
                        if modality == "text"
                        else (dataset.path(files[row] or ""), starts[row] or 0.0, lengths[row])
                        for row in chosen
                    ]
                    for place, row, found in zip(part, chosen, encoded_each(encode, given), strict=True):
                        if isinstance(found, str):
                            skipped.add(found, names[row])
                        elif not np.isfinite(found).all():
                            skipped.add("features that are not finite", names[row])
                        else:
                            values[place] = found
                    told(done + inside[part[-1]] + 1, len(dataset))
                skipped.refuse_above(most_bad, len(dataset), str(dataset.folder))
                shards.write(number, values)
        done += len(rows)
    return skipped


def rows_of(dataset: Dataset, modality: Modality) -> Array:
    """The data set's rows of a modality, in order."""
    return np.flatnonzero(np.array(dataset.column("modality")) == modality)


def published_encoders(
    clip: Path, mert: Path, roberta: Path, device: str = "cpu"
) -> dict[Modality, tuple[Encode, tuple[int, ...], str]]:
    """CLIP ViT-B/32, MERT-95M and RoBERTa-base from their folders, as `make_features` takes them."""
    from transformers import AutoTokenizer

    from networks.mmva import encoder

    networks: dict[Modality, Any] = {
        modality: encoder(modality, folder).to(device).eval()
        for modality, folder in zip(MODALITIES, (clip, mert, roberta), strict=True)
    }
    prepare = clip_pixels(clip)
    tokenizer = AutoTokenizer.from_pretrained(roberta, local_files_only=True)
    # RoBERTa counts positions from two on.
    most_tokens = int(networks["text"].network.config.max_position_embeddings) - 2

    def pictures(given: list[Any]) -> Array:
        found: Array = run("picture", prepare([path for path, _, _ in given]))
        return found

    def sounds(given: list[Any]) -> Array:
        clips = np.stack([_clip(read_sound(path, SOUND_RATE, start, seconds)) for path, start, seconds in given])
        found: Array = run("sound", torch.from_numpy(clips))
        return found

    def texts(given: list[Any]) -> Array:
        # With a space in front, as the served tower reads them: the first word counts as one inside a text.
        spaced = [f" {text.strip()}" for text in given]
        tokens = tokenizer(spaced, padding=True, truncation=True, max_length=most_tokens, return_tensors="pt")
        found: Array = run("text", tokens["input_ids"], tokens["attention_mask"])
        return found

    @torch.inference_mode()
    def run(modality: Modality, *inputs: Tensor) -> Array:
        found: Array = networks[modality](*(each.to(device) for each in inputs)).float().cpu().numpy()
        return found

    shapes = {
        modality: run(modality, *example).shape[1:]
        for modality, example in (
            ("picture", [torch.zeros(1, 3, *[int(networks["picture"].network.config.image_size)] * 2)]),
            ("sound", [torch.zeros(1, SOUND_RATE)]),
            ("text", [torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long)]),
        )
    }  # fmt: skip
    return {
        "picture": (pictures, shapes["picture"], clip.name),
        "sound": (sounds, shapes["sound"], f"{mert.name}, short clips repeated"),
        "text": (texts, shapes["text"], f"{roberta.name}, a space before the text"),
    }


def _clip(samples: Array) -> Array:
    """The middle 10 s, what is shorter repeated until they are full; mean 0 and deviation 1, as MERT expects.

    So the served tower hears a clip as well: what it was trained on and what it is asked must be prepared alike.
    """
    length = int(CLIP_SECONDS * SOUND_RATE)
    if len(samples) < length:
        samples = np.tile(samples, math.ceil(length / len(samples)))[:length]
    first = (len(samples) - length) // 2
    heard = np.asarray(samples[first : first + length], np.float64)
    return np.asarray((heard - heard.mean()) / np.sqrt(heard.var() + 1e-7), np.float32)


@dataclass(slots=True)
class Side:
    """Pictures, or clips with their captions: features and emotions of the items of one part of the data set.

    Attributes:
        features: of each modality of this side, [n, ...].
        points: [n, 2], valence and arousal.
        names: of the items.
    """

    features: dict[Modality, Tensor]
    points: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(slots=True)
class Emotions:
    """A data set's pictures and captioned clips by part. Clips without caption, and captions alone, are left out."""

    dataset: Dataset
    pictures: dict[str, Side]
    clips: dict[str, Side]
    skipped: Skipped

    @classmethod
    def opened(cls, dataset: Dataset, most_bad: float = MOST_BAD) -> Emotions:
        """Read features and points.

        Raises BadData where features are missing or too many rows are bad.
        """
        skipped = Skipped()
        names, parts = dataset.column("id"), dataset.column("part")
        points = np.array([dataset.column("valence"), dataset.column("arousal")], np.float32).T
        found: dict[Modality, dict[str, tuple[int, Array]]] = {}
        for modality in MODALITIES:
            shards = Shards.opened(dataset, modality)
            features = np.concatenate(shards.mapped())
            found[modality] = {}
            for row, each in zip(rows_of(dataset, modality), features, strict=True):
                if not np.isfinite(each).all():
                    skipped.add("features that are missing or not finite", names[row])
                elif not (np.isfinite(points[row]).all() and (points[row] >= 0).all() and (points[row] <= 1).all()):
                    skipped.add("valence or arousal outside of 0 to 1", names[row])
                else:
                    key = names[row] if modality == "picture" else str(names[row]).removeprefix(f"{modality}-")
                    found[modality][key] = (int(row), each)
        skipped.refuse_above(most_bad, len(dataset), str(dataset.folder))
        pictures, clips = {}, {}
        both = [key for key in found["sound"] if key in found["text"]]
        for part in (TRAIN, VALIDATION, TEST):
            seen = [key for key, (row, _) in found["picture"].items() if parts[row] == part]
            heard = [key for key in both if parts[found["sound"][key][0]] == part]
            pictures[part] = _side({"picture": [found["picture"][key] for key in seen]}, points, seen)
            clips[part] = _side(
                {"sound": [found["sound"][key] for key in heard], "text": [found["text"][key] for key in heard]},
                points,
                heard,
            )
        return cls(dataset, pictures, clips, skipped)


def _side(found: dict[Modality, list[tuple[int, Array]]], points: Array, names: list[str]) -> Side:
    rows = [row for row, _ in next(iter(found.values()))]
    features = {
        modality: torch.from_numpy(np.stack([each for _, each in items]).astype(np.float32))
        if items
        else torch.zeros(0)
        for modality, items in found.items()
    }
    return Side(features, torch.from_numpy(points[rows]), names)


def fixed_pairs(
    pictures: Tensor, clips: Tensor, sigma: float, seed: int, each: int = 50, share: float = 0.1
) -> Tensor:
    """Pairs as IMEMNet fixes them: [pairs, 2], a picture and a clip each.

    For each clip 30 random pictures, the 10 that match best and the 10 that match worst; of all these a tenth, drawn
    at random (MMVA, section "IMEMNet"). Where there are fewer pictures, in the same proportion.
    """
    drawn = generator(seed, "fixed pairs")
    each = min(each, len(pictures))
    ends = each // 5
    found = []
    for number, point in enumerate(clips):
        order = match_score(pictures, point[None], sigma).argsort()
        middle = torch.randperm(len(pictures), generator=drawn)[: each - 2 * ends]
        chosen = torch.cat([middle, order[:ends], order[len(order) - ends :]])
        found.append(torch.stack([chosen, torch.full_like(chosen, number)], 1))
    pairs = torch.cat(found)
    return pairs[torch.randperm(len(pairs), generator=drawn)[: max(1, round(share * len(pairs)))]]


def losses_of(
    reading: Reading, picture_points: Tensor, clip_points: Tensor, sigma: float, similarity: bool = True
) -> dict[str, Tensor]:
    """MMVA's four mean square errors; their sum is the loss. Without similarity there are three."""
    losses = {
        "picture": squared_error(reading.picture, picture_points),
        "sound": squared_error(reading.sound, clip_points),
        "text": squared_error(reading.text, clip_points),
    }
    if similarity:
        losses["similarity"] = squared_error(reading.similarity, match_score(picture_points, clip_points, sigma))
    return losses


class VaTraining:
    """One run of MMVA's training, on one device.

    Args:
        settings: how.
        emotions: on what.
        run: the folder.
        device: as torch names it.
        say: progress in plain words.
    """

    def __init__(
        self,
        settings: VaSettings,
        emotions: Emotions,
        run: Run,
        device: str = "cpu",
        say: Callable[[str], None] = print,
    ) -> None:
        self.settings, self.emotions, self.run, self.say = settings, emotions, run, say
        self.device = torch.device(device)
        self.pictures, self.clips = emotions.pictures[TRAIN], emotions.clips[TRAIN]
        if not len(self.pictures) or not len(self.clips):
            raise BadData(
                f"{len(self.pictures)} pictures and {len(self.clips)} clips with captions are left to train on: both "
                "are needed"
            )
        self.sigma = sigma_of(self.pictures.points, self.clips.points)
        batch = settings.batch
        self.pairs: Tensor | None = None
        if settings.matching == "fixed":
            self.pairs = fixed_pairs(self.pictures.points, self.clips.points, self.sigma, settings.seed)
            self.orders = [Order(len(self.pairs), batch, settings.seed, "pairs")]
        else:
            self.orders = [
                Order(len(self.pictures), batch, settings.seed, "pictures"),
                Order(len(self.clips), batch, settings.seed, "clips"),
            ]
        self.steps = settings.epochs * math.ceil(max(len(self.pictures), len(self.clips)) / batch)
        layers, width = self.clips.features["sound"].shape[1:]
        torch.manual_seed(settings.seed)
        self.sizes = Sizes(int(layers), int(width), int(self.pictures.features["picture"].shape[1]), settings.hidden)
        self.model = MMVA(self.sizes, settings.dropout).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def rows(self, step: int) -> tuple[Tensor, Tensor]:
        """Which pictures and which clips a step (from 0) brings together, [B] each."""
        if self.pairs is not None:
            chosen = self.pairs[self.orders[0].step(step)]
            return chosen[:, 0], chosen[:, 1]
        return self.orders[0].step(step), self.orders[1].step(step)

    def read(self, pictures: Side, clips: Side, seen: Tensor, heard: Tensor) -> Reading:
        """What the network says of triples."""
        given = [
            pictures.features["picture"][seen],
            clips.features["sound"][heard],
            clips.features["text"][heard],
        ]
        reading: Reading = self.model(*(each.to(self.device) for each in given))
        return reading

    def step(self, step: int) -> float:
        """One step; the loss."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * cosine(step, self.steps)
        # Dropout draws from torch's own generator: of each step's own seed, so that a resumed run draws the same.
        torch.manual_seed(generator(settings.seed, "dropout", step).initial_seed())
        self.model.train()
        seen, heard = self.rows(step)
        reading = self.read(self.pictures, self.clips, seen, heard)
        points = self.pictures.points[seen].to(self.device), self.clips.points[heard].to(self.device)
        loss = torch.stack(list(losses_of(reading, *points, self.sigma, settings.similarity).values())).sum()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        found = float(loss.detach())
        if not math.isfinite(found):
            raise BadData(f"the loss of step {step + 1} is {found}: the features are not sound")
        return found

    @torch.no_grad()
    def measure(self, part: str) -> dict[str, float]:
        """MMVA's table 1 on a part: MSE and MAE of valence, arousal and similarity; `loss` is their sum of MSEs.

        Valence and arousal are measured on each item once. Similarity is measured on every picture with every clip,
        or where these are more than MEASURED_PAIRS, on so many drawn at random, the same each time; without a
        predictor of it, by the distance of the predicted emotions.
        """
        pictures, clips = self.emotions.pictures[part], self.emotions.clips[part]
        if not len(pictures) or not len(clips):
            return {}
        self.model.eval()
        items = torch.arange(max(len(pictures), len(clips)))
        alone = self._read_all(pictures, clips, items % len(pictures), items % len(clips))
        said = {
            modality: getattr(alone, modality)[: len(pictures if modality == "picture" else clips)]
            for modality in MODALITIES
        }
        drawn = generator(0, "measured pairs", part)
        if len(pictures) * len(clips) <= MEASURED_PAIRS:
            seen, heard = torch.cartesian_prod(torch.arange(len(pictures)), torch.arange(len(clips))).T
        else:
            seen, heard = (torch.randint(len(side), (MEASURED_PAIRS,), generator=drawn) for side in (pictures, clips))
        if self.settings.similarity:
            similar = self._read_all(pictures, clips, seen, heard).similarity
        else:
            similar = match_score(said["picture"][seen], said["sound"][heard], self.sigma)
        off = similar - match_score(pictures.points[seen], clips.points[heard], self.sigma)
        found = {"similarity_mse": float(off.square().mean()), "similarity_mae": float(off.abs().mean())}
        truth = {"picture": pictures.points, "sound": clips.points, "text": clips.points}
        for modality in MODALITIES:
            away = said[modality] - truth[modality]
            for column, name in enumerate(("valence", "arousal")):
                found[f"{modality}_{name}_mse"] = float(away[:, column].square().mean())
                found[f"{modality}_{name}_mae"] = float(away[:, column].abs().mean())
        of_points = [
            (found[f"{modality}_valence_mse"] + found[f"{modality}_arousal_mse"]) / 2 for modality in MODALITIES
        ]
        return {"loss": sum(of_points) + found["similarity_mse"], **found}

    def _read_all(self, pictures: Side, clips: Side, seen: Tensor, heard: Tensor) -> Reading:
        """What the network says of many triples, on the CPU."""
        readings = [
            self.read(pictures, clips, seen[rows.start : rows.stop], heard[rows.start : rows.stop])
            for rows in batches(len(seen), 1024)
        ]
        names = (*MODALITIES, "similarity")
        return Reading(**{name: torch.cat([getattr(each, name) for each in readings]).cpu() for name in names})

    def metadata(self) -> dict[str, str]:
        """What the weights' file says of itself."""
        return {
            "kind": "mmva",
            "sigma": repr(self.sigma),
            "data": self.emotions.dataset.description.version,
            **{name: str(value) for name, value in asdict(self.sizes).items()},
        }

    def price(self) -> str:
        """What the run will cost, measured on one reading that changes nothing."""
        seen, heard = self.rows(0)
        self.model.eval()
        began = time.perf_counter()
        with torch.no_grad():
            self.read(self.pictures, self.clips, seen, heard)
        # The way back costs about twice the way there.
        seconds = 3 * (time.perf_counter() - began)
        return (
            f"{self.steps} steps of {self.settings.batch} triples ({self.settings.epochs} epochs): about "
            f"{seconds:.2g} s a step, {spoken(seconds * self.steps)} in all; "
            f"{peak_memory(self.device) / 1e9:.2g} GB of memory"
        )

    def train(self) -> Path:
        """Train to the last step, going on from the last checkpoint; the trained weights' file.

        `model` then holds these weights: the best by validation.
        """
        state = self.run.restore()
        first = 0
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            first = int(state["step"])
        for line in self.emotions.skipped.lines():
            self.say(line)
        self.say(
            f"{len(self.pictures)} pictures and {len(self.clips)} clips train, sigma {self.sigma:.4f}, matching "
            f"{self.settings.matching}{'' if self.settings.similarity else ', no similarity'}"
            f"{f'; going on at step {first}' if first else ''}"
        )
        self.say(self.price())
        curves = self.run.appender("curves.csv", ["step", "loss", "learning_rate"])
        progress = Progress("training", self.steps, first)
        began = time.perf_counter()
        validation = None
        with contextlib.ExitStack() as open_files:
            open_files.callback(curves.close)
            for step in range(first, self.steps):
                loss = self.step(step)
                done = step + 1
                rate = self.settings.learning_rate * cosine(step, self.steps)
                curves.add(step=done, loss=loss, learning_rate=rate)
                progress(done, loss=loss)
                last = done == self.steps
                if last or (self.settings.validate_every and done % self.settings.validate_every == 0):
                    measured = self.measure(VALIDATION)
                    if measured:
                        if validation is None:
                            validation = self.run.appender("validation.csv", ["step", *measured])
                            open_files.callback(validation.close)
                        validation.add(step=done, **measured)
                        self.run.keep_weights(done, self.model.state_dict(), self.metadata())
                if last or (self.settings.checkpoint_every and done % self.settings.checkpoint_every == 0):
                    self.run.save(done, {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})
        if self.steps > first:
            speed = self.run.appender("speed.csv", ["step", "steps_a_second", "memory"])
            seconds = time.perf_counter() - began
            speed.add(step=self.steps, steps_a_second=(self.steps - first) / seconds, memory=peak_memory(self.device))
            speed.close()
        path = self.run.finish(self.model.state_dict(), self.metadata())
        # What is measured afterwards is the model that was chosen, not the last step's.
        self.model.load_state_dict(read_checkpoint(path))
        self.run.draw()
        return path


def data_facts(emotions: Emotions) -> dict[str, Any]:
    """What a resumed run must find unchanged."""
    encoders = {name: Shards.opened(emotions.dataset, name).settings["source"] for name in MODALITIES}
    return {
        "folder": str(emotions.dataset.folder),
        "version": emotions.dataset.description.version,
        "encoders": encoders,
    }


@contextlib.contextmanager
def begun(folder: Path, settings: VaSettings, emotions: Emotions, resume: bool) -> Iterator[Run]:
    """The folder of a run, held while it trains."""
    run = Run(folder, document_of(settings), data_facts(emotions), resume=resume)
    try:
        yield run
    finally:
        run.close()


def table_of(measured: dict[str, float]) -> Sequence[str]:
    """What was measured as lines of a table for people, beside MMVA's published test errors."""
    published = {
        "similarity": (0.033, 0.147),
        "picture_valence": (0.0231, 0.110),
        "picture_arousal": (0.049, 0.181),
        "sound_valence": (0.0003, 0.008),
        "sound_arousal": (0.0002, 0.007),
        "text_valence": (0.019, 0.094),
        "text_arousal": (0.015, 0.082),
    }
    lines = ["| | MSE | MAE | published MSE | published MAE |", "|---|---|---|---|---|"]
    for name, (square, absolute) in published.items():
        if f"{name}_mse" in measured:
            lines.append(
                f"| {name.replace('_', ', ')} | {measured[f'{name}_mse']:.4f} | {measured[f'{name}_mae']:.4f} | "
                f"{square} | {absolute} |"
            )
    return lines
