"""How often a face and a voice of an unseen person fall into clusters of one rank (S2, figure 7).

The paper clusters the faces and the voices of a batch, each for itself, and counts the pairs whose two labels are
equal (equation 5). Here the same is asked of any encoder, on people it has never seen: pairs are cut into batches, and
what :mod:`training.pseudo_labels` does in training is done to each, with the batch's own prototype alone, as there are
no earlier ones. The points are those that serve, of unit length; columns are scaled as in training.

K-means starts with the same people in both modalities, which already helps labels to agree. So chance is not 1/q:
it is what comes out where everybody is given another one's voice before anything else is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.space import Modality
from training.pseudo_labels import geometric_median, label_agreement, pair_labels, scale_columns

CLUSTERS = (8, 32, 64)
"""q of F, S and T."""
BATCH = 128
"""Pairs that are clustered together: B of the paper."""
MOST_BATCHES = 16
"""Of more people, the first so many by the seed are enough: a mean over 2,048 pairs."""

_Points = Mapping[Modality, NDArray[np.floating]]
_Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


def agreement_of_labels(
    vectors: _Points, people: Mapping[Modality, Sequence[str]], *, clusters: Sequence[int] = CLUSTERS, seed: int = 0
) -> dict[str, dict[str, float | int | None]]:
    """The share of pairs whose face and voice get one label, for several numbers of clusters.

    Args:
        vectors: by modality, (samples, dimension), points of one encoder.
        people: by modality, whom each shows.
        clusters: q, each at least 1.
        seed: of the order of pairs and of K-means' starts; the process's own random state stays as it was.

    Returns:
        By q: ``agreement`` and ``chance`` in [0, 1], means over batches, ``pairs`` that were clustered, and how many at
        most together (``batch``). Agreement and chance are None where no batch has q pairs.
    """
    batches = _batches(_paired(people, seed))
    points = {one: torch.from_numpy(np.asarray(vectors[one], dtype=np.float64)) for one in Modality}
    told: dict[str, dict[str, float | int | None]] = {}
    for count in clusters:
        usable = [batch for batch in batches if len(batch[0]) >= count]
        found: list[list[float]] = [[], []]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for faces, voices in usable:
                for other, agreements in zip((voices, _of_others(voices, people[Modality.VOICE])), found, strict=True):
                    pair = points[Modality.FACE][faces], points[Modality.VOICE][other]
                    agreements.append(_agreement(*pair, count))
        agreement, chance = (float(np.mean(one)) if one else None for one in found)
        pairs = sum(len(faces) for faces, _ in usable)
        told[str(count)] = {"agreement": agreement, "chance": chance, "pairs": pairs, "batch": BATCH}
    return told


def _of_others(voices: NDArray[np.intp], people: Sequence[str]) -> NDArray[np.intp]:
    """The same rows in an order in which everybody gets another one's, as long as nobody has more than half of them."""
    of_whom = np.unique([people[row] for row in voices], return_inverse=True)[1]
    together = np.argsort(of_whom, kind="stable")  # moved by the longest run of one person, no run meets itself
    moved = np.empty_like(voices)
    moved[together] = np.roll(voices[together], int(np.bincount(of_whom).max(initial=0)))
    return moved


def _agreement(faces: Tensor, voices: Tensor, clusters: int) -> float:
    """(n, d) float64 each, row i of one pair, to the share of pairs that agree."""
    scaled = scale_columns(faces), scale_columns(voices)
    prototypes = geometric_median(scaled[0]), geometric_median(scaled[1])
    labels = pair_labels(*scaled, prototypes, clusters, paired=True)
    return float(label_agreement(labels[0].labels, labels[1].labels))


def _paired(people: Mapping[Modality, Sequence[str]], seed: int) -> _Pairs:
    """Rows of faces and of voices of one person each: everybody once in a drawn order, then everybody twice, …"""
    rows: dict[Modality, dict[str, list[int]]] = {one: {} for one in Modality}
    for modality, mine in rows.items():
        for row, person in enumerate(people[modality]):
            mine.setdefault(person, []).append(row)
    both = sorted(rows[Modality.FACE].keys() & rows[Modality.VOICE].keys())
    paired = {one: list(zip(rows[Modality.FACE][one], rows[Modality.VOICE][one], strict=False)) for one in both}
    random, drawn = np.random.default_rng(seed), []
    for time in range(max(map(len, paired.values()), default=0)):
        order = [both[number] for number in random.permutation(len(both))]
        drawn += [paired[one][time] for one in order if time < len(paired[one])]
    table = np.array(drawn, dtype=np.intp).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _batches(pairs: _Pairs) -> list[_Pairs]:
    """Full batches; where there is not even one, what there is."""
    count = len(pairs[0])
    full = [(pairs[0][start : start + BATCH], pairs[1][start : start + BATCH])
            for start in range(0, count - BATCH + 1, BATCH)]  # fmt: skip
    return full[:MOST_BATCHES] or [pairs]
