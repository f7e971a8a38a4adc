"""Whom a model serves worse: its figures by the sex and the nationality of those who ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search import metrics
from search.intervals import Pairs, bootstrap_interval
from search.protocol_outcome import Outcome, Resampling, mean_of, told, verification_figures
from search.trial_lists import DIRECTIONS, TEST, UNSEEN

LEAST_PEOPLE = 5
OTHER = "other"
"""The nationalities of fewer than five test people, together."""


def breakdown(found: Outcome, resampling: Resampling) -> dict[str, Any]:
    """Verification, 1:2 and retrieval of the probes of each sex and of each nationality, with intervals.

    A pair of verification counts for the person of its voice. Chance stands beside each mean average precision: it
    depends on how many right answers these people have.
    """
    people = found.lists.people
    tested = people.split == TEST
    common = {
        name for name in np.unique(people.nationality[tested])
        if (people.nationality[tested] == name).sum() >= LEAST_PEOPLE
    }  # fmt: skip
    country = np.array([name if name in common else OTHER for name in people.nationality.tolist()])
    return {
        "sex": {name: _of(found, tested & (people.sex == name), resampling) for name in ("f", "m")},
        "nationality": {
            name: _of(found, tested & (country == name), resampling)
            for name in sorted(set(country[tested].tolist()), key=lambda name: (name == OTHER, name))
        },
    }


def _of(found: Outcome, chosen: NDArray[np.bool_], resampling: Resampling) -> dict[str, Any]:
    return {
        "people": int(chosen.sum()),
        "verification": dict(_verified(found, chosen, resampling)),
        "matching": {
            DIRECTIONS[probe]: _mean(
                "accuracy", credits[:, 0], found.asking(probe, found.lists.matching[probe, group].probes), chosen,
                resampling,
            )
            for (probe, group), credits in found.matching.items() if group == "U"
        },
        "retrieval": {way: _retrieved(found, probe, chosen, resampling) for probe, way in DIRECTIONS.items()},
    }  # fmt: skip


def _verified(found: Outcome, chosen: NDArray[np.bool_], resampling: Resampling) -> Iterator[tuple[str, Any]]:
    for group in ("U", "G"):
        if group not in found.lists.verification.get(UNSEEN, {}):
            continue
        try:
            pairs = found.pairs(UNSEEN, group)
            mine = chosen[pairs.first]
            yield (
                group,
                verification_figures(
                    found.scores[UNSEEN][group][mine], Pairs(pairs.first[mine], pairs.second[mine]), resampling
                ),
            )
        except ValueError:  # none of one kind
            yield group, None


def _retrieved(found: Outcome, probe: Modality, chosen: NDArray[np.bool_], resampling: Resampling) -> dict[str, Any]:
    ranked = found.retrieval[probe]
    people = found.asking(probe, found.lists.retrieval[probe])
    relevant = ranked.relevant[chosen[people] & ranked.asked]
    sizes, times = np.unique(relevant, return_counts=True)
    chance = [metrics.chance_average_precision(int(size), ranked.gallery) for size in sizes]
    told_of = _mean("map", ranked.average_precision, people, chosen, resampling)
    return told_of | {"chance": float(np.average(chance, weights=times)) if len(sizes) else None}


def _mean(
    name: str,
    values: NDArray[np.float64],
    people: NDArray[np.integer],
    chosen: NDArray[np.bool_],
    resampling: Resampling,
) -> dict[str, Any]:
    mine = chosen[people] & ~np.isnan(values)
    interval = bootstrap_interval(values[mine], people[mine], **resampling) if resampling and mine.any() else None
    return {name: mean_of(values[mine]), "ci95": told(interval) if interval else None, "trials": int(mine.sum())}
