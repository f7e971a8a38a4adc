"""Inception-ResNet-v1 for faces: 512 components, with parameters named as the public weights of facenet-pytorch.

The architecture is the one of Szegedy et al. (2016) as David Sandberg's facenet shrank it to 160 px; Tim Esler's
facenet-pytorch (MIT) carried its weights over to torch. Its files load here unchanged and give the same vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.backbones.backbone import Unusable, read_preparation
from encoders.backbones.public_files import fill, read_tensors
from encoders.backbones.serving import ServedConvolution, quick_type, served
from encoders.chips import Window, usable_window
from encoders.face import FaceCrop

DIMENSION = 512
CENTRE, SPREAD = 127.5, 128.0
"""The fixed standardisation: a pixel becomes (x − 127.5) / 128."""
LEAST_SIDE = 75
"""Pixels of the smallest chip that the convolutions without padding leave anything of."""
_MTCNN_WINDOW: Window = (-0.11, -0.43, 1.09, 1.17)
"""Where MTCNN's boxes lie: the median of 82 photographed faces; single boxes differ by a tenth."""
_SPREAD_OF_VARIANCE = 1e-3  # what batch normalisation adds to a variance; TensorFlow's choice
_CHANNELS_BEFORE_POOL = 1792


@dataclass(frozen=True)
class InceptionResnetPreparation:
    """How a crop becomes a chip; part of what determines the vectors.

    Args:
        side: pixels of the chip; the public weights know 160.
        margin: share of the chip's side that lies around the box in which MTCNN finds a face. The public weights
            were trained on such boxes, stretched to squares; their authors evaluate them with 14 of 160 px.
        dimension: components of a vector; the public weights have 512.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        unit_length: whether vectors are brought to unit length, as the public weights' are; a head that is trained
            behind the network may want them as they are.
        least_contrast: standard deviation of the face's grey levels, below which it is unusable.
    """

    side: int = 160
    margin: float = 14 / 160
    dimension: int = DIMENSION
    unit_length: bool = True
    least_eye_distance: float = 8.0
    least_contrast: float = 2.0

    def __post_init__(self) -> None:
        if self.side < LEAST_SIDE:
            raise ValueError(f"side must be at least {LEAST_SIDE}, got {self.side}")
        if self.dimension < 1:
            raise ValueError(f"dimension must be at least 1, got {self.dimension}")
        if not 0.0 <= self.margin <= 0.5:
            raise ValueError(f"margin must lie between 0 and 0.5, got {self.margin}")

    @property
    def window(self) -> Window:
        """What a chip shows."""
        left, top, right, bottom = _MTCNN_WINDOW
        grown = 0.5 * (1.0 / (1.0 - self.margin) - 1.0)
        wide, high = grown * (right - left), grown * (bottom - top)
        return left - wide, top - high, right + wide, bottom + high


@dataclass(frozen=True)
class _Step:
    """One convolution of a branch: channels out, kernel (height, width), stride; padded or not."""

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


_Branch = tuple[_Step, ...]


