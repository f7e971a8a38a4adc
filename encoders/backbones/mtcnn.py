"""MTCNN: three small networks that find faces, each looking closer at what the one before left.

The cascade is the one of Zhang et al. (2016). Parameters are named as in facenet-pytorch (MIT), whose files load here
unchanged and give the same boxes. P-Net slides over a pyramid of the picture; every window that it proposes is cut out
and judged by R-Net, what that leaves by O-Net. All windows of a stage are cut out and judged together: the mean over
any rectangle takes four look-ups in a table of sums, so that nothing but the choice of boxes needs the processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from encoders.backbones.public_files import fill, read_tensors

CENTRE, SPREAD = 127.5, 128.0
PROPOSAL_SIDE, REFINE_SIDE, OUTPUT_SIDE = 12, 24, 48
"""Pixels of the windows that the three networks look at."""
_STRIDE = 2  # pixels between windows of P-Net
_BATCH = 512  # windows judged at a time


@dataclass(frozen=True)
class MtcnnPreparation:
    """How faces are looked for.

    Args:
        thresholds: probability of a face that a window must have for each of the three networks.
        shrink: from one level of the pyramid to the next.
    """

    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    shrink: float = 0.709

    def __post_init__(self) -> None:
        if len(self.thresholds) != 3 or not all(0.0 < one < 1.0 for one in self.thresholds):
            raise ValueError(f"thresholds must be three probabilities between 0 and 1, got {self.thresholds}")
        if not 0.1 <= self.shrink <= 0.95:
            raise ValueError(f"shrink must lie between 0.1 and 0.95, got {self.shrink}")


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """What MTCNN found in a picture, best first.

    Args:
        boxes: (faces, 4) float32 left, top, right, bottom in pixels; may leave the picture.
        scores: (faces,) float32 probabilities.
        points: (faces, 5, 2) float32 x, y: the eye, and after the nose the corner of the mouth, on the picture's left
            each before the one on its right.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    points: NDArray[np.float32]


class ProposalNetwork(torch.nn.Module):
    """P-Net: whether each window of 12 px shows a face, and how its box is to be moved."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = torch.nn.Conv2d(3, 10, 3), torch.nn.PReLU(10)
        self.pool1 = torch.nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = torch.nn.Conv2d(10, 16, 3), torch.nn.PReLU(16)
        self.conv3, self.prelu3 = torch.nn.Conv2d(16, 32, 3), torch.nn.PReLU(32)
        self.conv4_1, self.conv4_2 = torch.nn.Conv2d(32, 2, 1), torch.nn.Conv2d(32, 4, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, height, width) -> (n, rows, columns) probabilities and (n, 4, rows, columns) moves."""
        hidden = self.pool1(self.prelu1(self.conv1(inputs)))
        hidden = self.prelu3(self.conv3(self.prelu2(self.conv2(hidden))))
        return self.conv4_1(hidden).softmax(dim=1)[:, 1], self.conv4_2(hidden)


class RefineNetwork(torch.nn.Module):
    """R-Net: whether a window of 24 px shows a face, and how its box is to be moved."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = torch.nn.Conv2d(3, 28, 3), torch.nn.PReLU(28)
        self.pool1 = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = torch.nn.Conv2d(28, 48, 3), torch.nn.PReLU(48)
        self.pool2 = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = torch.nn.Conv2d(48, 64, 2), torch.nn.PReLU(64)
        self.dense4, self.prelu4 = torch.nn.Linear(576, 128), torch.nn.PReLU(128)
        self.dense5_1, self.dense5_2 = torch.nn.Linear(128, 2), torch.nn.Linear(128, 4)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 24, 24) -> (n,) probabilities and (n, 4) moves."""
        hidden = self.pool1(self.prelu1(self.conv1(inputs)))
        hidden = self.pool2(self.prelu2(self.conv2(hidden)))
        hidden = _columns_first(self.prelu3(self.conv3(hidden)))
        hidden = self.prelu4(self.dense4(hidden))
        return self.dense5_1(hidden).softmax(dim=1)[:, 1], self.dense5_2(hidden)


class OutputNetwork(torch.nn.Module):
    """O-Net: whether a window of 48 px shows a face, how its box is to be moved, and five points of the face."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = torch.nn.Conv2d(3, 32, 3), torch.nn.PReLU(32)
        self.pool1 = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = torch.nn.Conv2d(32, 64, 3), torch.nn.PReLU(64)
        self.pool2 = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = torch.nn.Conv2d(64, 64, 3), torch.nn.PReLU(64)
        self.pool3 = torch.nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = torch.nn.Conv2d(64, 128, 2), torch.nn.PReLU(128)
        self.dense5, self.prelu5 = torch.nn.Linear(1152, 256), torch.nn.PReLU(256)
        self.dense6_1, self.dense6_2 = torch.nn.Linear(256, 2), torch.nn.Linear(256, 4)
        self.dense6_3 = torch.nn.Linear(256, 10)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, 48, 48) -> (n,) probabilities, (n, 4) moves, (n, 10) points: five x, then five y, in boxes."""
        hidden = self.pool1(self.prelu1(self.conv1(inputs)))
        hidden = self.pool2(self.prelu2(self.conv2(hidden)))
        hidden = self.pool3(self.prelu3(self.conv3(hidden)))
        hidden = self.prelu5(self.dense5(_columns_first(self.prelu4(self.conv4(hidden)))))
        return self.dense6_1(hidden).softmax(dim=1)[:, 1], self.dense6_2(hidden), self.dense6_3(hidden)


