"""Measures a shared space: do voices find the faces of their people, and faces the voices?

Three tasks on the lists of a protocol, whose people the model has never seen: retrieval over everything,
verification of pairs, and matching 1:N. Each figure stands between what chance gives and what is possible.
The gender oracle, the ceiling and the model are matrices that go through the same code on the same trials:
a sample that the model could not use is left out of the lists for all of them, and named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Embedding, Modality, require_same_space
from search import metrics
from search.archive import NO_SPAN
from search.evaluation import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED, PROBES_AT_ONCE, NothingToMeasure
from search.intervals import Interval, Pairs, bootstrap_interval, percentiles, verification_draws
from search.measurement import Model
from search.points import (
    CrossModalEncoder,
    Points,
    PointsError,
    Readers,
    SeenInTraining,
    embed_protocol,
    read_points,
    refuse_seen,
)
from search.protocol_outcome import gained_without_centre
from search.protocols import Lists, Protocol, Trials
from search.ranking import RECALL_AT, Retrieval, judge_blocks, retrieval, similarity_blocks
from search.store import MOST_HITS, Row, Store, row_key

__all__ = [
    "CrossModalEncoder",
    "Model",
    "Points",
    "PointsError",
    "Readers",
    "SeenInTraining",
    "embed_protocol",
    "evaluate_protocol",
    "read_points",
]

MODEL, GENDER_ORACLE, CEILING = "model", "gender_oracle", "ceiling"
# What the trials of a list have in common, as the report says it. "U", nothing, stands on top.
SHARED = {
    "G": "same_sex",
    "N": "same_nationality",
    "A": "same_age_group",
    "GN": "same_sex_and_nationality",
    "GNA": "same_sex_nationality_and_age_group",
}
# An index computes in single precision, in any order: a score this near to the exact one is the same score.
_ROUNDING = 1e-6
_NOT_FOUND = -2.0  # below any cosine: what an index does not return ranks last
_BEHIND = -4.0  # takes any cosine below all others
_ROWS_AT_ONCE = 5_000
_PAIRS_AT_ONCE = 20_000

Vectors = Mapping[Modality, NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is scored, the same for every scorer: the usable samples, and every scorer's vectors of them.

    Args:
        protocol: where the trials come from.
        paths: usable samples by modality; rows of the vectors.
        row: by modality, row of each path.
        scorers: vectors by scorer: the dot product of a face and a voice is its score.
        asking: the model's vectors as probes that are searched with; by modality, those of ``scorers`` where the model
            has no centre to take from them.
    """

    protocol: Protocol
    paths: Mapping[Modality, tuple[str, ...]]
    row: Mapping[Modality, Mapping[str, int]]
    scorers: Mapping[str, Vectors]
    asking: Vectors

    def searched(self, modality: Modality) -> tuple[NDArray[np.intp], NDArray[np.str_]]:
        """Rows of the usable samples of a modality's retrieval list, and whom they show."""
        samples = self.protocol.retrieval[modality]
        kept = [
            (self.row[modality][path], person)
            for path, person in zip(samples.paths, samples.people, strict=True)
            if path in self.row[modality]
        ]
        return np.array([row for row, _ in kept], dtype=np.intp), np.array([person for _, person in kept])

    def people(self, paths: Sequence[str]) -> NDArray[np.str_]:
        """Whom paths show."""
        return np.array([self.protocol.person_of(path) for path in paths])

    def scores(
        self, scorer: str, probe: Modality, probes: NDArray[np.intp], others: NDArray[np.intp]
    ) -> NDArray[np.floating]:
        """(n,) scores of rows of one modality with rows of the other."""
        first, second = self.scorers[scorer][probe], self.scorers[scorer][probe.other]
        starts = range(0, len(probes), _PAIRS_AT_ONCE)
        parts = [(probes[start : start + _PAIRS_AT_ONCE], others[start : start + _PAIRS_AT_ONCE]) for start in starts]
        # In double precision and then in the vectors' own, as in a matrix of scores.
        products = [np.einsum("nd,nd->n", first[one], second[other], dtype=np.float64) for one, other in parts]
        return np.concatenate(products).astype(np.result_type(first, second), copy=False)


