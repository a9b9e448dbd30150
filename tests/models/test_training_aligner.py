"""Training the aligner: nothing else moves, a planted rule is found, a killed run goes on bit for bit, and what a run
leaves can be read, heard, exported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch

from networks.aligner import ImageAligner
from networks.audioldm2 import AudioLDM2, Conditioning, Settings, TextStates
from networks.checkpoints import read_checkpoint
from tests.models import tiny_training as made
from tests.models.tiny_training import one_thread  # noqa: F401
from training.__main__ import main
from training.aligner import AlignerTraining, FixedText, Pairs, begun
from training.card import write_card
from training.settings import AlignerSettings, RunError
from training.splits import TEST
from training.tables import BadData

SMALL = AlignerSettings(
    tokens=2,
    steps=6,
    warmup=2,
    learning_rate=1e-3,
    batch=4,
    hidden_size=16,
    validate_every=3,
    sample_every=0,
    checkpoint_every=2,
    samples=1,
    sample_steps=2,
)


@pytest.fixture(scope="module")
def taught() -> tuple[AudioLDM2, FixedText]:
    """An AudioLDM 2 that understands moods, taught once for this file."""
    torch.set_num_threads(1)
    return made.taught(160)


def _changed(settings: AlignerSettings, **changes: object) -> AlignerSettings:
    from dataclasses import replace

    return replace(settings, **changes)  # type: ignore[arg-type]


def _quiet(text: str) -> None:
    return None


def test_only_the_aligner_moves(tmp_path: Path) -> None:
    model = made.model()
    fixed = made.fixed_text(model)
    frozen = {
        name: {key: value.clone() for key, value in getattr(model, name).state_dict().items()}
        for name in ("unet", "vae", "vocoder", "language_model", "projection_model", "text_encoder", "text_encoder_2")
    }
    pairs = Pairs(made.made_pairs(tmp_path / "data", 40))
    with begun(tmp_path / "run", SMALL, pairs, model, resume=False) as run:
        training = AlignerTraining(SMALL, pairs, model, run, fixed=fixed, say=_quiet)
        before = {name: value.clone() for name, value in training.aligner.state_dict().items()}
        training.train()
        for name, value in training.aligner.state_dict().items():
            assert not torch.equal(value, before[name]), f"{name} did not move"
    for part, state in frozen.items():
        network = getattr(model, part)
        assert all(parameter.grad is None for parameter in network.parameters()), part
        for key, value in network.state_dict().items():
            assert torch.equal(value, state[key]), f"{part}.{key} moved"


def test_a_share_of_the_pictures_is_dropped(tmp_path: Path) -> None:
    pairs = Pairs(made.made_pairs(tmp_path / "data", 40))
    rows = np.arange(40).repeat(25)
    drawn = torch.Generator().manual_seed(0)
    batch = pairs.batch(rows, drawn, 1000, 0.1)
    dropped = ~batch.vectors.any(1)
    assert 0.07 < float(dropped.float().mean()) < 0.13
    assert not (~pairs.batch(rows, drawn, 1000, 0.0).vectors.any(1)).any()
    assert int(batch.timesteps.min()) >= 0 and 950 < int(batch.timesteps.max()) < 1000
    # Latents are drawn anew from the stored mean and deviation.
    same = batch.latents[:25]
    assert float(same.std(0).mean()) == pytest.approx(0.1, rel=0.2)


def test_small_pieces_add_up_to_the_same_step(tmp_path: Path) -> None:
    model = made.model()
    fixed = made.fixed_text(model)
    pairs = Pairs(made.made_pairs(tmp_path / "data", 40))
    gradients = []
    for name, size in (("whole", None), ("pieces", 3)):
        settings = _changed(SMALL, batch=8, micro_batch=size)
        with begun(tmp_path / name, settings, pairs, model, resume=False) as run:
            training = AlignerTraining(settings, pairs, model, run, fixed=fixed, say=_quiet)
            loss = training.backward(training.batch(0))
            gradients.append((float(loss), training.aligner.projection2.weight.grad.clone()))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    assert torch.allclose(gradients[0][1], gradients[1][1], rtol=1e-4, atol=1e-7)


def test_held_out_pictures_get_the_music_of_their_mood(
    taught: tuple[AudioLDM2, FixedText], tmp_path: Path
) -> None:  # fmt: skip
    model, fixed = taught
    pairs = Pairs(made.made_pairs(tmp_path / "data", 200))
    settings = _changed(
        SMALL, steps=100, warmup=10, learning_rate=2e-3, batch=32, hidden_size=64, validate_every=50, samples=0
    )
    rows = torch.from_numpy(pairs.rows_of(TEST))
    given = made.moods(200)[rows]
    with begun(tmp_path / "run", settings, pairs, model, resume=False) as run:
        training = AlignerTraining(settings, pairs, model, run, fixed=fixed, say=_quiet)
        untrained = training.validate()[0]
        training.train()
        loss, swapped = training.validate()
        heard = made.heard_moods(_latents(model, fixed, training.aligner, pairs.vectors[rows]))
    # The loss fell, and another's picture does it no good.
    assert loss < 0.9 * untrained
    assert loss < 0.9 * swapped
    for mood in (0, 1):
        correlation = float(np.corrcoef(heard[:, mood].numpy(), given[:, mood].numpy())[0, 1])
        assert correlation > 0.7, (mood, correlation)
    # Nearer to their own mood than to that of any other, more often than chance by far (1 of 20).
    nearest = torch.cdist(heard, given).argmin(1)
    assert float((nearest == torch.arange(len(rows))).float().mean()) > 0.15


@torch.no_grad()
def _latents(model: AudioLDM2, fixed: FixedText, aligner: ImageAligner, vectors: torch.Tensor) -> torch.Tensor:
    count = len(vectors)
    said = fixed.prompt
    states = TextStates(
        said.clap.expand(count, -1, -1), said.t5.expand(count, -1, -1), said.mask.expand(count, -1)
    )  # fmt: skip
    condition: Conditioning = model.condition(states, aligner(vectors), text_in_language_model=False)
    noise = torch.randn((count, *made.LATENT), generator=torch.Generator().manual_seed(1))
    return model.denoise(condition, None, noise, Settings(steps=20, guidance=1.0))


def _command(data: Path, run: Path, model: Path, steps: int, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "training", "aligner", str(data), "--run", str(run), "--audioldm2", str(model)),
        *("--steps", str(steps), "--tokens", "2", "--batch", "4", "--hidden-size", "16", "--warmup", "3"),
        *("--validate-every", "5", "--checkpoint-every", "4", "--sample-every", "0", "--samples", "1"),
        *("--sample-steps", "2", "--learning-rate", "0.001", "--device", "cpu", *more),
    ]


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.models.tiny import audioldm2_parts, save_audioldm2

    model = save_audioldm2(tmp_path / "audioldm2", audioldm2_parts())
    made.made_pairs(tmp_path / "data", 40)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    steps = 40
    killed = subprocess.Popen(
        _command(tmp_path / "data", tmp_path / "killed", model, steps), env=environment, stderr=subprocess.DEVNULL
    )
    curves = tmp_path / "killed" / "curves.csv"
    until = time.monotonic() + 120
    while not (curves.is_file() and curves.read_text().count("\n") > 9):
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert curves.read_text().count("\n") < steps
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    said = subprocess.run(
        _command(tmp_path / "data", tmp_path / "killed", model, steps, "--resume"),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "going on at step" in said.stderr
    # The run that nobody disturbed is this process's own: a start of the libraries less.
    assert main(_command(tmp_path / "data", tmp_path / "whole", model, steps)[3:]) == 0
    cost = capsys.readouterr().err
    # It says first what it will cost.
    assert "s a step" in cost and "GB of memory" in cost and "32 pairs train, 4 validate" in cost
    for name in ("model.safetensors", "curves.csv", "validation.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / f"{steps:06d}" / "state.pt", weights_only=True)
        for name in ("whole", "killed")
    )
    assert all(torch.equal(value, other["aligner"][name]) for name, value in one["aligner"].items())
    assert all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(other["optimizer"]["state"][number][name]))
        for number, values in one["optimizer"]["state"].items()
        for name, value in values.items()
    )
    card = (tmp_path / "whole" / "MODEL_CARD.md").read_text()
    assert (
        "# Art2Mus image aligner" in card
        and "| learning rate | 0.001 |" in card
        and "loss with another picture" in card
    )


def test_a_run_leaves_what_can_be_read_and_heard(tmp_path: Path) -> None:
    model = made.model()
    fixed = made.fixed_text(model)
    pairs = Pairs(made.made_pairs(tmp_path / "data", 40))
    settings = _changed(SMALL, sample_every=3)
    with begun(tmp_path / "run", settings, pairs, model, resume=False) as run:
        with (
            pytest.raises(RunError, match="another process trains"),
            begun(tmp_path / "run", settings, pairs, model, resume=True),
        ):
            pass
        training = AlignerTraining(settings, pairs, model, run, fixed=fixed, say=_quiet)
        path = training.train()
        assert path is not None
        write_card(run, [f"- {name}: {value}" for name, value in training.measure().items()])
    folder = tmp_path / "run"
    facts = json.loads((folder / "run.json").read_text())
    assert facts["settings"]["gamma"] == 5.0
    assert facts["data"]["version"] == pairs.dataset.description.version
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["000004", "000006"]
    assert (folder / "curves.png").stat().st_size > 5_000
    lines = (folder / "curves.csv").read_text().splitlines()
    assert lines[0] == "step,loss,learning_rate,gradient_norm"
    assert [float(line.split(",")[2]) for line in lines[1:5]] == [0.0, 0.0005, 0.001, 0.001]
    samples, rate = soundfile.read(next((folder / "samples" / "000003").glob("*.wav")))
    assert rate == 16_000 and len(samples) == made.LATENT[1] * model.shrink * model.hop
    best = read_checkpoint(folder / "model.safetensors")
    assert ImageAligner.from_state(best, token_size=16).tokens == 2
    assert "made-1, 24 numbers" in (folder / "MODEL_CARD.md").read_text()
    with (
        pytest.raises(RunError, match="other settings"),
        begun(folder, _changed(settings, gamma=4.0), pairs, model, resume=True),
    ):
        pass
    other = made.model(seed=5)
    with pytest.raises(RunError, match=r"other data \(.*unet"), begun(folder, settings, pairs, other, resume=True):
        pass


def test_a_latent_that_goes_bad_is_named_and_too_many_end_the_run(tmp_path: Path) -> None:
    model = made.model()
    fixed = made.fixed_text(model)
    dataset = made.made_pairs(tmp_path / "data", 40)
    pairs = Pairs(dataset)
    # After the check at the start: a disk that fails, or a shard that somebody writes.
    values = np.load(tmp_path / "data" / "latents-00000.npy", mmap_mode="r+")
    values[int(pairs.rows_of("train")[3])] = np.nan
    values.flush()
    said: list[str] = []
    settings = _changed(SMALL, steps=10, batch=16, samples=0)
    with begun(tmp_path / "run", settings, pairs, model, resume=False) as run:
        training = AlignerTraining(settings, pairs, model, run, fixed=fixed, say=said.append)
        training.train()
        assert all(torch.isfinite(value).all() for value in training.aligner.state_dict().values())
    assert sum("are not finite" in line for line in said) == 1
    values[:] = np.nan
    values.flush()
    with begun(tmp_path / "other", settings, pairs, model, resume=False) as run:
        training = AlignerTraining(settings, pairs, model, run, fixed=fixed, say=said.append)
        with pytest.raises(BadData, match="more than the 5%"):
            training.train()


def test_a_broken_checkpoint_is_passed_over(tmp_path: Path) -> None:
    model = made.model()
    fixed = made.fixed_text(model)
    pairs = Pairs(made.made_pairs(tmp_path / "data", 40))
    with begun(tmp_path / "run", SMALL, pairs, model, resume=False) as run:
        AlignerTraining(SMALL, pairs, model, run, fixed=fixed, say=_quiet).train()
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    broken = tmp_path / "run" / "checkpoints" / "000006" / "state.pt"
    broken.write_bytes(broken.read_bytes()[:1000])
    with begun(tmp_path / "run", SMALL, pairs, model, resume=True) as run:
        AlignerTraining(SMALL, pairs, model, run, fixed=fixed, say=_quiet).train()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_lower_precision_trains_as_well(tmp_path: Path) -> None:
    from accelerate.state import AcceleratorState

    model = made.model()
    fixed = made.fixed_text(model)
    pairs = Pairs(made.made_pairs(tmp_path / "data", 40))
    settings = _changed(SMALL, precision="bf16", samples=0)
    AcceleratorState._reset_state(True)
    try:
        with begun(tmp_path / "run", settings, pairs, model, resume=False) as run:
            training = AlignerTraining(settings, pairs, model, run, fixed=fixed, say=_quiet)
            training.train()
            assert training.aligner.projection1.weight.dtype == torch.float32
            assert all(np.isfinite(float(row["loss"])) for row in run.read("curves.csv"))
    finally:
        AcceleratorState._reset_state(True)


def test_two_processes_take_the_same_steps_as_one_and_go_on_after_a_kill(tmp_path: Path) -> None:
    from tests.models.tiny import audioldm2_parts, save_audioldm2

    model = save_audioldm2(tmp_path / "audioldm2", audioldm2_parts())
    made.made_pairs(tmp_path / "data", 40)
    steps = 24
    assert main(_command(tmp_path / "data", tmp_path / "one", model, steps)[3:]) == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    shared = [*_command(tmp_path / "data", tmp_path / "two", model, steps), "--processes", "2"]
    starter = subprocess.Popen(shared, env=environment, stderr=subprocess.PIPE, text=True)
    curves = tmp_path / "two" / "curves.csv"
    until = time.monotonic() + 120
    while not (curves.is_file() and curves.read_text().count("\n") > 6):
        assert starter.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    started = psutil.Process(starter.pid).children()
    assert len(started) == 2
    starter.kill()
    said = starter.communicate(timeout=60)[1]
    # Those that it started end with it, and leave the folder to others.
    assert psutil.wait_procs(started, timeout=30)[1] == []
    # One of the two speaks and writes.
    assert said.count("32 pairs train") == 1
    done = subprocess.run([*shared, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on at step") == 1 and done.stderr.count("trained:") == 1
    one, two = (read_checkpoint(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    # The same batch, noise and steps; only the order in which gradients are added differs.
    assert all(torch.allclose(value, two[name], atol=1e-4) for name, value in one.items())
    lines = [(tmp_path / name / "curves.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) == steps + 1
    for mine, theirs in zip(lines[0][1:], lines[1][1:], strict=True):
        assert [float(value) for value in mine.split(",")] == pytest.approx(
            [float(value) for value in theirs.split(",")], rel=1e-3
        )


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = _command(tmp_path / "data", tmp_path / "run", tmp_path / "model", 8, "--processes", "3")
    assert main(command[3:]) == 1
    assert "a batch of 4 cannot be shared by 3 processes evenly" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_several_processes_fail_as_one(tmp_path: Path) -> None:
    command = _command(tmp_path / "data", tmp_path / "run", tmp_path / "model", 8, "--processes", "2")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    # The last line says why, and no trace follows it.
    assert "is no data set" in done.stderr.splitlines()[-1]
