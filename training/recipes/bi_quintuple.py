"""Bi-quintuple loss under a shared weighted residual head (S0 of the five methods).

Liu Xin, Wang Rui, Zhong Bineng, Wang Nannan, "Cross Face-Voice Matching via Double-Stream Networks and
Bi-Quintuple Loss" (2022). Two networks, trained end to end, end in one head that both modalities share
(:class:`~encoders.heads.WeightedResidualHead`, equations 1 and 2). Each sample of a batch is an anchor of
two triplets of hardest samples, one across the modalities and one over both of them: five samples, a
quintuple. One linear classifier, shared by the modalities, names the person beside it (equation 18).

Where the paper is silent, and what is chosen here: the width of the head's inner layer (``hidden``);
augmentation (:class:`~training.batches.Augmentation`); the length of a voice (a random stretch of fixed
length, 3 s); steps per epoch (every sample about once); the shape of the learning rate's curve (``curve``, a straight
line on a logarithmic scale); which checkpoint is kept (the best on validation people); the acoustic feature (log-mel,
as DIMNet has it). Its networks begin with weights from millions of other faces and voices
(``visavox train --initial``).

Its ablations: ``head`` (one layer, two layers, two layers with a residual share fixed at 1, the weighted residual
layer), ``identity_loss`` and ``bi_quintuple_loss`` (validation figures per epoch are in the run's log), ``margin``.

``POPULATION`` is not the published batch. With one face and one voice of a person in a batch the mixed triplet's
positive is the cross-modal one, so that two of its four forms cannot occur; but small networks that start from
nothing are shrunk to a point by the published batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from encoders.heads import Layer
from encoders.space import Modality
from training.batches import Augmentation
from training.recipe import Batch, Given, Stage, Task, seeded, shared_head
from training.schedules import CURVES, Curve, falling_rate

TRIPLET_FORMS = ("cross_cross", "cross_same", "same_cross", "same_same")
"""Modality of the hardest positive, then of the hardest negative, as seen from the anchor: the paper's figure 3."""


HeadKind = Literal["one_layer", "two_layers", "residual", "weighted_residual"]
HEAD_LAYERS: tuple[HeadKind, ...] = ("one_layer", "two_layers", "residual", "weighted_residual")
"""The heads that the paper compares: one linear layer, two with tanh between them, the same beside a residual share
that is fixed at 1, and the weighted residual layer, whose share is learned."""


@dataclass(frozen=True)
class Settings:
    """Every number of the method; the defaults are the paper's.

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
        face_backbone: name of a row of :data:`encoders.face.BACKBONES`.
        voice_backbone: name of a row of :data:`encoders.voice.BACKBONES`.
        face_preparation: fields of its preparation that are not at their defaults.
        voice_preparation: likewise.
        embedding: components of the shared space; features of another width come through a linear layer of their own.
        head: what both modalities share behind their networks: :data:`HEAD_LAYERS`.
    """

    epochs: int = 50
    steps_per_epoch: int | None = None
    people_per_batch: int = 16
    samples_per_person: int = 4
    people_per_mining: int | None = None
    margin: float = 0.6
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-8
    curve: Curve = "exponential"
    warm_up: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    hidden: int = 256
    identity_loss: bool = True
    bi_quintuple_loss: bool = True
    mirror: float = 0.5
    shift: int = 4
    brightness: float = 0.1
    contrast: float = 0.1
    colour: float = 0.03
    frames: int = 300
    gain: float = 0.05
    masked_bands: int = 0
    face_backbone: str = "inception_resnet_v1"
    voice_backbone: str = "dimnet_voice"
    face_preparation: Mapping[str, Any] = field(default_factory=lambda: {"dimension": 256, "unit_length": False})
    voice_preparation: Mapping[str, Any] = field(default_factory=dict)
    embedding: int = 256
    head: HeadKind = "weighted_residual"

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
        if self.curve not in CURVES or not 0 <= self.warm_up < 1:
            raise ValueError(
                f"curve is one of {', '.join(CURVES)}, warm_up in [0, 1), got {self.curve}, {self.warm_up}"
            )
        if self.head not in HEAD_LAYERS or self.embedding < 1:
            raise ValueError(
                f"head is one of {', '.join(HEAD_LAYERS)}, embedding at least 1, got {self.head}, {self.embedding}"
            )
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


POPULATION = Settings(
    epochs=20,
    steps_per_epoch=50,
    people_per_batch=96,
    samples_per_person=1,
    people_per_mining=4,
    learning_rate=0.15,
    final_learning_rate=1e-4,
    curve="cosine",
    warm_up=0.1,
    weight_decay=2e-3,
    hidden=128,
    shift=3,
    brightness=0.25,
    contrast=0.15,
    frames=200,
    face_backbone="small_face",
    voice_backbone="small_voice",
    face_preparation={},
    embedding=128,
)
"""For small networks that start from nothing on invented people; found on such people (seed 2) other than those that
models are measured on. There the published batch makes the triplets' loss shrink all samples to a point; many people
with one sample each, mined among four at a time, do not."""


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
        given: what it is made for.
    """

    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(given)
        self.settings = settings
        width, hidden = settings.embedding, settings.hidden
        layers: dict[HeadKind, list[Layer]] = {
            "one_layer": [["linear", width, width]],
            "two_layers": [["linear", width, hidden], ["tanh"], ["linear", hidden, width]],
            "residual": [["residual", width, hidden]],
            "weighted_residual": [["weighted_residual", width, hidden]],
        }
        self.head = shared_head(given, width, layers[settings.head])
        self.classifier = torch.nn.Linear(width, given.people)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of both losses and ``total``, their sum (equation 19) or the one that is switched on."""
        faces = self.embed(Modality.FACE, batch.faces)
        voices = self.embed(Modality.VOICE, batch.voices, batch.voice_lengths)
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


def stages(settings: Settings, frozen: bool) -> tuple[Stage, ...]:
    """One training of everything together, as published; of the head alone where vectors are frozen."""
    return (
        Stage(
            name="bi_quintuple",
            settings=settings,
            build=partial(build, settings),
            optimiser=partial(optimiser, settings=settings),
            learning_rate=partial(learning_rate, settings),
        ),
    )


def build(settings: Settings, given: Given, seed: int, before: Task | None = None) -> BiQuintupleTask:
    """The task with parameters drawn from ``seed`` alone; the process's own random state stays as it was."""
    return seeded(BiQuintupleTask, seed, settings, given)


def optimiser(task: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum and weight decay, as published."""
    return torch.optim.SGD(
        task.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def learning_rate(settings: Settings, progress: float) -> float:
    """The learning rate after a share of the training, 0 to 1. Raises ValueError: progress outside."""
    rates = settings.learning_rate, settings.final_learning_rate
    return falling_rate(progress, *rates, settings.curve, settings.warm_up)


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
