"""Single stream, gated fusion and orthogonal projection (S1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Reduction = Literal["sum", "mean"]


def joint_centre_distances(vectors: Tensor, people: Tensor) -> Tensor:
    """Σ over the people of a batch of d(f_c), each sample's squared distance to its person's centre (equation 1).

    Args:
        vectors: (n, d) float of faces and spectrograms alike.
        people: (n,) int64.

    Returns:
        A scalar; 0 where nobody has two samples.
    """
    names, owners = torch.unique(people, return_inverse=True)
    sums = vectors.new_zeros(len(names), vectors.shape[1]).index_add(0, owners, vectors)
    centres = sums / torch.bincount(owners)[:, None].to(vectors.dtype)
    return (vectors - centres[owners]).square().sum()


def stream_loss(
    scores: Tensor, vectors: Tensor, people: Tensor, centre_weight: float, reduction: Reduction = "sum"
) -> dict[str, Tensor]:
    """The loss of the single stream (equation 2), over faces and spectrograms together.

    Args:
        scores: (n, training people) float, what the classifier says of each sample.
        vectors: (n, d) float, what the network gave.
        people: (n,) int64 in [0, training people).
        centre_weight: λ.
        reduction: ``sum`` as printed; ``mean`` divides both terms by n.

    Returns:
        Scalars: ``total``, ``identity`` and ``centre`` (its terms, the latter with λ/2), ``accuracy``.
    """
    samples = 1 if reduction == "sum" else len(people)
    identity = cross_entropy(scores, people, reduction="sum") / samples
    centre = centre_weight / 2 * joint_centre_distances(vectors, people) / samples
    return {
        "total": identity + centre,
        "identity": identity.detach(),
        "centre": centre.detach(),
        "accuracy": (scores.detach().argmax(dim=1) == people).float().mean(),
    }
