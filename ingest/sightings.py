"""Sightings: one face followed from picture to picture, in one cell of a film's clock.

The clock has a fixed grid of cells, and what is found in one depends on its pictures and a short lead-in only. So a
film may be read in pieces, by whoever and in whatever order, and what comes out is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encoders.face import FaceCrop
from ingest.shots import Box, KeptShot, area, overlap

DescribeFaces = Callable[[Sequence[FaceCrop]], list[NDArray[np.float32] | None]]
"""Unit vectors of face crops in order, None where a crop has none."""

LEAD_SECONDS = 2.0
"""How long before a cell its lead-in begins: by then it is known how much pictures differ that are not cut."""
SLACK_SECONDS = 1e-6
"""A picture so little before a moment counts as at it: stamps are rounded."""


@dataclass(frozen=True)
class FaceSettings:
    """How faces are looked for and followed. Defaults are measured on real talking clips.

    Args:
        fps: pictures looked at per second of film.
        usual_face: the smallest face looked for in every picture, as a share of its shorter side.
        small_face: the smallest face looked for once in ``thorough_every`` seconds and after a cut.
        thorough_every: seconds.
        longest_gap: a face unseen for longer begins a new sighting, seconds.
        least_overlap: boxes of two pictures in a row with this intersection over union are one face.
        cut_difference: pictures in a row that differ by more (mean grey difference of thumbnails, 0 to
            1) may lie across a cut: a box is then followed only if the vectors agree.
        same_person: least cosine of the mean vectors of one person's sightings. With the packaged dlib
            network clips of one person gave 0.967 and more, of two people 0.923 and less.
        shots: looks kept per face.
        shot_spacing: seconds between them where possible.
        sure_score: a face seen in one picture only is kept from this detector's score on.
        cell: seconds of a film that are looked at on their own, rounded to whole looks.
    """

    fps: float = 5.0
    usual_face: float = 1 / 4.5
    small_face: float = 1 / 9
    thorough_every: float = 1.0
    longest_gap: float = 1.0
    least_overlap: float = 0.3
    cut_difference: float = 0.06
    same_person: float = 0.94
    shots: int = 3
    shot_spacing: float = 0.5
    sure_score: float = 1.0
    cell: float = 60.0

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ValueError(f"pictures per second must be above 0, got {self.fps}")
        if not self.cell >= max(self.longest_gap, 1 / self.fps):
            raise ValueError(f"a cell must outlast a gap and hold a look at the film, got {self.cell} s")

    @property
    def looks(self) -> int:
        """Looks in a cell."""
        return round(self.cell * self.fps)

    def border(self, cell: int) -> float:
        """Second at which a cell begins."""
        return cell * self.looks / self.fps

    def cell_at(self, time: float) -> int:
        """The cell that a picture at ``time`` seconds belongs to."""
        return slot(time, self.fps) // self.looks

    def lead_in(self, cell: int) -> float:
        """Second from which on pictures must be shown for a cell, at most ``LEAD_SECONDS`` before it, or one look."""
        return max(0.0, cell * self.looks - max(1, int(LEAD_SECONDS * self.fps))) / self.fps


def slot(time: float, fps: float) -> int:
    """The stretch of 1 / fps seconds that a moment lies in; of each, the first picture is looked at."""
    return int(np.floor((time + SLACK_SECONDS) * fps))


@dataclass(frozen=True, eq=False)
class Sighting:
    """One face followed from picture to picture; later several such of one person, joined.

    Args:
        times: (n,) float64 seconds, rising, at least one: when it was seen.
        begins: its box when it was first found, be it in the lead-in.
        ends: its box when it was last seen.
        led_in: it was there already in the last picture before the cell.
        open: it was there until the end of the cell, or nearly.
        area_sum: of its boxes in pixels, over all times.
        score: the detector's best.
        shots: best looks, best first.
        vector: (dimension,) float32 unit vector of these; of length 0 if they have none; None: not known yet.
        mouth: (m, 4) float64 steps of its mouth, see :class:`ingest.mouths.MouthTrace`.
    """

    times: NDArray[np.float64]
    begins: Box
    ends: Box
    led_in: bool
    open: bool
    area_sum: float
    score: float
    shots: tuple[KeptShot, ...]
    vector: NDArray[np.float32] | None
    mouth: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.times.ndim != 1 or not self.times.size or not self.shots:
            raise ValueError(f"a sighting has a moment and a look, got {self.times.shape} and {len(self.shots)}")
        if self.mouth.ndim != 2 or self.mouth.shape[1] != 4:
            raise ValueError(f"the steps of a mouth are (m, 4), got {self.mouth.shape}")

    @cached_property
    def moments(self) -> frozenset[float]:
        """When it was seen, to find two that were seen at once."""
        return frozenset(self.times.tolist())


@dataclass(frozen=True, eq=False)
class Cell:
    """What one cell of a film showed.

    Args:
        number: of the cell on the film's clock, from 0.
        pictures: number looked at.
        lead_in: second of the last picture looked at before the cell; None: there was none just before it.
        cuts: (n,) float64 seconds, rising: pictures that may be the first after a cut.
        sightings: in the order in which they were first found.
    """

    number: int
    pictures: int
    lead_in: float | None
    cuts: NDArray[np.float64]
    sightings: tuple[Sighting, ...]

    def __post_init__(self) -> None:
        if self.number < 0 or self.pictures < 0:
            raise ValueError(f"cells and pictures are counted from 0, got {self.number} and {self.pictures}")


def near(box: Box, last: Box, least_overlap: float) -> bool:
    """Whether two boxes of pictures in a row may be one face: by overlap, or by place and size."""
    if overlap(box, last) >= least_overlap:
        return True
    side, last_side = np.sqrt(area(box)), np.sqrt(area(last))
    if not 0.6 < side / max(last_side, 1e-6) < 1.6:
        return False
    shift = np.hypot(box[0] + box[2] - last[0] - last[2], box[1] + box[3] - last[1] - last[3]) / 2
    return bool(shift < 0.7 * last_side)


def mean_vector(crops: Sequence[FaceCrop], describe: DescribeFaces | None) -> NDArray[np.float32] | None:
    """The direction of some crops' vectors together; None without an encoder or usable crops."""
    if describe is None or not crops:
        return None
    total = np.sum([vector for vector in describe(crops) if vector is not None], axis=0)
    length = float(np.linalg.norm(total))
    return (total / length).astype(np.float32) if length > 0 else None
