"""Losses that more than one recipe has: triplets of hardest samples, and identity by a shared classifier.

From Liu Xin, Wang Rui, Zhong Bineng, Wang Nannan, "Cross Face-Voice Matching via Double-Stream Networks and
Bi-Quintuple Loss" (2022), whose equations are named here (S0 of the five methods). S4 has them too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

TRIPLET_FORMS = ("cross_cross", "cross_same", "same_cross", "same_same")
"""Modality of the hardest positive, then of the hardest negative, as seen from the anchor: the paper's figure 3."""


class Hardest(NamedTuple):
    """The triplet of each anchor: its farthest positive and its nearest negative.

    Args:
        farthest: (n,) distance of the farthest positive; 0 where not ``usable``.
        nearest: (n,) distance of the nearest negative; 0 where not ``usable``.
        positive: (n,) int64 column of the former; of several equally far the first.
        negative: (n,) int64 column of the latter; of several equally near the first.
        usable: (n,) bool, whether the anchor has a positive and a negative.
    """

    farthest: Tensor
    nearest: Tensor
    positive: Tensor
    negative: Tensor
    usable: Tensor

    def hinge(self, margin: float) -> Tensor:
        """Mean of max(0, farthest - nearest + margin) over the usable anchors; 0 without any."""
        excess = torch.relu(self.farthest - self.nearest + margin)
        return (excess * self.usable).sum() / self.usable.sum().clamp(min=1)


def hardest(distances: Tensor, positives: Tensor, negatives: Tensor) -> Hardest:
    """Find the hardest triplet of every anchor (equations 7, 8, 11 and 12).

    Args:
        distances: (n, m) float, anchors to candidates; m at least 1.
        positives: (n, m) bool, candidates of the anchor's person; not the anchor itself.
        negatives: (n, m) bool, candidates of other people.
    """
    usable = positives.any(dim=1) & negatives.any(dim=1)
    farthest, positive = distances.masked_fill(~positives, -math.inf).max(dim=1)
    nearest, negative = distances.masked_fill(~negatives, math.inf).min(dim=1)
    zero = distances.new_zeros(())
    return Hardest(torch.where(usable, farthest, zero), torch.where(usable, nearest, zero), positive, negative, usable)


def mining_groups(faces: int, people: int | None, samples: int) -> int:
    """Into how many groups a batch is divided in which triplets are mined.

    Args:
        faces: of the batch.
        people: of a group; None: the whole batch is one.
        samples: faces of each of them.
    """
    return 1 if people is None else max(1, faces // (people * samples))


def bi_quintuple(
    faces: Tensor, face_people: Tensor, voices: Tensor, voice_people: Tensor, margin: float, groups: int = 1
) -> dict[str, Tensor]:
    """The bi-quintuple loss (equation 17) and its terms.

    Each face is the anchor of a cross-modal triplet (CTH, equation 10: both others are voices) and of a
    mixed one (MTH, equation 14: each of the others is a face or a voice); so is each voice. Means are over
    the anchors that have such a triplet: a person's only sample in a batch has no positive. In a batch of
    several faces and voices of each person these are all.

    With several ``groups`` an anchor's negatives are of its own group only. The nearest of many negatives is,
    for people who truly resemble each other, a person whom nothing in the sample sets apart: networks that
    start from nothing are then taught noise and shrink to a point. Among few people the nearest one still
    teaches. One group is the published loss.

    Args:
        faces: (n, d) float of any length but 0, as the head gives them; normalised here (equation 6).
        face_people: (n,) int64.
        voices: (m, d) float.
        voice_people: (m,) int64.
        margin: of every hinge.
        groups: a divisor of n and m; faces and voices are divided in their order, so that with more than one
            they are of the same people in the same order, as many of each, people side by side.

    Returns:
        Scalars. ``bi_quintuple``: the loss. ``cth_face``, ``mth_face``, ``cth_voice``, ``mth_voice``: its
        terms by the anchor's modality. ``triplets_<form>`` for each of :data:`TRIPLET_FORMS`: how many mixed
        triplets of that form are effective, which is to say that the positive is farther than the negative
        (equation 13).

    Raises:
        ValueError: there are no faces or no voices, or they cannot be divided into so many groups.
    """
    if not len(faces) or not len(voices):
        raise ValueError(f"the bi-quintuple loss needs faces and voices, got {len(faces)} and {len(voices)}")
    if groups < 1 or len(faces) % groups or len(voices) % groups:
        raise ValueError(f"{len(faces)} faces and {len(voices)} voices cannot be divided into {groups} groups")
    faces, voices = normalize(faces, dim=1), normalize(voices, dim=1)
    across, same = _distances(faces, voices), face_people[:, None] == voice_people[None, :]
    face_group, voice_group = (
        torch.arange(len(one), device=one.device) // (len(one) // groups) for one in (faces, voices)
    )
    near = face_group[:, None] == voice_group[None, :]
    terms: dict[str, Tensor] = {}
    forms: list[Tensor] = []
    for name, anchors, people, group, towards, matches, reached in (
        ("face", faces, face_people, face_group, across, same, near),
        ("voice", voices, voice_people, voice_group, across.T, same.T, near.T),
    ):
        own = people[:, None] == people[None, :]
        others = ~torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
        cross = hardest(towards, matches, ~matches & reached)
        mixed = hardest(
            torch.cat([_distances(anchors, anchors), towards], dim=1),
            torch.cat([own & others, matches], dim=1),
            torch.cat([~own & (group[:, None] == group[None, :]), ~matches & reached], dim=1),
        )
        terms[f"cth_{name}"], terms[f"mth_{name}"] = cross.hinge(margin), mixed.hinge(margin)
        forms.append(_forms(mixed, len(anchors)))
    loss = terms["cth_face"] + terms["mth_face"] + terms["cth_voice"] + terms["mth_voice"]
    counts = {
        f"triplets_{form}": count for form, count in zip(TRIPLET_FORMS, torch.stack(forms).sum(dim=0), strict=True)
    }
    return {"bi_quintuple": loss} | terms | counts


def identity_loss(
    classifier: torch.nn.Module, faces: Tensor, face_people: Tensor, voices: Tensor, voice_people: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy of one classifier for both modalities (equation 18): mean over faces + mean over voices.

    Args:
        classifier: (n, d) to (n, people) scores.
        faces: (n, d) float, not normalised.
        face_people: (n,) int64 in [0, people).
        voices: (m, d) float.
        voice_people: (m,) int64.

    Returns:
        Scalars ``identity`` (the loss), ``face_accuracy`` and ``voice_accuracy`` (share named rightly).
    """
    face_scores, voice_scores = classifier(faces), classifier(voices)
    return {
        "identity": cross_entropy(face_scores, face_people) + cross_entropy(voice_scores, voice_people),
        "face_accuracy": (face_scores.detach().argmax(dim=1) == face_people).float().mean(),
        "voice_accuracy": (voice_scores.detach().argmax(dim=1) == voice_people).float().mean(),
    }


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """(n, d) and (m, d) to (n, m) Euclidean distances, from differences.

    The shorter way over dot products loses the digits of small distances; and its square root has no
    gradient at 0, where this one's is 0.
    """
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def _forms(mixed: Hardest, own: int) -> Tensor:
    """(4,) int64: effective triplets of each of TRIPLET_FORMS; the first ``own`` columns are the anchor's modality."""
    effective = mixed.usable & (mixed.farthest > mixed.nearest)
    form = 2 * (mixed.positive < own).long() + (mixed.negative < own).long()
    return (one_hot(form, len(TRIPLET_FORMS)) * effective[:, None]).sum(dim=0)
