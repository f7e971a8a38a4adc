"""A small convolutional network for faces, quick on a CPU: four layers over a chip of 64 px, 128 features."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.backbones.backbone import Unusable, load_parameters, read_preparation
from encoders.backbones.serving import ServedConvolution, quick_type, served
from encoders.chips import usable_chip
from encoders.face import FaceCrop

FEATURES = 128
WIDTHS = (32, 64, 128, 128)
"""Channels of the layers; each halves the side."""
SHRINK = 2 ** len(WIDTHS)
CENTRE, SPREAD = 127.5, 64.0
"""A pixel is centred and scaled by these, so that it comes to lie within about [−2, 2]."""


@dataclass(frozen=True)
class SmallFacePreparation:
    """How a crop becomes a chip; part of what determines the vectors.

    Args:
        side: pixels of the chip, a multiple of 16.
        padding: room around the mean face, as a fraction of its side: 0.3 shows the face to its edges.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        least_contrast: standard deviation of the face's grey levels, below which it is unusable.
    """

    side: int = 64
    padding: float = 0.3
    least_eye_distance: float = 8.0
    least_contrast: float = 2.0

    def __post_init__(self) -> None:
        if self.side < SHRINK or self.side % SHRINK:
            raise ValueError(f"side must be a multiple of {SHRINK}, got {self.side}")


class SmallFaceNetwork(torch.nn.Module):
    """Convolutions of stride 2 with batch normalisation, then a linear layer that sees the whole map.

    Args:
        side: pixels of a chip, a multiple of 16.
    """

    def __init__(self, side: int = SmallFacePreparation.side) -> None:
        super().__init__()
        if side < SHRINK or side % SHRINK:
            raise ValueError(f"side must be a multiple of {SHRINK}, got {side}")
        before = (3, *WIDTHS[:-1])
        self.layers = torch.nn.Sequential(*(_layer(*widths) for widths in zip(before, WIDTHS, strict=True)))
        self.linear = torch.nn.Linear(WIDTHS[-1] * (side // SHRINK) ** 2, FEATURES)

    def forward(self, chips: Tensor) -> Tensor:
        """(n, 3, side, side) float32 of :func:`chips_to_input` -> (n, 128) features, before the head."""
        # colours side by side in memory: a CPU's convolutions are a fifth faster so
        inputs = chips.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.linear(self.layers(inputs).flatten(1))
        return features


class ServedSmallFace(torch.nn.Module):
    """A trained network as it serves: the same function, with less to do.

    Pixels are centred in its own type, where that is exact, and scaled by the first convolution's weights. The linear
    layer is a convolution over the whole map.

    Args:
        network: stays as it is.
        device: where it will run.
        dtype: what it computes in.
    """

    def __init__(self, network: SmallFaceNetwork, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        layers, linear = copy.deepcopy(network.layers), network.linear
        with torch.no_grad():
            next(layers.parameters()).div_(SPREAD)  # the first convolution's weights; a power of two: exact
        self.layers = served(layers, device, dtype)
        side = round((linear.in_features // WIDTHS[-1]) ** 0.5)
        whole = torch.nn.Conv2d(WIDTHS[-1], FEATURES, side)
        with torch.no_grad():
            whole.weight.copy_(linear.weight.reshape(whole.weight.shape))
            whole.bias.copy_(linear.bias)  # type: ignore[union-attr]
        self.whole = ServedConvolution(whole.to(device), rectified=False, dtype=dtype)

    def forward(self, chips: Tensor) -> Tensor:
        """(n, side, side, 3) uint8 -> (n, 128) float32 features, before the head."""
        centred = chips.to(self._dtype).sub_(CENTRE)  # at most 127.5: bfloat16 holds every half below 128
        features: Tensor = self.whole(self.layers(centred.permute(0, 3, 1, 2))).flatten(1).float()
        return features


class SmallFace:
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: safetensors file of a :class:`SmallFaceNetwork`.
        preparation: fields of :class:`SmallFacePreparation`.
        device: a torch device.
        precision: ``auto`` is bfloat16 on processors that multiply it themselves, about twice as fast, and float32
            elsewhere; the cosine between the two is at least 0.9999.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    _BATCH = 32  # chips per call: enough to fill the processor, few enough for its cache

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        self.preparation = read_preparation("small_face", SmallFacePreparation, preparation)
        self._device = torch.device(device)
        self._network = SmallFaceNetwork(self.preparation.side)
        load_parameters(self._network, weights)
        self._served = ServedSmallFace(self._network, self._device, quick_type(precision, self._device))

    def prepare(self, sample: FaceCrop) -> NDArray[np.uint8] | Unusable:
        """A crop to its (side, side, 3) uint8 chip, turned upright, or why not."""
        return prepare_chip(sample, self.preparation)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Chips (side, side, 3) to (samples, 128) float32 features, not of unit length."""
        features = np.zeros((len(prepared), FEATURES), dtype=np.float32)
        for first in range(0, len(prepared), self._BATCH):
            chips = torch.from_numpy(np.stack(prepared[first : first + self._BATCH])).to(self._device)
            with torch.inference_mode():
                features[first : first + len(chips)] = self._served(chips).cpu().numpy()
        return features

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters as they were loaded, on the CPU."""
        return self._network.state_dict()


def prepare_chip(crop: FaceCrop, preparation: SmallFacePreparation) -> NDArray[np.uint8] | Unusable:
    """A crop to its (side, side, 3) uint8 RGB chip, turned upright, or why not; needs no weights.

    Raises:
        ValueError: pixels or landmarks have the wrong shape or type.
    """
    return usable_chip(
        crop, preparation.padding, preparation.side, preparation.least_eye_distance, preparation.least_contrast
    )


def chips_to_input(chips: Tensor) -> Tensor:
    """(n, side, side, 3) uint8 -> (n, 3, side, side) float32: (x − 127.5) / 64, so about within [−2, 2]."""
    return (chips.permute(0, 3, 1, 2).to(torch.float32) - CENTRE) / SPREAD


def _layer(channels: int, width: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(width),
        torch.nn.ReLU(inplace=True),
    )
