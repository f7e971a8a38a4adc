"""Optimal transport between the faces and the voices of a batch (S3, equations 5 to 7).

A plan says how much of each face's mass goes to each voice; the optimal one is cheapest. It is solved for first, by
POT (Flamary et al., "POT: Python Optimal Transport", 2021), and is then a constant: what is minimised pulls each face
and voice together by the mass that goes between them, and no gradient leads through the choice of the plan.

Mass that goes astray would pull people together who are not the same. So only those samples take part whose own pair
beats every other in its row and its column (:func:`mutual_best`).

The paper is silent on the masses and the solver. Here all samples weigh alike, and the solver is POT's network simplex,
which is exact; Sinkhorn's iterations are an option.

Where every vector is of unit length, what is left after the choice is its own optimal plan: the cost then falls
as the cosine rises, each row's own pair is its cheapest, and the term is the mean squared distance of true pairs. On
vectors as the networks give them, lengths count too, and the plan may cross.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import ot
import torch
from numpy.typing import NDArray
from torch import Tensor

Solver = Literal["exact", "sinkhorn"]
SOLVERS: tuple[Solver, ...] = ("exact", "sinkhorn")
_ITERATIONS = 1000  # of Sinkhorn's; after them its marginals are as good as they are


def mutual_best(similarities: Tensor, same_person: Tensor) -> Tensor:
    """Which samples' own pair is more similar than every other pair of its row and of its column (section 4.2).

    Args:
        similarities: (n, n) float, face i with voice j; (i, i) are the pairs. They may be of any scale.
        same_person: (n, n) bool, face i and voice j are of one person; a person's other samples are no rivals.

    Returns:
        (n,) bool, without gradient. A tie does not beat; NaN beats nothing.
    """
    with torch.no_grad():
        rivals = similarities.masked_fill(same_person, -math.inf).masked_fill(_diagonal(similarities), -math.inf)
        own = similarities.diagonal()
        return (own > rivals.amax(dim=1)) & (own > rivals.amax(dim=0))


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """(n, d) and (m, d) to (n, m): squared Euclidean distances (equation 5), from differences.

    The shorter way over dot products loses the digits of small distances between long vectors.
    """
    return (one[:, None, :] - other[None, :, :]).square().sum(dim=2)


def transport_plan(costs: Tensor, solver: Solver = "exact", regularisation: float = 0.05) -> Tensor:
    """The cheapest way to carry the mass of the rows, all alike, to the columns, all alike.

    Args:
        costs: (n, m) float, n and m at least 1.
        solver: ``exact``, or ``sinkhorn``: blurred by its entropy, cheaper in large batches.
        regularisation: weight of that entropy, as a share of the largest cost; above 0.

    Returns:
        (n, m) of the type and device of ``costs``, not negative, rows summing to 1/n and columns to 1/m; without
        gradient. All NaN if a cost is no finite number: the loss then says so.
    """
    table: NDArray[np.float64] = costs.detach().cpu().double().numpy()
    most = float(np.abs(table).max())
    if not math.isfinite(most):
        return torch.full_like(costs, math.nan, requires_grad=False)
    rows, columns = (np.full(count, 1 / count) for count in table.shape)
    if solver == "exact" or most == 0:
        plan = ot.emd(rows, columns, table)
    else:
        scaled = table / most
        plan = ot.sinkhorn(
            rows, columns, scaled, regularisation, method="sinkhorn_log", numItermax=_ITERATIONS, warn=False
        )
    return torch.from_numpy(plan).to(costs)


def transport_loss(faces: Tensor, voices: Tensor, solver: Solver = "exact", regularisation: float = 0.05) -> Tensor:
    """Sum of squared distances times the mass that the optimal plan carries over them (equations 6 and 7).

    Args:
        faces: (n, d) float.
        voices: (m, d) float.
        solver: see :func:`transport_plan`.
        regularisation: see :func:`transport_plan`.

    Returns:
        Scalar, at least 0; with ``exact`` the squared 2-Wasserstein distance of the two clouds. 0, without gradient
        into anything, if there are no faces or no voices.
    """
    if not len(faces) or not len(voices):
        return (faces.sum() + voices.sum()) * 0
    costs = squared_distances(faces, voices)
    return (costs * transport_plan(costs, solver, regularisation)).sum()


def _diagonal(square: Tensor) -> Tensor:
    """(n, n) bool, True at (i, i)."""
    return torch.eye(len(square), dtype=torch.bool, device=square.device)
