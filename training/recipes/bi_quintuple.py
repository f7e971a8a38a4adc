"""Bi-quintuple loss under a shared weighted residual head (S0 of the five methods).

Liu Xin, Wang Rui, Zhong Bineng, Wang Nannan, "Cross Face-Voice Matching via Double-Stream Networks and
Bi-Quintuple Loss" (2022). Two networks, trained end to end, end in one head that both modalities share
(:class:`~encoders.heads.WeightedResidualHead`, equations 1 and 2). Each sample of a batch is an anchor of
two triplets of hardest samples, one across the modalities and one over both of them: five samples, a
quintuple. One linear classifier, shared by the modalities, names the person beside it (equation 18).

Where the paper is silent, and what is chosen here: the width of the head's inner layer (``hidden``); augmentation
(:class:`~training.batches.Augmentation`); the length of a voice (a random stretch of fixed length, 3 s); how a face is
cut (the paper refers to others for it; here the window of 160 pixels that the public weights of its network learned
from); steps per epoch (every sample about once); the shape of the learning rate's curve (``curve``, a straight line on
a logarithmic scale); which checkpoint is kept (the best on validation people); the acoustic feature (log-mel, as DIMNet
has it). Its networks begin with weights (``visavox train --initial``): of faces with VGGFace2's, of voices with those
of DIMNet-Voice after a training on VoxCeleb1, which may have seen test people. Of the latter there are no public ones;
whoever is listed in the folder that a run begins with counts as known to what comes of it, and test people among them
take ``visavox train --allow-seen``.

Its ablations: ``head`` (one layer, two layers, two layers with a residual share fixed at 1, the weighted residual
layer), ``identity_loss`` and ``bi_quintuple_loss`` (validation figures per epoch are in the run's log), ``margin``.

``POPULATION`` is not the published batch. With one face and one voice of a person in a batch the mixed triplet's
positive is the cross-modal one, so that two of its four forms cannot occur; but small networks that start from
nothing are shrunk to a point by the published batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from encoders.heads import Layer
from encoders.space import Modality
from training.batches import Augmentation
from training.losses import bi_quintuple, identity_loss, mining_groups
from training.recipe import Batch, Given, Stage, Task, seeded, shared_head, single
from training.schedules import CURVES, Curve, falling_rate

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
            None for the whole batch, as published. See :func:`~training.losses.bi_quintuple`.
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

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "one layer (SFC)": {"head": "one_layer"},
    "two layers (DFC)": {"head": "two_layers"},
    "fixed residual (DFC-R)": {"head": "residual"},
    "ID loss only": {"bi_quintuple_loss": False},
    "Bi-Q loss only": {"identity_loss": False},
    "margin 0.2": {"margin": 0.2},
    "margin 0.4": {"margin": 0.4},
    "margin 0.8": {"margin": 0.8},
    "margin 1.0": {"margin": 1.0},
    "16 people x 4 samples": {"people_per_batch": 16, "samples_per_person": 4, "people_per_mining": None},
    "hardest of the whole batch": {"people_per_mining": None},
}
"""What each row of the paper's table 4 and figures 6 and 7 changes, and the published batch. Which margins the figure
tries beside 0.6 can only be seen in its picture, which nobody here has."""


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
        with torch.autocast(faces.device.type, enabled=False):
            samples = (single(faces), batch.face_people, single(voices), batch.voice_people)
            groups = mining_groups(len(faces), self.settings.people_per_mining, self.settings.samples_per_person)
            terms = bi_quintuple(*samples, self.settings.margin, groups) | identity_loss(self.classifier, *samples)
        wanted = {"bi_quintuple": self.settings.bi_quintuple_loss, "identity": self.settings.identity_loss}
        total = torch.stack([terms[name] for name, on in wanted.items() if on]).sum()
        return {"total": total} | terms


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
