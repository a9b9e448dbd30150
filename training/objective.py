"""What the two trainings minimise, and how their learning rates go: the papers' equations, one function each.

Art2Mus (Rinaldi et al. 2026, section 4.4): noise prediction weighted by min-SNR, equations 8 to 11, with a constant
learning rate after a warm-up (section 5.2). MMVA: errors of valence and arousal and of the match score S = exp(-d /
sigma), with a cosine schedule.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from networks.mmva import mean_distance

GAMMA = 5.0
"""Of min-SNR (Hang et al. 2023), as in Rinaldi et al. 2026, equation 11."""

Prediction = Literal["epsilon", "v_prediction"]


def signal_to_noise(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """SNR of time steps, alpha_bar / (1 - alpha_bar): Rinaldi et al. 2026, equation 10.

    Args:
        alphas_cumprod: [T], the share of signal left at each step, in (0, 1).
        timesteps: [B], whole numbers in [0, T).

    Returns [B], positive.
    """
    kept = alphas_cumprod.to(timesteps.device)[timesteps].float()
    return kept / (1.0 - kept)


def min_snr_weights(snr: Tensor, gamma: float = GAMMA, prediction: Prediction = "epsilon") -> Tensor:
    """Weight of each sample's error, min(SNR, gamma) / SNR: Rinaldi et al. 2026, equation 11.

    The paper's sentence beside the equation says the opposite of it (that steps with little signal count less). The
    equation is followed: steps with more signal than gamma count less, all others 1. A network that predicts velocity
    has SNR + 1 below the fraction (Hang et al. 2023).

    Args:
        snr: [B], positive.
        gamma: above which more signal counts no more.
        prediction: what the network predicts.

    Returns [B], in (0, 1].
    """
    below = snr if prediction == "epsilon" else snr + 1.0
    return snr.clamp(max=gamma) / below


def noised(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """z_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) noise: Rinaldi et al. 2026, equation 8. [B, ...]."""
    kept = alphas_cumprod.to(latents.device)[timesteps].float().reshape(-1, *[1] * (latents.ndim - 1))
    return kept.sqrt() * latents + (1.0 - kept).sqrt() * noise


def target_of(
    latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor, prediction: Prediction
) -> Tensor:
    """What the network should predict: the noise (equation 9), or for such a network the velocity. [B, ...]."""
    if prediction == "epsilon":
        return noise
    kept = alphas_cumprod.to(latents.device)[timesteps].float().reshape(-1, *[1] * (latents.ndim - 1))
    return kept.sqrt() * noise - (1.0 - kept).sqrt() * latents


def weighted_errors(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Each sample's mean square error times its weight, in float32: equations 9 and 11; their mean is the loss.

    Args:
        predicted, target: [B, ...].
        weights: [B].

    Returns [B].
    """
    return weights * (predicted.float() - target.float()).square().flatten(1).mean(1)


def warm_up(step: int, steps: int) -> float:
    """Share of the learning rate at a step (from 0): rises in a line from 0 over `steps` steps, then is 1.

    Rinaldi et al. 2026, section 5.2: 1,324 of 37,200 steps; 2024: 500 of 10,000.
    """
    return 1.0 if step >= steps else step / steps


def cosine(step: int, steps: int) -> float:
    """Share of the learning rate at a step (from 0) of a cosine schedule over `steps` steps: 1 down to 0 (MMVA)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, steps))))


def sigma_of(pictures: Tensor, clips: Tensor) -> float:
    """MMVA's sigma: the mean Euclidean distance over all pairs of a picture and a clip (equation 1).

    Args:
        pictures: [A, 2], valence and arousal in [0, 1].
        clips: [B, 2].

    Raises ValueError where there is no pair, or all are at one point: the match score would be undefined.
    """
    sigma = mean_distance(pictures, clips)
    if not sigma > 0:
        raise ValueError("all pictures and clips have the same valence and arousal, so there is no sigma")
    return sigma


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """MSE, a single number, in float32: MMVA's losses of valence and arousal and of similarity."""
    return (predicted.float() - target.float()).square().mean()
