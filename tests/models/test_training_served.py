"""Towers that were trained on a made collection are exported into a served repository, and a running model server
answers by them without a restart: prepared, trained and exported by commands, as a user gives them.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import soxr
import torch
from full_models import export, mmva_inputs, pictures
from full_models.valence_arousal import PairTokens
from PIL import Image
from transformers import CLIPImageProcessor

from networks import mmva
from networks.checkpoints import read_checkpoint
from networks.mmva import MMVA, Modality
from tests.models import tiny_senses
from tests.models.serving_senses import copied, serve
from tests.models.test_training_commands import command, stamps
from tests.serving_fixtures import Served, texts
from training.export import SERVED
from training.layouts import read_imemnet
from training.tables import Dataset, Shards
from training.va import rows_of


def annotated(folder: Path, songs: int = 12, pictures: int = 40) -> Path:
    """Pictures, songs of 19 s and captions with valence and arousal, in IMEMNet-C's layout."""
    drawn = np.random.default_rng(1)
    (folder / "pictures").mkdir(parents=True)
    (folder / "songs").mkdir()
    rows = ["file,valence,arousal,scale"]
    for number in range(pictures):
        colours = drawn.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((260, 240)).save(folder / "pictures" / f"p{number}.png")
        rows.append(f"p{number}.png,{drawn.uniform(1, 9):.2f},{drawn.uniform(1, 9):.2f},naps")
    (folder / "images.csv").write_text("\n".join(rows))
    seconds = [15_000 + 500 * number for number in range(8)]
    head = ",".join(["song_id", *(f"sample_{each}ms" for each in seconds)])
    for name in ("valence", "arousal"):
        lines = [f"{song}," + ",".join([f"{drawn.uniform(-1, 1):.2f}"] * 8) for song in range(songs)]
        (folder / f"{name}.csv").write_text("\n".join([head, *lines]))
    captions = ["song_id,start,caption"]
    for song in range(songs):
        soundfile.write(folder / "songs" / f"{song}.flac", tiny_sound(song, 19.0), 16_000)
        captions += [f'{song},{start},"{tiny_senses.WORDS[song % 4]}"' for start in (15, 17)]
    (folder / "captions.csv").write_text("\n".join(captions))
    return folder


