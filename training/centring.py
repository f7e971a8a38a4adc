"""The mean that probes do without when they ask for the other modality: of training people, kept by validation people.

Why it helps is told in :mod:`encoders.probe_centres`. Whether it does is seen on validation people: a modality whose
probes find no more without it has no centre. A centre is a mean of many people, so that it shows nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.probe_centres import MOST_LENGTH, without_centre
from encoders.space import Modality
from search.ranking import retrieval
from training.calibration import People, unit_length
from training.recipe import Task
from training.runs import TrainingData
from training.validation import embed_prepared

LEAST_PEOPLE = 20
"""Of fewer, a mean would show them."""
MOST_PEOPLE = 2500
"""Of more, it would be no other mean."""
_DECIMALS = 6


@dataclass(frozen=True, eq=False)
class Centre:
    """What is taken from probes of a modality, and what validation people find with and without it.

    Args:
        vector: (dimension,) float64.
        people: whom it is the mean of, how many; one sample of each.
        map_before: mean average precision of probes as they are, in [0, 1].
        map_without: of probes without it.
    """

    vector: NDArray[np.float64]
    people: int
    map_before: float
    map_without: float

    def to_json(self) -> dict[str, Any]:
        """As ``probes.json`` keeps it."""
        return {
            "centre": self.vector.tolist(),
            "people": self.people,
            "validation": {"map_before": self.map_before, "map": self.map_without},
        }


def find_centres(
    task: Task, data: TrainingData, wanted: Collection[Modality], held_out: People
) -> dict[Modality, Centre]:
    """The centres of those modalities whose probes find more without them.

    Args:
        task: a finished one.
        data: whose training people the means are of.
        wanted: modalities that are tried.
        held_out: validation people in the task's space.
    """
    found = {modality: _try(task, data, modality, held_out) for modality in sorted(wanted)}
    return {modality: centre for modality, centre in found.items() if centre is not None}


def _try(task: Task, data: TrainingData, probe: Modality, held_out: People) -> Centre | None:
    training = data.training
    people, first = np.unique(
        training.face_people if probe is Modality.FACE else training.voice_people, return_index=True
    )
    if len(people) < LEAST_PEOPLE:
        return None
    rows = first[np.linspace(0, len(first) - 1, min(len(first), MOST_PEOPLE)).round().astype(int)]
    samples = embed_prepared(task, training, only={probe: rows})
    vector = np.round(unit_length(samples[probe]).mean(axis=0), _DECIMALS)
    if not np.linalg.norm(vector) < MOST_LENGTH:
        return None
    unit = {modality: unit_length(vectors) for modality, vectors in held_out.vectors.items()}
    before = _precision(unit, held_out.people, probe)
    after = _precision(unit | {probe: without_centre(unit[probe], vector)}, held_out.people, probe)
    return Centre(vector, len(rows), before, after) if after > before else None


def _precision(
    vectors: Mapping[Modality, NDArray[np.float64]], people: Mapping[Modality, NDArray[np.int64]], probe: Modality
) -> float:
    other = probe.other
    return retrieval(vectors[probe], people[probe], vectors[other], people[other]).map