def evaluate_protocol(
    protocol: Protocol,
    points: Points,
    store: Store | None = None,
    *,
    model: Model | None = None,
    depth: int = MOST_HITS,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = BOOTSTRAP_SEED,
) -> dict[str, Any]:
    """Retrieval, verification and matching across modalities, beside chance, gender oracle and ceiling.

    Args:
        protocol: trials, and what is known about its people.
        points: of its samples; samples without a point are left out of every trial.
        store: an empty index, which is filled and asked; None: ``map`` is exact too.
        model: what made the points, for the report; refused if it was trained on a test identity.
        depth: hits that the index is asked for per probe. Where the gallery is larger, what it did not return
            follows in the order of exact search; else it ranks last.
        draws: of the identity bootstrap.
        seed: of the same.

    Returns:
        A report ready for JSON; fractions in [0, 1], intervals of 95 %, None where there is no ceiling.
        ``retrieval.{voice_to_face,face_to_voice}``: ``map`` through the index, ``map_exact``, ``ci95``,
        ``recall_at_{1,5,10}``, ``mrr``, ``baselines``, …; where probes are without a centre, ``gained`` by that:
        ``map_before``, ``difference``, ``ci95`` of the same people.
        ``verification``: ``auc``, ``eer``, … of pairs of any two people; ``same_sex`` of people of one sex.
        ``matching_1_to_n.{voice_to_face,face_to_voice}.{all,same_sex}``: by N as text.

    Raises:
        SeenInTraining: the model knows somebody of the test.
        SpaceMismatch: the points are not of the model's space.
        NothingToMeasure: after leaving out unusable samples a list has no trials.
        StoreError: the index failed.
    """
    if model is not None:
        refuse_seen(protocol, model.identities)
        require_same_space(model.space, points.space)
    subject = _subject(protocol, points)
    resampling = {"draws": draws, "seed": seed}
    ways = [(probe, f"{probe}_to_{probe.other}") for probe in (Modality.VOICE, Modality.FACE)]
    if store is not None:
        _fill(store, points, subject)
    index = None if store is None else _Index(store, min(depth, MOST_HITS))
    return {
        "protocol": _about_protocol(protocol),
        "model": _about_model(points, model),
        "index": None if store is None else type(store).__name__,
        "retrieval": {way: _retrieval(subject, points, index, probe, resampling) for probe, way in ways},
        "verification": _verification_of_all(subject, resampling),
        "matching_1_to_n": {way: _matching_of_all(subject, probe, resampling) for probe, way in ways},
        "unusable": _unusable(protocol, points),
    }


def _about_protocol(protocol: Protocol) -> dict[str, Any]:
    return {
        "name": protocol.name, "domain": protocol.domain, "digest": protocol.digest,
        "lists_digest": protocol.lists_digest, "people": len(protocol.identities),
        "samples": {str(modality): len(protocol.samples(modality).paths) for modality in Modality},
    }  # fmt: skip


def _about_model(points: Points, model: Model | None) -> dict[str, Any]:
    return {
        "space": points.space.name, "space_digest": points.space.digest, "dimension": points.space.dimension,
        "domain": model.domain if model else None, "trained_on": model.trained_on if model else None,
        "identities": len(model.identities) if model else None,
        "centred_probes": sorted(map(str, points.probe_centres)),
    }  # fmt: skip


def _unusable(protocol: Protocol, points: Points) -> list[dict[str, str]]:
    """Samples of the lists without a point, each with its modality and reason."""
    reasons = {one.path: one.reason for one in points.unusable}
    usable = {modality: set(points.paths[modality]) for modality in Modality}
    return [
        {"path": path, "modality": str(modality), "reason": reasons.get(path, "no vector was given for it")}
        for modality in Modality
        for path in protocol.samples(modality).paths
        if path not in usable[modality]
    ]


