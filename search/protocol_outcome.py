"""What one scorer gets on every trial of a protocol, and the figures that follow: each beside chance.

A model and the oracles go through the same code. Outcomes are kept by trial and by probe, so that people can be
resampled and two scorers compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search import metrics
from search.intervals import (
    Interval,
    Pairs,
    bootstrap_interval,
    paired_difference,
    paired_verification_difference,
    percentiles,
    verification_draws,
)
from search.ranking import RECALL_AT
from search.trial_lists import DIRECTIONS, CandidateList, PairList, Rows, TrialLists
from search.two_way import Ranked

CMC_PLACES = 100

Resampling = Mapping[str, int] | None
"""``draws`` and ``seed`` of the identity bootstrap; None: no intervals."""
Tree = dict[str, Any]


class Scorer(Protocol):
    """Anything that scores a voice with a face."""

    def pairs(self, voices: Rows, faces: Rows) -> NDArray[np.float64]:
        """(n,) scores of rows of the catalogues."""

    def both_ways(self, lists: TrialLists) -> Mapping[Modality, Ranked]:
        """What each sample of the retrieval lists gets as a probe, by modality."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a scorer got.

    Args:
        lists: on which trials.
        scores: (pairs,) by split and group.
        matching: (trials, 1) what each 1:2 trial earned, by modality of the probe and group.
        matching_1_to_n: (trials, N − 1) likewise for 2, 3, … candidates.
        retrieval: by modality of the probe.
    """

    lists: TrialLists
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    matching: Mapping[tuple[Modality, str], NDArray[np.float64]]
    matching_1_to_n: Mapping[tuple[Modality, str], NDArray[np.float64]]
    retrieval: Mapping[Modality, Ranked]

    def pairs(self, split: str, group: str) -> Pairs:
        """Whom the pairs of a list are of. Raises ValueError where they are not of both kinds."""
        return _pairs(self.lists, self.lists.verification[split][group])

    def asking(self, probe: Modality, rows: Rows) -> NDArray[np.int32]:
        """Whom rows of a modality show."""
        return self.lists.catalogues[probe].person[rows]


def outcome(lists: TrialLists, scorer: Scorer) -> Outcome:
    """Score every trial."""
    return Outcome(
        lists,
        {
            split: {name: scorer.pairs(pairs.voices, pairs.faces) for name, pairs in groups.items()}
            for split, groups in lists.verification.items()
        },
        {key: _credits(scorer, key[0], one) for key, one in lists.matching.items()},
        {key: _credits(scorer, key[0], one) for key, one in lists.matching_1_to_n.items()},
        scorer.both_ways(lists),
    )


def _credits(scorer: Scorer, probe: Modality, lists: CandidateList) -> NDArray[np.float64]:
    trials, width = lists.candidates.shape
    if not trials:
        return np.zeros((0, width - 1))
    asked, offered = np.repeat(lists.probes, width), lists.candidates.reshape(-1)
    voices, faces = (asked, offered) if probe is Modality.VOICE else (offered, asked)
    scores = scorer.pairs(voices, faces).reshape(trials, width)
    return metrics.matching_credits(scores[:, 0], scores[:, 1:])


def figures(found: Outcome, resampling: Resampling) -> Tree:
    """``verification``, ``matching``, ``matching_1_to_n`` and ``retrieval`` as fractions, ready for JSON.

    A figure that has no usable trial is None.
    """
    lists = found.lists
    return {
        "verification": {
            split: {name: _verified(found, split, name, resampling) for name in groups}
            for split, groups in lists.verification.items()
        },
        "matching": _by_direction({
            key: _matched(credits[:, 0], found.asking(key[0], lists.matching[key].probes), 2, resampling)
            for key, credits in found.matching.items()
        }),
        "matching_1_to_n": _by_direction({
            key: {
                str(place + 2): _matched(column, found.asking(key[0], lists.matching_1_to_n[key].probes), place + 2,
                                         resampling)
                for place, column in enumerate(credits.T)
            }
            for key, credits in found.matching_1_to_n.items()
        }),
        "retrieval": {
            way: _retrieved(found.retrieval[probe], found.asking(probe, lists.retrieval[probe]), resampling)
            for probe, way in DIRECTIONS.items()
        },
    }  # fmt: skip


def differences(found: Outcome, other: Outcome, resampling: Resampling) -> Tree:
    """The same tree of ``{"difference", "ci95"}``: the first outcome minus the second on the same trials and draws."""
    lists = found.lists

    def gained(probe: Modality, rows: Rows, mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> Tree:
        return _gained(mine, theirs, found.asking(probe, rows), resampling)

    return {
        "verification": {
            split: {name: _verified_apart(found, other, split, name, resampling) for name in groups}
            for split, groups in lists.verification.items()
        },
        "matching": _by_direction({
            key: {"accuracy": gained(key[0], lists.matching[key].probes, mine[:, 0], other.matching[key][:, 0])}
            for key, mine in found.matching.items()
        }),
        "matching_1_to_n": _by_direction({
            key: {
                str(place + 2): {"accuracy": gained(key[0], lists.matching_1_to_n[key].probes, column, theirs)}
                for place, (column, theirs) in enumerate(zip(mine.T, other.matching_1_to_n[key].T, strict=True))
            }
            for key, mine in found.matching_1_to_n.items()
        }),
        "retrieval": {
            way: {
                name: gained(probe, lists.retrieval[probe], getattr(found.retrieval[probe], line),
                             getattr(other.retrieval[probe], line))
                for name, line in (("map", "average_precision"), ("map_other_videos", "other_videos"))
            }
            for probe, way in DIRECTIONS.items()
        },
    }  # fmt: skip


# Leaves


def verification_figures(scores: NDArray[np.float64], pairs: Pairs, resampling: Resampling) -> Tree:
    """AUC and EER of some pairs."""
    genuine = pairs.genuine
    drawn = verification_draws(scores, pairs, **resampling) if resampling else None
    return {
        "auc": metrics.auc(scores[genuine], scores[~genuine]),
        "eer": metrics.equal_error_rate(scores[genuine], scores[~genuine]),
        "ci95": told(percentiles(drawn.auc)) if drawn else None,
        "eer_ci95": told(percentiles(drawn.eer)) if drawn else None,
        "chance": 0.5, "chance_eer": 0.5, "pairs": len(genuine), "genuine_pairs": int(genuine.sum()),
    }  # fmt: skip


def _verified(found: Outcome, split: str, group: str, resampling: Resampling) -> Tree:
    listed, scores = found.lists.verification[split][group], found.scores[split][group]
    leaf = _verified_some(found.lists, listed, scores, resampling)
    if listed.asked_by is not None:
        for way, mask in (("voice_to_face", listed.asked_by), ("face_to_voice", ~listed.asked_by)):
            leaf[way] = _verified_some(found.lists, listed.kept(mask), scores[mask], resampling)
    return leaf


def _verified_some(lists: TrialLists, listed: PairList, scores: NDArray[np.float64], resampling: Resampling) -> Tree:
    try:
        return verification_figures(scores, _pairs(lists, listed), resampling)
    except ValueError:  # no pair of one person is left, or none of two
        names = ("auc", "eer", "ci95", "eer_ci95")
        counts = {"pairs": len(scores), "genuine_pairs": int(listed.genuine.sum())}
        return {**dict.fromkeys(names), "chance": 0.5, "chance_eer": 0.5, **counts}


def _pairs(lists: TrialLists, listed: PairList) -> Pairs:
    voices, faces = lists.catalogues[Modality.VOICE], lists.catalogues[Modality.FACE]
    return Pairs(voices.person[listed.voices], faces.person[listed.faces])


def _verified_apart(found: Outcome, other: Outcome, split: str, group: str, resampling: Resampling) -> Tree:
    mine, theirs = found.scores[split][group], other.scores[split][group]
    try:
        pairs = found.pairs(split, group)
    except ValueError:
        nothing = {"difference": None, "ci95": None}
        return {"auc": nothing, "eer": nothing}
    if resampling is None:
        one, two = verification_figures(mine, pairs, None), verification_figures(theirs, pairs, None)
        return {name: {"difference": one[name] - two[name], "ci95": None} for name in ("auc", "eer")}
    apart = paired_verification_difference(mine, theirs, pairs, **resampling)
    return {
        name: {"difference": one.difference, "ci95": told(one.interval)}
        for name, one in zip(("auc", "eer"), apart, strict=True)
    }


def _matched(credits: NDArray[np.float64], people: NDArray[np.integer], count: int, resampling: Resampling) -> Tree:
    trials = len(credits)
    return {
        "accuracy": float(credits.mean()) if trials else None,
        "ci95": told(bootstrap_interval(credits, people, **resampling)) if resampling and trials else None,
        "chance": 1 / count, "trials": trials, "people": len(np.unique(people)),
    }  # fmt: skip


def _retrieved(ranked: Ranked, people: NDArray[np.integer], resampling: Resampling) -> Tree:
    asked = ranked.asked
    if not asked.any():
        named = ("map", "map_other_videos", "cmc", "chance", "ci95", "map_other_videos_ci95")
        each = [way + name for way in ("", "chance_") for name in (*(f"recall_at_{k}" for k in RECALL_AT), "mrr")]
        return {**dict.fromkeys([*named, *each]), "probes": 0, "gallery": ranked.gallery, "people": 0}
    curve = ranked.recall(CMC_PLACES)
    lines = {"map": ranked.average_precision, "map_other_videos": ranked.other_videos}
    means = {name: mean_of(line) for name, line in lines.items()}
    intervals = {
        name: told(bootstrap_interval(line, people, **resampling))
        if resampling and not np.isnan(line).all() else None
        for name, line in lines.items()
    }  # fmt: skip
    chance = _chance(ranked)
    return {
        **means, **{f"recall_at_{k}": float(curve[k - 1]) for k in RECALL_AT},
        "mrr": ranked.mean_reciprocal_rank(), "cmc": curve[: min(CMC_PLACES, ranked.gallery)].tolist(),
        "chance": chance["map"], **{f"chance_{name}": value for name, value in chance.items() if name != "map"},
        "ci95": intervals["map"], "map_other_videos_ci95": intervals["map_other_videos"],
        "probes": int(asked.sum()), "gallery": ranked.gallery, "people": len(np.unique(people[asked])),
    }  # fmt: skip


def mean_of(line: NDArray[np.float64]) -> float | None:
    """The mean of what is not NaN; None if nothing is."""
    kept = line[~np.isnan(line)]
    return float(kept.mean()) if len(kept) else None


def _chance(ranked: Ranked) -> dict[str, float]:
    """What a random order of the same gallery gives on average."""
    sizes, times = np.unique(ranked.relevant[ranked.asked], return_counts=True)
    cases = [(int(relevant), ranked.gallery) for relevant in sizes]
    each = {"map": [metrics.chance_average_precision(*case) for case in cases]}
    each |= {f"recall_at_{k}": [metrics.chance_recall(*case, k) for case in cases] for k in RECALL_AT}
    each["mrr"] = [metrics.chance_reciprocal_rank(*case) for case in cases]
    return {name: float(np.average(values, weights=times)) for name, values in each.items()}


def gained_without_centre(
    before: NDArray[np.float64], after: NDArray[np.float64], people: NDArray[Any], resampling: Resampling
) -> Tree:
    """What probes gain by asking without their centre (:mod:`encoders.probe_centres`).

    Args:
        before: (probes,) average precision of the probes as they are; NaN where one has no right answer.
        after: (probes,) without their centre.
        people: (probes,) who asks.
        resampling: None: no interval.

    Returns:
        ``map_before``, ``difference`` and its ``ci95``; each None where no probe has a right answer.
    """
    return {"map_before": mean_of(before), **_gained(after, before, people, resampling)}


def _gained(
    mine: NDArray[np.float64], theirs: NDArray[np.float64], people: NDArray[Any], resampling: Resampling
) -> Tree:
    if np.isnan(mine - theirs).all():
        return {"difference": None, "ci95": None}
    if resampling is None:
        return {"difference": float(np.nanmean(mine - theirs)), "ci95": None}
    apart = paired_difference(mine, theirs, people, **resampling)
    return {"difference": apart.difference, "ci95": told(apart.interval)}


def told(interval: Interval) -> list[float]:
    """An interval, ready for JSON."""
    return [interval.low, interval.high]


def _by_direction(leaves: Mapping[tuple[Modality, str], Tree]) -> Tree:
    tree: Tree = {way: {} for way in DIRECTIONS.values()}
    for (probe, group), leaf in leaves.items():
        tree[DIRECTIONS[probe]][group] = leaf
    return tree
