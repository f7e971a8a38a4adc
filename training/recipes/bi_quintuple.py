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
from typing import Literal

import torch
from torch import Tensor

from encoders.backbones.small_face import FEATURES, SmallFaceNetwork
from encoders.backbones.small_voice import SmallVoiceNetwork
from encoders.heads import WeightedResidualHead
from training.batches import Augmentation
from training.losses import bi_quintuple, identity_loss
from training.recipe import Batch, Task


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