def _subject(protocol: Protocol, points: Points) -> _Subject:
    paths, model, asking, sexes, ceiling = {}, {}, {}, {}, {}
    for modality in Modality:
        place = {path: number for number, path in enumerate(points.paths[modality])}
        paths[modality] = tuple(path for path in protocol.samples(modality).paths if path in place)
        if not paths[modality]:
            raise NothingToMeasure(f"none of the {modality} samples of {protocol.name} has a vector")
        rows = [place[path] for path in paths[modality]]
        model[modality], asking[modality] = points.vectors[modality][rows], points.asking(modality)[rows]
        # The dot product of two one-hot vectors is 1 where they are equal, else 0.
        female = np.array([protocol.sex[protocol.person_of(path)] == "f" for path in paths[modality]])
        sexes[modality] = np.stack([female, ~female], axis=1).astype(np.float32)
        if protocol.ceiling is not None:
            ceiling[modality] = np.stack([protocol.ceiling[path] for path in paths[modality]])
    scorers: dict[str, Vectors] = {MODEL: model, GENDER_ORACLE: sexes}
    if ceiling:
        scorers[CEILING] = ceiling
    row = {modality: {path: number for number, path in enumerate(paths[modality])} for modality in Modality}
    return _Subject(protocol, paths, row, scorers, asking)


# Retrieval


@dataclass(frozen=True, eq=False)
class _Index:
    """A filled index, and how many hits it is asked for per probe."""

    store: Store
    depth: int


def _retrieval(
    subject: _Subject, points: Points, index: _Index | None, probe: Modality, resampling: Mapping[str, int]
) -> dict[str, Any]:
    probes, askers = subject.searched(probe)
    gallery, held = subject.searched(probe.other)
    if not set(askers) & set(held):
        raise NothingToMeasure(f"no {probe} has a {probe.other} of its person to find")
    judged = {
        name: retrieval(vectors[probe][probes], askers, vectors[probe.other][gallery], held)
        for name, vectors in subject.scorers.items()
    }
    exact = found = judged[MODEL]
    gained = {}
    if probe in points.probe_centres:
        exact = found = retrieval(
            subject.asking[probe][probes], askers, subject.scorers[MODEL][probe.other][gallery], held
        )
        before, after = judged[MODEL].average_precision, exact.average_precision
        gained = {"gained": gained_without_centre(before, after, askers, resampling)}
    if index is not None:
        blocks = _blocks_through_index(subject, points, index, probe)
        found = judge_blocks(blocks, askers, held)
    asked = ~np.isnan(found.average_precision)
    interval = bootstrap_interval(found.average_precision, askers, **resampling)
    baselines = {"chance": _chance(found)} | {
        name: _ranking_figures(judged[name]) for name in (GENDER_ORACLE, CEILING) if name in judged
    }
    return _ranking_figures(found) | {
        "map_exact": exact.map, "ci95": _as_list(interval),
        "chance": baselines["chance"]["map"], "gender_oracle": baselines[GENDER_ORACLE]["map"],
        "ceiling": baselines[CEILING]["map"] if CEILING in baselines else None, "baselines": baselines,
        "depth": None if index is None else min(index.depth, len(gallery)),
        "gallery": len(gallery), "probes": int(asked.sum()), "people": len(set(askers[asked])),
    } | gained  # fmt: skip


def _ranking_figures(judged: Retrieval) -> dict[str, float]:
    recalls = {f"recall_at_{k}": float(np.nanmean(judged.recall[k])) for k in RECALL_AT}
    return {"map": judged.map, **recalls, "mrr": float(np.nanmean(judged.reciprocal_rank))}


