"""Faces of a film followed through time and across cuts; faces of a photo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.face import DetectedFace, FaceCrop, FaceDetector
from ingest.grouping import group_alike
from ingest.mouths import MouthMotion, MouthTrace, Passing, motion_of
from ingest.shots import Box, area, best_shots, face_quality, overlap, take_shot
from ingest.track import FaceShot, FaceTrack, Span

DescribeFaces = Callable[[Sequence[FaceCrop]], list[NDArray[np.float32] | None]]
"""Unit vectors of face crops in order, None where a crop has none."""


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


SMALLEST_FACE = 20  # pixels: below it neither landmarks nor vectors mean anything
# A film of no more pictures than this keeps faces that were seen once.
SHORT_FILM_PICTURES = 3
_CUT_RATIO = 2.0
# Candidates held per open sighting, from which the best looks are chosen when it ends.
_CANDIDATES = 6
# Ended sightings are joined when there are this many more: the crops of a long film would fill the memory.
_JOIN_EVERY = 64


@dataclass(eq=False)
class _Sighting:
    """One face followed from picture to picture; later several such of one person, joined."""

    box: Box
    times: list[float] = field(default_factory=list)
    area_sum: float = 0.0
    score: float = 0.0
    shots: list[FaceShot] = field(default_factory=list)
    glance: NDArray[np.float32] | None = None  # unit vector of one shot, for doubts about a cut
    vector: NDArray[np.float32] | None = None  # unit vector of the best shots, once it has ended
    landmarks: NDArray[np.float32] | None = None  # of the last sight
    mouths: list[MouthTrace] = field(default_factory=lambda: [MouthTrace()])  # one per sighting joined


def find_photo_faces(
    picture: NDArray[np.uint8], detector: FaceDetector, shares: tuple[int, ...] = (8, 14)
) -> tuple[FaceTrack, ...]:
    """The faces of a photo, largest first; looks closer and closer until it finds one.

    Args:
        picture: (height, width, 3) uint8 RGB.
        detector: finds faces.
        shares: it looks for faces of at least this part of the shorter side, one after the other until it finds any.
    """
    side = min(picture.shape[:2])
    faces: list[DetectedFace] = []
    for share in shares:
        faces = faces or detector.detect(picture, smallest=max(SMALLEST_FACE, side // share))
    if not faces:
        # A face that fills the photo lacks the surroundings that detectors expect.
        margin = max(1, side // 4)
        framed = cv2.copyMakeBorder(picture, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        found = detector.detect(framed.astype(np.uint8, copy=False), smallest=max(SMALLEST_FACE, side // 4))
        faces = [_moved(face, -margin, -margin) for face in found]
    faces = sorted(faces, key=lambda face: (-area(face.box), face.box))
    shots = [take_shot(picture, face, None, face_quality(picture, face)) for face in faces]
    return tuple(FaceTrack(index, None, (shot,), area(shot.box)) for index, shot in enumerate(shots))


def find_face_tracks(
    pictures: Iterable[tuple[float, NDArray[np.uint8]]],
    detector: FaceDetector,
    describe: DescribeFaces | None = None,
    settings: FaceSettings | None = None,
    until: float = np.inf,
) -> tuple[FaceTrack, ...]:
    """Follow the faces of a film: see :func:`follow_faces`, whose tracks it gives."""
    return follow_faces(pictures, detector, describe, settings, until)[0]


def follow_faces(
    pictures: Iterable[tuple[float, NDArray[np.uint8]]],
    detector: FaceDetector,
    describe: DescribeFaces | None = None,
    settings: FaceSettings | None = None,
    until: float = np.inf,
    passing: Passing | None = None,
) -> tuple[tuple[FaceTrack, ...], tuple[MouthMotion, ...]]:
    """Follow the faces of a film and watch their mouths.

    Args:
        pictures: seconds, rising, and (height, width, 3) uint8 RGB, about ``settings.fps`` a second.
        detector: finds faces.
        describe: gives their vectors; without it no face is followed across a cut.
        settings: default :class:`FaceSettings`.
        until: end of the film in seconds, which no span passes.
        passing: holds the pictures that went by since the one before, this one included; None: mouths are not
            watched, and their motion is empty.

    Returns:
        One track per face in order of first appearance, and the motion of its mouth.
    """
    follower = _Follower(detector, describe, settings or FaceSettings(), passing)
    for time, picture in pictures:
        follower.look(time, picture)
    return follower.tracks(until)


class _Follower:
    """Sightings while a film goes by, joined to tracks at its end."""

    def __init__(
        self,
        detector: FaceDetector,
        describe: DescribeFaces | None,
        settings: FaceSettings,
        passing: Passing | None,
    ) -> None:
        self._detector = detector
        self._describe = describe
        self._settings = settings
        self._passing = passing
        self._looked = -np.inf  # when the last picture was
        self._ended: list[_Sighting] = []
        self._joined = 0
        self._open: list[_Sighting] = []
        self._thumbnail: NDArray[np.float32] | None = None
        self._usual_difference = 0.0
        self._thorough_at = -np.inf
        self._pictures = 0

    def look(self, time: float, picture: NDArray[np.uint8]) -> None:
        """Find the faces of the next picture and link them to the open sightings."""
        self._pictures += 1
        longest = self._settings.longest_gap + 1e-6
        self._end([one for one in self._open if time - one.times[-1] > longest])
        maybe_cut = self._differs(picture)
        faces = self._detect(time, picture, thorough=maybe_cut)
        links = self._link(picture, faces, maybe_cut)
        if maybe_cut:  # behind a cut a place says nothing: who was not recognised is gone
            self._end([one for one in self._open if one not in links])
        for face, sighting in zip(faces, links, strict=True):
            if sighting is None:
                sighting = _Sighting(face.box)
                self._open.append(sighting)
            if self._passing is not None:
                self._watch(self._passing, sighting, time, face, maybe_cut=maybe_cut)
            self._add(sighting, time, picture, face)
        self._looked = time
        if self._passing is not None:
            self._passing.forget()

    def _watch(
        self, passing: Passing, sighting: _Sighting, time: float, face: DetectedFace, *, maybe_cut: bool
    ) -> None:
        """Look at the mouth in the pictures since the last one, if the face was there and nothing cut between."""
        before = None
        if sighting.landmarks is not None and sighting.times[-1] == self._looked and not maybe_cut:
            before = (self._looked, sighting.landmarks)
        for moment, look in passing.looks(before, (time, face.landmarks)):
            sighting.mouths[0].add(moment, look)
        sighting.landmarks = face.landmarks

    def _differs(self, picture: NDArray[np.uint8]) -> bool:
        """Whether this picture differs from the last so much that a cut may lie between them."""
        small = cv2.resize(picture, (32, 18), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
        last, self._thumbnail = self._thumbnail, grey
        if last is None:
            return False
        difference = float(np.abs(grey - last).mean())
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
        for sighting in self._open:
            if any(self._near(face.box, sighting.box) for face in faces):
                continue
            for face in self._search_around(picture, sighting.box):
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
        return [_moved(face, x0, y0) for face in found]

    def _near(self, box: Box, last: Box) -> bool:
        """Whether two boxes of pictures in a row may be one face: by overlap, or by place and size."""
        if overlap(box, last) >= self._settings.least_overlap:
            return True
        side, last_side = np.sqrt(area(box)), np.sqrt(area(last))
        if not 0.6 < side / max(last_side, 1e-6) < 1.6:
            return False
        shift = np.hypot(box[0] + box[2] - last[0] - last[2], box[1] + box[3] - last[1] - last[3]) / 2
        return bool(shift < 0.7 * last_side)

    def _link(
        self, picture: NDArray[np.uint8], faces: Sequence[DetectedFace], maybe_cut: bool
    ) -> list[_Sighting | None]:
        """The open sighting that each face continues, best overlap first; None for a new face."""
        links: list[_Sighting | None] = [None] * len(faces)
        pairs = [
            (overlap(face.box, sighting.box), number, place)
            for number, face in enumerate(faces)
            for place, sighting in enumerate(self._open)
            if self._near(face.box, sighting.box)
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

    def _same_person(self, picture: NDArray[np.uint8], face: DetectedFace, sighting: _Sighting) -> bool:
        shot = take_shot(picture, face, None, 0.0)
        one = self._mean_vector([shot])
        if sighting.glance is None:
            sighting.glance = self._mean_vector(sighting.shots[:1])
        other = sighting.glance
        return one is not None and other is not None and float(one @ other) >= self._settings.same_person

    def _mean_vector(self, shots: Sequence[FaceShot]) -> NDArray[np.float32] | None:
        """The direction of some shots' vectors together; None without an encoder or usable shots."""
        if self._describe is None:
            return None
        vectors = self._describe([FaceCrop(shot.pixels, shot.landmarks) for shot in shots])
        total = np.sum([vector for vector in vectors if vector is not None], axis=0)
        length = float(np.linalg.norm(total))
        return (total / length).astype(np.float32) if length > 0 else None

    def _add(self, sighting: _Sighting, time: float, picture: NDArray[np.uint8], face: DetectedFace) -> None:
        sighting.box = face.box
        sighting.times.append(time)
        sighting.area_sum += area(face.box)
        sighting.score = max(sighting.score, face.score)
        quality = face_quality(picture, face)
        promise = FaceShot(time, picture[:0, :0], face.landmarks, face.box, quality)
        kept = best_shots([*sighting.shots, promise], _CANDIDATES, self._settings.shot_spacing)
        if promise in kept:  # otherwise cutting it out would be for nothing
            shot = take_shot(picture, face, time, quality)
            sighting.shots = [shot if one is promise else one for one in kept]

    def tracks(self, until: float) -> tuple[tuple[FaceTrack, ...], tuple[MouthMotion, ...]]:
        """Join the sightings of one person, leave out chance finds, number what remains."""
        self._end(self._open)
        self._join()
        kept = sorted((one for one in self._ended if self._believable(one)), key=lambda o: (o.times[0], o.box))
        tracks = tuple(self._track(index, one, until) for index, one in enumerate(kept))
        return tracks, tuple(motion_of(one.mouths) for one in kept)

    def _end(self, ended: Sequence[_Sighting]) -> None:
        self._open = [one for one in self._open if one not in ended]
        for one in ended:
            one.shots = best_shots(one.shots, self._settings.shots, self._settings.shot_spacing)
        self._ended += ended
        if len(self._ended) >= self._joined + _JOIN_EVERY:
            self._join()

    def _join(self) -> None:
        """Join ended sightings of one person that are never seen in one picture."""
        if len(self._ended) < 2:
            return  # nothing to compare: the costly vectors are not needed
        for one in self._ended:
            one.vector = self._mean_vector(one.shots) if one.vector is None else one.vector
        known = [(one, one.vector) for one in self._ended if one.vector is not None]
        joined = [one for one in self._ended if one.vector is None]
        if known:
            moments = [set(one.times) for one, _ in known]
            apart = np.array([[not one.isdisjoint(other) for other in moments] for one in moments])
            labels = group_alike(np.array([vector for _, vector in known]), self._settings.same_person, apart)
            groups: dict[int, list[_Sighting]] = {}
            for (one, _), label in zip(known, labels, strict=True):
                groups.setdefault(int(label), []).append(one)
            joined += [self._union(group) for group in groups.values()]
        self._ended, self._joined = joined, len(joined)

    def _union(self, group: Sequence[_Sighting]) -> _Sighting:
        first = min(group, key=lambda one: one.times[0])
        if len(group) == 1:
            return first
        shots = [shot for one in group for shot in one.shots]
        # A long sighting says more of the face than a short one.
        total = np.sum([len(one.times) * one.vector for one in group if one.vector is not None], axis=0)
        return _Sighting(
            box=first.box,
            times=sorted(time for one in group for time in one.times),
            area_sum=sum(one.area_sum for one in group),
            score=max(one.score for one in group),
            shots=best_shots(shots, self._settings.shots, self._settings.shot_spacing),
            vector=(total / np.linalg.norm(total)).astype(np.float32),
            mouths=[trace for one in group for trace in one.mouths],
        )

    def _believable(self, one: _Sighting) -> bool:
        sure = one.score >= self._settings.sure_score
        return len(one.times) > 1 or sure or self._pictures <= SHORT_FILM_PICTURES

    def _track(self, index: int, one: _Sighting, until: float) -> FaceTrack:
        seen = _spans(one.times, 1 / self._settings.fps, self._settings.longest_gap)
        seen = tuple(Span(span.start, max(span.start, min(span.end, until))) for span in seen)
        return FaceTrack(
            index, Span(seen[0].start, seen[-1].end), tuple(one.shots), one.area_sum / len(one.times), seen
        )


def _spans(times: Sequence[float], lasting: float, longest_gap: float) -> tuple[Span, ...]:
    """Moments, each standing for ``lasting`` seconds, as spans; gaps up to ``longest_gap`` are closed."""
    spans: list[Span] = []
    for time in times:
        if spans and time - spans[-1].end <= longest_gap + 1e-6:
            spans[-1] = Span(spans[-1].start, max(spans[-1].end, time + lasting))
        else:
            spans.append(Span(time, time + lasting))
    return tuple(spans)


def _moved(face: DetectedFace, across: float, down: float) -> DetectedFace:
    """A face found in a part of a picture, in coordinates of the whole."""
    left, top, right, bottom = face.box
    box = (left + across, top + down, right + across, bottom + down)
    return DetectedFace(box, face.score, face.landmarks + np.array([across, down], dtype=np.float32))