def tiny_sound(seed: int, seconds: float) -> Any:
    """A tone in noise, mono 16 kHz."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(seed).normal(0, 0.05, len(time))
    return (0.3 * np.sin(2 * np.pi * 90 * (1 + seed) * time) + noise).astype(np.float32)


@pytest.mark.timeout(900)
def test_towers_trained_anew_are_loaded_by_the_running_server(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    tiny_senses.make_weights(weights)
    CLIPImageProcessor().save_pretrained(weights / "openai--clip-vit-base-patch32" / tiny_senses.REVISION)
    environment = {**tiny_senses.ENVIRONMENT, "PROMENADE_WEIGHTS": str(weights)}
    towers = SERVED["mmva"]
    repository = copied(tmp_path / "served", [*towers, "va_picture", "va_sound", "va_text", "match_va"])
    for name in towers:
        export.export(repository, name, environment)
    assert export.note_towers(repository) == tiny_senses.REVISION

    data, run = tmp_path / "data", tmp_path / "run"
    read_imemnet(annotated(tmp_path / "collection"), data, test_share=0.3, validation_share=0.1)
    outcome, _ = command("prepare", data, "--batch", "4", "--device", "cpu", weights=weights)
    assert (outcome["kind"], outcome["skipped"]) == ("emotions", [])
    before = stamps(data)
    assert {name.split("-")[0] for name in before} == {"picture", "sound", "text"}
    command("prepare", data, "--batch", "4", "--device", "cpu", weights=weights)
    assert stamps(data) == before
    small = ("--epochs", "8", "--batch", "8", "--hidden", "32", "--learning-rate", "0.01", "--device", "cpu")
    outcome, _ = command("va", data, "--run", run, *small, weights=weights)
    assert outcome["trained"] == str(run / "model.safetensors") and len(outcome["table"]) == 9

    trained = {
        name: mmva.load(
            path,
            *(
                weights / name / tiny_senses.REVISION
                for name in ("openai--clip-vit-base-patch32", "m-a-p--MERT-v1-95M", "FacebookAI--roberta-base")
            ),
        )
        for name, path in (
            ("old", weights / "mmva" / tiny_senses.REVISION / "model.safetensors"),
            ("new", run / "model.safetensors"),
        )
    }
    # A picture, a clip and a caption that training has read as well.
    picture = (tmp_path / "collection" / "pictures" / "p3.png").read_bytes()
    sound = soundfile.read(tmp_path / "collection" / "songs" / "3.flac", dtype="float32")[0][
        15 * 16_000 : 19 * 16_000
    ]
    words = tiny_senses.WORDS[3]
    asked: dict[str, dict[str, Any]] = {
        "va_picture": {"IMAGE": texts(picture), "MEASUREMENTS": texts("")},
        "va_sound": {
            "SOUND": sound[None, None], "LENGTHS": np.array([[len(sound)]], np.int32), "MEASUREMENTS": texts("")
        },
        "va_text": {"TEXT": texts(words)},
    }  # fmt: skip

    @torch.inference_mode()
    def torch_says(which: mmva.Towers) -> dict[str, Any]:
        tokens = PairTokens(repository / "va_text" / "1" / "tokenizer.json")
        given = tokens.tensors(tokens.pieces(words))
        (heard,) = mmva_inputs.clips_of(soxr.resample(sound, 16_000, 24_000))
        return {
            "va_picture": which.picture(torch.from_numpy(pictures.network_input(picture))[None]),
            "va_sound": which.sound(torch.from_numpy(heard)[None]),
            "va_text": which.text(*(torch.from_numpy(given[name]) for name in ("tokens", "mask"))),
        }

    def match(served: Served) -> Any:
        """What the learned predictor says of picture, sound and words."""
        vectors = [served.infer(model, inputs, ["EMBEDDING"])["EMBEDDING"] for model, inputs in asked.items()]
        point, sigma = np.full((1, 2), 0.5, np.float32), np.full((1, 1), 0.3, np.float32)
        given = {"ARTWORK_VA": point, "TRACK_VA": point, "SIGMA": sigma, "EMBEDDINGS": np.stack(vectors, 1)}
        return served.infer("match_va", given, ["LEARNED"])["LEARNED"]

    with serve(repository, tmp_path / "server", environment) as served:
        learned = [match(served)]
        first = {model: served.infer(model, inputs, ["VA"])["VA"] for model, inputs in asked.items()}
        refused: list[str] = []
        answered = Counter[str]()
        over = threading.Event()

        def go_on_asking() -> None:
            while not over.is_set():
                for model, inputs in asked.items():
                    try:
                        served.infer(model, inputs, ["VA"])
                        answered[model] += 1
                    except Exception as error:
                        refused.append(f"{model}: {error}")
                over.wait(0.05)

        asking = threading.Thread(target=go_on_asking)
        asking.start()
        try:
            address = f"http://127.0.0.1:{served.ports.http}"
            outcome, _ = command("export", run, "--repository", repository, "--server", address, weights=weights)
        finally:
            over.set()
            asking.join()
        assert outcome["set_aside"] == [tiny_senses.REVISION]
        # Whoever asked meanwhile was answered.
        assert not refused and min(answered[model] for model in asked) > 3
        assert set(outcome["loaded"]) == {*towers, *asked, "match_va"}
        second = {model: served.infer(model, inputs, ["VA"])["VA"] for model, inputs in asked.items()}
        learned.append(match(served))
        assert psutil.pid_exists(served.process)
    for answers, said, which in ((first, learned[0], "old"), (second, learned[1], "new")):
        heard = torch_says(trained[which])
        together = torch.from_numpy(np.concatenate([vector for vector, _ in heard.values()], 1))
        with torch.inference_mode():
            np.testing.assert_allclose(said, trained[which].similarity(together).numpy(), atol=1e-4, err_msg=which)
        for model, (_, right) in heard.items():
            np.testing.assert_allclose(answers[model], right, atol=1e-4, err_msg=f"{model} {which}")
    # What training prepared and what is served are prepared alike; pictures may be cut one pixel beside.
    learned = MMVA.from_state(read_checkpoint(run / "model.safetensors"))
    dataset = Dataset(data, "emotions")
    seen: tuple[tuple[Modality, str, float], ...] = (
        ("picture", "picture-000003", 0.02),
        ("sound", "sound-3-15", 2e-3),
        ("text", "text-3-15", 2e-3),
    )
    for modality, name, off in seen:
        stored = np.concatenate(Shards.opened(dataset, modality).mapped())
        row = rows_of(dataset, modality).tolist().index(dataset.column("id").index(name))
        with torch.inference_mode():
            felt = learned.feel(modality, torch.from_numpy(stored[row : row + 1]).float()).numpy()
        np.testing.assert_allclose(second[f"va_{modality}"], felt, atol=off, err_msg=modality)
    assert all(np.abs(first[model] - second[model]).max() > 1e-2 for model in asked), "the new towers read otherwise"
