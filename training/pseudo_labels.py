"""Pseudo-labels: what the samples of a batch are called by the clusters that they lie in (S2, section 2.3).

For each modality of a batch: its features are scaled by column (:func:`scale_columns`, equation 3); the point with
the least sum of distances to them becomes the batch's prototype (:func:`geometric_median`, equation 4), steadied by
the prototypes of earlier batches (:class:`PrototypeMemory`, equation 7); K-means divides them into q clusters
(:func:`k_means`); and the clusters are numbered by the distance of their centre to the prototype
(:func:`rank_clusters`), the nearest first. A label is the number of a sample's cluster: class 1 of the paper is 0 here.

Labels carry no gradient. They are found on the CPU in float64, so that every device finds the same ones, and of
random numbers only those of torch's own generator for the CPU are used, which the training loop seeds for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

KEPT = 0.9
"""λ of equation 7: the share of a batch's own prototype; the rest is the mean of the earlier ones."""
_MOST_STEPS = 1000  # of both iterations, against rounding that goes round in a circle; some ten are usual


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """What the samples of one modality of a batch are called.

    Args:
        labels: (n,) int64 from 0 (the cluster nearest to the prototype) to q − 1 (the farthest).
        centres: (q, d) float64, the centre of the cluster of each label, in the space of scaled columns.
    """

    labels: Tensor
    centres: Tensor


def scale_columns(vectors: Tensor) -> Tensor:
    """Bring every column to [−1, 1] by its least and greatest value (equation 3).

    The least and the greatest count as constants: of the gradient, only the factor passes.

    Args:
        vectors: (n, d) float, n at least 1.

    Returns:
        (n, d): a column of one value only, for which the formula divides by zero, becomes 0.
    """
    least, most = vectors.detach().amin(dim=0), vectors.detach().amax(dim=0)
    width = most - least
    constant = width == 0
    scaled = 2 * (vectors - least) / torch.where(constant, torch.ones_like(width), width) - 1
    return torch.where(constant, torch.zeros_like(scaled), scaled)


def medoid(points: Tensor) -> Tensor:
    """The point of the given ones with the least sum of Euclidean distances to them; of several the first.

    Args:
        points: (n, d) float, n at least 1.

    Returns:
        (d,) float.
    """
    return points[int(_distances(points, points).sum(dim=1).argmin())]


def geometric_median(points: Tensor, precision: float = 1e-10) -> Tensor:
    """The point anywhere with the least sum of Euclidean distances to the given ones (equation 4).

    Weiszfeld's iteration. Where the answer is one of the points, which the iteration would near but slowly, it is
    their medoid, and known by its pulls: those of the others do not outweigh it (Vardi and Zhang, 2000, whose step
    also leaves a point that is not the answer).

    Args:
        points: (n, d) float64, n at least 1.
        precision: how far a step may still go, as a share of the mean distance to the points.

    Returns:
        (d,) float64.
    """
    middle: Tensor = medoid(points)
    for _ in range(_MOST_STEPS):
        away = points - middle
        distances = away.norm(dim=1)
        here = distances == 0
        weights = torch.where(here, torch.zeros_like(distances), 1 / distances.where(~here, torch.ones_like(distances)))
        pull, same = (away * weights[:, None]).sum(dim=0), here.sum()
        strength = pull.norm()
        if strength <= same:  # the answer is this point: also where all are one
            return middle
        step: Tensor = (1 - same / strength) * pull / weights.sum()
        middle = middle + step
        if step.norm() <= precision * distances.mean():
            return middle
    return middle


PROTOTYPES: Mapping[str, Callable[[Tensor], Tensor]] = {"geometric_median": geometric_median, "medoid": medoid}
"""The ways to read equation 4: the best point anywhere, or the best of the batch's own."""


class PrototypeMemory(torch.nn.Module):
    """Steadies the prototype of one modality by those of earlier batches (equation 7).

    ``mean`` and ``count`` are buffers: a checkpoint holds them, and a resumed run goes on with the same ones. The
    paper's arrow overwrites the prototype, so the earlier ones of which the mean is taken are steadied ones.

    Args:
        dimension: components of a prototype.
    """

    mean: Tensor  # (d,) float32: not every device has more
    count: Tensor  # () int64

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, prototype: Tensor) -> Tensor:
        """The steadied prototype of a batch, (d,) float64 on the CPU; in training it is remembered.

        The first batch's stays as it is: there are none before it.

        Args:
            prototype: (d,) float64 on the CPU, of the batch alone.
        """
        mean, count = self.mean.double().cpu(), int(self.count)
        steadied = prototype if count == 0 else KEPT * prototype + (1 - KEPT) * mean
        if self.training:
            self.mean.copy_(mean + (steadied - mean) / (count + 1))
            self.count += 1
        return steadied


