"""Which people of different films are one: so surely one that they must not be taught to be two.

A face's log-odds are those of its identity network's calibration for a gallery of as many people as there are, raised
where the people of these films are more alike than those of the calibration: two who are seen at the same time are
surely two, and show how alike different people are here (:mod:`search.gallery`). What the voices say is added, within
bounds. Groups grow from the surest pair on; after each step it is their centres that must be one person's, and nobody
joins a group in which somebody is who surely is another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from search.gallery import likeness
from search.scores import LARGEST_LOG_ODDS, Calibration
from training.film_people import FilmPerson
from training.filmed import Looks

# Fewer pairs of people who surely are two say nothing about how alike they are.
FEWEST_APART = 3
# And more than this would only say it more exactly.
MOST_APART = 2000
_AT_ONCE = 512  # rows compared at a time: bounds memory for archives of any length


@dataclass(frozen=True)
class SamePerson:
    """How surely two people are one.

    Args:
        face: calibration of a face against a person's mean.
        voice: likewise of voices.
        most_voice_log_odds: what voices can add or take.
    """

    face: Calibration
    voice: Calibration
    most_voice_log_odds: float

    @classmethod
    def among(
        cls, people: Sequence[FilmPerson], face: Calibration, voice: Calibration, most_voice_log_odds: float
    ) -> SamePerson:
        """For a comparison of all of these people with each other."""
        alike = [_alike(people, faces) for faces in (True, False)]
        count = max(2, len(people))
        return cls(face.among(count, alike[0]), voice.among(count, alike[1]), most_voice_log_odds)

    def log_odds(
        self, faces: tuple[NDArray[np.float64], NDArray[np.float64]], voices: tuple[NDArray[np.float64], ...]
    ) -> NDArray[np.float64]:
        """Natural log-odds that each of some people is each of some others.

        Args:
            faces: (n, d) and (m, d) points of their faces, of unit length.
            voices: (n, e) and (m, e) points of their voices, rows of zeros where there is none.

        Returns:
            (n, m).
        """
        found = _bounded(self.face, faces[0] @ faces[1].T, LARGEST_LOG_ODDS)
        heard = np.outer(voices[0].any(axis=1), voices[1].any(axis=1))
        return np.asarray(found + heard * _bounded(self.voice, voices[0] @ voices[1].T, self.most_voice_log_odds))


def group_people(people: Sequence[FilmPerson], same: SamePerson, least: float) -> list[list[int]]:
    """People who are one, by their places; everybody in one group.

    Args:
        people: of films, and enrolled; who has no face stays alone, unless they are enrolled as somebody who has.
        same: how surely two are one.
        least: log-odds from which they are.

    Returns:
        Groups in order of their first members, each in order.
    """
    groups = _Groups(people)
    named: dict[str, int] = {}
    for place, one in enumerate(people):
        if one.person:
            groups.join(named.setdefault(one.person, place), place)
    # as of the pair by itself; centres of groups decide when its turn comes
    for _, first, second in sorted(_near(groups, same, least)):
        groups.join_if_one(first, second, same, least)
    return groups.members()


def link_people(
    people: Sequence[FilmPerson], same: SamePerson, least: float, parts: Sequence[Sequence[FilmPerson]]
) -> list[list[int]]:
    """People any two of whom possibly are one, and whoever possibly is one with one of those, and so on.

    Unlike :func:`group_people` this leaves no pair that possibly is one in two groups.

    Args:
        people: likewise.
        same: how surely two are one.
        least: log-odds from which two possibly are.
        parts: what each was put together of: of two people whose parts surely are two, neither is the other.

    Returns:
        Groups in order of their first members, each in order.
    """
    groups = _Groups(people)
    for _, first, second in _near(groups, same, least):
        if not any(one.excludes(other) for one in parts[first] for other in parts[second]):
            groups.join(first, second)
    return groups.members()


def _near(groups: _Groups, same: SamePerson, least: float) -> Iterator[tuple[float, int, int]]:
    """Pairs of people who may be one, with the negative of their log-odds."""
    for start in range(0, len(groups.faces), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        found = same.log_odds((groups.faces[block], groups.faces), (groups.voices[block], groups.voices))
        for row, column in np.argwhere(found >= least).tolist():
            first, second = start + row, column
            if first < second and groups.has_face[first] and groups.has_face[second]:
                yield -float(found[row, column]), first, second


class _Groups:
    """Groups of people that grow; each keeps the sums of its points."""

    def __init__(self, people: Sequence[FilmPerson]) -> None:
        self._people = people
        self._group = list(range(len(people)))
        self._members = [[place] for place in range(len(people))]
        self.faces = _centres([one.faces for one in people])
        self.voices = _centres([one.voices for one in people])
        self.has_face = [one.faces is not None for one in people]

    def join(self, first: int, second: int) -> None:
        """Put two people's groups together."""
        one, other = sorted((self._group[first], self._group[second]))
        if one != other:
            self._members[one] = sorted(self._members[one] + self._members[other])
            for place in self._members[other]:
                self._group[place] = one
            self._members[other] = []

    def join_if_one(self, first: int, second: int, same: SamePerson, least: float) -> None:
        """Put two people's groups together if nothing is against it, and their centres say so too."""
        ours, theirs = (self._members[self._group[place]] for place in (first, second))
        if ours is theirs or any(self._people[a].excludes(self._people[b]) for a in ours for b in theirs):
            return
        faces, voices = (
            (self._centre(points, ours), self._centre(points, theirs)) for points in (self.faces, self.voices)
        )
        if same.log_odds(faces, voices)[0, 0] >= least:
            self.join(first, second)

    def members(self) -> list[list[int]]:
        """All groups, each in order."""
        return [members for members in self._members if members]

    def _centre(self, points: NDArray[np.float64], members: Sequence[int]) -> NDArray[np.float64]:
        """(1, dimension) the middle of the members' points, zero where none has one."""
        total = points[list(members)].sum(axis=0, keepdims=True)
        length = float(np.linalg.norm(total))
        return np.asarray(total / length if length > 0 else total)


def _centres(looks: Sequence[Looks | None]) -> NDArray[np.float64]:
    """(n, dimension) the point of each, zeros for who has none."""
    known = [one.centre if one is not None else None for one in looks]
    width = next((len(one) for one in known if one is not None), 1)
    return np.stack([np.zeros(width) if one is None else one for one in known]) if known else np.zeros((0, width))


def _bounded(calibration: Calibration, cosines: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    return np.clip(calibration.slope * (cosines - calibration.threshold), -most, most)


def _alike(people: Sequence[FilmPerson], faces: bool) -> float | None:
    """How alike people are who surely are two (:func:`search.gallery.likeness`); None where there are too few."""
    by_film: dict[str, list[tuple[FilmPerson, Looks]]] = {}
    for one in people:
        looks = one.faces if faces else one.voices
        if looks is not None:
            by_film.setdefault(one.media, []).append((one, looks))
    pairs = (pair for _, beside in sorted(by_film.items()) for pair in combinations(beside, 2))
    apart = (pair for pair in pairs if pair[0][0].excludes(pair[1][0]))
    found = [likeness(np.stack([one.centre, other.centre])) for (_, one), (_, other) in islice(apart, MOST_APART)]
    heights = [height for height in found if height is not None]
    return float(np.mean(heights)) if len(heights) >= FEWEST_APART else None