class ConvolutionUnit(torch.nn.Sequential):
    """A convolution without bias, its normalisation and a rectifier.

    Args:
        channels: that come in.
        step: what the convolution does.
    """

    def __init__(self, channels: int, step: _Step) -> None:
        super().__init__()
        high, wide = step.kernel
        edges = (high // 2, wide // 2) if step.padded else (0, 0)
        self.conv = torch.nn.Conv2d(channels, step.width, step.kernel, step.stride, edges, bias=False)
        self.bn = torch.nn.BatchNorm2d(step.width, eps=_SPREAD_OF_VARIANCE)
        self.relu = torch.nn.ReLU()


class Branches(torch.nn.Module):
    """Chains of convolutions side by side, their outputs one behind the other; called ``branch0``, ``branch1``, …

    Args:
        channels: that come in.
        branches: the chains.
        pooled: whether the input, pooled by its greatest over 3 x 3 with stride 2, is the last of the outputs.
    """

    def __init__(self, channels: int, branches: Sequence[_Branch], *, pooled: bool) -> None:
        super().__init__()
        self._names = [f"branch{number}" for number in range(len(branches))]
        for name, steps in zip(self._names, branches, strict=True):
            before = (channels, *(step.width for step in steps[:-1]))
            units = [ConvolutionUnit(*pair) for pair in zip(before, steps, strict=True)]
            # the public names number the units of a chain only where there are several
            self.add_module(name, units[0] if len(units) == 1 else torch.nn.Sequential(*units))
        self._pool = torch.nn.MaxPool2d(3, stride=2) if pooled else None

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, the sum of the branches' channels, …)."""
        outputs = [self.get_submodule(name)(inputs) for name in self._names]
        if self._pool is not None:
            outputs.append(self._pool(inputs))
        return torch.cat(outputs, dim=1)


class ResidualBlock(Branches):
    """Branches whose outputs, mixed by a convolution of 1 x 1 and scaled, are added to the input.

    Args:
        channels: that come in and go out.
        branches: the chains.
        scale: of what is added.
        rectified: whether the sum is rectified.
    """

    def __init__(self, channels: int, branches: Sequence[_Branch], scale: float, *, rectified: bool = True) -> None:
        super().__init__(channels, branches, pooled=False)
        self.conv2d: torch.nn.Module = torch.nn.Conv2d(sum(steps[-1].width for steps in branches), channels, 1)
        self.scale, self.rectified = scale, rectified

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, channels, height, width) -> the same shape; may overwrite its input when it serves."""
        mixed = super().forward(inputs)
        if isinstance(self.conv2d, ServedConvolution):
            return cast(Tensor, self.conv2d(mixed, added=inputs))
        total: Tensor = inputs + self.scale * self.conv2d(mixed)
        return total.relu() if self.rectified else total

    def serve(self, dtype: torch.dtype) -> None:
        """Make mixing, scaling, addition and rectifier one pass."""
        mixing = cast(torch.nn.Conv2d, self.conv2d)
        with torch.no_grad():
            mixing.weight.mul_(self.scale)
            cast(Tensor, mixing.bias).mul_(self.scale)
        self.conv2d = ServedConvolution(mixing, rectified=self.rectified, dtype=dtype)


_SQUARE = (3, 3)
_BLOCK_35: tuple[_Branch, ...] = (
    (_Step(32),),
    (_Step(32), _Step(32, _SQUARE)),
    (_Step(32), _Step(32, _SQUARE), _Step(32, _SQUARE)),
)
_BLOCK_17: tuple[_Branch, ...] = ((_Step(128),), (_Step(128), _Step(128, (1, 7)), _Step(128, (7, 1))))
_BLOCK_8: tuple[_Branch, ...] = ((_Step(192),), (_Step(192), _Step(192, (1, 3)), _Step(192, (3, 1))))


def _halving(width: int) -> _Step:
    return _Step(width, _SQUARE, stride=2, padded=False)


class InceptionResnetV1(torch.nn.Module):
    """The network itself, plainly written, also to be trained; :func:`serving_copy` makes the one that serves.

    Args:
        dimension: components of a vector.
        dropout: probability with which training leaves a pooled feature out.
    """

    def __init__(self, dimension: int = DIMENSION, dropout: float = 0.6) -> None:
        super().__init__()
        self.conv2d_1a = ConvolutionUnit(3, _halving(32))
        self.conv2d_2a = ConvolutionUnit(32, _Step(32, _SQUARE, padded=False))
        self.conv2d_2b = ConvolutionUnit(32, _Step(64, _SQUARE))
        self.maxpool_3a = torch.nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = ConvolutionUnit(64, _Step(80))
        self.conv2d_4a = ConvolutionUnit(80, _Step(192, _SQUARE, padded=False))
        self.conv2d_4b = ConvolutionUnit(192, _halving(256))
        self.repeat_1 = torch.nn.Sequential(*(ResidualBlock(256, _BLOCK_35, 0.17) for _ in range(5)))
        narrowing: tuple[_Branch, ...] = ((_halving(384),), (_Step(192), _Step(192, _SQUARE), _halving(256)))
        self.mixed_6a = Branches(256, narrowing, pooled=True)
        self.repeat_2 = torch.nn.Sequential(*(ResidualBlock(896, _BLOCK_17, 0.10) for _ in range(10)))
        narrowing = (
            (_Step(256), _halving(384)),
            (_Step(256), _halving(256)),
            (_Step(256), _Step(256, _SQUARE), _halving(256)),
        )
        self.mixed_7a = Branches(896, narrowing, pooled=True)
        self.repeat_3 = torch.nn.Sequential(*(ResidualBlock(1792, _BLOCK_8, 0.20) for _ in range(5)))
        self.block8 = ResidualBlock(1792, _BLOCK_8, 1.0, rectified=False)
        self.dropout = torch.nn.Dropout(dropout)
        self.last_linear = torch.nn.Linear(_CHANNELS_BEFORE_POOL, dimension, bias=False)
        self.last_bn = torch.nn.BatchNorm1d(dimension, eps=_SPREAD_OF_VARIANCE)

    def features(self, inputs: Tensor) -> Tensor:
        """(n, 3, side, side) float32 of :func:`chips_to_input` -> (n, dimension), before they get unit length."""
        # colours side by side in memory: a CPU's convolutions are faster so
        hidden = inputs.contiguous(memory_format=torch.channels_last)
        hidden = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(hidden)))
        hidden = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(hidden))))
        hidden = self.repeat_2(self.mixed_6a(self.repeat_1(hidden)))
        hidden = self.block8(self.repeat_3(self.mixed_7a(hidden)))
        pooled = self.dropout(hidden.float().mean(dim=(2, 3)))
        outputs: Tensor = self.last_bn(self.last_linear(pooled))
        return outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, 3, side, side) float32 of :func:`chips_to_input` -> (n, dimension) of unit length."""
        return torch.nn.functional.normalize(self.features(inputs), dim=1)


