"""Heads: the last step into a shared space, the same for both modalities; what of training's heads survives.

A head is a module of the table :data:`HEADS`; :class:`Head` runs one for serving.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.backbones.backbone import load_parameters


class WeightedResidualHead(torch.nn.Module):
    """tanh(x + η·W₂·tanh(W₁·x)): a residual layer whose share η is learned, beginning with none.

    The multi-modal weighted residual network of the bi-quintuple method (S0). Its paper is silent on the
    width of W₁; the formula has no biases.

    Args:
        dimension: components of the features and of the output.
        hidden: rows of W₁.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        if dimension < 1 or hidden < 1:
            raise ValueError(f"a head needs sizes of at least 1, got dimension {dimension} and hidden {hidden}")
        self.input_dimension = self.output_dimension = dimension
        self.inner = torch.nn.Linear(dimension, hidden, bias=False)  # W₁
        self.outer = torch.nn.Linear(hidden, dimension, bias=False)  # W₂
        self.eta = torch.nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(n, dimension) -> (n, dimension) within (-1, 1), not of unit length."""
        return torch.tanh(features + self.eta * self.outer(torch.tanh(self.inner(features))))


HEADS: Mapping[str, type[WeightedResidualHead]] = {"weighted_residual": WeightedResidualHead}
"""Which class is which kind of head; encoder.json names the kind."""


class Head:
    """A head with its weights, as serving runs it.

    Args:
        kind: a key of :data:`HEADS`.
        parameters: what the class is made with.
        weights: its safetensors file.
        device: a torch device.

    Raises:
        ValueError: an unknown kind, impossible parameters, or weights of another head.
    """

    def __init__(self, kind: str, parameters: Mapping[str, Any], weights: Path, device: str = "cpu") -> None:
        if kind not in HEADS:
            raise ValueError(f"there is no head {kind!r}; choose one of: {', '.join(sorted(HEADS))}")
        try:
            module = HEADS[kind](**parameters)
        except TypeError as error:
            raise ValueError(f"the head {kind} cannot be made with {dict(parameters)}: {error}") from error
        load_parameters(module, weights)
        self._module = module.to(device).eval()
        self._device = torch.device(device)

    @property
    def input_dimension(self) -> int:
        """Components of the features it takes."""
        return self._module.input_dimension

    @property
    def output_dimension(self) -> int:
        """Components of the vectors it gives."""
        return self._module.output_dimension

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, input_dimension) -> (n, output_dimension) float32, each row on its own."""
        with torch.inference_mode():
            inputs = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self._device)
            vectors: NDArray[np.float32] = self._module(inputs).cpu().numpy()
        return vectors
