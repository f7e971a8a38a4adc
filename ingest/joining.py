"""What the cells of a film showed, joined: faces across their borders, and the sightings of one person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encoders.face import FaceCrop
from ingest.grouping import group_alike
from ingest.mouths import MouthMotion, motion_of_steps
from ingest.shots import best_shots, overlap
from ingest.sightings import Cell, DescribeFaces, FaceSettings, Sighting, mean_vector, near
from ingest.track import FaceTrack, Span

# A film of no more pictures than this keeps faces that were seen once.
SHORT_FILM_PICTURES = 3
# Ended sightings are joined when there are this many more: those of a long film would fill the memory.
_JOIN_EVERY = 64
# Of more sightings than this only those that lasted longest are compared: each is compared with each.
_MOST_COMPARED = 2000


class Joining:
    """Joins the cells of a film, which come in their order, to tracks.

    Args:
        settings: by which the cells were made.
        describe: gives the vectors that are not known yet; None: only who is followed on is one track.
    """

    def __init__(self, settings: FaceSettings, describe: DescribeFaces | None) -> None:
        self._settings = settings
        self._describe = describe
        self._open: list[Sighting] = []
        self._ended: list[Sighting] = []
        self._joined = 0
        self._sightings = 0
        self.pictures = 0  # looked at so far
        self._last = -1

    def add(self, cell: Cell) -> None:
        """Add the next cell. Raises ValueError if it is not a later one than the last."""
        if cell.number <= self._last:
            raise ValueError(f"cell {cell.number} came after cell {self._last}: add them in their order, once")
        self._last = cell.number
        self.pictures += cell.pictures
        self._sightings += len(cell.sightings)
        if self._sightings > 1:  # else there is nothing to compare: the costly vectors are not needed
            cell = described(cell, self._describe)
            self._open = [_described(one, self._describe) for one in self._open]
            self._ended = [_described(one, self._describe) for one in self._ended]
        links = self._links(cell)
        taken = {place for place in links if place is not None}
        ended = [one for place, one in enumerate(self._open) if place not in taken]
        self._open, before = [], self._open
        for sighting, place in zip(cell.sightings, links, strict=True):
            whole = sighting if place is None else self._continued(before[place], sighting)
            (self._open if whole.open else ended).append(whole)
        self._ended += ended
        if len(self._ended) >= self._joined + _JOIN_EVERY:
            self._join()

    def tracks(self, until: float) -> tuple[tuple[FaceTrack, ...], tuple[MouthMotion, ...]]:
        """Join the sightings of one person, leave out chance finds, number what remains; the end.

        Args:
            until: end of the film in seconds, which no span passes.

        Returns:
            One track per face in order of first appearance, and the motion of its mouth.
        """
        self._ended += self._open
        self._open = []
        self._join()
        kept = sorted((one for one in self._ended if self._believable(one)), key=lambda o: (o.times[0], o.begins))
        tracks = tuple(self._track(index, one, until) for index, one in enumerate(kept))
        return tracks, tuple(motion_of_steps([one.mouth]) for one in kept)

    def _links(self, cell: Cell) -> list[int | None]:
        """Which open sighting each of a cell's continues: those of one picture first, then after a gap."""
        links: list[int | None] = [None] * len(cell.sightings)
        for at_once in (True, False):
            pairs = [
                (overlap(sighting.begins, last.ends), number, place)
                for number, sighting in enumerate(cell.sightings)
                for place, last in enumerate(self._open)
                if links[number] is None and place not in links and self._continues(cell, sighting, last, at_once)
            ]
            for _, number, place in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
                if links[number] is None and place not in links:
                    links[number] = place
        return links

    def _continues(self, cell: Cell, sighting: Sighting, last: Sighting, at_once: bool) -> bool:
        """Whether a cell's sighting may be an open one, by the rule that holds between two pictures."""
        begin = cell.lead_in if sighting.led_in and cell.lead_in is not None else float(sighting.times[0])
        seen = float(last.times[-1])
        if at_once != (begin == seen):
            return False
        if begin - seen > self._settings.longest_gap + 1e-6:
            return False
        if not near(sighting.begins, last.ends, self._settings.least_overlap):
            return False
        if not last.moments.isdisjoint(sighting.moments):
            return False
        cuts = cell.cuts[(cell.cuts > seen) & (cell.cuts <= begin)]
        if not cuts.size:
            return True
        # Behind a cut a place says nothing: it must be the same face, and seen at once.
        return bool(cuts.size == 1 and cuts[0] == begin and self._alike(sighting, last))

    def _alike(self, one: Sighting, other: Sighting) -> bool:
        if one.vector is None or other.vector is None or not (one.vector.size and other.vector.size):
            return False
        return float(one.vector @ other.vector) >= self._settings.same_person

    def _continued(self, last: Sighting, sighting: Sighting) -> Sighting:
        return replace(self._union([last, sighting]), ends=sighting.ends, open=sighting.open)

    def _join(self) -> None:
        """Join ended sightings of one person that are never seen in one picture."""
        with_vector = [one for one in self._ended if one.vector is not None and one.vector.size]
        with_vector.sort(key=lambda one: (-len(one.times), one.times[0], one.begins))
        known = [(one, one.vector) for one in with_vector[:_MOST_COMPARED] if one.vector is not None]
        joined = [one for one in self._ended if one.vector is None or not one.vector.size]
        joined += with_vector[_MOST_COMPARED:]
        if len(known) > 1:
            apart = _seen_at_once([one for one, _ in known])
            labels = group_alike(np.array([vector for _, vector in known]), self._settings.same_person, apart)
            groups: dict[int, list[Sighting]] = {}
            for (one, _), label in zip(known, labels, strict=True):
                groups.setdefault(int(label), []).append(one)
            known = [(one, one.vector) for one in map(self._union, groups.values()) if one.vector is not None]
        self._ended = joined + [one for one, _ in known]
        self._joined = len(self._ended)

    def _union(self, group: Sequence[Sighting]) -> Sighting:
        """Several sightings of one person as one."""
        ordered = sorted(group, key=lambda one: (one.times[0], one.begins))
        if len(ordered) == 1:
            return ordered[0]
        shots = [shot for one in ordered for shot in one.shots]
        return Sighting(
            times=np.sort(np.concatenate([one.times for one in ordered])),
            begins=ordered[0].begins,
            ends=ordered[-1].ends,
            led_in=False,
            open=False,
            area_sum=sum(one.area_sum for one in ordered),
            score=max(one.score for one in ordered),
            shots=tuple(best_shots(shots, self._settings.shots, self._settings.shot_spacing)),
            vector=_together(ordered),
            mouth=np.concatenate([one.mouth for one in ordered]),
        )

    def _believable(self, one: Sighting) -> bool:
        sure = one.score >= self._settings.sure_score
        return len(one.times) > 1 or sure or self.pictures <= SHORT_FILM_PICTURES

    def _track(self, index: int, one: Sighting, until: float) -> FaceTrack:
        seen = _spans(one.times.tolist(), 1 / self._settings.fps, self._settings.longest_gap)
        seen = tuple(Span(span.start, max(span.start, min(span.end, until))) for span in seen)
        shots = tuple(kept.shot() for kept in one.shots)
        return FaceTrack(index, Span(seen[0].start, seen[-1].end), shots, one.area_sum / len(one.times), seen)