class Mtcnn:
    """The cascade on a device; keeps no state between calls, so that several threads may use it.

    Args:
        weights: the files of P-, R- and O-Net.
        device: a torch device.
        preparation: how faces are looked for.

    Raises:
        ValueError: a file holds something else.
    """

    def __init__(
        self,
        weights: tuple[Path, Path, Path],
        device: str = "cpu",
        preparation: MtcnnPreparation = MtcnnPreparation(),
    ) -> None:
        self._device, self._preparation = torch.device(device), preparation
        networks = (ProposalNetwork(), RefineNetwork(), OutputNetwork())
        for network, path in zip(networks, weights, strict=True):
            fill(network, public_parameters(path), path)
            network.eval().requires_grad_(False).to(self._device)
        self._propose, self._refine, self._output = networks

    @torch.inference_mode()
    def find(self, picture: NDArray[np.uint8], smallest: float = 20.0) -> FoundFaces:
        """Find faces.

        Args:
            picture: (height, width, 3) uint8 RGB.
            smallest: side in pixels of the smallest face to look for, at least 12.

        Raises:
            ValueError: the smallest face is smaller.
        """
        if not smallest >= PROPOSAL_SIDE:
            raise ValueError(f"the smallest face that MTCNN can look for has {PROPOSAL_SIDE} px, got {smallest}")
        pixels = torch.from_numpy(np.array(picture)).to(self._device).permute(2, 0, 1)[None]
        found = self._proposals(pixels.float(), smallest)
        sums = _table_of_sums(pixels[0])
        found = self._refined(sums, found)
        return self._finished(sums, found)

    def _proposals(self, pixels: Tensor, smallest: float) -> Tensor:
        """(windows, 4) square boxes that P-Net takes for faces of at least so many pixels."""
        height, width = pixels.shape[2:]
        scale, levels = PROPOSAL_SIDE / smallest, []
        while min(height, width) * scale >= PROPOSAL_SIDE:
            level = interpolate(pixels, (int(height * scale + 1), int(width * scale + 1)), mode="area")
            level = _standardised(level).contiguous(memory_format=torch.channels_last)
            probability, moves = self._propose(level)
            rows, columns = torch.nonzero(probability[0] >= self._preparation.thresholds[0], as_tuple=True)
            corners = torch.stack([columns, rows, columns, rows], dim=1).float() * _STRIDE + 1
            corners[:, 2:] += PROPOSAL_SIDE - 1
            boxes, scores = torch.floor(corners / scale), probability[0, rows, columns]
            kept = suppress(boxes, scores, 0.5)
            levels.append((boxes[kept], scores[kept], moves[0, :, rows, columns].T[kept]))
            scale *= self._preparation.shrink
        if not levels:
            return pixels.new_zeros((0, 4))
        boxes, scores, moves = (torch.cat(parts) for parts in zip(*levels, strict=True))
        kept = suppress(boxes, scores, 0.7)
        boxes, moves = boxes[kept], moves[kept]
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        return _squared(boxes + moves * sides)

    def _refined(self, sums: Tensor, boxes: Tensor) -> Tensor:
        """(windows, 4) square boxes that R-Net left."""
        boxes, windows = _cut(sums, boxes, REFINE_SIDE)
        if not len(boxes):
            return boxes
        scores, moves = (torch.cat(parts) for parts in zip(*map(self._refine, _batches(windows)), strict=True))
        passed = scores > self._preparation.thresholds[1]
        boxes, scores, moves = boxes[passed], scores[passed], moves[passed]
        kept = suppress(boxes, scores, 0.7)
        return _squared(_moved(boxes[kept], moves[kept]))

    def _finished(self, sums: Tensor, boxes: Tensor) -> FoundFaces:
        boxes, windows = _cut(sums, boxes, OUTPUT_SIDE)
        if not len(boxes):
            return _on_the_processor(boxes, boxes.new_zeros(0), boxes.new_zeros((0, 5, 2)))
        judged = [self._output(batch) for batch in _batches(windows)]
        scores, moves, points = (torch.cat(parts) for parts in zip(*judged, strict=True))
        passed = scores > self._preparation.thresholds[2]
        boxes, scores, moves = boxes[passed], scores[passed], moves[passed]
        within = points[passed].reshape(-1, 2, 5).transpose(1, 2)
        places = boxes[:, None, :2] - 1 + within * (boxes[:, None, 2:] - boxes[:, None, :2] + 1)
        boxes = _moved(boxes, moves)
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        return _on_the_processor(boxes[kept], scores[kept], places[kept])


