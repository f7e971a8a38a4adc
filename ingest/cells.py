"""Faces followed through one cell of a film after the other: what is found in each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.face import DetectedFace, FaceCrop, FaceDetector
from ingest.mouths import MouthTrace, Passing, look_at
from ingest.shots import Box, area, best_shots, face_quality, keep_shot, overlap, take_shot
from ingest.sightings import LEAD_SECONDS, Cell, DescribeFaces, FaceSettings, Sighting, mean_vector, near
from ingest.track import FaceShot

SMALLEST_FACE = 20  # pixels: below it neither landmarks nor vectors mean anything
_CUT_RATIO = 2.0
# Candidates held per open sighting, from which the best looks are chosen when it ends.
_CANDIDATES = 6

Picture = tuple[float, NDArray[np.uint8]]
"""Seconds, and (height, width, 3) uint8 RGB."""


def follow_cells(
    pictures: Iterable[Picture],
    detector: FaceDetector,
    describe: DescribeFaces | None = None,
    settings: FaceSettings | None = None,
    passing: Passing | None = None,
    first: int = 0,
) -> Iterator[Cell]:
    """Follow the faces of a film from cell to cell.

    Args:
        pictures: seconds, rising, and (height, width, 3) uint8 RGB, about ``settings.fps`` a second, from
            ``settings.lead_in(first)`` on.
        detector: finds faces.
        describe: gives their vectors; without it no face is followed across a cut.
        settings: default :class:`FaceSettings`.
        passing: holds the pictures that went by since the one before, this one included; None: mouths are not
            watched.
        first: cell to begin with.

    Yields:
        Every cell that has pictures, in their order, when it is over.
    """
    settings = settings or FaceSettings()
    before = _Before()
    follower: _Follower | None = None
    for time, picture in pictures:
        number = settings.cell_at(time)
        if number >= first and (follower is None or number > follower.number):
            if follower is not None:
                yield follower.cell()
            follower = _Follower(number, detector, describe, settings, passing)
            follower.lead_in(before)
        if follower is not None:
            follower.look(time, picture)
        before.add(time, picture)
        if passing is not None:
            passing.forget()
    if follower is not None:
        yield follower.cell()


class _Before:
    """The end of what was looked at so far, from which the next cell is led in."""

    def __init__(self) -> None:
        self.thumbnails: list[tuple[float, NDArray[np.float32]]] = []
        self.last: Picture | None = None

    def add(self, time: float, picture: NDArray[np.uint8]) -> None:
        """Add the next picture that was looked at."""
        self.last = time, picture
        self.thumbnails = [one for one in self.thumbnails if one[0] > time - 2 * LEAD_SECONDS]
        self.thumbnails.append((time, _thumbnail(picture)))


@dataclass(eq=False)
class _Followed:
    """A face while it is followed.

    Args:
        box: the last.
        landmarks: the last.
        last: when it was seen last, seconds; that may be in the lead-in.
        begins: the first box.
        led_in: it was found in the lead-in.
        glance_at: a look for doubts about a cut; None: the best of its shots.
        glance: unit vector of that.
        mouth: what its mouth did.
    """

    box: Box
    landmarks: NDArray[np.float32]
    last: float
    begins: Box
    led_in: bool = False
    glance_at: FaceShot | None = None
    glance: NDArray[np.float32] | None = None
    times: list[float] = field(default_factory=list)
    area_sum: float = 0.0
    score: float = 0.0
    shots: list[FaceShot] = field(default_factory=list)
    mouth: MouthTrace = field(default_factory=MouthTrace)


class _Follower:
    """Sightings while one cell goes by."""

    def __init__(
        self,
        number: int,
        detector: FaceDetector,
        describe: DescribeFaces | None,
        settings: FaceSettings,
        passing: Passing | None,
    ) -> None:
        self.number = number
        self._detector = detector
        self._describe = describe
        self._settings = settings
        self._passing = passing
        self._looked = -np.inf  # when the last picture was
        self._lead_in: float | None = None
        self._cuts: list[float] = []
        self._followed: list[_Followed] = []  # all, in the order in which they were found
        self._open: list[_Followed] = []
        self._thumbnail: NDArray[np.float32] | None = None
        self._usual_difference = 0.0
        self._thorough_at = -np.inf
        self._pictures = 0

    def lead_in(self, before: _Before) -> None:
        """See what was there just before the cell, so that the border is no cut: it counts as no sight."""
        begin = self._settings.border(self.number)
        since = self._settings.lead_in(self.number) - 1e-6
        for time, thumbnail in before.thumbnails:
            if since <= time < begin:
                self._differs(thumbnail)
        if before.last is None or before.last[0] < since:
            return
        time, picture = before.last
        self._looked = self._lead_in = time
        for face in self._detect(time, picture, thorough=True):
            shot = take_shot(picture, face, None, 0.0)
            one = _Followed(face.box, face.landmarks, time, face.box, led_in=True, glance_at=shot)
            if self._passing is not None:
                grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
                one.mouth.add(time, look_at(grey, face.landmarks.astype(np.float64)))
            self._followed.append(one)
            self._open.append(one)

    def look(self, time: float, picture: NDArray[np.uint8]) -> None:
        """Find the faces of the next picture and link them to the open sightings."""
        self._pictures += 1
        longest = self._settings.longest_gap + 1e-6
        self._open = [one for one in self._open if time - one.last <= longest]
        maybe_cut = self._differs(_thumbnail(picture))
        if maybe_cut:
            self._cuts.append(time)
        faces = self._detect(time, picture, thorough=maybe_cut)
        links = self._link(picture, faces, maybe_cut)
        if maybe_cut:  # behind a cut a place says nothing: who was not recognised is gone
            self._open = [one for one in self._open if one in links]
        for face, followed in zip(faces, links, strict=True):
            seen_before = followed is not None and followed.last == self._looked and not maybe_cut
            if followed is None:
                followed = _Followed(face.box, face.landmarks, time, face.box)
                self._followed.append(followed)
                self._open.append(followed)
            if self._passing is not None:
                sight = (self._looked, followed.landmarks) if seen_before else None
                for moment, look in self._passing.looks(sight, (time, face.landmarks)):
                    followed.mouth.add(moment, look)
            self._add(followed, time, picture, face)
        self._looked = time

    def cell(self) -> Cell:
        """What was seen; the end."""
        sightings = [self._sighting(one) for one in self._followed if one.times]
        cuts = np.array(self._cuts, dtype=np.float64)
        return Cell(self.number, self._pictures, self._lead_in, cuts, tuple(sightings))

    def _sighting(self, one: _Followed) -> Sighting:
        shots = best_shots(one.shots, self._settings.shots, self._settings.shot_spacing)
        return Sighting(
            times=np.array(one.times, dtype=np.float64),
            begins=one.begins,
            ends=one.box,
            led_in=one.led_in,
            open=one in self._open,
            area_sum=one.area_sum,
            score=one.score,
            shots=tuple(keep_shot(shot) for shot in shots),
            vector=None,
            mouth=one.mouth.table(),
        )

    def _differs(self, thumbnail: NDArray[np.float32]) -> bool:
        """Whether a picture differs from the last so much that a cut may lie between them."""
        last, self._thumbnail = self._thumbnail, thumbnail
        if last is None:
            return False
        difference = float(np.abs(thumbnail - last).mean())
        # A moving camera makes every difference large: a cut stands out from those before it.
        stands_out = difference > _CUT_RATIO * self._usual_difference
        self._usual_difference += 0.3 * (difference - self._usual_difference)
        return stands_out and difference > self._settings.cut_difference

    def _detect(self, time: float, picture: NDArray[np.uint8], *, thorough: bool) -> list[DetectedFace]:
        """Find faces: closely now and then, otherwise quickly and closely where one was just seen."""
        side = min(picture.shape[:2])
        if side < SMALLEST_FACE:
            return []
        settings = self._settings
        thorough = thorough or time - self._thorough_at >= settings.thorough_every - 1e-6
        share = settings.small_face if thorough else settings.usual_face
        faces = self._detector.detect(picture, smallest=max(SMALLEST_FACE, int(side * share)))
        if thorough:
            self._thorough_at = time
        for followed in self._open:
            if any(near(face.box, followed.box, settings.least_overlap) for face in faces):
                continue
            for face in self._search_around(picture, followed.box):
                if all(overlap(face.box, other.box) < settings.least_overlap for other in faces):
                    faces.append(face)
        return faces

    def _search_around(self, picture: NDArray[np.uint8], box: Box) -> list[DetectedFace]:
        """Look for a face near a place, at about its size: a small part of the work of a whole picture."""
        height, width = picture.shape[:2]
        side = max(box[2] - box[0], box[3] - box[1])
        x0, y0 = max(0, int(box[0] - 0.75 * side)), max(0, int(box[1] - 0.75 * side))
        x1, y1 = min(width, int(box[2] + 0.75 * side)), min(height, int(box[3] + 0.75 * side))
        if min(x1 - x0, y1 - y0) < SMALLEST_FACE:
            return []
        region = np.ascontiguousarray(picture[y0:y1, x0:x1])
        found = self._detector.detect(region, smallest=max(SMALLEST_FACE, int(0.6 * side)))
        return [moved(face, x0, y0) for face in found]

    def _link(
        self, picture: NDArray[np.uint8], faces: Sequence[DetectedFace], maybe_cut: bool
    ) -> list[_Followed | None]:
        """The open followed that each face continues, best overlap first; None for a new face."""
        links: list[_Followed | None] = [None] * len(faces)
        pairs = [
            (overlap(face.box, followed.box), number, place)
            for number, face in enumerate(faces)
            for place, followed in enumerate(self._open)
            if near(face.box, followed.box, self._settings.least_overlap)
        ]
        taken: set[int] = set()
        for _, number, place in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if links[number] is not None or place in taken:
                continue
            if maybe_cut and not self._same_person(picture, faces[number], self._open[place]):
                continue
            links[number] = self._open[place]
            taken.add(place)
        return links

    def _same_person(self, picture: NDArray[np.uint8], face: DetectedFace, followed: _Followed) -> bool:
        one = mean_vector([_crop(take_shot(picture, face, None, 0.0))], self._describe)
        if followed.glance is None:
            followed.glance = mean_vector([_crop(followed.glance_at or followed.shots[0])], self._describe)
        other = followed.glance
        return one is not None and other is not None and float(one @ other) >= self._settings.same_person

    def _add(self, followed: _Followed, time: float, picture: NDArray[np.uint8], face: DetectedFace) -> None:
        followed.box, followed.landmarks, followed.last = face.box, face.landmarks, time
        followed.times.append(time)
        followed.area_sum += area(face.box)
        followed.score = max(followed.score, face.score)
        quality = face_quality(picture, face)
        promise = FaceShot(time, picture[:0, :0], face.landmarks, face.box, quality)
        kept = best_shots([*followed.shots, promise], _CANDIDATES, self._settings.shot_spacing)
        if promise in kept:  # otherwise cutting it out would be for nothing
            shot = take_shot(picture, face, time, quality)
            followed.shots = [shot if one is promise else one for one in kept]


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(18, 32) float32 grey, 0 to 1."""
    small = cv2.resize(picture, (32, 18), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)


def _crop(shot: FaceShot) -> FaceCrop:
    return FaceCrop(shot.pixels, shot.landmarks)


def moved(face: DetectedFace, across: float, down: float) -> DetectedFace:
    """A face found in a part of a picture, in coordinates of the whole."""
    left, top, right, bottom = face.box
    box = (left + across, top + down, right + across, bottom + down)
    return DetectedFace(box, face.score, face.landmarks + np.array([across, down], dtype=np.float32))
