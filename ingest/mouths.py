"""How a face's mouth moves between the pictures in which faces are looked for: small grey looks, upright and steady."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.chips import MEAN_LANDMARKS

LOOK = 48
"""Side of a look in pixels: the box of the mean face, moved down so that the chin is in it."""
_DOWN = 0.1  # by how much, in sides of the box
# Where things lie in a look (rows, columns), found by eye on real and on invented faces.
_MOUTH = (slice(28, 45), slice(11, 37))
_STEADY = (slice(12, 27), slice(9, 39))  # nose and cheeks: what moves there is the head
_FACE = (slice(4, 45), slice(6, 42))
_PIXEL_NOISE = 0.8  # pixels of blur that take out what the codec leaves
_STIFFNESS = 50.0  # added to the gradients' energy, or a blank face would be shifted at will
_REGISTRATIONS = 2  # steps: heads move by less than 2 px of a look from picture to picture
_LEAST_CONTRAST = 4.0  # grey levels: what is fainter is noise, not motion
# Two looks further apart say nothing about how fast a mouth moves, seconds.
LONGEST_STEP = 0.12
# Pictures held between two looks for faces; at low rates of looking the rest is passed over, or memory would fill.
MOST_HELD = 32

Grey = NDArray[np.uint8]
Sight = tuple[float, NDArray[np.float32]]
"""When a face was found, seconds, and its (5, 2) landmarks in pixels of the picture."""


@dataclass(frozen=True, eq=False)
class MouthMotion:
    """How one mouth moved, from picture to picture.

    Args:
        times: (n,) float64 seconds, rising: the later picture of each two.
        mouth: (n,) float64, mean difference of grey levels in the mouth once the head is held still, as a share of
            the face's contrast.
        head: (n,) float64, the same on nose and cheeks: what turning and noise alone make.
    """

    times: NDArray[np.float64]
    mouth: NDArray[np.float64]
    head: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not len(self.times) == len(self.mouth) == len(self.head):
            raise ValueError(f"one motion per moment, got {len(self.times)}, {len(self.mouth)}, {len(self.head)}")


@dataclass(eq=False)
class MouthTrace:
    """Gathers the motion of one mouth, look by look."""

    steps: list[tuple[float, float, float, float]] = field(default_factory=list)  # time, mouth, head, contrast
    _last: tuple[float, NDArray[np.float32]] | None = None

    def add(self, time: float, look: Grey) -> None:
        """Add the next look, (LOOK, LOOK) uint8, at ``time`` seconds."""
        smooth = cv2.GaussianBlur(look.astype(np.float32), (0, 0), _PIXEL_NOISE).astype(np.float32, copy=False)
        last, self._last = self._last, (time, smooth)
        if last is not None and time - last[0] <= LONGEST_STEP:
            change = np.abs(_held_still(last[1], smooth) - last[1])
            contrast = float(smooth[_FACE].std())
            self.steps.append((time, float(change[_MOUTH].mean()), float(change[_STEADY].mean()), contrast))

    def table(self) -> NDArray[np.float64]:
        """(n, 4) float64, the steps so far: seconds, motion of mouth and of head, contrast (grey levels)."""
        return np.array(self.steps, dtype=np.float64).reshape(-1, 4)


def motion_of(traces: Sequence[MouthTrace]) -> MouthMotion:
    """The motion that the traces of one face's sightings hold together."""
    return motion_of_steps([trace.table() for trace in traces])


def motion_of_steps(tables: Sequence[NDArray[np.float64]]) -> MouthMotion:
    """The motion that (n, 4) tables of steps hold together, see :meth:`MouthTrace.table`."""
    steps = np.concatenate([np.zeros((0, 4)), *tables])
    times, mouth, head, contrast = steps[np.lexsort(steps.T[::-1])].T
    usual = max(_LEAST_CONTRAST, float(np.median(contrast))) if len(steps) else 1.0
    return MouthMotion(times.copy(), mouth / usual, head / usual)


