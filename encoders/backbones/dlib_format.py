"""Reader of dlib's file of its face network: the parameters by name, nothing run, nothing trusted.

The file is one serialised ``loss_metric`` network of the C++ library dlib. Its grammar, as found in dlib's public
headers and in the file itself:

- an integer is a control byte (low four bits: how many bytes follow; top bit: negative) and those bytes, little-endian;
- a real number is two integers, mantissa and exponent of two; a truth value is ``0`` or ``1`` as a character;
- a text is its length and its bytes; a tensor is a version, four sizes and its values as little-endian float32;
- a layer is a version, *the layer below it*, its own parameters, three truth values and three working tensors. So the
  versions stand in front, outermost layer first, and the parameters behind, innermost layer first. Tags and skips,
  which only mark places, have a version and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ENTRY_CHANNELS, ENTRY_KERNEL = 32, 7
BLOCKS: tuple[tuple[int, bool], ...] = (
    *((32, False),) * 3,
    *((64, True), (64, False), (64, False), (64, False)),
    *((128, True), (128, False), (128, False)),
    *((256, True), (256, False), (256, False)),
    (256, True),
)
"""(channels, halves the side) of the 14 residual blocks, from the picture to the vector."""
FEATURES = 128
CHIP_SIDE = 150
MEAN_COLOUR = (122.782, 117.001, 104.298)
"""What the network subtracts from red, green and blue of 0 to 255, before it divides by 256."""

_MOST_BYTES = 64 << 20  # the file has 22 MB
_LAYER, _INPUT_LAYER, _MARK = 2, 3, 1  # versions of a layer, of the one on the input, of a tag or skip
_CONVOLUTION_MODE, _WITHOUT_BIAS = 0, 1


class _Stream:
    """The bytes of the file and a place in them. Everything that does not fit raises ValueError."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def bytes(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes."""
        end = self._place + count
        if end > len(self._content):
            raise ValueError(f"it ends within {what} at byte {self._place}")
        piece, self._place = self._content[self._place : end], end
        return piece

    def integer(self, what: str) -> int:
        control = self.bytes(1, what)[0]
        size = control & 0x0F
        if control & 0x70 or not 1 <= size <= 8:
            raise ValueError(f"byte {self._place - 1} does not begin an integer ({what})")
        value = int.from_bytes(self.bytes(size, what), "little")
        return -value if control & 0x80 else value

    def integers(self, expected: tuple[int, ...], what: str) -> None:
        """Reads integers that must be these."""
        start = self._place
        found = tuple(self.integer(what) for _ in expected)
        if found != expected:
            raise ValueError(f"{what} at byte {start} is {found}, expected {expected}")

    def real(self, what: str) -> float:
        mantissa, exponent = self.integer(what), self.integer(what)
        if abs(exponent) > 1000:
            raise ValueError(f"{what} before byte {self._place} is no finite number")
        return math.ldexp(mantissa, exponent)

    def truth(self, what: str) -> None:
        if self.bytes(1, what) not in (b"0", b"1"):
            raise ValueError(f"byte {self._place - 1} is no truth value ({what})")

    def text(self, expected: str) -> None:
        """Reads a text that must be this."""
        start, length = self._place, self.integer(expected)
        if length != len(expected) or self.bytes(length, expected) != expected.encode():
            raise ValueError(f"there is no {expected!r} at byte {start}")

    def tensor(self, shape: tuple[int, int, int, int], what: str) -> NDArray[np.float32]:
        """A tensor that must have this shape and finite values; (values,) float32."""
        self.integers((2, *shape), f"the shape of {what}")
        values = np.frombuffer(self.bytes(4 * math.prod(shape), what), dtype="<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{what} holds values that are not finite numbers")
        return values

    def end(self) -> None:
        if self._place != len(self._content):
            raise ValueError(f"{len(self._content) - self._place} bytes follow the network's end")


