"""The report of a protocol: a model's figures, the oracles' beside them in the same tree, and who was measured.

``retrieval``, ``verification``, ``matching`` and ``matching_1_to_n`` are the model's; ``oracles.<name>`` holds the
same of each oracle; ``comparison`` another model's, with paired differences; ``retrieval.<way>.gained`` what probes
gain without their centre, where the model has one. Fractions from 0 to 1, intervals of 95 % from resampled people. The
same vectors on the same lists give the same report, digit for digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.space import Modality
from search.breakdown import breakdown
from search.measurement import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED, Model, NothingToMeasure, SeenInTraining, Unusable
from search.oracles import ORACLES, oracle
from search.protocol_outcome import Outcome, Resampling, differences, figures, gained_without_centre, outcome
from search.sample_vectors import SampleVectors
from search.trial_lists import DIRECTIONS, TEST, TRAIN, VALIDATION, TrialLists
from search.validation_threshold import fit_threshold

if TYPE_CHECKING:
    from search.points import Points  # which loads what encodes


@dataclass(frozen=True, eq=False)
class Measured:
    """Vectors to be measured, and what is known of what made them.

    Args:
        vectors: of a protocol's samples.
        model: what made them; None: nobody said.
        unusable: samples that gave no vector, and why.
    """

    vectors: SampleVectors
    model: Model | None = None
    unusable: tuple[Unusable, ...] = ()

    @property
    def identities(self) -> frozenset[str]:
        """The people it was trained on, as far as anybody said."""
        return self.vectors.identities | (self.model.identities if self.model else frozenset())


def check_seen(lists: TrialLists, measured: Measured, *, allowed: bool) -> dict[str, Any]:
    """How many of the test people a model was trained on, for the report.

    Raises:
        SeenInTraining: some, and that was not allowed.
    """
    seen = sorted(lists.people.known_among(measured.identities))
    total = len(lists.people.of(TEST))
    if seen and not allowed:
        named = ", ".join(seen[:3]) + (f" and {len(seen) - 3} more" if len(seen) > 3 else "")
        raise SeenInTraining(
            f"the model was trained on {len(seen)} of the {total} test people of {lists.name} ({named}): measure it on "
            "people it has never seen, or say --allow-seen and the report says so"
        )
    if not measured.identities:
        note = "whom the model was trained on is not stated: if it knows these people, every figure is too good"
    elif seen:
        note = f"the model was trained on {len(seen)} of the {total} test people: every figure is too good"
    else:
        note = f"the model was trained on none of the {total} test people, by the names that it states"
    return {"stated": bool(measured.identities), "people": len(seen), "allowed": allowed and bool(seen), "note": note}


def report_on(
    lists: TrialLists,
    measured: Measured,
    *,
    other: Measured | None = None,
    intervals: bool = True,
    allow_seen: bool = False,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = BOOTSTRAP_SEED,
) -> dict[str, Any]:
    """Everything that a protocol asks, for one model or for two on the same trials.

    Args:
        lists: with whatever was drawn (:func:`search.generated_lists.with_drawn`).
        measured: the model's vectors. Trials with samples that have none are left out for every scorer.
        other: another model to compare with; what one of the two lacks is left out for both.
        intervals: whether to resample people.
        allow_seen: measure also what was trained on people of the test, and say so.
        draws: of the identity bootstrap.
        seed: of the same.

    Returns:
        The report, ready for JSON.

    Raises:
        SeenInTraining: see :func:`check_seen`.
        NothingToMeasure: no trial is left.
    """
    seen = [check_seen(lists, one, allowed=allow_seen) for one in (measured, other) if one is not None]
    trials = lists.usable(measured.vectors.present)
    if other is not None:
        trials = trials.usable(other.vectors.present)
    if not any(len(rows) for rows in trials.retrieval.values()):
        raise NothingToMeasure(f"no sample of the lists of {lists.name} has a vector")
    resampling: Resampling = {"draws": draws, "seed": seed} if intervals else None
    found = outcome(trials, measured.vectors)
    threshold, note = fit_threshold(measured.vectors, found, seed, measured.identities)
    report: dict[str, Any] = {
        "protocol": _about_lists(lists, trials), "model": _about(measured), "seen": seen[0],
        **figures(found, resampling),
        "oracles": {name: figures(outcome(trials, oracle(trials, name)), resampling) for name in ORACLES},
        "breakdown": breakdown(found, resampling),
        "threshold": threshold, "threshold_note": note,
        "intervals": {"draws": draws, "seed": seed, "level": 0.95, "resampled": "people"} if intervals else None,
        "unusable": _unusable(lists, measured),
    }  # fmt: skip
    for way, gained in _gained_by_centres(trials, measured.vectors, found, resampling).items():
        report["retrieval"][way]["gained"] = gained
    if other is not None:
        report["comparison"] = _comparison(found, outcome(trials, other.vectors), other, seen[1], resampling)
    return report


def _gained_by_centres(
    trials: TrialLists, vectors: SampleVectors, found: Outcome, resampling: Resampling
) -> dict[str, Any]:
    """By direction whose probes are without a centre, what that gains over the same probes as they are."""
    if not vectors.applied:
        return {}
    before = replace(vectors, probe_centres={}).both_ways(trials)
    told = {}
    for probe in vectors.applied:
        people = found.asking(probe, trials.retrieval[probe])
        mine, theirs = (one[probe].average_precision for one in (found.retrieval, before))
        told[DIRECTIONS[probe]] = gained_without_centre(theirs, mine, people, resampling)
    return told


def with_all_lists(
    report: dict[str, Any], lists: TrialLists, points: Points, *, intervals: bool = True
) -> dict[str, Any]:
    """A report of :func:`search.crossmodal.evaluate_protocol`, completed by the names that published lists have.

    ``verification.unseen_unheard.{U,G}``, ``matching``, ``matching_1_to_n.{direction}.{U,G}``, further figures of
    ``retrieval`` and ``oracles`` come beside what is there; nothing that is there changes.

    Args:
        report: of the same points on the same lists.
        lists: as :func:`search.published_lists.read_trial_lists` reads them.
        points: by the names of the lists.
        intervals: whether people are resampled.
    """
    vectors = SampleVectors.of_points(points, lists)
    trials = lists.usable(vectors.present)
    resampling: Resampling = {"draws": BOOTSTRAP_DRAWS, "seed": BOOTSTRAP_SEED} if intervals else None
    tree = figures(outcome(trials, vectors), resampling)
    oracles = {name: figures(outcome(trials, oracle(trials, name)), resampling) for name in ORACLES}
    return _beside(report, tree | {"oracles": oracles})


def _beside(told: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Both trees in one; what ``told`` has already stays."""
    joined = dict(more) | dict(told)
    for name in told.keys() & more.keys():
        if isinstance(told[name], Mapping) and isinstance(more[name], Mapping):
            joined[name] = _beside(told[name], more[name])
    return joined


