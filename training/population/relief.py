"""The canvas on which a head is drawn: how far each point stands out, and what colour it is.

Everything is in head units (see :mod:`~training.population.looks`).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.population.looks import Bones, Colour

Plane = NDArray[np.floating[Any]]
"""(n, n) numbers over the canvas, or what spreads to that; float32 wherever it is kept."""

Window = tuple[slice, slice]
"""Rows and columns of a part of the canvas."""

LEFT, TOP, EXTENT = -1.5, -1.45, 3.0
"""The canvas spans [LEFT, LEFT + EXTENT] x [TOP, TOP + EXTENT] head units."""


class Relief:
    """The canvas: (n, n) height in head units, (n, n, 3) linear reflectance, (n, n) cover 0 to 1."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.unit = side / EXTENT
        steps = (np.arange(side, dtype=np.float32) + 0.5) / self.unit
        self.x, self.y = steps[None, :] + LEFT, steps[:, None] + TOP
        self.height = np.full((side, side), -0.25, np.float32)
        self.colour = np.zeros((side, side, 3), np.float32)
        self.cover = np.zeros((side, side), np.float32)
        self.gloss = np.zeros((side, side), np.float32)

    def window(self, x: float, y: float, half_width: float, half_height: float) -> Window:
        """Rows and columns around a point, cut to the canvas."""
        rows = _range(y - TOP, half_height, self.unit, self.side)
        return rows, _range(x - LEFT, half_width, self.unit, self.side)

    def bump(self, x: float, y: float, wide: float, high: float, amount: float) -> None:
        """Raise (or lower) the surface by a Gaussian with the given deviations."""
        rows, columns = self.window(x, y, 3 * wide, 3 * high)
        across = np.exp(-0.5 * ((self.x[:, columns] - x) / wide) ** 2)
        along = np.exp(-0.5 * ((self.y[rows] - y) / high) ** 2)
        self.height[rows, columns] += amount * along * across

    def groove(self, start: tuple[float, float], end: tuple[float, float], wide: float, amount: float) -> None:
        """Lower (or raise) the surface along a line that fades at both ends."""
        centre = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        reach = (abs(start[0] - end[0]) / 2 + 3 * wide, abs(start[1] - end[1]) / 2 + 3 * wide)
        rows, columns = self.window(*centre, *reach)
        dx, dy = end[0] - start[0], end[1] - start[1]
        px, py = self.x[:, columns] - start[0], self.y[rows] - start[1]
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        distance = (px - along * dx) ** 2 + (py - along * dy) ** 2
        self.height[rows, columns] += amount * np.exp(-0.5 * distance / wide**2) * (4 * along * (1 - along)) ** 0.5

    def paint(self, mask: Plane, colour: Colour | Plane, where: Window | None = None) -> None:
        """Lay a colour over the window ``where`` (all by default), as densely as ``mask`` says."""
        target = self.colour if where is None else self.colour[where]
        target += mask[..., None] * (np.asarray(colour, np.float32) - target)

    def soft(self, distance: Plane, softness: float = 1.2) -> Plane:
        """A smooth edge: 1 where ``distance`` (head units) is well positive, 0 where negative."""
        edge: NDArray[np.float32] = np.clip(distance * self.unit / softness + 0.5, 0, 1).astype(np.float32)
        return edge


def _range(centre: float, half: float, unit: float, side: int) -> slice:
    low = min(side, max(0, int((centre - half) * unit)))
    return slice(low, max(low, min(side, int((centre + half) * unit) + 2)))


def fractal_noise(
    random: np.random.Generator, side: int, coarsest: tuple[int, int], octaves: int, fade: float = 0.6
) -> Plane:
    """(side, side) noise of about unit deviation; ``coarsest`` is the first octave's rows and columns."""
    total, scale, power = np.zeros((side, side), np.float32), 1.0, 0.0
    rows, columns = coarsest
    for _ in range(octaves):
        grid = random.standard_normal((min(rows, side), min(columns, side)), dtype=np.float32)
        total += scale * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        power += scale**2
        rows, columns, scale = rows * 2, columns * 2, scale * fade
    return total / np.float32(0.8 * power**0.5)


def head_widths(bones: Bones, jaw: float, y: Plane, grow: float = 0.0) -> Plane:
    """Half-width of the head at each height, negative outside; ``grow`` makes it larger all round."""
    end = bones.chin_end + jaw
    stops = (-0.4, -0.1, 0.25, 0.52, 0.80, end)
    jaw_share, chin_share = bones.jaw + 0.1, 0.5 * bones.jaw + 0.6 * bones.chin_width
    shares = (bones.forehead, 1.0, bones.cheek, jaw_share, chin_share, 1.1 * bones.chin_width)
    wide = np.interp(y.ravel(), stops, shares).astype(np.float32)[:, None] * bones.width
    wide = cv2.GaussianBlur(wide, (1, 0), sigmaX=0.1, sigmaY=0.05 * len(wide) / EXTENT) + grow
    # Both ends are round: a dome above, a shorter curve under the chin.
    above = np.clip((-0.35 - y) / (0.65 + grow), 0, 1)
    below = np.clip((y - end + 0.22) / 0.22, 0, 1)
    rounded = wide * (1 - above**2.2) ** 0.5 * (1 - below**2.4) ** 0.5
    half: NDArray[np.float32] = np.where((above < 1) & (below < 1), rounded, -0.1).astype(np.float32)
    return half


def head_outline(relief: Relief, bones: Bones, jaw: float) -> Plane:
    """(n, n) distance in head units to the head's outline, positive inside."""
    inside: Plane = head_widths(bones, jaw, relief.y) - np.abs(relief.x)
    return inside