def read_face_network(path: Path) -> dict[str, Tensor]:
    """The parameters of ``dlib_face_recognition_resnet_model_v1.dat``, named as :class:`FaceResnet` names them.

    Args:
        path: the file. Nothing in it decides how much memory is taken: every size is known beforehand.

    Returns:
        Convolutions ``….0.weight`` (out, in, height, width) and ``….0.bias`` (out,), the scales behind them
        ``….1.weight`` and ``….1.bias`` (out,), and ``linear.weight`` (128, 256), all float32.

    Raises:
        ValueError: the file is not that network whole; the message names the file and the byte.
        OSError: as the file system gives it.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        return dict(_network(_Stream(content)))
    except ValueError as error:
        raise ValueError(f"{path} does not hold weights of dlib's face network: {error}") from error


def _network(stream: _Stream) -> Iterator[tuple[str, Tensor]]:
    stream.integers((1,), "the version of the network")
    stream.text("loss_metric_2")
    for what in ("the margin", "the distance threshold"):
        stream.real(what)
    stream.integers(tuple(_versions()), "the versions of the layers")
    stream.text("input_rgb_image_sized")
    for colour, expected in zip(("red", "green", "blue"), MEAN_COLOUR, strict=True):
        if abs(stream.real(f"the mean {colour}") - expected) > 1e-4:
            raise ValueError(f"the mean {colour} is not {expected}")
    stream.integers((CHIP_SIDE, CHIP_SIDE), "the size of the input")
    yield from _convolution(stream, "entry", (3, ENTRY_CHANNELS, ENTRY_KERNEL, 2))
    stream.integers((1,), "the samples of one picture")
    yield from _scale(stream, "entry", ENTRY_CHANNELS)
    _plain(stream, "relu_")
    _pool(stream, "max_pool_2", (3, 3, 2, 2, 0, 0))
    before = ENTRY_CHANNELS
    for number, (width, halves) in enumerate(BLOCKS):
        yield from _block(stream, f"blocks.{number}", before, width, halves)
        before = width
    _pool(stream, "avg_pool_2", (0, 0, 1, 1, 0, 0))
    yield from _fully_connected(stream, before)
    stream.end()


def _versions() -> Iterator[int]:
    """Of all layers, outermost first."""
    yield from (_LAYER, _LAYER)  # fully connected, average over everything
    for _, halves in reversed(BLOCKS):
        yield from (_LAYER, _LAYER)  # rectifier, addition
        if halves:
            yield from (_LAYER, _MARK, _MARK)  # average of the shortcut, skip to the block's input, tag of its output
        yield from (_LAYER,) * 5  # scale, convolution, rectifier, scale, convolution
        yield _MARK  # tag of the block's input
    yield from (_LAYER,) * 3  # greatest of 3 x 3, rectifier, scale
    yield _INPUT_LAYER


def _block(stream: _Stream, name: str, before: int, width: int, halves: bool) -> Iterator[tuple[str, Tensor]]:
    yield from _convolution(stream, f"{name}.first", (before, width, 3, 2 if halves else 1))
    yield from _scale(stream, f"{name}.first", width)
    _plain(stream, "relu_")
    yield from _convolution(stream, f"{name}.second", (width, width, 3, 1))
    yield from _scale(stream, f"{name}.second", width)
    if halves:
        _pool(stream, "avg_pool_2", (2, 2, 2, 2, 0, 0))
    _plain(stream, "add_prev_")
    _plain(stream, "relu_")


def _convolution(stream: _Stream, name: str, shape: tuple[int, int, int, int]) -> Iterator[tuple[str, Tensor]]:
    """``shape``: channels in, channels out, kernel, stride."""
    channels, width, kernel, stride = shape
    size, padding = width * channels * kernel**2, 0 if stride > 1 else kernel // 2
    stream.text("con_4")
    values = stream.tensor((size + width, 1, 1, 1), f"{name}'s convolution")
    geometry = (width, kernel, kernel, stride, stride, padding, padding)
    aliases = (1, width, channels, kernel, kernel, 1, 1, width, 1, 1)
    stream.integers((*geometry, *aliases), f"the geometry of {name}'s convolution")
    _training(stream, name)
    yield f"{name}.0.weight", torch.from_numpy(values[:size].reshape(width, channels, kernel, kernel))
    yield f"{name}.0.bias", torch.from_numpy(values[size:])


def _scale(stream: _Stream, name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    stream.text("affine_")
    values = stream.tensor((2 * width, 1, 1, 1), f"{name}'s scale")
    aliases = (1, 1, width, 1, 1, 1, 1, width, 1, 1)
    stream.integers((*aliases, _CONVOLUTION_MODE), f"the geometry of {name}'s scale")
    _state(stream, name)
    yield f"{name}.1.weight", torch.from_numpy(values[:width])
    yield f"{name}.1.bias", torch.from_numpy(values[width:])


def _fully_connected(stream: _Stream, before: int) -> Iterator[tuple[str, Tensor]]:
    stream.text("fc_2")
    stream.integers((FEATURES, before), "the size of the last layer")
    values = stream.tensor((before, FEATURES, 1, 1), "the last layer")
    stream.integers((1, before, FEATURES, 1, 1, 1, 0, 0, 0, 0, _WITHOUT_BIAS), "the geometry of the last layer")
    _training(stream, "the last layer")
    yield "linear.weight", torch.from_numpy(np.ascontiguousarray(values.reshape(before, FEATURES).T))


def _pool(stream: _Stream, kind: str, geometry: tuple[int, ...]) -> None:
    stream.text(kind)
    stream.integers(geometry, f"the geometry of {kind}")
    _state(stream, kind)


def _plain(stream: _Stream, kind: str) -> None:
    stream.text(kind)
    _state(stream, kind)


def _training(stream: _Stream, name: str) -> None:
    """How fast the layer learned, which nobody needs any more; then what every layer ends with."""
    for what in ("the learning rate", "the weight decay", "the bias's learning rate", "the bias's weight decay"):
        stream.real(f"{what} of {name}")
    _state(stream, name)


def _state(stream: _Stream, name: str) -> None:
    """Three flags and three working tensors, which are empty in a file made for serving."""
    for _ in range(3):
        stream.truth(f"a flag of {name}")
    for _ in range(3):
        stream.tensor((0, 0, 0, 0), f"a working tensor of {name}")