def _chance(judged: Retrieval) -> dict[str, float]:
    """What a random order of the same galleries gives on average."""
    asked = judged.relevant > 0
    cases, times = np.unique(np.stack([judged.relevant[asked], judged.gallery[asked]], 1), axis=0, return_counts=True)
    sizes = [(int(relevant), int(total)) for relevant, total in cases]
    figures = {"map": [metrics.chance_average_precision(*size) for size in sizes]}
    figures |= {f"recall_at_{k}": [metrics.chance_recall(*size, k) for size in sizes] for k in RECALL_AT}
    figures["mrr"] = [metrics.chance_reciprocal_rank(*size) for size in sizes]
    return {name: float(np.average(values, weights=times)) for name, values in figures.items()}


def _fill(store: Store, points: Points, subject: _Subject) -> None:
    """Write the samples that are searched into the index."""
    store.create(points.space)
    for modality in Modality:
        rows, _ = subject.searched(modality)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            batch = [_row(points, subject, modality, int(row)) for row in rows[start : start + _ROWS_AT_ONCE]]
            store.upsert(points.space, batch)
    store.flush(points.space)


def _row(points: Points, subject: _Subject, modality: Modality, row: int) -> Row:
    name = hashlib.sha256(subject.paths[modality][row].encode()).hexdigest()
    key = row_key(name, modality, NO_SPAN, name, points.space)
    embedding = Embedding(points.space, modality, subject.scorers[MODEL][modality][row])
    return Row(key, embedding, name, 0, NO_SPAN, name)


def _blocks_through_index(
    subject: _Subject, points: Points, index: _Index, probe: Modality
) -> Iterator[NDArray[np.floating]]:
    """(probes, gallery) scores as the index gives them, but for rounding, which would part equal vectors."""
    probes, _ = subject.searched(probe)
    gallery, _ = subject.searched(probe.other)
    column = {_row(points, subject, probe.other, int(row)).key: place for place, row in enumerate(gallery)}
    asking, searched = subject.asking[probe], subject.scorers[MODEL][probe.other]
    blocks = similarity_blocks(asking[probes], searched[gallery], block=PROBES_AT_ONCE)
    for block, exact in enumerate(blocks):
        rows = probes[block * PROBES_AT_ONCE :][: len(exact)]
        asked = [Embedding(points.space, probe, asking[int(row)]) for row in rows]
        # where more was to be had than was asked for, the rest is ranked as exact search would, behind every hit
        # (in double precision: so far down single precision would make ties)
        shallow = index.depth < len(gallery)
        scores = exact.astype(np.float64) + _BEHIND if shallow else np.full(exact.shape, _NOT_FOUND, dtype=np.float32)
        for line, hits in enumerate(index.store.search(asked, min(len(gallery), index.depth), want=probe.other)):
            known = [hit for hit in hits if hit.row.key in column]
            if len(known) < min(len(gallery), index.depth):
                scores[line] = _NOT_FOUND  # it had no more to give: what it misses is not made up for
            places = [column[hit.row.key] for hit in known]
            scores[line, places] = [hit.score for hit in known]
        yield np.where(np.abs(scores - exact) <= _ROUNDING, exact, scores)


# Verification


