"""The learning rate over a run, and when the run ends."""

from __future__ import annotations

from training.recipe import TrainingConfig


def done_share(config: TrainingConfig, step: int, epochs: float, seconds: float) -> float:
    """Share of the nearest limit that is used up; 1 or more ends the run."""
    shares = [
        step / config.max_steps if config.max_steps else 0.0,
        epochs / config.max_epochs if config.max_epochs else 0.0,
        seconds / (60 * config.max_minutes) if config.max_minutes else 0.0,
    ]
    return max(shares)


def learning_rate(config: TrainingConfig, step: int, share: float) -> float:
    """Rate of a step (from 1): linear warm-up, then inverse square root (Vaswani et al. 2017).

    `share` of the run is done; in its last `cooldown` the rate also falls linearly to a tenth.
    """
    rate = min(step / config.warmup_steps, (config.warmup_steps / step) ** 0.5)
    if config.cooldown and share > 1 - config.cooldown:
        left = max(1 - share, 0.0) / config.cooldown
        rate *= 0.1 + 0.9 * left
    return config.learning_rate * rate
