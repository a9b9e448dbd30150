"""The papers' equations on worked numbers, and a step of the aligner's training beside one written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks.aligner import ImageAligner
from networks.mmva import match_score
from tests.models import tiny_training as made
from tests.models.tiny_training import one_thread  # noqa: F401
from training.aligner import AlignerTraining, Pairs, begun
from training.objective import (
    cosine,
    min_snr_weights,
    noised,
    sigma_of,
    signal_to_noise,
    target_of,
    warm_up,
    weighted_errors,
)
from training.randomness import Order, generator
from training.settings import AlignerSettings


def test_signal_to_noise_of_worked_steps() -> None:
    kept = torch.tensor([0.99, 0.9, 0.5, 0.2, 0.01])
    found = signal_to_noise(kept, torch.tensor([0, 1, 2, 3, 4]))
    assert torch.allclose(found, torch.tensor([99.0, 9.0, 1.0, 0.25, 1 / 99]), rtol=1e-5)


def test_min_snr_weights_of_worked_steps() -> None:
    snr = torch.tensor([99.0, 9.0, 5.0, 1.0, 0.25])
    # min(SNR, 5) / SNR: 5/99, 5/9, then 1 for all at or below 5.
    assert torch.allclose(min_snr_weights(snr), torch.tensor([5 / 99, 5 / 9, 1.0, 1.0, 1.0]))
    assert torch.allclose(min_snr_weights(snr, gamma=1.0), torch.tensor([1 / 99, 1 / 9, 0.2, 1.0, 1.0]))
    velocity = min_snr_weights(snr, prediction="v_prediction")
    assert torch.allclose(velocity, torch.tensor([0.05, 0.5, 5 / 6, 0.5, 0.2]))


def test_a_weighted_error_of_worked_numbers() -> None:
    predicted, target = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    # (1 + 9) / 2 = 5 and 4 / 2 = 2, times the weights.
    assert weighted_errors(predicted, target, torch.tensor([1.0, 0.5])).tolist() == [5.0, 1.0]


def test_noise_and_velocity_lie_at_right_angles_to_each_other() -> None:
    kept, steps = torch.tensor([0.64]), torch.tensor([0])
    clean, noise = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    assert noised(clean, noise, kept, steps).item() == pytest.approx(0.8 * 2 - 0.6)
    assert target_of(clean, noise, kept, steps, "epsilon") is noise
    assert target_of(clean, noise, kept, steps, "v_prediction").item() == pytest.approx(-0.8 - 0.6 * 2)


def test_the_warm_up_of_the_paper() -> None:
    assert [warm_up(step, 1324) for step in (0, 331, 662, 1324, 37_199)] == [0.0, 0.25, 0.5, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0


def test_the_cosine_schedule() -> None:
    assert [round(cosine(step, 100), 6) for step in (0, 25, 50, 100, 200)] == [1.0, 0.853553, 0.5, 0.0, 0.0]


def test_sigma_and_match_score_of_worked_points() -> None:
    pictures, clips = torch.tensor([[0.0, 0.0], [0.3, 0.4]]), torch.tensor([[0.0, 0.0], [0.6, 0.8]])
    # Distances 0, 1, 0.5, 0.5.
    sigma = sigma_of(pictures, clips)
    assert sigma == pytest.approx(0.5)
    found = match_score(pictures, clips, sigma)
    assert found.tolist() == pytest.approx([1.0, math.exp(-1.0)])
    with pytest.raises(ValueError, match="no sigma"):
        sigma_of(pictures[:1], clips[:1])
    with pytest.raises(ValueError, match="at least one"):
        sigma_of(pictures[:0], clips)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(2, 50), batch=st.integers(1, 70), steps=st.integers(1, 12))
def test_every_epoch_sees_every_row_once(rows: int, batch: int, steps: int) -> None:
    order = Order(rows, batch, 0)
    seen = torch.cat([order.step(step) for step in range(steps)])
    assert len(seen) == batch * steps
    for epoch in range(len(seen) // rows):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))
    # Each step is the same whatever was asked before it.
    assert torch.equal(Order(rows, batch, 0).step(steps - 1), order.step(steps - 1))


def test_randomness_hangs_on_names_alone() -> None:
    first = torch.rand(3, generator=generator(0, "step", 7))
    torch.rand(5)
    assert torch.equal(first, torch.rand(3, generator=generator(0, "step", 7)))
    assert not torch.equal(first, torch.rand(3, generator=generator(0, "step", 8)))
    assert not torch.equal(first, torch.rand(3, generator=generator(1, "step", 7)))


def test_a_step_is_the_one_written_by_hand(tmp_path: Path) -> None:
    model = made.model()
    fixed = made.fixed_text(model)
    pairs = Pairs(made.made_pairs(tmp_path / "data", 40))
    chosen = AlignerSettings(
        tokens=2, steps=5, warmup=0, learning_rate=1e-3, batch=6, micro_batch=4, hidden_size=32, clip=0.05
    )
    with begun(tmp_path / "run", chosen, pairs, model, resume=False) as run:
        training = AlignerTraining(chosen, pairs, model, run, fixed=fixed, say=lambda text: None)
        by_hand = ImageAligner(2, made.VECTOR, token_size=16, hidden_size=32)
        by_hand.load_state_dict(training.aligner.state_dict())
        optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3)
        for step in range(3):
            batch = training.batch(step)
            loss, norm = training.step(step, batch)

            scheduler = model.scheduler
            kept = scheduler.alphas_cumprod[batch.timesteps]
            noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
            states = by_hand(batch.vectors)
            for _ in range(8):
                last = model.language_model.transformer(inputs_embeds=states).last_hidden_state[:, -1:]
                states = torch.cat([states, last], 1)
            predicted = model.unet(
                noisy,
                batch.timesteps,
                encoder_hidden_states=states[:, -8:],
                encoder_hidden_states_1=fixed.prompt.t5.repeat(6, 1, 1),
                encoder_attention_mask_1=fixed.prompt.mask.repeat(6, 1),
            ).sample
            ratio = kept / (1 - kept)
            weights = torch.minimum(ratio, torch.full_like(ratio, 5.0)) / ratio
            expected = (((predicted - batch.noise) ** 2).mean(dim=(1, 2, 3)) * weights).mean()
            optimizer.zero_grad()
            expected.backward()
            length = torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.05)
            optimizer.step()

            assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
            assert norm == pytest.approx(float(length), rel=1e-4)
            for name, value in by_hand.state_dict().items():
                # Adam's first steps divide by the gradient's own size, so tiny gradients lose digits.
                assert torch.allclose(training.aligner.state_dict()[name], value, atol=2e-5), name