def k_means_starts(points: Tensor, clusters: int) -> Tensor:
    """Choose samples for K-means to start from: k-means++ (Arthur and Vassilvitskii, 2007).

    The first is any, each further one is drawn by its squared distance to the nearest one chosen before it.

    Args:
        points: (n, d) float64 on the CPU.
        clusters: 1 to n.

    Returns:
        (clusters,) int64, numbers of points. None twice, unless there are fewer different points than clusters.
    """
    chosen = [int(torch.randint(len(points), ()))]
    nearest = _distances(points, points[chosen]).square()[:, 0]
    for _ in range(clusters - 1):
        weights = nearest if bool(nearest.any()) else torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(weights, 1)))
        nearest = torch.minimum(nearest, _distances(points, points[chosen[-1:]]).square()[:, 0])
    return torch.tensor(chosen)


def k_means(points: Tensor, starts: Tensor) -> PseudoLabels:
    """Divide points into clusters until nothing changes any more (Lloyd's iteration).

    A cluster that loses all its points begins again with the point that lies farthest from the centre of its own
    cluster. Only where all points lie on centres, because there are fewer different ones than clusters, it stays
    empty, its centre where it was.

    Args:
        points: (n, d) float64.
        starts: (q, d) float64, the centres to begin with, q from 1 to n.

    Returns:
        Labels by the order of the starts.

    Raises:
        ValueError: more clusters than points.
    """
    if not 1 <= len(starts) <= len(points):
        raise ValueError(
            f"{len(points)} samples cannot make {len(starts)} clusters: enlarge the batch, or ask for fewer"
        )
    centres, before = starts, None
    for _ in range(_MOST_STEPS):
        distances, labels = _distances(points, centres).min(dim=1)
        if before is not None and torch.equal(labels, before):
            break
        owners = _refilled(labels, distances, len(starts))
        counts = torch.bincount(owners, minlength=len(starts))
        sums = torch.zeros_like(centres).index_add_(0, owners, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        before = labels
    return PseudoLabels(labels, centres)


def rank_clusters(clusters: PseudoLabels, prototype: Tensor) -> PseudoLabels:
    """Number the clusters anew, by the Euclidean distance of their centre to the prototype, the nearest first.

    Args:
        clusters: in any order.
        prototype: (d,) float64.
    """
    order = _distances(clusters.centres, prototype[None])[:, 0].argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return PseudoLabels(rank[clusters.labels], clusters.centres[order])


def pair_labels(
    faces: Tensor, voices: Tensor, prototypes: tuple[Tensor, Tensor], clusters: int, paired: bool
) -> tuple[PseudoLabels, PseudoLabels]:
    """Pseudo-labels of faces and of voices, row i of both being of one person.

    The paper does not say where K-means starts. From starts of their own both modalities end in divisions that have
    little to do with each other even where the features correspond; ``paired`` starts both with the same people, drawn
    by k-means++ from faces and voices side by side.

    Args:
        faces: (n, d) float64 on the CPU, scaled by column.
        voices: (n, d) likewise.
        prototypes: (d,) float64 of the faces and of the voices.
        clusters: from 1 to n.
        paired: whether both modalities start with the same people.
    """
    if paired:
        starts = k_means_starts(torch.cat([faces, voices], dim=1), clusters)
        chosen = starts, starts
    else:
        chosen = k_means_starts(faces, clusters), k_means_starts(voices, clusters)
    found = (
        rank_clusters(k_means(points, points[start]), prototype)
        for points, start, prototype in zip((faces, voices), chosen, prototypes, strict=True)
    )
    return next(found), next(found)


def label_agreement(faces: Tensor, voices: Tensor) -> Tensor:
    """The share of pairs whose face and voice have one label (equation 5, mean of S; the paper's figure 7).

    Args:
        faces: (n,) int64 labels.
        voices: (n,) int64 labels of the same people.

    Returns:
        () float32 in [0, 1].
    """
    return (faces == voices).float().mean()


def _refilled(labels: Tensor, distances: Tensor, clusters: int) -> Tensor:
    """The labels, but for one point that goes to each empty cluster: the farthest from their centres, in turn."""
    empty = (torch.bincount(labels, minlength=clusters) == 0).nonzero()[:, 0]
    if not len(empty):
        return labels
    farthest = distances.argsort(descending=True, stable=True)[: len(empty)]
    farthest = farthest[distances[farthest] > 0]
    owners = labels.clone()
    owners[farthest] = empty[: len(farthest)]
    return owners


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """(n, d) and (m, d) to (n, m) Euclidean distances, from differences: equal points are at 0 exactly."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