def public_parameters(path: Path) -> dict[str, Tensor]:
    """The parameters in a public weight file of one of the three networks. Raises ValueError."""
    return read_tensors(path)


def suppress(boxes: Tensor, scores: Tensor, most: float, *, of_smaller: bool = False) -> Tensor:
    """Which boxes stay if none may lie over a better one: non-maximum suppression.

    Args:
        boxes: (n, 4) left, top, right, bottom.
        scores: (n,); of equals the first counts as the better one.
        most: share of two boxes that may be common to them: intersection over union.
        of_smaller: intersection over the smaller one instead, so that a box inside another goes too. Sides are then
            counted in whole pixels, both ends included, as the cascade's authors do in its last stage only.

    Returns:
        (kept,) int64 places, best first, on the boxes' device.
    """
    order = scores.argsort(descending=True, stable=True).cpu().numpy()
    corners = boxes.double().cpu().numpy()[order]
    end = 1.0 if of_smaller else 0.0
    sides = np.maximum(corners[:, 2:] - corners[:, :2] + end, 0.0)
    areas = sides[:, 0] * sides[:, 1]
    left, kept = np.arange(len(order)), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(order[best])
        low = np.maximum(corners[best, :2], corners[left, :2])
        high = np.minimum(corners[best, 2:], corners[left, 2:])
        common = np.prod(np.maximum(high - low + end, 0.0), axis=1)
        reference = np.minimum(areas[best], areas[left]) if of_smaller else areas[best] + areas[left] - common
        left = left[common <= most * reference]
    return torch.tensor(np.array(kept, dtype=np.int64), device=boxes.device)


def _table_of_sums(pixels: Tensor) -> Tensor:
    """(3, height, width) uint8 -> (3, height + 1, width + 1) integers: sums over all above and to the left."""
    # in int32, 8 million white pixels have room; it takes half the time
    kind = torch.int32 if pixels[0].numel() * 255 < 2**31 else torch.int64
    sums = pixels.cumsum(dim=1, dtype=kind).cumsum(dim=2, dtype=kind)
    return torch.nn.functional.pad(sums, (1, 0, 1, 0))


def _cut(sums: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Windows of a picture, each at one size, standardised.

    Args:
        sums: of :func:`_table_of_sums`.
        boxes: (n, 4); counted from 1, both ends included, as the cascade's authors do. What lies outside the picture
            is left out; a box that lies wholly outside is none.
        side: pixels of a window.

    Returns:
        (m, 4) the boxes that show anything, and (m, 3, side, side) float32.
    """
    height, width = sums.shape[1] - 1, sums.shape[2] - 1
    whole = boxes.trunc().long()
    low = whole[:, :2].clamp(min=1) - 1
    high = torch.minimum(whole[:, 2:], whole.new_tensor([width, height]))
    shown = (high > low).all(dim=1)
    boxes, low, high = boxes[shown], low[shown], high[shown]
    steps = torch.arange(side + 1, device=boxes.device)
    extent = (high - low)[:, :, None]
    # the pixel ranges of torch's own interpolation over areas: neighbours may share a pixel
    first = low[:, :, None] + (steps[:-1] * extent) // side
    last = low[:, :, None] - (-(steps[1:] * extent) // side)
    (left, top), (right, bottom) = first.unbind(dim=1), last.unbind(dim=1)
    totals = (
        _look_up(sums, bottom, right)
        - _look_up(sums, top, right)
        - _look_up(sums, bottom, left)
        + _look_up(sums, top, left)
    )
    counts = (bottom - top)[:, :, None] * (right - left)[:, None, :]
    means = totals.float() / counts.float()[None]
    windows = _standardised(means.permute(1, 0, 2, 3))
    # colours side by side in memory: a CPU pools and convolves faster so
    return boxes, windows.contiguous(memory_format=torch.channels_last)


def _look_up(sums: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(3, n, side, side): the sums at every row of a window with every column of it."""
    return sums[:, rows[:, :, None], columns[:, None, :]]


def _batches(windows: Tensor) -> list[Tensor]:
    return [windows[first : first + _BATCH] for first in range(0, len(windows), _BATCH)]


def _standardised(pixels: Tensor) -> Tensor:
    return (pixels - CENTRE) / SPREAD


def _columns_first(hidden: Tensor) -> Tensor:
    """(n, channels, height, width) -> (n, width · height · channels), in the order of the public weights."""
    return hidden.permute(0, 3, 2, 1).flatten(1)


def _moved(boxes: Tensor, moves: Tensor) -> Tensor:
    """Boxes with each edge moved by a share of their sides, both ends included."""
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)
    return boxes + moves * sides


def _squared(boxes: Tensor) -> Tensor:
    """Boxes grown to squares around their middle."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.amax(dim=1, keepdim=True)
    low = boxes[:, :2] + (sides - longest) / 2
    return torch.cat([low, low + longest], dim=1)


def _on_the_processor(boxes: Tensor, scores: Tensor, points: Tensor) -> FoundFaces:
    return FoundFaces(
        *(cast("NDArray[np.float32]", part.cpu().numpy().astype(np.float32)) for part in (boxes, scores, points))
    )
