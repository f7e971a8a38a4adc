"""Heads: the last step into a shared space; what of training's heads survives.

A head is a module of the table :data:`HEADS`; :class:`Head` runs one for serving. Every head is called with the
features and their modality, because some treat faces and voices apart before they share what comes behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from encoders.backbones.backbone import load_parameters
from encoders.space import Modality

Layer = Sequence[Any]
"""A layer's kind and its numbers, such as ``["linear", 128, 256]``; see :data:`LAYERS`."""


class WeightedResidual(torch.nn.Module):
    """tanh(x + η·F(x)), F(x) = W₂·tanh(W₁·x): a residual layer whose share η is learned, beginning with none.

    The multi-modal weighted residual network of the bi-quintuple method (S0, equations 1 and 2). Its paper is silent
    on the width of W₁; the formula has no biases. S2 drops some of F's components out while it trains.

    Args:
        dimension: components of the features and of the output.
        hidden: rows of W₁.
        dropout: share of F's components that are dropped out in training, in [0, 1).
        learned: whether η is learned; otherwise it is 1 and stays so.

    Raises:
        ValueError: a size below 1, or an impossible share.
    """

    def __init__(self, dimension: int, hidden: int, dropout: float = 0.0, *, learned: bool = True) -> None:
        super().__init__()
        if dimension < 1 or hidden < 1:
            raise ValueError(f"a head needs sizes of at least 1, got dimension {dimension} and hidden {hidden}")
        if not 0 <= dropout < 1:
            raise ValueError(f"a share dropped out is in [0, 1), got {dropout}")
        self.input_dimension = self.output_dimension = dimension
        self.inner = torch.nn.Linear(dimension, hidden, bias=False)  # W₁
        self.outer = torch.nn.Linear(hidden, dimension, bias=False)  # W₂
        self.dropout = torch.nn.Dropout(dropout)
        if learned:
            self.eta = torch.nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("eta", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """(n, dimension) -> (n, dimension) within (-1, 1), not of unit length."""
        return torch.tanh(features + self.eta * self.dropout(self.outer(torch.tanh(self.inner(features)))))


class WeightedResidualHead(WeightedResidual):
    """One weighted residual layer that faces and voices share: the whole head of the bi-quintuple method."""

    def forward(self, features: Tensor, modality: Modality | None = None) -> Tensor:
        """(n, dimension) of either modality -> (n, dimension) within (-1, 1), not of unit length."""
        return super().forward(features)

    def input_of(self, modality: Modality) -> int:
        """Components of the features of a modality."""
        return self.input_dimension


class _Unit(torch.nn.Module):
    """Rows brought to unit length."""

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, d)."""
        return normalize(features, dim=1)


LAYERS: Mapping[str, tuple[int, Callable[..., torch.nn.Module]]] = {
    "linear": (2, torch.nn.Linear),
    "linear_no_bias": (2, lambda before, behind: torch.nn.Linear(before, behind, bias=False)),
    "tanh": (0, torch.nn.Tanh),
    "relu": (0, torch.nn.ReLU),
    "batch_norm": (1, torch.nn.BatchNorm1d),
    "dropout": (1, torch.nn.Dropout),
    "weighted_residual": (2, WeightedResidual),
    "weighted_residual_dropout": (3, WeightedResidual),
    "residual": (2, lambda width, hidden: WeightedResidual(width, hidden, learned=False)),
    "unit": (0, _Unit),
}
"""Kinds of layers: how many numbers each takes, and what makes it.

