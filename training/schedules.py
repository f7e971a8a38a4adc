"""How learning rates fall: pure functions of the share of the training that is done."""

from __future__ import annotations

import math
from typing import Literal

Curve = Literal["cosine", "exponential", "constant"]
CURVES: tuple[Curve, ...] = ("cosine", "exponential", "constant")


def falling_rate(progress: float, first: float, last: float, curve: Curve, warm_up: float = 0.0) -> float:
    """The learning rate after a share of the training.

    Args:
        progress: 0 (start) to 1 (end).
        first: the largest rate, reached after the warm-up.
        last: where the curve ends.
        curve: ``cosine``, ``exponential`` (a straight line on a logarithmic scale), or ``constant``.
        warm_up: share of the training in which the rate rises from 0 in a straight line, in [0, 1).

    Raises:
        ValueError: progress outside [0, 1], or no such curve.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is a share from 0 to 1, got {progress}")
    if curve not in CURVES:
        raise ValueError(f"there is no curve {curve!r}; choose one of: {', '.join(CURVES)}")
    if progress < warm_up:
        return first * progress / warm_up
    share = (progress - warm_up) / (1 - warm_up)
    if curve == "constant":
        return first
    if curve == "exponential":
        return float(first * (last / first) ** share)
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
