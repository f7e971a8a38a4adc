"""Where faces and voices of the same people agree, in closed form: canonical correlation with shrinkage.

Hotelling, "Relations Between Two Sets of Variates" (1936); the covariances are drawn towards spheres as in Vinod,
"Canonical Ridge and Econometrics of Joint Production" (1976). Few people are enough for it, where a head that begins
with random numbers has more of those than there are people to correct them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from training.vectors import Vectors

SPREAD_FLOOR = 1e-5
"""Added to a component's variance, as batch normalisation does: some components of some networks never vary."""

BLOCK = 65_536  # samples that are looked at at once: a corpus of millions is larger in float64 than memory


@dataclass(frozen=True, eq=False)
class Projection:
    """How the vectors of a modality come to where both agree.

    Args:
        mean: (d,) float64 of its components.
        variance: (d,) float64 of them.
        rows: (k, d) float64, for components of mean 0 and variance 1.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    rows: NDArray[np.float64]

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, d) -> (n, k)."""
        return ((vectors - self.mean) / np.sqrt(self.variance + SPREAD_FLOOR)) @ self.rows.T


def correlate(vectors: Vectors, shrinkage: float, most: int) -> Mapping[Modality, Projection]:
    """The directions in which people's faces and their voices vary together, each as long as that is strong.

    A person counts once, by the weighted means of their samples, and as much as these are sure. Covariances are those
    of all samples, whatever they weigh.

    Args:
        vectors: of at least 2 people.
        shrinkage: in (0, 1], how far each covariance is drawn towards a sphere; 1 leaves partial least squares.
        most: directions, at least 1; there are no more than components, and fewer than people.

    Returns:
        A projection for each modality; what it makes of the samples has a mean square length of 1. The cosine of a
        face's and a voice's says how well they go together.

    Raises:
        ValueError: a number is out of range or not finite, or nothing varies together.
    """
    people = len(vectors.identities)
    if not 0 < shrinkage <= 1 or most < 1 or people < 2:
        raise ValueError(
            f"shrinkage is in (0, 1], directions and people at least 1 and 2, got {shrinkage}, {most} and {people}"
        )
    seen = {
        Modality.FACE: _look(Modality.FACE, vectors.faces, vectors.face_people, vectors.face_weights),
        Modality.VOICE: _look(Modality.VOICE, vectors.voices, vectors.voice_people, vectors.voice_weights),
    }
    certainty = seen[Modality.FACE].certainty * seen[Modality.VOICE].certainty
    if not certainty.any():
        raise ValueError(
            "none of these people has both a face and a voice that anything is sure of: learn from more people"
        )
    share = certainty / certainty.sum()
    faces, voices = (seen[one].people - share @ seen[one].people for one in (Modality.FACE, Modality.VOICE))
    whitening = {one: _whitening(seen[one].covariance, shrinkage) for one in Modality}
    together = whitening[Modality.FACE] @ (faces.T * share) @ voices @ whitening[Modality.VOICE]
    left, strength, right = np.linalg.svd(together, full_matrices=False)
    if not strength[0] > 0:
        raise ValueError(
            "faces and voices of these people do not vary together: look whether they were rightly extracted"
        )
    count = min(most, people - 1, len(strength))
    gains = (strength[:count] / strength[0])[:, None]
    found = {}
    for modality, axes in ((Modality.FACE, left.T), (Modality.VOICE, right)):
        rows = gains * (axes[:count] @ whitening[modality])
        length = np.sqrt(np.einsum("kd,de,ke->", rows, seen[modality].covariance, rows, optimize=True))
        found[modality] = Projection(seen[modality].mean, seen[modality].variance, rows / length)
    return found


@dataclass(frozen=True, eq=False)
class _Seen:
    """Samples of a modality in numbers; all but the first two are of components of mean 0 and variance 1.

    Args:
        mean: (d,).
        variance: (d,).
        covariance: (d, d).
        people: (people, d) weighted means.
        certainty: (people,) in [0, 1], how sure these are.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    covariance: NDArray[np.float64]
    people: NDArray[np.float64]
    certainty: NDArray[np.float64]


def _look(
    modality: Modality,
    vectors: NDArray[np.float32],
    owners: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
) -> _Seen:
    """Look at all samples of a modality, twice. Raises ValueError: values that are not finite."""
    count, width = vectors.shape
    people = int(owners.max()) + 1
    mean = vectors.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError(f"vectors of {modality}s hold values that are not finite: extract them again")
    weight = np.ones(count) if weights is None else weights.astype(np.float64)
    products, sums = np.zeros((width, width)), np.zeros((people, width))
    for first in range(0, count, BLOCK):
        block = slice(first, first + BLOCK)
        centred = vectors[block] - mean
        products += centred.T @ centred
        np.add.at(sums, owners[block], centred * weight[block, None])
    variance = np.diag(products) / count
    scale = np.sqrt(variance + SPREAD_FLOOR)
    total, squares = (np.bincount(owners, one, people) for one in (weight, weight * weight))
    known = np.where(total > 0, total, 1)
    covariance = products / count / scale[:, None] / scale
    # a further sample that nobody is sure of takes nothing from a person who has a sure one
    return _Seen(mean, variance, covariance, sums / known[:, None] / scale, squares / known)


def _whitening(covariance: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """(d, d): the inverse root of a covariance, drawn towards a sphere of the same size."""
    size = len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / size * np.eye(size)
    lengths, axes = np.linalg.eigh(covariance)
    whitening: NDArray[np.float64] = (axes / np.sqrt(np.maximum(lengths, np.finfo(float).tiny))) @ axes.T
    return whitening