``linear`` and ``linear_no_bias`` take the widths before and behind them, ``batch_norm`` its width, ``dropout`` its
share, ``weighted_residual`` and ``residual`` (η fixed at 1) width and hidden width, ``weighted_residual_dropout``
also the share that is dropped out.
"""


class SharedSpaceHead(torch.nn.Module):
    """Layers of each modality's own, then layers that both share.

    Args:
        face: layers of faces alone, first to last; perhaps none.
        voice: likewise.
        shared: layers behind those.
        face_dimension: components of a face's features.
        voice_dimension: likewise.

    Raises:
        ValueError: an unknown layer, wrong numbers, or widths that do not follow from each other.
    """

    def __init__(
        self,
        face: Sequence[Layer],
        voice: Sequence[Layer],
        shared: Sequence[Layer],
        face_dimension: int,
        voice_dimension: int,
    ) -> None:
        super().__init__()
        self.parameters_told: dict[str, Any] = {
            "face": [list(one) for one in face],
            "voice": [list(one) for one in voice],
            "shared": [list(one) for one in shared],
            "face_dimension": face_dimension,
            "voice_dimension": voice_dimension,
        }
        widths = {"faces": _width(face, face_dimension), "voices": _width(voice, voice_dimension)}
        if len(set(widths.values())) > 1:
            raise ValueError(f"faces and voices must come to one width before what they share, got {widths}")
        self._inputs = {Modality.FACE: face_dimension, Modality.VOICE: voice_dimension}
        self.output_dimension = _width(shared, widths["faces"])
        self.face, self.voice, self.shared = (_layers(one) for one in (face, voice, shared))

    def forward(self, features: Tensor, modality: Modality) -> Tensor:
        """(n, dimension of that modality) -> (n, output_dimension), not of unit length unless the layers make it so."""
        own = self.face if modality is Modality.FACE else self.voice
        return cast(Tensor, self.shared(own(features)))

    def input_of(self, modality: Modality) -> int:
        """Components of the features of a modality."""
        return self._inputs[modality]


HEADS: Mapping[str, type[WeightedResidualHead] | type[SharedSpaceHead]] = {
    "weighted_residual": WeightedResidualHead,
    "layers": SharedSpaceHead,
}
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

    def input_of(self, modality: Modality) -> int:
        """Components of the features of a modality that it takes."""
        return self._module.input_of(modality)

    @property
    def output_dimension(self) -> int:
        """Components of the vectors it gives."""
        return self._module.output_dimension

    def apply(self, features: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
        """(n, dimension of that modality) -> (n, output_dimension) float32, each row on its own."""
        with torch.inference_mode():
            inputs = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self._device)
            vectors: NDArray[np.float32] = self._module(inputs, modality).cpu().numpy()
        return vectors


def describe_head(head: torch.nn.Module) -> tuple[str, dict[str, Any], int]:
    """Kind, parameters and output dimension of a head, as encoder.json has them.

    Raises:
        ValueError: serving knows no such head.
    """
    if type(head) is WeightedResidualHead:
        return (
            "weighted_residual",
            {"dimension": head.input_dimension, "hidden": head.inner.out_features},
            head.output_dimension,
        )
    if type(head) is SharedSpaceHead:
        return "layers", head.parameters_told, head.output_dimension
    raise ValueError(
        f"serving knows no head {type(head).__name__}; it knows {', '.join(sorted(HEADS))} (encoders/heads.py)"
    )


def _width(layers: Sequence[Layer], width: int) -> int:
    """How wide the last layer's output is, after every layer was checked to fit the one before it."""
    for layer in layers:
        kind, *numbers = layer
        if kind not in LAYERS:
            raise ValueError(f"there is no layer {kind!r}; choose one of: {', '.join(sorted(LAYERS))}")
        if len(numbers) != LAYERS[kind][0]:
            raise ValueError(f"the layer {kind} takes {LAYERS[kind][0]} numbers, got {numbers}")
        if kind != "dropout" and numbers and numbers[0] != width:
            raise ValueError(f"the layer {list(layer)} comes behind {width} components")
        width = int(numbers[1]) if kind.startswith("linear") else width
    return width


def _layers(layers: Sequence[Layer]) -> torch.nn.Sequential:
    return torch.nn.Sequential(*(LAYERS[kind][1](*numbers) for kind, *numbers in layers))
