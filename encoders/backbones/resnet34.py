"""ResNet-34 with an embedding behind it, for faces (three channels) and for spectra (one): 256 components.

He et al., "Deep Residual Learning for Image Recognition" (2016). Layers and parameter names (``conv1``, ``bn1``,
``layer1.0.conv1`` … ``layer4.2.bn2``, ``fc``) are those of torchvision's ``resnet34``, whose weights load where ``fc``
has the size asked for. S2 and S3 use it for faces, S2 at 224 px, S3 at 122 px; the average over the map at its end
takes any size. Neither says how pixels are scaled: here they come to lie in [−1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from encoders.backbones.backbone import read_preparation
from encoders.backbones.public_files import fill, read_tensors
from encoders.backbones.spectral_voice import SoundLimits, SpectralVoice
from encoders.backbones.upright_chips import ChipNetwork
from encoders.spectra import counts_mask, front_end

BLOCKS = (3, 4, 6, 3)
"""Blocks of each of the four layers."""


@dataclass(frozen=True)
class ResNet34FacePreparation:
    """How a crop becomes a chip, and the network's sizes.

    Args:
        side: pixels of the chip, at least 32.
        padding: room around the mean face, as a fraction of its side: 0.3 shows the face to its edges.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        least_contrast: standard deviation of the face's grey levels, below which it is unusable.
        width: channels of the first layer; each further one has twice as many.
        dimension: components of a vector.
    """

    side: int = 224
    padding: float = 0.3
    least_eye_distance: float = 8.0
    least_contrast: float = 2.0
    width: int = 64
    dimension: int = 256

    def __post_init__(self) -> None:
        if self.side < 32:
            raise ValueError(f"side must be at least 32, got {self.side}")
        _check_sizes(self.width, self.dimension)


@dataclass(frozen=True)
class ResNet34VoicePreparation(SoundLimits):
    """What the network sees of a sound, its sizes, and which sounds it takes.

    Args:
        features: of ``encoders.spectra.FRONT_ENDS``.
        bands: how many the front end gives.
        width: channels of the first layer; each further one has twice as many.
        dimension: components of a vector.
        most_seconds: 10 by default: S2 trains on 10 s.
    """

    most_seconds: float = 10.0
    features: str = "log_mel"
    bands: int = 64
    width: int = 64
    dimension: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.width, self.dimension)
        front_end(self.features, self.bands)  # says itself what it does not have


class _Block(torch.nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            shortcut = torch.nn.Conv2d(channels, width, 1, stride=stride, bias=False)
            self.downsample = torch.nn.Sequential(shortcut, torch.nn.BatchNorm2d(width))
        self.stride = stride

    def forward(self, inputs: Tensor, rows: Tensor | None) -> Tensor:
        kept = inputs if self.downsample is None else self.downsample(inputs)
        hidden = _only(torch.relu(self.bn1(self.conv1(inputs))), rows)
        return _only(torch.relu(self.bn2(self.conv2(hidden)) + kept), rows)


class ResNet34Network(torch.nn.Module):
    """The network itself.

    Args:
        channels: 3 for faces, 1 for spectra.
        dimension: components of a vector.
        width: channels of the first layer; each further one has twice as many. The published network has 64.
    """

    def __init__(self, channels: int = 3, dimension: int = 256, width: int = 64) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.maxpool = torch.nn.MaxPool2d(3, stride=2, padding=1)
        before = width
        for number, count in enumerate(BLOCKS, start=1):
            after = width << (number - 1)
            strides = [1 if number == 1 else 2, *(1 for _ in range(count - 1))]
            blocks = [_Block(before if place == 0 else after, after, stride) for place, stride in enumerate(strides)]
            self.add_module(f"layer{number}", torch.nn.ModuleList(blocks))
            before = after
        self.fc = torch.nn.Linear(before, dimension)
        for module in self.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed pictures, or spectra of different lengths.

        In evaluation a row depends neither on its neighbours nor on padding. In training, batch normalisation takes
        its statistics over everything, padding included: train on inputs of one length.

        Args:
            inputs: (n, channels, height, width) float32; of spectra the height is time.
            lengths: (n,) int64, rows of the height that count; None when all do.

        Returns:
            (n, dimension) float32, not normalised.
        """
        rows = None if lengths is None else lengths.to(inputs.device)
        hidden = self.conv1(_only(inputs, rows))
        rows = _halved(rows)
        hidden = _only(torch.relu(self.bn1(hidden)), rows)
        rows = _halved(rows)
        hidden = _only(self.maxpool(hidden), rows)  # rectified before, so the zeros of padding never are the most
        for number in range(1, len(BLOCKS) + 1):
            for block in cast(torch.nn.ModuleList, self.get_submodule(f"layer{number}")):
                rows = _halved(rows) if block.stride == 2 else rows
                hidden = block(hidden, rows)
        if rows is None:
            return cast(Tensor, self.fc(hidden.mean(dim=(2, 3))))
        sums = hidden.sum(dim=(2, 3)) / hidden.shape[3]
        return cast(Tensor, self.fc(sums / rows[:, None].to(sums.dtype)))


class ResNet34Face(ChipNetwork):
    """The network for faces, with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: a checkpoint or safetensors file of torchvision's names, or of :meth:`own_weights`.
        preparation: fields of :class:`ResNet34FacePreparation`.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        sizes = read_preparation("resnet34_face", ResNet34FacePreparation, preparation)
        network = ResNet34Network(3, sizes.dimension, sizes.width)
        fill(network, public_parameters(weights), weights)
        laid_out = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(laid_out, sizes, device, precision)


class ResNet34Voice(SpectralVoice):
    """The network for spectra, with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: a file of a :class:`ResNet34Network` of one channel.
        preparation: fields of :class:`ResNet34VoicePreparation`.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        sizes = read_preparation("resnet34_voice", ResNet34VoicePreparation, preparation)
        network = ResNet34Network(1, sizes.dimension, sizes.width)
        fill(network, public_parameters(weights), weights)
        super().__init__(network, front_end(sizes.features, sizes.bands), sizes, device, precision)

    def _run(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        return super()._run(frames[:, None], lengths)  # (n, 1, frames, bands)


def public_parameters(path: Path) -> dict[str, Tensor]:
    """The network's parameters from a checkpoint or safetensors file that has torchvision's names.

    An ``fc`` of another size than asked for, as that of the thousand classes of ImageNet, fits no encoder: who
    initialises a training with it leaves out ``fc.weight`` and ``fc.bias``.

    Raises:
        ValueError: the file holds no tensors by name.
    """
    return read_tensors(path)


def _only(hidden: Tensor, rows: Tensor | None) -> Tensor:
    """(n, channels, height, width) with zeros below each one's own rows, which is what an edge looks like."""
    if rows is None:
        return hidden
    return hidden.masked_fill(~counts_mask(rows, hidden.shape[2])[:, None, :, None], 0.0)


def _halved(rows: Tensor | None) -> Tensor | None:
    """How many rows count behind a stride of 2."""
    return None if rows is None else (rows + 1) // 2


def _check_sizes(width: int, dimension: int) -> None:
    if min(width, dimension) < 1:
        raise ValueError(f"width and dimension must be at least 1, got {width} and {dimension}")
