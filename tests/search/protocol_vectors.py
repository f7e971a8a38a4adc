"""Vectors for the samples of a protocol, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.trial_lists import TrialLists


def all_names(lists: TrialLists) -> list[str]:
    """Canonical names of every sample, faces first."""
    return [path for modality in Modality for path in lists.catalogues[modality].paths]


def random_vectors(lists: TrialLists, dimension: int = 16, seed: int = 0) -> NDArray[np.float32]:
    """One for each name."""
    return np.random.default_rng(seed).normal(size=(len(all_names(lists)), dimension)).astype(np.float32)


def people_vectors(lists: TrialLists, noise: float = 1.0, seed: int = 0) -> NDArray[np.float32]:
    """Around a centre for each person."""
    random = np.random.default_rng(seed)
    person = np.concatenate([lists.catalogues[modality].person for modality in Modality])
    centres = random.normal(size=(len(lists.people.names), 16))
    return (centres[person] + noise * random.normal(size=(len(person), 16))).astype(np.float32)


def write_vectors(file: Path, lists: TrialLists, vectors: NDArray[Any], **more: Any) -> Path:
    """An npz file of them, and the file."""
    np.savez(file, **{"path": np.array(all_names(lists)), "vector": vectors} | more)
    return file
