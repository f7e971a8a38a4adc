"""A verification threshold fitted on validation people by cross-validation, and how it does on the test lists.

People are split into folds; the pairs of each fold are judged by the threshold fitted on the others, so that what is
said of a threshold is said by people it was not fitted on. Nobody of the test is looked at to choose it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.protocol_outcome import Outcome
from search.sample_vectors import SampleVectors
from search.trial_lists import Rows

FOLDS = 5
LEAST_PEOPLE = 2 * FOLDS
VOICES_PER_PERSON = 20
NO_VALIDATION = (
    "no threshold: it is fitted on at least {least} validation people, and a voice and a face of {people} were given; "
    "add theirs to the media or the embeddings"
)


def fit_threshold(
    vectors: SampleVectors, found: Outcome, seed: int, known: Collection[str] = ()
) -> tuple[dict[str, Any] | None, str | None]:
    """Fit a threshold on the vectors of validation people.

    Args:
        vectors: which also hold those of validation people, or not.
        found: what the same vectors got on the test lists, which the threshold is then applied to.
        seed: of the folds and of the pairs that are drawn.
        known: people whom the model was trained on, by either name: a threshold of theirs would be too high.

    Returns:
        The threshold and how it does, ready for JSON, or None and a note that says why not.
    """
    sides = vectors.validation
    nothing = np.zeros(0, dtype=np.int32)
    voices, faces = (sides.get(one, (nothing, nothing)) for one in (Modality.VOICE, Modality.FACE))
    given = np.intersect1d(voices[1], faces[1])
    number = found.lists.people.number
    people = np.setdiff1d(given, [number[name] for name in known if name in number])
    if len(people) < LEAST_PEOPLE:
        note = NO_VALIDATION.format(least=LEAST_PEOPLE, people=len(people))
        left = len(given) - len(people)
        return None, f"{note}; {left} more were left out, the model was trained on them" if left else note
    random = np.random.default_rng(seed)
    fold = random.permutation(len(people)) % FOLDS
    parts = [_pairs(vectors, voices, faces, people[fold == one], random) for one in range(FOLDS)]
    fitted = [fitted_threshold(*_joined(parts[:one] + parts[one + 1 :])) for one in range(FOLDS)]
    held_out = [_rates(*part, threshold) for part, threshold in zip(parts, fitted, strict=True)]
    threshold = fitted_threshold(*_joined(parts))
    return {
        "value": threshold, "similarity": str(vectors.similarity), "people": len(people),
        "pairs": int(sum(len(part[0]) for part in parts)), "folds": fitted,
        "held_out": {name: float(np.mean([one[name] for one in held_out])) for name in held_out[0]},
        "on_test": {
            split: {
                group: _rates(scores, found.lists.verification[split][group].genuine, threshold)
                for group, scores in groups.items()
            }
            for split, groups in found.scores.items()
        },
    }, None  # fmt: skip


def fitted_threshold(scores: NDArray[np.float64], genuine: NDArray[np.bool_]) -> float:
    """The threshold with the fewest errors when both kinds count alike; halfway between two scores.

    Args:
        scores: (pairs,) a score at or above the threshold is accepted.
        genuine: (pairs,) whether a pair is of one person; some are, some are not.
    """
    levels, place = np.unique(scores, return_inverse=True)
    right = np.bincount(place, genuine, minlength=len(levels))
    wrong = np.bincount(place, ~genuine, minlength=len(levels))
    rejected = np.append(0, np.cumsum(right))[:-1] / right.sum()
    accepted = 1.0 - np.append(0, np.cumsum(wrong))[:-1] / wrong.sum()
    best = int(np.argmin(rejected + accepted))
    return float(levels[best] if best == 0 else (levels[best - 1] + levels[best]) / 2)


def _pairs(
    vectors: SampleVectors,
    voices: tuple[Rows, Rows],
    faces: tuple[Rows, Rows],
    people: NDArray[np.integer],
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and labels: each of some voices of each person with a face of the person and one of another."""
    first, second = [], []
    shown = {person: faces[0][faces[1] == person] for person in people.tolist()}
    for place, person in enumerate(people.tolist()):
        own = random.permutation(voices[0][voices[1] == person])[:VOICES_PER_PERSON]
        for voice in own:
            other = int(people[(place + 1 + random.integers(len(people) - 1)) % len(people)])
            first += [voice, voice]
            second += [random.choice(shown[person]), random.choice(shown[other])]
    scores = vectors.compared(np.array(first, dtype=np.int32), np.array(second, dtype=np.int32))
    return scores, np.tile([True, False], len(first) // 2)


def _joined(
    parts: list[tuple[NDArray[np.float64], NDArray[np.bool_]]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _rates(scores: NDArray[np.float64], genuine: NDArray[np.bool_], threshold: float) -> dict[str, float | None]:
    accepted = scores >= threshold
    wrong = float(accepted[~genuine].mean()) if (~genuine).any() else None
    missed = float((~accepted[genuine]).mean()) if genuine.any() else None
    balanced = None if wrong is None or missed is None else 1.0 - (wrong + missed) / 2
    return {"false_accept": wrong, "false_reject": missed, "accuracy": balanced}
