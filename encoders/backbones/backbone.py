"""What every network offers: prepare one sample, embed many prepared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class UnusableReason(StrEnum):
    """Why a sample has no vector."""

    TOO_SHORT = "too_short"
    SILENT = "silent"
    NOT_FINITE = "not_finite"
    NO_FACE = "no_face"
    TOO_SMALL = "too_small"
    FLAT = "flat"
    NO_DIRECTION = "no_direction"


@dataclass(frozen=True)
class Unusable:
    """The answer for a sample that cannot be encoded.

    Args:
        reason: for programs.
        detail: a sentence for people, with the offending number.
    """

    reason: UnusableReason
    detail: str


class Backbone(Protocol):
    """A network with its preparation.

    Its class is made with ``(weights, preparation, device)``: the checked weight file (the public one, or
    the safetensors file that :meth:`own_weights` became), the preparation parameters of encoder.json, and
    the device's name. ``preparation`` is a frozen dataclass of all those parameters.
    """

    @property
    def preparation(self) -> Any:  # noqa: ANN401 - each network has its own
        """The preparation parameters, complete."""
        ...

    def prepare(self, sample: Any) -> Any:  # noqa: ANN401 - each network has its own prepared form
        """One sample as the network takes it, or :class:`Unusable`."""
        ...

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """(samples, dimension) float32, in order; a row does not depend on its neighbours."""
        ...

    def own_weights(self) -> Mapping[str, torch.Tensor] | None:
        """The weights by name, or None where the network cannot give them away."""
        ...
