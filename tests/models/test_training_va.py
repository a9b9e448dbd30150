"""Training MMVA: matching, losses, ablations, resuming, and a planted rule that it must find on held-out items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from networks.checkpoints import read_checkpoint
from networks.mmva import MMVA, Sizes, match_score
from tests.models.tiny_training import (  # noqa: F401
    LAYERS,
    PICTURE,
    SMALL_VA,
    WIDTH,
    made_emotions,
    one_thread,
)
from training.objective import sigma_of
from training.randomness import generator
from training.settings import RunError, VaSettings
from training.splits import TEST
from training.tables import BadData, Dataset, Shards, write_dataset
from training.va import Emotions, VaTraining, begun, fixed_pairs, losses_of, make_features


def trained(folder: Path, emotions: Emotions, **changes: Any) -> tuple[VaTraining, dict[str, float]]:
    settings = VaSettings(**{**SMALL_VA, **changes})
    with begun(folder, settings, emotions, resume=False) as run:
        training = VaTraining(settings, emotions, run, say=lambda text: None)
        training.train()
        return training, training.measure(TEST)


def test_the_losses_are_the_papers() -> None:
    model = MMVA(Sizes(LAYERS, WIDTH, PICTURE, 8)).eval()
    given = torch.randn(3, PICTURE), torch.randn(3, LAYERS, WIDTH), torch.randn(3, LAYERS, WIDTH)
    reading = model(*given)
    seen, heard = torch.rand(3, 2), torch.rand(3, 2)
    found = losses_of(reading, seen, heard, 0.4)
    assert set(found) == {"picture", "sound", "text", "similarity"}
    # Words are judged by the clip's own valence and arousal; the match by picture and clip.
    assert float(found["text"].detach()) == pytest.approx(float(((reading.text - heard) ** 2).mean().detach()))
    distance = ((seen - heard) ** 2).sum(1).sqrt()
    expected = ((reading.similarity - torch.exp(-distance / 0.4)) ** 2).mean()
    assert float(found["similarity"].detach()) == pytest.approx(float(expected.detach()))
    assert "similarity" not in losses_of(reading, seen, heard, 0.4, similarity=False)


def test_random_matching_meets_everybody_and_fixed_pairs_stay(tmp_path: Path) -> None:
    emotions = Emotions.opened(made_emotions(tmp_path / "data"))
    met: dict[str, set[tuple[int, int]]] = {}
    for matching in ("random", "fixed"):
        settings = VaSettings(matching=matching, batch=32, hidden=8)
        with begun(tmp_path / matching, settings, emotions, resume=False) as run:
            training = VaTraining(settings, emotions, run, say=lambda text: None)
            met[matching] = {
                pair
                for step in range(120)
                for pair in zip(*(each.tolist() for each in training.rows(step)), strict=True)
            }
            if training.pairs is not None:
                assert met["fixed"] == {tuple(pair) for pair in training.pairs.tolist()}
    assert len(met["random"]) > 3 * len(met["fixed"])


def test_fixed_pairs_are_imemnets() -> None:
    pictures, clips = (
        torch.rand((100, 2), generator=generator(0, "p")),
        torch.rand((20, 2), generator=generator(0, "c")),
    )
    sigma = sigma_of(pictures, clips)
    every = fixed_pairs(pictures, clips, sigma, 0, share=1.0)
    assert len(every) == 20 * 50
    assert len(fixed_pairs(pictures, clips, sigma, 0)) == 100
    for clip in range(20):
        chosen = every[every[:, 1] == clip, 0]
        scores = match_score(pictures, clips[clip : clip + 1], sigma)
        assert set(scores.topk(10).indices.tolist()) <= set(chosen.tolist())
        assert set((-scores).topk(10).indices.tolist()) <= set(chosen.tolist())


def test_a_planted_rule_is_found_and_beats_both_ablations(tmp_path: Path) -> None:
    # With a third of these items the margins are smaller than the draw of the items (benchmarks.training_margins).
    emotions = Emotions.opened(made_emotions(tmp_path / "data", 400, 100))
    found = {
        name: trained(tmp_path / name, emotions, **changes)[1]
        for name, changes in {
            "mmva": {},
            "fixed": {"matching": "fixed"},
            "alone": {"similarity": False},
        }.items()
    }
    points = torch.cat([emotions.pictures[TEST].points, emotions.clips[TEST].points])
    blind = float(points.var(0).mean())
    for modality in ("picture", "sound", "text"):
        error = (found["mmva"][f"{modality}_valence_mse"] + found["mmva"][f"{modality}_arousal_mse"]) / 2
        assert error < 0.4 * blind, modality
    print({name: (each["loss"], each["similarity_mse"]) for name, each in found.items()})
    assert found["mmva"]["loss"] < found["fixed"]["loss"]
    assert found["mmva"]["loss"] < found["alone"]["loss"]


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    emotions = Emotions.opened(made_emotions(tmp_path / "data", 40, 10))
    settings = VaSettings(epochs=6, batch=8, hidden=8, validate_every=7, checkpoint_every=5)

    class Stopped(Exception):
        pass

    def train(folder: Path, until: int | None, resume: bool = False) -> Path | None:
        with begun(folder, settings, emotions, resume) as run:
            training = VaTraining(settings, emotions, run, say=lambda text: None)
            step = training.step

            def watched(number: int) -> float:
                if number == until:
                    raise Stopped
                return step(number)

            training.step = watched  # type: ignore[method-assign]
            try:
                return training.train()
            except Stopped:
                return None

    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(whole, None)
    # Stopped between two checkpoints: what came after the last one is undone and done again.
    assert train(parted, 13) is None
    assert len((parted / "curves.csv").read_text().splitlines()) == 14
    train(parted, None, resume=True)
    for name in ("model.safetensors", "curves.csv", "validation.csv"):
        assert (whole / name).read_bytes() == (parted / name).read_bytes(), name
    with pytest.raises(RunError, match="holds a run already"):
        train(parted, None)
    other = VaSettings(epochs=6, batch=16, hidden=8)
    with pytest.raises(RunError, match=r"other settings \(batch 8 -> 16"), begun(parted, other, emotions, True):
        pass


def test_what_is_measured_after_training_is_the_model_that_validation_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emotions = Emotions.opened(made_emotions(tmp_path / "data", 40, 10))
    settings = VaSettings(epochs=6, batch=8, hidden=8, validate_every=7)
    with begun(tmp_path / "run", settings, emotions, resume=False) as run:
        training = VaTraining(settings, emotions, run, say=lambda text: None)
        losses = iter([3.0, 1.0, 2.0, 4.0])
        with monkeypatch.context() as changed:
            changed.setattr(training, "measure", lambda part: {"loss": next(losses)})
            chosen = read_checkpoint(training.train())
        assert run.best_step() == 14 and training.steps > 14
        assert all(torch.equal(value, chosen[name]) for name, value in training.model.state_dict().items())


def test_errors_are_measured_on_each_item_once_and_on_many_pairs(tmp_path: Path) -> None:
    emotions = Emotions.opened(made_emotions(tmp_path / "data", 40, 10))
    with begun(tmp_path / "run", VaSettings(hidden=8), emotions, resume=False) as run:
        training = VaTraining(VaSettings(hidden=8), emotions, run, say=lambda text: None)
        found = training.measure(TEST)
    pictures, clips = emotions.pictures[TEST], emotions.clips[TEST]
    model = training.model.eval()
    with torch.no_grad():
        seen = model.feel("picture", pictures.features["picture"])
        away = (seen - pictures.points).square().mean(0)
        # Every picture with every clip: there are fewer than would be drawn.
        every = torch.cartesian_prod(torch.arange(len(pictures)), torch.arange(len(clips))).T
        reading = model(
            pictures.features["picture"][every[0]], *(clips.features[name][every[1]] for name in ("sound", "text"))
        )
    right = match_score(pictures.points[every[0]], clips.points[every[1]], training.sigma)
    assert [found["picture_valence_mse"], found["picture_arousal_mse"]] == pytest.approx(away.tolist(), rel=1e-4)
    assert found["similarity_mse"] == pytest.approx(float((reading.similarity - right).square().mean()), rel=1e-4)


def test_features_are_computed_once_and_one_bad_item_does_not_spoil_its_batch(tmp_path: Path) -> None:
    rows = [
        {"id": f"{modality}-{number}", "modality": modality, "group": str(number), "file": f"{number}.bin",
         "text": f"words {number}", "valence": 0.5, "arousal": 0.5, "part": "train"}
        for modality in ("picture", "sound", "text")
        for number in range(5)
    ]  # fmt: skip
    write_dataset(tmp_path, "emotions", rows, source="made")
    dataset = Dataset(tmp_path, "emotions")
    calls: list[int] = []

    def files(given: list[Any]) -> np.ndarray:
        calls.append(len(given))
        if any(path.name == "3.bin" for path, _, _ in given):
            raise BadData("no such file")
        return np.ones((len(given), 2))

    def texts(given: list[Any]) -> np.ndarray:
        return np.array([[float(text.split()[1]), 0.0] for text in given])

    encoders: Any = {name: (encode, (2,), "made") for name, encode in
                     (("picture", files), ("sound", files), ("text", texts))}  # fmt: skip
    skipped = make_features(dataset, encoders, batch=4, most_bad=0.5)
    assert skipped.names == {"no such file": ["picture-3", "sound-3"]}
    calls.clear()
    assert len(make_features(dataset, encoders, batch=4, most_bad=0.5)) == 0
    assert calls == []
    assert np.concatenate(Shards.opened(dataset, "text").mapped())[:, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(BadData, match="2 of 15 rows"):
        Emotions.opened(dataset)
