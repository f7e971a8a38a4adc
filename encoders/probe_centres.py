"""What is taken from a probe before it asks for the other modality, so that nobody comes up for whoever asks.

Some samples lie near the mean of all that ask, and so near everybody: *hubs*, which stand before the right answers.
A probe without the mean of its modality takes from every candidate's score how near that candidate lies to the mean
(Suzuki et al., "Centering Similarity Measures to Reduce Hubs", EMNLP 2013). Only the probe is moved: rows of an index
stay as they are, and so does how two samples are compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from encoders.space import Embedding, Modality

ProbeCentres = Mapping[Modality, NDArray[np.floating]]
"""By modality of the probe, (dimension,) what is taken from it."""
MOST_LENGTH = 0.9
"""A mean of unit vectors that is longer leaves next to nothing of a probe: they all point the same way."""
ARRAY = {modality: f"centre_{modality}" for modality in Modality}
"""What a modality's centre is called in a file of vectors."""


def asking(probe: Embedding, centres: ProbeCentres) -> Embedding:
    """A point as it asks for the other modality: without the centre of its own, where there is one."""
    if probe.modality not in centres:
        return probe
    (moved,) = without_centre(probe.vector[None], centres[probe.modality])
    return Embedding.of(probe.space, probe.modality, moved)


def check_centre(centre: NDArray[np.floating], dimension: int) -> None:
    """Raise ValueError unless a centre has so many real components and is shorter than ``MOST_LENGTH``."""
    if centre.dtype.kind not in "fiu":
        raise ValueError(f"a centre is of numbers, got {centre.dtype}")
    length = float(np.linalg.norm(centre))
    if centre.shape != (dimension,) or not length < MOST_LENGTH:
        raise ValueError(
            f"a centre has {dimension} components and is shorter than {MOST_LENGTH}, got {centre.shape}, {length:.3f}"
        )


def without_centre(probes: NDArray[np.floating], centre: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probes as they ask: less the centre, and of unit length again.

    Among one probe's candidates the order is that of their dot product with the probe less that with the centre.

    Args:
        probes: (n, dimension) of unit length.
        centre: (dimension,) shorter than 1.

    Returns:
        (n, dimension) float64.
    """
    moved = np.asarray(probes, np.float64) - np.asarray(centre, np.float64)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True))
