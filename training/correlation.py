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


@dataclass(frozen=True, eq=False)
class Projection:
    """How the vectors of a modality come to where both agree.

    Args:
        mean: (d,) float64 of its components.
        variance: (d,) float64 of them.
        rows: (k, d) float64, to be applied to components less their mean, by the root of their variance.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    rows: NDArray[np.float64]

    def standardised(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, d) -> (n, d): every component with mean 0 and variance 1."""
        return (vectors - self.mean) / np.sqrt(self.variance + SPREAD_FLOOR)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, d) -> (n, k)."""
        return self.standardised(vectors) @ self.rows.T


def correlate(vectors: Vectors, shrinkage: float, most: int) -> Mapping[Modality, Projection]:
    """The directions in which people's faces and their voices vary together, each as long as that is strong.

    A person counts once, by the weighted means of their samples, and as much as these are sure. Covariances are those
    of all samples.

    Args:
        vectors: of at least 2 people.
        shrinkage: in (0, 1], how far each covariance is drawn towards a sphere; 1 leaves partial least squares.
        most: directions, at least 1; there are no more than components, and fewer than people.

    Returns:
        A projection for each modality; what it makes of the samples has a mean length of 1. The cosine of a face's and
        a voice's says how well they go together.

    Raises:
        ValueError: a number is out of range, or nothing varies together.
    """
    people = len(vectors.identities)
    if not 0 < shrinkage <= 1 or most < 1 or people < 2:
        raise ValueError(
            f"shrinkage is in (0, 1], directions and people at least 1 and 2, got {shrinkage}, {most} and {people}"
        )
    plain = {one: _standardising(vectors.of(one)) for one in Modality}
    samples = {one: plain[one].standardised(vectors.of(one)) for one in Modality}
    means, sure = {}, np.ones(people)
    for modality, owners, weights in (
        (Modality.FACE, vectors.face_people, vectors.face_weights),
        (Modality.VOICE, vectors.voice_people, vectors.voice_weights),
    ):
        means[modality], certain = _by_person(samples[modality], owners, weights, people)
        sure *= certain
    if not sure.any():
        raise ValueError("none of these people has both a face and a voice that anything is sure of")
    share = sure / sure.sum()
    faces, voices = (means[one] - share @ means[one] for one in (Modality.FACE, Modality.VOICE))
    whitening = {one: _whitening(samples[one], shrinkage) for one in Modality}
    together = whitening[Modality.FACE] @ (faces.T * share) @ voices @ whitening[Modality.VOICE]
    left, strength, right = np.linalg.svd(together, full_matrices=False)
    if not strength[0] > 0:
        raise ValueError("faces and voices of these people do not vary together at all")
    count = min(most, people - 1, len(strength))
    gains = (strength[:count] / strength[0])[:, None]
    found = {}
    for modality, axes in ((Modality.FACE, left.T), (Modality.VOICE, right)):
        rows = gains * (axes[:count] @ whitening[modality])
        length = np.linalg.norm(samples[modality] @ rows.T, axis=1).mean()
        found[modality] = Projection(plain[modality].mean, plain[modality].variance, rows / length)
    return found


def _standardising(vectors: NDArray[np.float32]) -> Projection:
    mean, variance = (getattr(vectors, name)(axis=0, dtype=np.float64) for name in ("mean", "var"))
    return Projection(mean, variance, np.empty((0, len(mean))))


def _by_person(
    samples: NDArray[np.float64], owners: NDArray[np.int64], weights: NDArray[np.float32] | None, people: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(people, d) weighted means, and (people,) the mean weight of each one's samples."""
    weight = np.ones(len(owners)) if weights is None else weights.astype(np.float64)
    total = np.bincount(owners, weight, people)
    means = np.zeros((people, samples.shape[1]))
    np.add.at(means, owners, samples * weight[:, None])
    return means / np.where(total > 0, total, 1)[:, None], total / np.bincount(owners, minlength=people)


def _whitening(samples: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """(d, d): the inverse root of the covariance, drawn towards a sphere of the same size."""
    covariance = samples.T @ samples / len(samples)
    size = len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / size * np.eye(size)
    lengths, axes = np.linalg.eigh(covariance)
    whitening: NDArray[np.float64] = (axes / np.sqrt(np.maximum(lengths, np.finfo(float).tiny))) @ axes.T
    return whitening
