"""What the films of an archive show, and the enrolled: faces and voices with their points, read from the records.

The points are those of the index, in the spaces of the identity encoders. Nothing is encoded, and no film is opened.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality, Space
from ingest.ledger import Finding, Ledger, Pairing
from search.archive import Records
from search.filling import key_of, place_of
from search.people import People
from search.store import Store


@dataclass(frozen=True, eq=False)
class Looks:
    """Some samples of one modality that show one person.

    Args:
        vectors: (n, dimension) float32 of unit length.
        weights: (n,) float64 in [0, 1]: quality, and later how sure it is that it is this person.
        evidence: ids of the stored crops or turns, n of them.

    Raises:
        ValueError: they are not equally many.
    """

    vectors: NDArray[np.float32]
    weights: NDArray[np.float64]
    evidence: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.vectors) == len(self.weights) == len(self.evidence) or self.vectors.ndim != 2:
            raise ValueError(
                f"vectors (n, dimension) need n weights and n evidence ids, got {self.vectors.shape}, "
                f"{len(self.weights)} and {len(self.evidence)}"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def weighed(self, weight: float | NDArray[np.float64]) -> Looks:
        """The same with every weight multiplied."""
        return Looks(self.vectors, self.weights * weight, self.evidence)

    def without(self, evidence: Container[str]) -> Looks | None:
        """The same without some evidence; None if nothing is left."""
        kept = [place for place, one in enumerate(self.evidence) if one not in evidence]
        if not kept:
            return None
        return Looks(self.vectors[kept], self.weights[kept], tuple(self.evidence[place] for place in kept))

    @classmethod
    def joined(cls, parts: Sequence[Looks]) -> Looks:
        """All samples of at least one part, in order; each piece of evidence once, by its largest weight."""
        kept: dict[str, tuple[float, NDArray[np.float32]]] = {}
        for part in parts:
            for vector, weight, identity in zip(part.vectors, part.weights, part.evidence, strict=True):
                if identity not in kept or kept[identity][0] < weight:
                    kept[identity] = float(weight), vector
        vectors = np.stack([vector for _, vector in kept.values()]) if kept else parts[0].vectors
        return cls(vectors, np.array([weight for weight, _ in kept.values()]), tuple(kept))

    @property
    def centre(self) -> NDArray[np.float64]:
        """(dimension,) their mean by weight, of unit length."""
        mean = np.average(self.vectors.astype(np.float64), axis=0, weights=np.maximum(self.weights, 1e-6))
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))


@dataclass(frozen=True, eq=False)
class FilmedFace:
    """A face track of a film.

    Args:
        track: its number within the film.
        span: first to last sight, milliseconds.
        looks: the best of it.
        person: id of who is enrolled with it, or "".
    """

    track: int
    span: tuple[int, int]
    looks: Looks
    person: str = ""


@dataclass(frozen=True, eq=False)
class FilmedTurn:
    """A speech turn of a film whose voice has a point.

    Args:
        speaker: number within the film.
        span: milliseconds.
        sound: the one sample; its weight is its quality.
        pairing: which face speaks; None where it was not judged.
        person: id of who is enrolled with it, or "".
    """

    speaker: int
    span: tuple[int, int]
    sound: Looks
    pairing: Pairing | None = None
    person: str = ""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return (self.span[1] - self.span[0]) / 1000


@dataclass(frozen=True, eq=False)
class Film:
    """Faces and speech of one medium, in order of their numbers and of time."""

    media: str
    faces: tuple[FilmedFace, ...]
    turns: tuple[FilmedTurn, ...]

    @property
    def judged(self) -> bool:
        """Whether it is known who speaks in it: else an earlier version read it, or there is nothing to judge."""
        return any(turn.pairing is not None for turn in self.turns)


@dataclass(frozen=True, eq=False)
class EnrolledSamples:
    """Samples that somebody is enrolled with; None where there are none of a modality."""

    person: str
    faces: Looks | None
    voices: Looks | None


@dataclass(frozen=True)
class Reader:
    """Reads from an installation's records and index.

    Args:
        records: ledger, people and evidence.
        store: the index.
        spaces: identity space of each modality.
    """

    records: Records
    store: Store
    spaces: Mapping[Modality, Space]

    def films(self, media: Iterable[str]) -> Iterator[Film]:
        """What some media show. What has no row in the index, such as speech too short to encode, is left out."""
        owners = _owners(self.records.people)
        for one in media:
            yield self._film(one, self.records.ledger, owners)

    def enrolled(self) -> list[EnrolledSamples]:
        """Everybody who is enrolled, by id; who is being forgotten is not."""
        samples = sorted(self.records.people.samples(), key=lambda one: (one[1], place_of(one[0])))
        points = self._points([sample for sample, _ in samples])
        found = []
        for person, group in groupby(samples, key=lambda one: one[1]):
            mine = [sample for sample, _ in group]
            faces, voices = (_looks([one for one in mine if one.modality == kind], points) for kind in Modality)
            found.append(EnrolledSamples(person, faces, voices))
        return found

    def _film(self, media: str, ledger: Ledger, owners: Mapping[object, str]) -> Film:
        findings = sorted(ledger.findings(media), key=lambda one: (one.track, one.start_ms, one.evidence))
        points = self._points(findings)
        pairings = {(one.evidence, one.start_ms, one.end_ms): one for one in ledger.pairings(media)}
        faces, turns = [], []
        for track, group in groupby([one for one in findings if one.modality == Modality.FACE], _track):
            mine = list(group)
            looks = _looks(mine, points)
            if looks is not None:
                person = next((owners[place_of(one)] for one in mine if place_of(one) in owners), "")
                faces.append(FilmedFace(track, (mine[0].start_ms, mine[0].end_ms), looks, person))
        for turn in [one for one in findings if one.modality == Modality.VOICE]:
            sound = _looks([turn], points)
            if sound is not None:
                span = turn.start_ms, turn.end_ms
                pairing = pairings.get((turn.evidence, *span))
                turns.append(FilmedTurn(turn.track, span, sound, pairing, owners.get(place_of(turn), "")))
        return Film(media, tuple(faces), tuple(sorted(turns, key=lambda one: (one.span, one.speaker))))

    def _points(self, findings: Sequence[Finding]) -> dict[Finding, NDArray[np.float32]]:
        """The points of findings that have rows."""
        points: dict[Finding, NDArray[np.float32]] = {}
        for modality, space in self.spaces.items():
            keys = {key_of(one, space): one for one in findings if one.modality == modality}
            points |= {keys[row.key]: row.embedding.vector for row in self.store.get(space, list(keys))}
        return points


def _looks(findings: Sequence[Finding], points: Mapping[Finding, NDArray[np.float32]]) -> Looks | None:
    """Findings with their points; None if none of them has one."""
    held = [finding for finding in findings if finding in points]
    if not held:
        return None
    qualities = np.array([min(1.0, max(0.0, finding.quality)) for finding in held])
    return Looks(np.stack([points[finding] for finding in held]), qualities, tuple(one.evidence for one in held))


def _track(finding: Finding) -> int:
    return finding.track


def _owners(people: People) -> dict[object, str]:
    """Who is enrolled with a sample, by its place."""
    return {place_of(sample): person for sample, person in people.samples()}
