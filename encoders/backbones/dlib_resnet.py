"""dlib's face network in torch: a 29-layer residual network, 128 components, 99.4 % on Labeled Faces in the Wild.

The architecture is the one of dlib's published example of face recognition (King, 2017); the parameters come from its
public file. dlib itself is not asked: here the network runs batched, on any device, in several threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad, relu

from encoders.backbones.backbone import ChannelScale, Unusable, load_parameters, read_preparation
from encoders.backbones.dlib_format import (
    BLOCKS,
    CHIP_SIDE,
    ENTRY_CHANNELS,
    ENTRY_KERNEL,
    FEATURES,
    MEAN_COLOUR,
    read_face_network,
)
from encoders.backbones.serving import ServedConvolution, exact_type, served
from encoders.chips import usable_chip
from encoders.face import FaceCrop

DIMENSION = FEATURES


@dataclass(frozen=True)
class DlibResnetPreparation:
    """How a crop becomes a chip; part of what determines the vectors.

    Args:
        padding: room around the mean face, as a fraction of its side; the network knows 0.25.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        least_contrast: standard deviation of the face's grey levels, below which it is unusable.
    """

    padding: float = 0.25
    least_eye_distance: float = 8.0
    least_contrast: float = 2.0


class FaceBlock(torch.nn.Module):
    """Two convolutions and a way around them; channels that the way around lacks count as zeros.

    Args:
        channels: that come in.
        width: channels that go out.
        halves: whether the side is halved; then the way around is an average over 2 x 2.
    """

    def __init__(self, channels: int, width: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        reach = torch.nn.Conv2d(channels, width, 3, stride=2 if halves else 1, padding=0 if halves else 1)
        self.first = torch.nn.Sequential(reach, ChannelScale(width), torch.nn.ReLU())
        self.second = torch.nn.Sequential(torch.nn.Conv2d(width, width, 3, padding=1), ChannelScale(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, channels, side, side) -> (n, width, side or half of it, …); may overwrite its input when it serves."""
        hidden = self.first(inputs)
        if not self.halves:
            if isinstance(self.second[0], ServedConvolution):
                return cast(Tensor, self.second[0](hidden, added=inputs))
            return relu(self.second(hidden) + inputs)
        around = avg_pool2d(inputs, 2)
        # 8 px become 3 by the convolution but 4 by the average, so either may lack channels or a row and a column
        lacking, edge = hidden.shape[1] - around.shape[1], around.shape[2] - hidden.shape[2]
        return relu(pad(self.second(hidden), (0, edge, 0, edge)) + pad(around, (0, 0, 0, 0, 0, lacking)))


class FaceResnet(torch.nn.Module):
    """The network itself, plainly written; :func:`serving_copy` makes the one that serves."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = torch.nn.Sequential(
            torch.nn.Conv2d(3, ENTRY_CHANNELS, ENTRY_KERNEL, stride=2), ChannelScale(ENTRY_CHANNELS), torch.nn.ReLU()
        )
        before = (ENTRY_CHANNELS, *(width for width, _ in BLOCKS))
        self.blocks = torch.nn.Sequential(
            *(FaceBlock(channels, width, halves) for channels, (width, halves) in zip(before, BLOCKS, strict=False))
        )
        self.linear = torch.nn.Linear(BLOCKS[-1][0], FEATURES, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, 3, 150, 150) float32 of :func:`chips_to_input` -> (n, 128), about of unit length."""
        hidden = self.blocks(max_pool2d(self.entry(inputs), 3, stride=2))
        features: Tensor = self.linear(hidden.float().mean(dim=(2, 3)))
        return features


class DlibResnet:
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: ``dlib_face_recognition_resnet_model_v1.dat``, or a safetensors file of :meth:`own_weights`.
        preparation: fields of :class:`DlibResnetPreparation`.
        device: a torch device.
        precision: ``auto`` is float32, which gives dlib's own vectors to seven digits. bfloat16 is twice as fast on
            processors that have it; the cosine to dlib's is then 0.9999 for clear faces, 0.9997 for very dark ones.

    Raises:
        ValueError: an unknown preparation parameter or precision, or weights of another network.
    """

    _BATCH = 32  # chips per call: enough to fill a processor, 200 MB at work

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        self.preparation = read_preparation("dlib_resnet", DlibResnetPreparation, preparation)
        self._device = torch.device(device)
        self._network = FaceResnet().eval().requires_grad_(False)
        if weights.suffix == ".safetensors":
            load_parameters(self._network, weights)
        else:
            self._network.load_state_dict(read_face_network(weights))
        self._dtype = exact_type(precision)
        self._served = serving_copy(self._network, self._device, self._dtype)

    def prepare(self, sample: FaceCrop) -> NDArray[np.uint8] | Unusable:
        """A crop to its (150, 150, 3) uint8 chip, turned upright, or why not."""
        wanted = self.preparation
        return usable_chip(sample, wanted.padding, CHIP_SIDE, wanted.least_eye_distance, wanted.least_contrast)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Chips (150, 150, 3) to (samples, 128) float32 of unit length."""
        vectors = np.zeros((len(prepared), DIMENSION))
        for first in range(0, len(prepared), self._BATCH):
            chips = torch.from_numpy(np.stack(prepared[first : first + self._BATCH])).to(self._device)
            with torch.inference_mode():
                inputs = chips_to_serving_input(chips, self._dtype)
                vectors[first : first + len(chips)] = self._served(inputs).cpu().numpy()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters as they were loaded, on the CPU."""
        return self._network.state_dict()


def chips_to_input(chips: Tensor) -> Tensor:
    """(n, 150, 150, 3) uint8 -> (n, 3, 150, 150) float32 as :class:`FaceResnet` takes it."""
    centred = chips.to(torch.float32) - torch.tensor(MEAN_COLOUR, device=chips.device)
    return (centred / 256.0).permute(0, 3, 1, 2)


def chips_to_serving_input(chips: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n, 150, 150, 3) uint8 -> (n, 3, 150, 150) whole numbers as :func:`serving_copy`'s network takes them.

    They are centred as well as whole numbers can be: those are exact in bfloat16 too.
    """
    centre = torch.tensor(MEAN_COLOUR, device=chips.device).round().to(dtype)
    return chips.to(dtype).sub_(centre).permute(0, 3, 1, 2)


def serving_copy(network: FaceResnet, device: torch.device, dtype: torch.dtype = torch.float32) -> FaceResnet:
    """A copy that takes pixels of :func:`chips_to_serving_input` and gives the same vectors.

    Args:
        network: stays as it is.
        device: where the copy will run.
        dtype: what its convolutions compute in.
    """
    copied = FaceResnet().eval().requires_grad_(False)
    copied.load_state_dict(network.state_dict())
    entry = cast(torch.nn.Conv2d, copied.entry[0])
    # The entry sees no padding, so what is done to every pixel may as well be done to its weights and bias.
    entry.weight.div_(256.0)
    rest = torch.tensor(MEAN_COLOUR) - torch.tensor(MEAN_COLOUR).round()
    cast(Tensor, entry.bias).sub_((entry.weight * rest[:, None, None]).sum(dim=(1, 2, 3)))
    for block in cast("Iterator[FaceBlock]", iter(copied.blocks)):
        if not block.halves:
            block.second.append(torch.nn.ReLU())  # the rectifier behind the addition
    return served(copied, device, dtype)