def described(cell: Cell, describe: DescribeFaces | None) -> Cell:
    """A cell whose sightings all have their vectors, if there is what gives them."""
    return replace(cell, sightings=tuple(_described(one, describe) for one in cell.sightings))


def _described(one: Sighting, describe: DescribeFaces | None) -> Sighting:
    if describe is None or one.vector is not None:
        return one
    vector = mean_vector([FaceCrop(shot.pixels, shot.landmarks) for shot in one.shots], describe)
    return replace(one, vector=np.zeros(0, np.float32) if vector is None else vector)


def _together(group: Sequence[Sighting]) -> NDArray[np.float32] | None:
    """The vector of several sightings: a long one says more of the face than a short one."""
    known = [(len(one.times), one.vector) for one in group if one.vector is not None and one.vector.size]
    if not known:
        return group[0].vector
    total = np.sum([count * vector for count, vector in known], axis=0)
    return np.asarray(total / np.linalg.norm(total), dtype=np.float32)


def _seen_at_once(sightings: Sequence[Sighting]) -> NDArray[np.bool_]:
    """(n, n) which of them were ever seen in one picture."""
    starts = np.array([one.times[0] for one in sightings])
    ends = np.array([one.times[-1] for one in sightings])
    apart = (starts[:, None] <= ends[None, :]) & (starts[None, :] <= ends[:, None])
    for one, other in np.argwhere(np.triu(apart)).tolist():
        apart[one, other] = apart[other, one] = not sightings[one].moments.isdisjoint(sightings[other].moments)
    return apart


def _spans(times: Sequence[float], lasting: float, longest_gap: float) -> tuple[Span, ...]:
    """Moments, each standing for ``lasting`` seconds, as spans; gaps up to ``longest_gap`` are closed."""
    spans: list[Span] = []
    for time in times:
        if spans and time - spans[-1].end <= longest_gap + 1e-6:
            spans[-1] = Span(spans[-1].start, max(spans[-1].end, time + lasting))
        else:
            spans.append(Span(time, time + lasting))
    return tuple(spans)