def _verification_of_all(subject: _Subject, resampling: Mapping[str, int]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for criterion, trials in subject.protocol.verification.items():
        told = _verification(subject, trials, resampling)
        figures |= told if criterion == "U" else {SHARED[criterion]: told}
    return figures


def _verification(subject: _Subject, trials: Trials, resampling: Mapping[str, int]) -> dict[str, Any]:
    rows = subject.row
    kept = [
        number
        for number, (voice, face) in enumerate(zip(trials.voices, trials.faces, strict=True))
        if voice in rows[Modality.VOICE] and face in rows[Modality.FACE]
    ]
    voice_paths, face_paths = [trials.voices[number] for number in kept], [trials.faces[number] for number in kept]
    voices = np.array([rows[Modality.VOICE][path] for path in voice_paths], dtype=np.intp)
    faces = np.array([rows[Modality.FACE][path] for path in face_paths], dtype=np.intp)
    try:
        pairs = Pairs(subject.people(voice_paths), subject.people(face_paths))
    except ValueError as error:
        raise NothingToMeasure(f"verification on the usable samples: {error}") from error
    scores = {name: subject.scores(name, Modality.VOICE, voices, faces) for name in subject.scorers}
    genuine = pairs.genuine
    areas = {name: metrics.auc(line[genuine], line[~genuine]) for name, line in scores.items()}
    errors = {name: metrics.equal_error_rate(line[genuine], line[~genuine]) for name, line in scores.items()}
    drawn = verification_draws(scores[MODEL], pairs, **resampling)
    return {
        "auc": areas[MODEL], "ci95": _as_list(percentiles(drawn.auc)),
        "eer": errors[MODEL], "eer_ci95": _as_list(percentiles(drawn.eer)),
        "chance_auc": 0.5, "gender_oracle_auc": areas[GENDER_ORACLE], "ceiling_auc": areas.get(CEILING),
        "chance_eer": 0.5, "gender_oracle_eer": errors[GENDER_ORACLE], "ceiling_eer": errors.get(CEILING),
        "pairs": len(genuine), "genuine_pairs": int(genuine.sum()), "pairs_left_out": len(trials.same) - len(kept),
    }  # fmt: skip


# Matching


def _matching_of_all(subject: _Subject, probe: Modality, resampling: Mapping[str, int]) -> dict[str, Any]:
    return {
        "all" if criterion == "U" else SHARED[criterion]: _matching(subject, probe, lists, resampling)
        for (asks, criterion), lists in subject.protocol.matching.items()
        if asks is probe
    }


def _matching(subject: _Subject, probe: Modality, lists: Lists, resampling: Mapping[str, int]) -> dict[str, Any]:
    """Figures by N. An unusable candidate leaves its place in the list to the next one.

    The interval resamples the people of the probes, with the candidates as they are.
    """
    rows, others = subject.row[probe], subject.row[probe.other]
    kept = [
        (path, [others[one] for one in candidates if one in others])
        for path, candidates in zip(lists.probes, lists.candidates, strict=True)
        if path in rows and candidates[0] in others
    ]
    kept = [(path, candidates) for path, candidates in kept if len(candidates) > 1]
    if not kept:
        raise NothingToMeasure(f"no trial 1:N of a {probe} has a usable probe, its right candidate and another")
    probes = np.array([rows[path] for path, _ in kept], dtype=np.intp)
    asked = subject.people([path for path, _ in kept])
    earned = {name: _credits(subject, name, probe, probes, [line for _, line in kept]) for name in subject.scorers}
    figures = {}
    for column in range(earned[MODEL].shape[1]):
        credits, count = earned[MODEL][:, column], column + 2
        accuracy = {name: float(np.nanmean(values[:, column])) for name, values in earned.items()}
        figures[str(count)] = {
            "accuracy": accuracy[MODEL], "ci95": _as_list(bootstrap_interval(credits, asked, **resampling)),
            "chance": 1 / count, "gender_oracle": accuracy[GENDER_ORACLE], "ceiling": accuracy.get(CEILING),
            "trials": int((~np.isnan(credits)).sum()),
        }  # fmt: skip
    return figures


def _credits(
    subject: _Subject, scorer: str, probe: Modality, probes: NDArray[np.intp], candidates: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """(trials, N − 1) what each trial earns with its first 2, 3, … candidates, NaN where it has fewer."""
    sizes = np.array([len(line) for line in candidates])
    flat = subject.scores(scorer, probe, np.repeat(probes, sizes), np.concatenate([*map(np.asarray, candidates)]))
    scores = np.full((len(candidates), int(sizes.max())), np.nan)
    scores[np.arange(scores.shape[1]) < sizes[:, None]] = flat
    return metrics.matching_credits(scores[:, 0], scores[:, 1:])


def _as_list(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
