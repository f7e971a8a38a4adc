"""Trials that nobody published, drawn by a stated seed: 1:N for N up to ten, and N and GN verification.

1:N is drawn from the clips of the retrieval lists: every person asks equally often, with ten candidates of ten
people; the first N of them are the trial 1:N. Verification keeps the genuine pairs of the published U list and draws
for each a face of somebody else of the same nationality (N, which the D split has no list of), or of the same sex and
nationality (GN), as the published lists do for other groups. The same lists and seed give the same trials, and a
digest says so. Ages nobody can draw by: the D split does not tell them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.trial_lists import DIRECTIONS, UNSEEN, CandidateList, PairList, Rows, TrialLists

SEED = 20
CANDIDATES = 10
TRIALS_PER_PERSON = 20
GROUPS = ("U", "G", "N", "GN")
# The numbers that a draw begins with, so that adding a list changes no other.
_OF_MATCHING, _OF_PAIRS = 1, {"GN": 2, "N": 3}

Pairs = Mapping[tuple[str, str], PairList]
"""Drawn pairs by split and group."""


def with_drawn(lists: TrialLists, seed: int = SEED) -> TrialLists:
    """The same protocol with 1:N, N and GN verification where it has none of its own.

    A protocol without 1:2 lists gets those that the drawn ones begin with.

    Args:
        lists: as they were read.
        seed: of the draw.
    """
    matching = {} if lists.matching_1_to_n else dict(_drawn_matching(lists, seed))
    pairs = dict(_drawn_pairs(lists, seed)) if len(np.unique(lists.people.nationality)) > 1 else {}
    if not matching and not pairs:
        return lists
    digests = {name: _digest(lines) for name, lines in _written(lists, matching, pairs)}
    drawn: dict[str, Any] = {
        "seed": seed, "lists": digests, "candidates": CANDIDATES, "trials_per_person": TRIALS_PER_PERSON,
        "digest": _digest(f"{name} {digest}" for name, digest in sorted(digests.items())),
        "matching_1_to_2": bool(matching) and not lists.matching,
    }  # fmt: skip
    return replace(
        lists,
        matching=lists.matching
        or {key: CandidateList(one.probes, one.candidates[:, :2]) for key, one in matching.items()},
        matching_1_to_n=lists.matching_1_to_n or matching,
        verification={
            split: {**groups, **{group: one for (of, group), one in pairs.items() if of == split}}
            for split, groups in lists.verification.items()
        },
        drawn=drawn,
    )


def keep_drawn(lists: TrialLists, folder: Path) -> Path | None:
    """Write the drawn lists into ``folder/<digest>``, in the form of the published ones; None: nothing was drawn.

    What is there already is the same by its name, and stays.

    Raises:
        OSError: it cannot be written.
    """
    if not lists.drawn:
        return None
    place = folder / str(lists.drawn["digest"])[:16]
    if not place.is_dir():
        told: Any = lists.drawn["lists"]
        matching = {key: one for key, one in lists.matching_1_to_n.items() if _matching_name(*key) in told}
        pairs = {
            (split, group): one
            for split, groups in lists.verification.items()
            for group, one in groups.items()
            if _pairs_name(split, group) in told
        }
        unfinished = place.with_name(f"{place.name}.{os.getpid()}")
        for name, lines in _written(lists, matching, pairs):
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            unfinished.replace(place)
        except OSError:
            if not place.is_dir():  # or another process was quicker
                raise
    return place


def _drawn_matching(lists: TrialLists, seed: int) -> Iterator[tuple[tuple[Modality, str], CandidateList]]:
    for way, probe in enumerate(DIRECTIONS):
        asking, offered = (_Clips(lists, modality) for modality in (probe, probe.other))
        for number, criterion in enumerate(GROUPS):
            random = np.random.default_rng([seed, _OF_MATCHING, way, number])
            trials = list(_trials(lists.people.group(criterion), asking, offered, random))
            if trials:
                probes, candidates = (np.concatenate(parts) for parts in zip(*trials, strict=True))
                yield (probe, criterion), CandidateList(probes, candidates)


def _trials(
    group: NDArray[np.intp], asking: _Clips, offered: _Clips, random: np.random.Generator
) -> Iterator[tuple[Rows, Rows]]:
    """Probes and candidates of one person after the other, of those who have nine others of their group."""
    for person in np.intersect1d(asking.people, offered.people):
        others = offered.people[(group[offered.people] == group[person]) & (offered.people != person)]
        if len(others) < CANDIDATES - 1:
            continue
        shuffled = random.random((TRIALS_PER_PERSON, len(others))).argsort(axis=1, kind="stable")
        wrong = others[shuffled[:, : CANDIDATES - 1]]
        shown = np.concatenate([np.full((TRIALS_PER_PERSON, 1), person), wrong], axis=1)
        yield asking.draw(np.full(TRIALS_PER_PERSON, person), random), offered.draw(shown, random)


class _Clips:
    """The clips of a modality's retrieval list, by person."""

    def __init__(self, lists: TrialLists, modality: Modality, rows: Rows | None = None) -> None:
        rows = lists.retrieval[modality] if rows is None else rows
        shown = lists.catalogues[modality].person[rows]
        self._rows = rows[np.argsort(shown, kind="stable")]
        self._count = np.bincount(shown, minlength=len(lists.people.names))
        self._start = np.cumsum(self._count) - self._count
        self.people = np.flatnonzero(self._count)

    def draw(self, people: NDArray[np.integer], random: np.random.Generator) -> Rows:
        """A clip of each of some people, all of whom have one."""
        places = np.floor(random.random(people.shape) * self._count[people]).astype(np.intp)
        drawn: Rows = self._rows[self._start[people] + places]
        return drawn