class InceptionResnet:
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: a public ``.pt`` file, or a safetensors file of :meth:`own_weights`.
        preparation: fields of :class:`InceptionResnetPreparation`.
        device: a torch device.
        precision: ``auto`` is bfloat16 on processors that multiply it themselves, and float32 elsewhere.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    _BATCH = 16  # chips per call: enough to fill a processor, 300 MB at work

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        self.preparation = read_preparation("inception_resnet_v1", InceptionResnetPreparation, preparation)
        self._device = torch.device(device)
        self._network = InceptionResnetV1(self.preparation.dimension).eval().requires_grad_(False)
        fill(self._network, public_parameters(weights), weights)
        self._dtype = quick_type(precision, self._device)
        self._served = serving_copy(self._network, self._device, self._dtype)

    def prepare(self, sample: FaceCrop) -> NDArray[np.uint8] | Unusable:
        """A crop to its (side, side, 3) uint8 chip, turned upright, or why not."""
        wanted = self.preparation
        return usable_window(sample, wanted.window, wanted.side, wanted.least_eye_distance, wanted.least_contrast)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Chips (side, side, 3) to (samples, dimension) float32, of unit length unless the preparation says not."""
        run = self._served if self.preparation.unit_length else self._served.features
        vectors = np.zeros((len(prepared), self.preparation.dimension), dtype=np.float32)
        for first in range(0, len(prepared), self._BATCH):
            chips = torch.from_numpy(np.stack(prepared[first : first + self._BATCH])).to(self._device)
            with torch.inference_mode():
                vectors[first : first + len(chips)] = run(chips_to_input(chips)).float().cpu().numpy()
        return vectors

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters as they were loaded, on the CPU."""
        return self._network.state_dict()


def public_parameters(path: Path) -> dict[str, Tensor]:
    """The parameters in a public weight file, less the classifier that only training used.

    Args:
        path: a ``.pt`` file of facenet-pytorch, or a safetensors file of the same names.

    Raises:
        ValueError: the file cannot be read safely, or holds something else.
    """
    return {name: value for name, value in read_tensors(path).items() if not name.startswith("logits.")}


def chips_to_input(chips: Tensor) -> Tensor:
    """(n, side, side, 3) uint8 -> (n, 3, side, side) float32: (x − 127.5) / 128, so within (−1, 1)."""
    return (chips.permute(0, 3, 1, 2).to(torch.float32) - CENTRE) / SPREAD


def serving_copy(
    network: InceptionResnetV1, device: torch.device, dtype: torch.dtype = torch.float32
) -> InceptionResnetV1:
    """A copy in evaluation that gives the same vectors with fewer passes over memory.

    Args:
        network: stays as it is.
        device: where the copy will run.
        dtype: what its convolutions compute in.
    """
    copied = served(network, device, dtype)
    for block in chain(copied.repeat_1, copied.repeat_2, copied.repeat_3, (copied.block8,)):
        cast(ResidualBlock, block).serve(dtype)
    return copied
