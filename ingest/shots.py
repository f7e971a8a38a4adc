"""Looks at one face: the crop that is kept, how good it is, and which looks are the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.face import DetectedFace
from ingest.track import FaceShot

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the whole picture."""

CROP_FACTOR = 2.0  # side of a crop in sides of its face box
LEAST_CROP = 256  # pixels, where the picture has them
LARGEST_CROP = 512  # pixels
# Values at which a property is judged half good; typical of talking clips of 224 to 1080 lines.
_HALF_SIZE = 50.0  # side of the box, pixels
_HALF_SHARPNESS = 60.0  # variance of the Laplacian on the face at 112 x 112
_HALF_SCORE = 0.4  # detector's score


class Look(Protocol):
    """What is known of a look at a face without its pixels."""

    @property
    def time(self) -> float | None:
        """Seconds on the media clock; None for a photo."""

    @property
    def quality(self) -> float:
        """0 (useless) to 1."""


AnyLook = TypeVar("AnyLook", bound=Look)


@dataclass(frozen=True, eq=False)
class KeptShot:
    """A :class:`ingest.track.FaceShot` with its pixels packed without loss: hours of film hold many.

    Args:
        time: seconds on the media clock.
        packed: (bytes,) uint8, a PNG whose channels are blue, green, red; empty for no pixels.
        landmarks: as of the shot.
        box: as of the shot.
        quality: as of the shot.
    """

    time: float | None
    packed: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    box: Box
    quality: float

    def __post_init__(self) -> None:
        if self.packed.ndim != 1 or self.landmarks.shape != (5, 2):
            raise ValueError(f"a look has bytes and 5 landmarks, got {self.packed.shape} and {self.landmarks.shape}")

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 RGB, decoded anew each time. Raises ValueError if it is damaged."""
        if not self.packed.size:
            return np.zeros((0, 0, 3), np.uint8)
        pixels = cv2.imdecode(self.packed, cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError(f"a look at a face of {self.packed.size} bytes is damaged: extract its film again")
        return pixels.astype(np.uint8, copy=False)

    def shot(self) -> FaceShot:
        """The same as a shot, whose pixels are unpacked when they are asked for."""
        return _PackedShot(self)


class _PackedShot(FaceShot):
    """A shot that holds its pixels packed."""

    def __init__(self, kept: KeptShot) -> None:
        for name in ("time", "landmarks", "box", "quality"):
            object.__setattr__(self, name, getattr(kept, name))
        object.__setattr__(self, "_kept", kept)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """As of the shot; a new array each time."""
        kept: KeptShot = object.__getattribute__(self, "_kept")
        return kept.pixels


def keep_shot(shot: FaceShot) -> KeptShot:
    """Pack the pixels of a shot; :meth:`KeptShot.shot` gives back the very same."""
    packed = np.zeros(0, np.uint8)
    if shot.pixels.size:
        # Red and blue change places on the way in and on the way out: nobody else looks at these files.
        _, coded = cv2.imencode(".png", shot.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        packed = coded.reshape(-1).astype(np.uint8, copy=False)
    return KeptShot(shot.time, packed, shot.landmarks, shot.box, shot.quality)


def area(box: Box) -> float:
    """Pixels inside a box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    shared = area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    together = area(one) + area(other) - shared
    return shared / together if together > 0 else 0.0


def face_quality(picture: NDArray[np.uint8], face: DetectedFace) -> float:
    """How good a look is, from 0 (useless) to 1 (large, sharp, frontal, sure).

    Args:
        picture: (height, width, 3) uint8 RGB, the whole picture.
        face: a face found in it.
    """
    left, top, right, bottom = _clip(face.box, picture)
    if right - left < 2 or bottom - top < 2:
        return 0.0
    grey = cv2.cvtColor(picture[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    side = max(right - left, bottom - top)
    way = cv2.INTER_AREA if side > 112 else cv2.INTER_LINEAR
    small = cv2.resize(grey, (112, 112), interpolation=way).astype(np.float32)
    # Contrast is taken out, or a dim but sharp face would count as blurred.
    even = (small - small.mean()) * (50.0 / max(10.0, float(small.std())))
    sharpness = float(cv2.Laplacian(even, cv2.CV_32F).var())
    parts = (
        side / (side + _HALF_SIZE),
        sharpness / (sharpness + _HALF_SHARPNESS),
        max(0.0, face.score) / (max(0.0, face.score) + _HALF_SCORE),
        frontality(face.landmarks),
    )
    return float(np.clip(np.prod(parts) ** (1 / len(parts)), 0.0, 1.0))


def frontality(landmarks: NDArray[np.float32]) -> float:
    """1 for a face that looks into the camera, towards 0 in profile.

    Args:
        landmarks: (5, 2) x, y: outer and inner corner of one eye, of the other, base of the nose.
    """
    one, other, nose = landmarks[0:2].mean(axis=0), landmarks[2:4].mean(axis=0), landmarks[4]
    across = other - one
    length = float(across @ across)
    if length <= 0:
        return 0.0
    along = float((nose - one) @ across) / length  # 0.5 when the nose lies midway between the eyes
    return float(np.clip(1.0 - 2.0 * abs(along - 0.5), 0.05, 1.0))


def take_shot(picture: NDArray[np.uint8], face: DetectedFace, time: float | None, quality: float) -> FaceShot:
    """Cut a face out of its picture, as :class:`ingest.track.FaceShot` describes."""
    left, top, right, bottom = face.box
    reach = max(CROP_FACTOR * max(right - left, bottom - top), float(LEAST_CROP)) / 2
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    around = (middle_x - reach, middle_y - reach, middle_x + reach, middle_y + reach)
    x0, y0, x1, y1 = _clip(around, picture)
    pixels = picture[y0:y1, x0:x1]
    scale = min(1.0, LARGEST_CROP / max(x1 - x0, y1 - y0, 1))
    across = down = 1.0
    if scale < 1.0:
        size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        across, down = size[0] / (x1 - x0), size[1] / (y1 - y0)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    # Pixel centres: shrinking maps the centre 0 to scale / 2 - 0.5.
    landmarks = (face.landmarks - (x0, y0) + 0.5) * (across, down) - 0.5
    return FaceShot(time, np.ascontiguousarray(pixels).copy(), landmarks.astype(np.float32), face.box, quality)


def best_shots(shots: Sequence[AnyLook], count: int, spacing: float) -> list[AnyLook]:
    """The best looks, best first, at least ``spacing`` seconds apart while there are such."""
    ranked = sorted(shots, key=lambda shot: (-shot.quality, shot.time or 0.0))
    spread: list[AnyLook] = []
    rest: list[AnyLook] = []
    for shot in ranked:
        near = any(abs((shot.time or 0.0) - (taken.time or 0.0)) < spacing for taken in spread)
        (rest if near else spread).append(shot)
    chosen = (spread + rest)[:count]
    return sorted(chosen, key=lambda shot: (-shot.quality, shot.time or 0.0))


def _clip(box: Box, picture: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """A box as whole pixels inside a picture."""
    height, width = picture.shape[:2]
    left, top = min(max(0, round(box[0])), width), min(max(0, round(box[1])), height)
    return left, top, max(left, min(width, round(box[2]))), max(top, min(height, round(box[3])))
