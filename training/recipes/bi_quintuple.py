"""Bi-quintuple loss under a shared weighted residual head (S0 of the five methods).

Liu Xin, Wang Rui, Zhong Bineng, Wang Nannan, "Cross Face-Voice Matching via Double-Stream Networks and
Bi-Quintuple Loss" (2022). Two networks, trained end to end, end in one head that both modalities share
(:class:`~encoders.heads.WeightedResidualHead`, equations 1 and 2). Each sample of a batch is an anchor of
two triplets of hardest samples, one across the modalities and one over both of them: five samples, a
quintuple. One linear classifier, shared by the modalities, names the person beside it (equation 18).

Where the paper is silent, and what is chosen here: the width of the head's inner layer (``hidden``);
augmentation (:class:`~training.batches.Augmentation`); the length of a voice (a random stretch of fixed
length); steps per epoch (every sample about once); the shape of the learning rate's curve (``curve``). Its
networks were trained on millions of other faces and voices before; ours start from nothing, which asks for
larger learning rates than its 1e-3.

The defaults are not the published batch. With one face and one voice of a person in a batch the mixed triplet's
positive is the cross-modal one, so that two of its four forms cannot occur; ``people_per_batch=16,
samples_per_person=4, people_per_mining=None`` is the batch as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from encoders.backbones.small_face import FEATURES, SmallFaceNetwork
from encoders.backbones.small_voice import SmallVoiceNetwork
from encoders.heads import WeightedResidualHead
from training.batches import Augmentation
from training.recipe import Batch, Task

TRIPLET_FORMS = ("cross_cross", "cross_same", "same_cross", "same_same")
"""Modality of the hardest positive, then of the hardest negative, as seen from the anchor: the paper's figure 3."""


