"""Oracles: scorers that know something about people and nothing else, on the same trials as a model.

An oracle scores 1 where two people share what it knows, else 0. Its retrieval is counted, not searched: a probe's
right answers all stand in the one group of items that score 1, so what it gets follows from the sizes of groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.trial_lists import Rows, TrialLists
from search.two_way import Ranked

ORACLES = {"gender": "G", "gender_nationality": "GN"}
"""What each oracle knows."""


@dataclass(frozen=True, eq=False)
class Oracle:
    """A scorer that knows which group each person is in.

    Args:
        lists: whose trials it scores.
        group: (people,) whole numbers.
    """

    lists: TrialLists
    group: NDArray[np.integer]

    def pairs(self, voices: Rows, faces: Rows) -> NDArray[np.float64]:
        """(n,) 1 where both people are of one group, else 0."""
        catalogues = self.lists.catalogues
        shown = catalogues[Modality.VOICE].person[voices], catalogues[Modality.FACE].person[faces]
        return np.asarray(self.group[shown[0]] == self.group[shown[1]], dtype=np.float64)

    def both_ways(self, lists: TrialLists) -> Mapping[Modality, Ranked]:
        """What each probe gets in retrieval, by its modality."""
        return {probe: self._ranked(lists, probe) for probe in Modality}

    def _ranked(self, lists: TrialLists, probe: Modality) -> Ranked:
        asking, held = lists.retrieval[probe], lists.retrieval[probe.other]
        own, other = lists.catalogues[probe], lists.catalogues[probe.other]
        people, recordings = len(lists.people.names), own.recording[asking]
        relevant = np.bincount(other.person[held], minlength=people)[own.person[asking]]
        alike = np.bincount(self.group[other.person[held]], minlength=int(self.group.max()) + 1)
        tied = np.where(relevant > 0, alike[self.group[own.person[asking]]], 0)
        most = max(int(own.recording.max()), int(other.recording.max())) + 2
        together = np.bincount(other.recording[held] + 1, minlength=most)[recordings + 1] * (recordings >= 0)
        average = np.where(relevant > 0, relevant / np.maximum(tied, 1), np.nan)
        left = relevant - together
        elsewhere = np.where(left > 0, left / np.maximum(tied - together, 1), np.nan)
        nothing = np.zeros(len(asking), dtype=np.int64)
        return Ranked(average, elsewhere, nothing, tied, relevant, relevant, len(held))


def oracle(lists: TrialLists, name: str) -> Oracle:
    """One of :data:`ORACLES`. Raises KeyError for another."""
    return Oracle(lists, lists.people.group(ORACLES[name]))
