"""What networks over upright chips share when they serve: from a crop to a chip in [−1, 1], batches, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.backbones.backbone import Unusable
from encoders.backbones.public_files import plain_parameters
from encoders.backbones.serving import exact_type
from encoders.chips import usable_chip
from encoders.face import FaceCrop

_CENTRE = 127.5


class ChipPreparation(Protocol):
    """A preparation of which a chip is cut, and how wide the network's output is."""

    @property
    def side(self) -> int:
        """Pixels of the chip."""
        ...

    @property
    def padding(self) -> float:
        """Room around the mean face, as a fraction of its side."""
        ...

    @property
    def least_eye_distance(self) -> float:
        """Pixels between the centres of the eyes, below which a crop is unusable."""
        ...

    @property
    def least_contrast(self) -> float:
        """Standard deviation of the face's grey levels, below which it is unusable."""
        ...

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        ...


def upright_chip(crop: FaceCrop, wanted: ChipPreparation) -> NDArray[np.uint8] | Unusable:
    """A crop to its (side, side, 3) uint8 RGB chip, turned upright by five landmarks, or why not."""
    return usable_chip(crop, wanted.padding, wanted.side, wanted.least_eye_distance, wanted.least_contrast)


def chips_to_input(chips: Tensor) -> Tensor:
    """(n, side, side, 3) uint8 -> (n, 3, side, side) float32 in [−1, 1]: (x − 127.5) / 127.5."""
    return (chips.permute(0, 3, 1, 2).to(torch.float32) - _CENTRE) / _CENTRE


class ChipNetwork:
    """A network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        network: (n, 3, side, side) float32 in [−1, 1] to (n, dimension); moved to the device.
        preparation: how a crop becomes a chip.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown precision.
    """

    _BATCH = 32  # chips per call

    def __init__(self, network: torch.nn.Module, preparation: ChipPreparation, device: str, precision: str) -> None:
        self.preparation = preparation
        self._device, self._dtype = torch.device(device), exact_type(precision)
        self._network = network.to(self._device).eval()

    def prepare(self, sample: FaceCrop) -> NDArray[np.uint8] | Unusable:
        """A crop to its chip, (side, side, 3) uint8 RGB, or why not."""
        return upright_chip(sample, self.preparation)

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Chips to (faces, dimension) float32."""
        rows = [np.zeros((0, self.preparation.dimension), dtype=np.float32)]
        for first in range(0, len(prepared), self._BATCH):
            chips = torch.from_numpy(np.stack(prepared[first : first + self._BATCH])).to(self._device)
            with (
                torch.inference_mode(),
                torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16),
            ):
                rows.append(self._network(chips_to_input(chips)).float().cpu().numpy())
        return np.concatenate(rows)

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters under their public names, on the CPU."""
        return plain_parameters(self._network)
