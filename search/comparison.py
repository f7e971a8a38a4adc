"""Two models on the same probes: how well does each lead from a voice to the faces of its person, and back?

The probes are the samples of enrolled people, whose truth is known. Each asks for the other modality of its
person, among the samples of everybody enrolled, and once more with the archive's unnamed tracks among them. Every
pair is compared, and both models get the same probes and the same galleries: what one of the two could not use is
left out for both. Some of the unnamed tracks may show the very person who is asked for, and count as wrong: that
figure is a lower bound, the same for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.probe_centres import ProbeCentres, without_centre
from encoders.space import Modality, Space
from search import metrics
from search.evaluation import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED
from search.intervals import bootstrap_interval, paired_difference
from search.ranking import Retrieval, retrieval
from search.store import Row, Store

# Unnamed tracks that take part; of a larger archive a sample that is the same for every model.
MOST_TRACKS = 50_000
NOBODY_WITH_BOTH = "nobody is enrolled with a face and a voice that the models can use: there is nothing to measure"
OLD, NEW = "old", "new"
_NOBODY = ""

Place = tuple[str, Modality, tuple[int, int], str]


@dataclass(frozen=True, eq=False)
class _Samples:
    """What a space holds: whose each enrolled sample is, and the vectors of samples and tracks by their places."""

    people: dict[Place, str] = field(default_factory=dict)
    vectors: dict[Place, NDArray[np.float32]] = field(default_factory=dict)
    probe_centres: ProbeCentres = field(default_factory=dict)

    def stacked(self, places: Sequence[Place], asking: Modality | None = None) -> NDArray[np.floating]:
        """(places, dimension) their vectors; as probes of a modality ask, if one is given."""
        vectors = np.stack([self.vectors[place] for place in places])
        if asking is None or asking not in self.probe_centres:
            return vectors
        return without_centre(vectors, self.probe_centres[asking])


@dataclass(frozen=True, eq=False)
class _Asked:
    """One direction with one gallery: what each model got for the same probes, and whose those are."""

    people: NDArray[np.str_]
    gallery: int
    judged: Mapping[str, Retrieval]


def compare_models(
    store: Store,
    old: Space | None,
    new: Space,
    *,
    probe_centres: Mapping[str, ProbeCentres] = MappingProxyType({}),
    most_tracks: int = MOST_TRACKS,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = BOOTSTRAP_SEED,
) -> dict[str, Any]:
    """Mean average precision of two models, from their rows in an index.

    Args:
        store: the index.
        old: space of the model before; None: there is none.
        new: space of the other.
        probe_centres: of ``old`` and ``new``, what is taken from probes; nothing where one is not named.
        most_tracks: unnamed tracks that take part at most.
        draws: of the identity bootstrap.
        seed: of the same.

    Returns:
        Ready for JSON: ``old`` and ``new`` (mean over the probes of both directions; None where there is none),
        their ``old_ci95`` and ``new_ci95``, ``difference`` (new − old with its ``ci95``), ``chance``, ``probes``,
        ``people``, ``left_out``, ``note``, the same by direction under ``voice_to_face`` and ``face_to_voice``, and
        with unnamed tracks in the galleries under ``with_tracks`` (None without any).

    Raises:
        StoreError: the index failed.
    """
    share = most_tracks / max(1, store.count(new))
    spaces = {name: space for name, space in ((OLD, old), (NEW, new)) if space is not None}
    held = {name: _read(store, space, share, probe_centres.get(name, {})) for name, space in spaces.items()}
    common = set.intersection(*(set(samples.vectors) for samples in held.values()))
    enrolled = sorted(place for place in held[NEW].people if place in common)
    tracks = sorted(place for place in common if place not in held[NEW].people)
    left_out = len(set().union(*(samples.people for samples in held.values()))) - len(enrolled)
    resampling = {"draws": draws, "seed": seed}
    figures = _figures(held, enrolled, [], resampling) | {"left_out": left_out}
    if figures["new"] is None:
        return figures | {"note": NOBODY_WITH_BOTH, "with_tracks": None}
    among = _figures(held, enrolled, tracks, resampling) | {"tracks": len(tracks), "sampled": share < 1}
    return figures | {"note": None, "with_tracks": among if tracks else None}


def _read(store: Store, space: Space, share: float, centres: ProbeCentres) -> _Samples:
    """All enrolled samples of a space, and a share of its unnamed tracks."""
    samples = _Samples(probe_centres=centres)
    for row in store.rows(space):
        place = (row.media, row.embedding.modality, row.span_ms, row.evidence)
        if row.person:
            samples.people[place] = row.person
        elif not _drawn(row, share):
            continue
        samples.vectors[place] = row.embedding.vector
    return samples


def _drawn(row: Row, share: float) -> bool:
    """Whether a track takes part: by what it is, so that it does for every model or for none."""
    name = f"{row.media}/{row.embedding.modality}/{row.span_ms}/{row.evidence}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) < share * 2**32


def _figures(
    held: Mapping[str, _Samples], enrolled: Sequence[Place], tracks: Sequence[Place], resampling: Mapping[str, int]
) -> dict[str, Any]:
    ways = {
        f"{probe}_to_{probe.other}": _asked(held, probe, enrolled, tracks) for probe in (Modality.VOICE, Modality.FACE)
    }
    asked = [way for way in ways.values() if way is not None]
    told = _told(asked, resampling)
    return told | {
        name: _told([way], resampling) | {"gallery": way.gallery} if way else None for name, way in ways.items()
    }


def _asked(
    held: Mapping[str, _Samples], probe: Modality, enrolled: Sequence[Place], tracks: Sequence[Place]
) -> _Asked | None:
    """One direction; None if no probe has a right answer."""
    owners = held[NEW].people
    gallery = [place for place in (*enrolled, *tracks) if place[1] is probe.other]
    there = {owners[place] for place in enrolled if place[1] is probe.other}
    probes = [place for place in enrolled if place[1] is probe and owners[place] in there]
    if not probes:
        return None
    people = np.array([owners[place] for place in probes])
    shown = np.array([owners.get(place, _NOBODY) for place in gallery])
    judged = {
        name: retrieval(samples.stacked(probes, asking=probe), people, samples.stacked(gallery), shown)
        for name, samples in held.items()
    }
    return _Asked(people, len(gallery), judged)


def _told(asked: Sequence[_Asked], resampling: Mapping[str, int]) -> dict[str, Any]:
    """Figures over the probes of one direction or of both."""
    nothing = {
        "old": None, "new": None, "old_ci95": None, "new_ci95": None, "difference": None, "chance": None,
        "probes": 0, "people": 0,
    }  # fmt: skip
    if not asked:
        return nothing
    people = np.concatenate([one.people for one in asked])
    told: dict[str, Any] = dict(nothing) | {"probes": len(people), "people": len(set(people))}
    precision = {
        name: np.concatenate([one.judged[name].average_precision for one in asked]) for name in asked[0].judged
    }
    for name, values in precision.items():
        interval = bootstrap_interval(values, people, **resampling)
        told |= {name: float(values.mean()), f"{name}_ci95": [interval.low, interval.high]}
    if OLD in precision:
        gained = paired_difference(precision[NEW], precision[OLD], people, **resampling)
        told["difference"] = {"mean": gained.difference, "ci95": [gained.interval.low, gained.interval.high]}
    judged = [one.judged[NEW] for one in asked]
    sizes = [size for one in judged for size in zip(one.relevant.tolist(), one.gallery.tolist(), strict=True)]
    told["chance"] = float(np.mean([metrics.chance_average_precision(*size) for size in sizes]))
    return told
