"""A small convolutional network for pictures of faces and of sounds alike, quick on a CPU: 128 components.

The single stream of S1 in small, for faces of 64 px and for 64 log-mel bands by 64 frames of 30 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from encoders.backbones.backbone import Unusable, load_parameters, read_preparation
from encoders.backbones.serving import quick_type, served
from encoders.backbones.small_face import SmallFacePreparation, chips_to_input, prepare_chip
from encoders.backbones.small_voice import SmallVoicePreparation, prepare_mel
from encoders.backbones.sound_pictures import AT_ONCE, PicturedSound, PictureVoice, loud_part, picture_features

FEATURES = 128
WIDTHS = (32, 64, 128, 128)
"""Channels of the layers; each halves height and width."""
ROWS, COLUMNS = 4, 4
"""Cells that the map is averaged over, whatever the picture's size: where something is counts."""


@dataclass(frozen=True)
class SmallPictureVoicePreparation(PicturedSound):
    """How a waveform becomes log-mel bands; part of what determines the vectors.

    Args:
        bands: mel bands between 0 and 8 kHz, and frames of a window.
        joined: frames of 10 ms that become one, their mean: a window of 64 frames is 1.92 s long.
        level_dbfs: what is loud of every sound is brought to this level.
        dimension: components of a vector, always 128.
    """

    bands: int = 64
    joined: int = 3
    level_dbfs: float = -24.0
    dimension: int = FEATURES

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.bands, self.joined) < 1:
            raise ValueError(f"bands and joined must be at least 1, got {self.bands} and {self.joined}")
        if self.dimension != FEATURES:
            raise ValueError(f"dimension is {FEATURES}, got {self.dimension}")


class SmallPictureNetwork(torch.nn.Module):
    """Convolutions of stride 2 with batch normalisation, means over the cells of a grid, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        before = (3, *WIDTHS[:-1])
        self.layers = torch.nn.Sequential(*(_layer(*widths) for widths in zip(before, WIDTHS, strict=True)))
        self.linear = torch.nn.Linear(WIDTHS[-1] * ROWS * COLUMNS, FEATURES)

    def features(self, pictures: Tensor) -> Tensor:
        """(n, 3, height, width) float32 -> (n, 128), before they get unit length."""
        # colours side by side in memory: a CPU's convolutions are a fifth faster so
        hidden = self.layers(pictures.contiguous(memory_format=torch.channels_last)).float()
        return cast(Tensor, self.linear(adaptive_avg_pool2d(hidden, (ROWS, COLUMNS)).flatten(1)))

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Vectors of faces or of sounds, before the head.

        Args:
            inputs: (n, 3, height, width) float32 of ``small_face.chips_to_input``, or (n, frames, bands) float32 of
                :func:`prepare_picture`.
            lengths: of sounds, (n,) int64 frames that count; None when all do.

        Returns:
            (n, 128) float32 of unit length.
        """
        return normalize(picture_features(self.features, inputs, lengths), dim=1)


class SmallPicture:
    """The network for faces, with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: safetensors file of a :class:`SmallPictureNetwork`.
        preparation: fields of ``SmallFacePreparation``.
        device: a torch device.
        precision: ``auto`` is bfloat16 on processors that multiply it themselves, and float32 elsewhere.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        self.preparation = read_preparation("small_picture", SmallFacePreparation, preparation)
        self._device = torch.device(device)
        self._network = _loaded(weights)
        self._served = served(self._network, self._device, quick_type(precision, self._device))

    def prepare(self, sample: Any) -> NDArray[np.uint8] | Unusable:  # noqa: ANN401 - a FaceCrop
        """A crop to its (side, side, 3) uint8 chip, turned upright, or why not."""
        return prepare_chip(sample, self.preparation)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Chips (side, side, 3) to (samples, 128) float32 of unit length."""
        rows = [np.zeros((0, FEATURES), dtype=np.float32)]
        for first in range(0, len(prepared), AT_ONCE):
            chips = torch.from_numpy(np.stack(prepared[first : first + AT_ONCE])).to(self._device)
            with torch.inference_mode():
                rows.append(self._served(chips_to_input(chips)).cpu().numpy())
        return np.concatenate(rows)

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters as they were loaded, on the CPU."""
        return self._network.state_dict()


class SmallPictureVoice(PictureVoice):
    """The network for sounds, with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: safetensors file of a :class:`SmallPictureNetwork`.
        preparation: fields of :class:`SmallPictureVoicePreparation`.
        device: a torch device.
        precision: ``auto`` is bfloat16 on processors that multiply it themselves, and float32 elsewhere.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        stated = read_preparation("small_picture_voice", SmallPictureVoicePreparation, preparation)
        place, network = torch.device(device), _loaded(weights)
        super().__init__(network, served(network, place, quick_type(precision, place)), stated, prepare_picture, place)


def prepare_picture(waveform: NDArray[np.float32], preparation: SmallPictureVoicePreparation) -> Tensor | Unusable:
    """A sound to the log-mel bands of its loud frames, at one level, or why not; needs no weights.

    Args:
        waveform: (samples,) float32 mono at 16 kHz.
        preparation: how.

    Returns:
        (frames, bands) float32, about within [-1.2, 4]; or :class:`Unusable`.

    Raises:
        ValueError: the waveform is not (samples,).
    """
    loud = loud_part(waveform, preparation)
    if isinstance(loud, Unusable):
        return loud
    # what is left of a usable sound may be shorter than the least, and is never silent
    bands = SmallVoicePreparation(
        bands=preparation.bands, level_dbfs=preparation.level_dbfs, least_seconds=0.1, silence_dbfs=-200.0
    )
    mels = prepare_mel(loud.numpy(), bands)
    if isinstance(mels, Unusable):
        return mels
    whole = max(1, len(mels) // preparation.joined)
    return mels[: whole * preparation.joined].reshape(whole, -1, preparation.bands).mean(dim=1)


def _loaded(weights: Path) -> SmallPictureNetwork:
    network = SmallPictureNetwork().eval().requires_grad_(False)
    load_parameters(network, weights)
    return network


def _layer(channels: int, width: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(width),
        torch.nn.ReLU(inplace=True),
    )
