"""Which vectors belong together: average-linkage clustering, for faces across cuts and for voices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Average linkage looks at all pairs: more vectors than this are grouped block by block first.
LARGEST_BLOCK = 600
# Of more groups than this only the largest are compared with each other: all pairs of hours would fill the memory.
MOST_GROUPS = 2400


def group_alike(
    vectors: NDArray[np.float32], least_cosine: float, apart: NDArray[np.bool_] | None = None
) -> NDArray[np.intp]:
    """Join vectors whose groups have a mean cosine of at least ``least_cosine``, nearest first.

    Args:
        vectors: (n, dimension) float32 of unit length.
        least_cosine: groups with a lower mean cosine between their members stay apart.
        apart: (n, n) bool, symmetric: pairs that must never be in one group, such as two faces seen at
            the same moment. With it, all n vectors are compared at once.

    Returns:
        (n,) group numbers, from 0 in order of first member.
    """
    count = len(vectors)
    if apart is not None or count <= LARGEST_BLOCK:
        forbidden = np.zeros((count, count), dtype=np.bool_) if apart is None else apart
        return _number(_link(vectors.astype(np.float64), np.ones(count), least_cosine, forbidden))
    sums: list[NDArray[np.float64]] = []
    sizes: list[int] = []
    local = np.zeros(count, dtype=np.intp)
    for first in range(0, count, LARGEST_BLOCK):
        block = vectors[first : first + LARGEST_BLOCK]
        labels = group_alike(block, least_cosine) + len(sums)
        local[first : first + LARGEST_BLOCK] = labels
        for label in range(len(sums), int(labels.max()) + 1):
            members = block[labels == label].astype(np.float64)
            sums.append(members.sum(axis=0))
            sizes.append(len(members))
    weights = np.array(sizes, dtype=np.float64)
    largest = np.sort(np.argsort(-weights, kind="stable")[:MOST_GROUPS])
    forbidden = np.zeros((len(largest), len(largest)), dtype=np.bool_)
    joined = np.arange(len(sums))
    linked = _link(np.array(sums)[largest], weights[largest], least_cosine, forbidden)
    joined[largest] = largest[linked]
    return _number([int(label) for label in joined[local]])


def _link(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], least_cosine: float, apart: NDArray[np.bool_]
) -> list[int]:
    """Average linkage on groups given by the sum of their unit vectors (n, dimension) and their sizes."""
    count = len(sums)
    labels = list(range(count))
    # The mean cosine of two groups is the dot product of their sums over the product of their sizes.
    dots = sums @ sums.T
    blocked = apart | np.eye(count, dtype=np.bool_)
    sizes = sizes.copy()
    means = np.where(blocked, -np.inf, dots / np.outer(sizes, sizes))
    while count > 1:
        best = int(means.argmax())
        keep, gone = divmod(best, count)
        if means[keep, gone] < least_cosine:
            break
        keep, gone = min(keep, gone), max(keep, gone)
        dots[keep] += dots[gone]
        dots[:, keep] += dots[:, gone]
        sizes[keep] += sizes[gone]
        blocked[keep] |= blocked[gone]
        blocked[:, keep] = blocked[keep]
        blocked[gone, :] = blocked[:, gone] = True
        means[keep] = np.where(blocked[keep], -np.inf, dots[keep] / (sizes * sizes[keep]))
        means[:, keep] = means[keep]
        means[gone, :] = means[:, gone] = -np.inf
        labels = [keep if label == gone else label for label in labels]
    return labels


def _number(labels: Sequence[int]) -> NDArray[np.intp]:
    """Renumber groups from 0 in order of first member."""
    order: dict[int, int] = {}
    return np.array([order.setdefault(int(label), len(order)) for label in labels], dtype=np.intp)
