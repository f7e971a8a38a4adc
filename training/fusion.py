"""Gated fusion and orthogonal projection: one vector of a face and a voice, and what trains it.

The gate is S1's (its equations 5 to 8), after the gated multimodal units of Arevalo et al. (2017); the loss is the
orthogonality of Saeed et al., "Fusion and Orthogonal Projection for Improved Face-Voice Association" (2022), as S1
prints it (equation 10).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

Orthogonality = Literal["sum", "sum_without_diagonal", "mean"]
"""What :func:`orthogonal_loss` adds up."""


class GatedFusion(torch.nn.Module):
    """I = k ⊙ u + (1 − k) ⊙ v, where k says how much of the face there is in it.

    Both gates see the two vectors one behind the other, as they were before their projection:
    α_j = sigmoid(W_jᵀ[voice, face] + B_j), and k is the face's share of their softmax, so within (0.26, 0.74).

    Args:
        vectors: components of the face's and of the voice's vector together.
        dimension: components of u and v.
        scalar: one k for all components; else each has its own, as ⊙ suggests.
    """

    def __init__(self, vectors: int, dimension: int, *, scalar: bool = False) -> None:
        super().__init__()
        width = 1 if scalar else dimension
        self.face_gate = torch.nn.Linear(vectors, width)
        self.voice_gate = torch.nn.Linear(vectors, width)

    def share(self, face: Tensor, voice: Tensor) -> Tensor:
        """(n, …) vectors of the face and of the voice of n pairs -> (n, dimension or 1): k."""
        both = torch.cat([voice, face], dim=1)
        alphas = torch.stack([torch.sigmoid(self.face_gate(both)), torch.sigmoid(self.voice_gate(both))])
        return torch.softmax(alphas, dim=0)[0]

    def forward(self, projected: tuple[Tensor, Tensor], share: Tensor) -> Tensor:
        """Fuse pairs.

        Args:
            projected: u and v, (n, dimension) each.
            share: k, as :meth:`share` says it of their vectors before projection.

        Returns:
            (n, dimension), not of unit length.
        """
        return share * projected[0] + (1.0 - share) * projected[1]


def orthogonal_loss(vectors: Tensor, people: Tensor, form: Orthogonality = "sum") -> dict[str, Tensor]:
    """1 − Σ of cosines within people + |Σ of cosines between people|: one direction each, at right angles.

    Args:
        vectors: (n, d) float of any length but 0; normalised here.
        people: (n,) int64.
        form: ``sum``, as printed: both sums run over ordered pairs, and the first holds every vector with itself;
            ``sum_without_diagonal``; ``mean``: both are means over pairs of two vectors, and 0 without any.

    Returns:
        Scalars: ``orthogonal`` (the loss), ``within`` and ``between``, its two sums or means.

    Raises:
        ValueError: there is no such form.
    """
    if form not in get_args(Orthogonality):
        raise ValueError(f"there is no form {form!r}; choose one of: {', '.join(get_args(Orthogonality))}")
    directions = normalize(vectors, dim=1)
    cosines = directions @ directions.T
    same = people[:, None] == people[None, :]
    counted = same if form == "sum" else same & ~torch.eye(len(people), dtype=torch.bool, device=same.device)
    within, between = (cosines * counted).sum(), (cosines * ~same).sum()
    if form == "mean":
        within, between = within / counted.sum().clamp(min=1), between / (~same).sum().clamp(min=1)
    return {"orthogonal": 1.0 - within + between.abs(), "within": within.detach(), "between": between.detach()}
