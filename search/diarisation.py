"""How far an answer to "who spoke when" is from the truth: the diarisation error rate.

The rate of NIST's Rich Transcription evaluations (spring 2006 evaluation plan, "Who Spoke When"): time that is
spoken but not answered, answered but not spoken, or given to the wrong speaker, over the time that is spoken.
Where two speak at once, each of them counts; labels and people are matched one to one so that they share the most
scored time; a collar around every beginning and end of the reference is not scored.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Stretch = tuple[float, float, Hashable]
"""Start and end in seconds, and who."""


@dataclass(frozen=True)
class DiarisationError:
    """What is wrong in an answer, in seconds of speech: two who speak at once for a second are two seconds.

    Args:
        missed: spoken and not answered.
        false_alarm: answered and not spoken.
        confusion: answered, but as somebody else.
        total: spoken in all, outside the collars.
    """

    missed: float
    false_alarm: float
    confusion: float
    total: float

    @property
    def rate(self) -> float:
        """Everything wrong over everything spoken, may pass 1; without speech 0 if nothing is wrong, else infinite."""
        wrong = self.missed + self.false_alarm + self.confusion
        if self.total > 0:
            return wrong / self.total
        return math.inf if wrong > 0 else 0.0


def diarisation_error(
    reference: Sequence[Stretch], answer: Sequence[Stretch], collar: float = 0.25
) -> DiarisationError:
    """Compare who was answered to speak when with who did.

    Args:
        reference: the truth: start and end in seconds and who speaks; may overlap.
        answer: start and end in seconds and a label of any kind; may overlap.
        collar: seconds before and after every beginning and end in the reference that are not scored.

    Returns:
        The errors under the one-to-one matching of labels and people that shares the most scored time. Stretches
        of one speaker that overlap each other count once.

    Raises:
        ValueError: a stretch ends before it starts or is not finite, or the collar is negative.
    """
    if not (collar >= 0 and math.isfinite(collar)):
        raise ValueError(f"a collar must be 0 or more seconds, got {collar}")
    for start, end, who in (*reference, *answer):
        if not (math.isfinite(start) and math.isfinite(end) and start <= end):
            raise ValueError(f"a stretch needs start <= end, got [{start}, {end}) of {who}")
    moments, lengths = _slices(reference, answer, collar)
    truth = _active(reference, moments)
    told = _active(answer, moments)
    speaking, answered = truth.sum(axis=0), told.sum(axis=0)  # (slices,) how many at once
    right = _most_shared((truth * lengths) @ told.T)
    matched = float((np.minimum(speaking, answered) * lengths).sum())
    return DiarisationError(
        missed=float((np.maximum(speaking - answered, 0) * lengths).sum()),
        false_alarm=float((np.maximum(answered - speaking, 0) * lengths).sum()),
        confusion=max(0.0, matched - right),
        total=float((speaking * lengths).sum()),
    )


def _slices(
    reference: Sequence[Stretch], answer: Sequence[Stretch], collar: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Time cut wherever anything changes: (slices,) middles and scored seconds, without what lies in collars."""
    borders = np.array([moment for start, end, _ in reference for moment in (start, end)], dtype=np.float64)
    changes = [moment for start, end, _ in answer for moment in (start, end)]
    edges = np.unique(np.concatenate([borders - collar, borders, borders + collar, changes]))
    middles, lengths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    ordered = np.sort(borders)
    # How many borders lie within a collar of each middle.
    near = np.searchsorted(ordered, middles + collar, "left") - np.searchsorted(ordered, middles - collar, "right")
    scored = near == 0
    return middles[scored], lengths[scored]


def _active(stretches: Sequence[Stretch], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """(speakers, moments) 1 where a speaker speaks."""
    rows: dict[Hashable, int] = {}
    active = np.zeros((len({who for _, _, who in stretches}), len(moments)))
    for start, end, who in stretches:
        first, last = np.searchsorted(moments, [start, end])
        active[rows.setdefault(who, len(rows)), first:last] = 1.0
    return active


def _most_shared(shared: NDArray[np.float64]) -> float:
    """The most seconds that can be had by matching people and labels one to one, each at most once.

    Args:
        shared: (people, labels) seconds, not negative.
    """
    people, labels = linear_sum_assignment(shared, maximize=True)
    return float(shared[people, labels].sum())