@dataclass(frozen=True)
class Settings:
    """Every number of the method. Published: 50 epochs of SGD with momentum 0.9 and weight decay 5e-4,
    learning rate 1e-3 to 1e-8, 16 people with 4 faces and 4 voices each in a batch, margin 0.6.

    The defaults are for small networks that start from nothing on invented people, found on such people (seed 2)
    other than those that models are measured on. There the published batch makes the triplets' loss shrink all
    samples to a point; many people with one sample each, mined among four at a time, do not.

    Args:
        epochs: passes over the training samples.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: faces of each of them, and as many voices.
        people_per_mining: identities among whom the hardest samples are sought, a divisor of people_per_batch;
            None for the whole batch, as published. See :func:`bi_quintuple`.
        margin: between the farthest positive and the nearest negative; distances lie in [0, 2].
        learning_rate: the largest; reached after ``warm_up``.
        final_learning_rate: where the curve ends.
        curve: ``cosine``, or ``exponential`` (a straight line on a logarithmic scale).
        warm_up: share of the training in which the learning rate rises from 0 in a straight line.
        momentum: of the gradient.
        weight_decay: on every parameter.
        hidden: width of the head's inner layer.
        identity_loss: whether to train the classifier; without it the paper's loss does not converge.
        bi_quintuple_loss: whether to train by triplets; without it only the classifier teaches.
        mirror: share of faces that are mirrored, 0 to 1.
        shift: most pixels that a face is moved by, along and across.
        brightness: most that is added to a face, in units of the network's input (64 grey levels).
        contrast: most that its contrast is raised or lowered by, as a share.
        colour: most that is added to one colour channel, in units of the network's input.
        frames: length of a voice, mel frames of 10 ms.
        gain: most that is added to all bands of a voice, in units of the prepared log-mel.
        masked_bands: most neighbouring mel bands of a voice that are blanked out.
    """

    epochs: int = 20
    steps_per_epoch: int | None = 50
    people_per_batch: int = 96
    samples_per_person: int = 1
    people_per_mining: int | None = 4
    margin: float = 0.6
    learning_rate: float = 0.15
    final_learning_rate: float = 1e-4
    curve: Literal["cosine", "exponential"] = "cosine"
    warm_up: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-3
    hidden: int = 128
    identity_loss: bool = True
    bi_quintuple_loss: bool = True
    mirror: float = 0.5
    shift: int = 3
    brightness: float = 0.25
    contrast: float = 0.15
    colour: float = 0.03
    frames: int = 200
    gain: float = 0.05
    masked_bands: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or (self.steps_per_epoch is not None and self.steps_per_epoch < 1):
            raise ValueError(f"a training needs epochs and steps, got {self.epochs} and {self.steps_per_epoch}")
        if self.people_per_batch < 2 or self.samples_per_person < 1:
            raise ValueError(
                f"a batch needs at least 2 people (negatives) with at least 1 sample each, got "
                f"{self.people_per_batch} with {self.samples_per_person}"
            )
        if self.people_per_mining is not None and (
            self.people_per_mining < 2 or self.people_per_batch % self.people_per_mining
        ):
            raise ValueError(
                f"people_per_mining divides people_per_batch ({self.people_per_batch}) into groups of at least 2, got "
                f"{self.people_per_mining}"
            )
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"the learning rate falls from learning_rate ({self.learning_rate}) to final_learning_rate "
                f"({self.final_learning_rate}), both above 0"
            )
        if self.curve not in ("cosine", "exponential") or not 0 <= self.warm_up < 1:
            raise ValueError(f"curve is cosine or exponential, warm_up in [0, 1), got {self.curve}, {self.warm_up}")
        if not 0 <= self.momentum < 1 or self.weight_decay < 0 or self.margin < 0 or self.hidden < 1:
            raise ValueError(
                f"momentum is in [0, 1), weight_decay and margin at least 0, hidden at least 1, got {self.momentum}, "
                f"{self.weight_decay}, {self.margin}, {self.hidden}"
            )
        if not (self.identity_loss or self.bi_quintuple_loss):
            raise ValueError("nothing to train by: switch identity_loss or bi_quintuple_loss on")
        _ = self.augmentation  # checks its numbers

    def fitting(self, people: int) -> Settings:
        """The same for fewer people than a batch would hold; some of them may turn out to be unusable."""
        if people >= 1.1 * self.people_per_batch:
            return self
        batch, group = max(2, 3 * people // 4), self.people_per_mining
        if group is not None and group <= batch:
            return replace(self, people_per_batch=batch - batch % group)
        return replace(self, people_per_batch=batch, people_per_mining=None)

    @property
    def augmentation(self) -> Augmentation:
        """How samples are varied."""
        return Augmentation(
            mirror=self.mirror,
            shift=self.shift,
            brightness=self.brightness,
            contrast=self.contrast,
            colour=self.colour,
            frames=self.frames,
            gain=self.gain,
            masked_bands=self.masked_bands,
        )


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


class BiQuintupleTask(Task):
    """The two networks, the head they share, and the classifier that is thrown away after training.

    Args:
        settings: see :class:`Settings`.
        people: number of training identities, at least 2.
    """

    def __init__(self, settings: Settings, people: int) -> None:
        super().__init__()
        if people < 2:
            raise ValueError(f"training needs at least 2 people, got {people}")
        self.settings = settings
        self.face = SmallFaceNetwork()
        self.voice = SmallVoiceNetwork()
        self.head = WeightedResidualHead(FEATURES, settings.hidden)
        self.classifier = torch.nn.Linear(FEATURES, people)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of both losses and ``total``, their sum (equation 19) or the one that is switched on."""
        faces = self.head(self.face(batch.faces))
        voices = self.head(self.voice(batch.voices, batch.voice_lengths))
        samples = (faces, batch.face_people, voices, batch.voice_people)
        terms = bi_quintuple(*samples, self.settings.margin, self._groups(len(faces))) | identity_loss(
            self.classifier, *samples
        )
        wanted = {"bi_quintuple": self.settings.bi_quintuple_loss, "identity": self.settings.identity_loss}
        total = torch.stack([terms[name] for name, on in wanted.items() if on]).sum()
        return {"total": total} | terms

    def _groups(self, faces: int) -> int:
        """Into how many groups a batch of so many faces is divided for mining."""
        people = self.settings.people_per_mining
        return 1 if people is None else max(1, faces // (people * self.settings.samples_per_person))


def build(settings: Settings, people: int, seed: int) -> BiQuintupleTask:
    """The task with parameters drawn from ``seed`` alone; the process's own random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BiQuintupleTask(settings, people)


def optimiser(task: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum and weight decay, as published."""
    return torch.optim.SGD(
        task.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def learning_rate(settings: Settings, progress: float) -> float:
    """The learning rate after a share of the training.

    Args:
        settings: see :class:`Settings`.
        progress: 0 (start) to 1 (end).

    Raises:
        ValueError: progress outside [0, 1].
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is a share from 0 to 1, got {progress}")
    if progress < settings.warm_up:
        return settings.learning_rate * progress / settings.warm_up
    share = (progress - settings.warm_up) / (1 - settings.warm_up)
    first, last = settings.learning_rate, settings.final_learning_rate
    if settings.curve == "exponential":
        return float(first * (last / first) ** share)
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


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