def _drawn_pairs(lists: TrialLists, seed: int) -> Iterator[tuple[tuple[str, str], PairList]]:
    for name, first in _OF_PAIRS.items():
        for number, (split, groups) in enumerate(sorted(lists.verification.items())):
            if name not in groups and "U" in groups:
                random = np.random.default_rng([seed, first, number])
                drawn = _pairs_within(lists, lists.people.group(name), groups["U"], random)
                if len(drawn.genuine):
                    yield (split, name), drawn


def _pairs_within(
    lists: TrialLists, group: NDArray[np.intp], listed: PairList, random: np.random.Generator
) -> PairList:
    """The genuine pairs of a list, each followed by its voice with a face of somebody else of the group."""
    genuine = listed.kept(listed.genuine)
    faces = _Clips(lists, Modality.FACE, np.unique(listed.faces))
    shown = lists.catalogues[Modality.VOICE].person[genuine.voices]
    alone = np.bincount(group[faces.people], minlength=group.max() + 1) < 2
    genuine, shown = genuine.kept(~alone[group[shown]]), shown[~alone[group[shown]]]
    others = np.zeros(len(shown), dtype=np.intp)
    for person in np.unique(shown):
        mine = shown == person
        fitting = faces.people[(group[faces.people] == group[person]) & (faces.people != person)]
        others[mine] = fitting[np.floor(random.random(int(mine.sum())) * len(fitting)).astype(np.intp)]
    wrong = faces.draw(others, random)
    # genuine and wrong by turns, as the U list has them
    asked = None if genuine.asked_by is None else np.repeat(genuine.asked_by, 2)
    both = np.stack([genuine.faces, wrong], axis=1).reshape(-1)
    return PairList(np.repeat(genuine.voices, 2), both, np.tile([True, False], len(shown)), asked)


def _written(
    lists: TrialLists, matching: Mapping[tuple[Modality, str], CandidateList], pairs: Pairs
) -> Iterator[tuple[str, Iterator[str]]]:
    """Name and lines of each drawn list, as it is kept."""
    paths = {modality: lists.catalogues[modality].paths for modality in Modality}
    for (probe, criterion), one in matching.items():
        own, other = paths[probe], paths[probe.other]
        yield (
            _matching_name(probe, criterion),
            (
                " ".join([own[asked], *map(other.__getitem__, line)])
                for asked, line in zip(one.probes.tolist(), one.candidates.tolist(), strict=True)
            ),
        )
    for (split, group), some in pairs.items():
        columns = zip(some.voices.tolist(), some.faces.tolist(), some.genuine.tolist(), strict=True)
        yield (
            _pairs_name(split, group),
            (
                f"{paths[Modality.VOICE][voice]},{paths[Modality.FACE][face]},{int(same)}"
                for voice, face, same in columns
            ),
        )


def _matching_name(probe: Modality, criterion: str) -> str:
    return f"matching/matching_{DIRECTIONS[probe]}_{criterion}.csv"


def _pairs_name(split: str, group: str) -> str:
    return f"veriflist/veriflist_test_{group}_{'unseenunheard' if split == UNSEEN else 'seenheard'}.txt"


def _digest(lines: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