class Passing:
    """Holds the pictures since the last look for faces, in grey, until it is known where the faces went."""

    def __init__(self) -> None:
        self._held: list[tuple[float, Grey]] = []

    def pass_by(self, time: float, picture: NDArray[np.uint8]) -> None:
        """Hold a (height, width, 3) uint8 RGB picture; also the one in which faces are looked for next."""
        if len(self._held) < MOST_HELD:
            self._held.append((time, cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)))

    def looks(self, before: Sight | None, now: Sight) -> list[tuple[float, Grey]]:
        """Looks at one face since it was last found.

        Args:
            before: when and where it was found in the last look for faces; None: it is new, or there was a cut.
            now: when and where it was found just now.

        Returns:
            Seconds and (LOOK, LOOK) uint8, the landmarks interpolated between the two sights.
        """
        time, landmarks = now
        since = time - 1e-6 if before is None else before[0] + 1e-6
        found = []
        for moment, grey in self._held:
            if since < moment <= time + 1e-6:
                share = 1.0 if before is None else (moment - before[0]) / (time - before[0])
                points = landmarks if before is None else before[1] + share * (landmarks - before[1])
                found.append((moment, look_at(grey, np.asarray(points, dtype=np.float64))))
        return found

    def forget(self) -> None:
        """Drop the pictures: the next look for faces begins a new stretch."""
        self._held = []


def look_at(grey: Grey, landmarks: NDArray[np.float64]) -> Grey:
    """A face upright at the size of a look; pixels outside the picture repeat its edge.

    Args:
        grey: (height, width) uint8.
        landmarks: (5, 2) x, y in its pixels.

    Returns:
        (LOOK, LOOK) uint8; black if the face lies outside the picture.
    """
    placed = _placement(landmarks)
    shrink = float(np.hypot(placed[0, 0], placed[1, 0])) / 1.5
    if shrink > 1.0:  # a large face is made smaller first, or most of its pixels would be passed over
        corners = placed @ np.array([[0, LOOK, 0, LOOK], [0, 0, LOOK, LOOK], [1, 1, 1, 1]], dtype=np.float64)
        left, top = np.maximum(np.floor(corners.min(axis=1)).astype(int) - 2, 0)
        right, bottom = np.minimum(np.ceil(corners.max(axis=1)).astype(int) + 2, (grey.shape[1], grey.shape[0]))
        if right - left < 2 or bottom - top < 2:
            return np.zeros((LOOK, LOOK), dtype=np.uint8)
        size = max(1, round((right - left) / shrink)), max(1, round((bottom - top) / shrink))
        grey = cv2.resize(grey[top:bottom, left:right], size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        scale = np.array([[size[0] / (right - left)], [size[1] / (bottom - top)]])
        placed = scale * (placed - np.array([[0, 0, left], [0, 0, top]]))
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grey, placed, (LOOK, LOOK), flags=way, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def _placement(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) the similarity from a look to the picture that fits eyes and nose best (least squares)."""
    look, picture = (_anchors(points) for points in ((MEAN_LANDMARKS - (0.0, _DOWN)) * LOOK, landmarks))
    look_middle, picture_middle = look.mean(), picture.mean()
    turn = np.vdot(look - look_middle, picture - picture_middle) / np.vdot(look - look_middle, look - look_middle)
    moved = picture_middle - turn * look_middle
    return np.array([[turn.real, -turn.imag, moved.real], [turn.imag, turn.real, moved.imag]], dtype=np.float64)


def _anchors(landmarks: NDArray[np.float64]) -> NDArray[np.complex128]:
    """(3,) x + iy of the middles of the eyes and of the base of the nose: steadier than the corners."""
    points = np.array([landmarks[0:2].mean(axis=0), landmarks[2:4].mean(axis=0), landmarks[4]])
    return np.asarray(points[:, 0] + 1j * points[:, 1], dtype=np.complex128)


def _held_still(last: NDArray[np.float32], look: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift a look so that nose and cheeks lie where they lay in the last one (Gauss-Newton steps)."""
    rows, columns = _STEADY
    beside = (slice(columns.start - 1, columns.stop - 1), slice(columns.start + 1, columns.stop + 1))
    above = (slice(rows.start - 1, rows.stop - 1), slice(rows.start + 1, rows.stop + 1))
    across = (last[rows, beside[1]] - last[rows, beside[0]]) / 2
    down = (last[above[1], columns] - last[above[0], columns]) / 2
    mixed = float((across * down).sum())
    normal = np.array([[(across**2).sum() + _STIFFNESS, mixed], [mixed, (down**2).sum() + _STIFFNESS]])
    shift, moved = np.zeros(2), look
    for _ in range(_REGISTRATIONS):
        error = moved[_STEADY] - last[_STEADY]
        shift += np.linalg.solve(normal, [float((across * error).sum()), float((down * error).sum())])
        matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
        shifted = cv2.warpAffine(look, matrix, (LOOK, LOOK), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        moved = shifted.astype(np.float32, copy=False)
    return moved