def _comparison(
    found: Outcome, theirs: Outcome, other: Measured, seen: Mapping[str, Any], resampling: Resampling
) -> dict[str, Any]:
    return {
        "model": _about(other), "seen": dict(seen), "figures": figures(theirs, resampling),
        "difference": differences(found, theirs, resampling),
    }  # fmt: skip


def _about_lists(lists: TrialLists, trials: TrialLists) -> dict[str, Any]:
    people = lists.people
    return {
        "name": lists.name, "domain": lists.domain, "digest": lists.digest, "lists_digest": lists.digest,
        "people": int((people.split == TEST).sum()),
        "training_people": int((people.split == TRAIN).sum()),
        "validation_people": int((people.split == VALIDATION).sum()),
        "samples": {str(one): len(lists.catalogues[one].paths) for one in Modality},
        "drawn": dict(lists.drawn),
        "left_out": _left_out(lists, trials),
    }  # fmt: skip


def _left_out(lists: TrialLists, trials: TrialLists) -> dict[str, int]:
    """Trials and samples that had to be left out, of each kind."""

    def pairs(one: TrialLists) -> int:
        return sum(len(some.voices) for groups in one.verification.values() for some in groups.values())

    def matching(one: TrialLists) -> int:
        return sum(len(some.probes) for lot in (one.matching, one.matching_1_to_n) for some in lot.values())

    def searched(one: TrialLists) -> int:
        return sum(map(len, one.retrieval.values()))

    counted = {"pairs": pairs, "matching_trials": matching, "retrieval_samples": searched}
    return {name: count(lists) - count(trials) for name, count in counted.items()}


def _about(measured: Measured) -> dict[str, Any]:
    vectors, model = measured.vectors, measured.model
    return {
        "space": (model.space.name if model else vectors.space) or None,
        "space_digest": (model.space.digest if model else vectors.space_digest) or None,
        "dimension": int(vectors.vectors.shape[1]), "vectors_digest": vectors.digest,
        "similarity": str(vectors.similarity), "domain": model.domain if model else None,
        "trained_on": model.trained_on if model else None, "identities": len(measured.identities) or None,
        "centred_probes": sorted(map(str, vectors.applied)),
    }  # fmt: skip


def _unusable(lists: TrialLists, measured: Measured) -> list[dict[str, Any]]:
    """Samples without a vector; those that only nobody gave are counted by modality, not named one by one."""
    told = [{"path": one.path, "reason": one.reason, "readable": one.readable} for one in measured.unusable]
    known = {one.path for one in measured.unusable}
    for modality in Modality:
        lacking = np.flatnonzero(~measured.vectors.present[modality])
        paths = lists.catalogues[modality].paths
        missing = [paths[row] for row in lacking.tolist() if paths[row] not in known]
        if missing:
            others = f", nor for {len(missing) - 1} more of its modality" if len(missing) > 1 else ""
            reason = f"no vector was given for it{others}"
            told.append({"path": missing[0], "reason": reason, "readable": True, "count": len(missing)})
    return told
