"""Joint embeddings under ranking, identity and centre constraints (S4 of the five methods).

Wang Rui, Liu Xin, Cheung Yiu-ming, Cheng Kai, Wang Nannan, Fan Wentao, "Learning Discriminative Joint Embeddings for
Efficient Face and Voice Association" (SIGIR 2020), known here by its abstract and by what S2 says of it. **All but the
abstract's sentence is a reconstruction**: stated are a face and a voice network that are trained together, a
bi-directional ranking constraint, an identity constraint and a centre constraint, training in both directions, and hard
triplets sought in each mini-batch. Nobody here has read its formulas or numbers.

The reconstruction. S2 calls the ranking constraint bi-directional *quintuples*, and its authors published such a loss
two years later (S0): it is the default, with S0's batch, margin, networks, optimiser and schedule. The plain triplet of
the hardest positive and negative across the modalities, from both sides, is an option (``ranking``). Identity is S0's
too, one softmax classifier for both modalities. The centre constraint is the centre loss (Wen et al., "A Discriminative
Feature Learning Approach for Deep Face Recognition", 2016) with one centre for a person's faces and voices::

    L = L_rank + L_id + λ·L_centre        L_centre = ½·Σ (‖f − c_y‖² + ‖v − c_y‖²)

summed over the samples of a batch, on what the head gives before it is normalised, where the classifier works as well.
λ = 0.003 is that of Wen et al. As there, λ weighs the pull on the samples and not that on the centres: a centre's step
is the learning rate times the sum of its samples' differences to it, or it would stand still. Centres begin at 0 and
know no weight decay. Instead of learned ones a batch's own means may be the centres (``centres``).

A linear layer of each network's own leads into the joint space (``head``); the weighted residual layer is S0's own idea
and an option.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from encoders.heads import Layer, SharedSpaceHead
from encoders.space import Modality
from training.batches import Augmentation
from training.losses import bi_quintuple, identity_loss, mining_groups
from training.pretraining import IdentitySettings, begin_from, identity_first
from training.recipe import Batch, Given, Stage, Task, seeded, shared_head, single
from training.schedules import CURVES, Curve, falling_rate

Ranking = Literal["bi_quintuple", "triplet", "none"]
Centres = Literal["learned", "batch"]
Reduction = Literal["sum", "mean"]
HeadKind = Literal["linear", "weighted_residual"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "ranking": ("bi_quintuple", "triplet", "none"),
    "centres": ("learned", "batch"),
    "reduction": ("sum", "mean"),
    "head": ("linear", "weighted_residual"),
    "curve": CURVES,
}


@dataclass(frozen=True)
class Settings:
    """Every number of the method; the defaults are S0's where it has them.

    Args:
        face_backbone: a row of ``encoders.face.BACKBONES``.
        voice_backbone: a row of ``encoders.voice.BACKBONES``.
        face_preparation: fields of its preparation that are not at their defaults.
        voice_preparation: likewise.
        embedding: components of the joint space.
        head: ``linear``, a layer of each modality's own; or ``weighted_residual``, S0's layer that both share.
        hidden: width of the inner layer of the latter.
        epochs: passes over the training people.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: faces of each of them, and as many voices.
        people_per_mining: identities among whom the hardest samples are sought, a divisor of people_per_batch; None for
            the whole batch. See :func:`~training.losses.bi_quintuple`.
        margin: between the farthest positive and the nearest negative; distances lie in [0, 2].
        ranking: ``bi_quintuple``, ``triplet`` (its cross-modal half), or ``none``.
        identity_loss: whether L_id counts.
        centre_weight: λ; 0 leaves L_centre out.
        centres: ``learned``, or the means of a person's samples in the ``batch``.
        reduction: ``sum`` of L_centre over the samples, or the ``mean`` over faces plus that over voices.
        learning_rate: the largest; reached after ``warm_up``.
        final_learning_rate: where the curve ends.
        curve: of :data:`~training.schedules.CURVES`.
        warm_up: share of the training in which the learning rate rises from 0 in a straight line.
        momentum: of the gradient.
        weight_decay: on every parameter but the centres.
        identity: a stage that teaches each network on its own to tell people apart first, where a run does not begin
            with weights for both (``visavox train --initial``); None: never. Its backbones are these here.
        augmentation: how samples are varied.
    """

    face_backbone: str = "inception_resnet_v1"
    voice_backbone: str = "dimnet_voice"
    face_preparation: Mapping[str, Any] = field(default_factory=lambda: {"dimension": 256, "unit_length": False})
    voice_preparation: Mapping[str, Any] = field(default_factory=dict)
    embedding: int = 256
    head: HeadKind = "linear"
    hidden: int = 256
    epochs: int = 50
    steps_per_epoch: int | None = None
    people_per_batch: int = 16
    samples_per_person: int = 4
    people_per_mining: int | None = None
    margin: float = 0.6
    ranking: Ranking = "bi_quintuple"
    identity_loss: bool = True
    centre_weight: float = 0.003
    centres: Centres = "learned"
    reduction: Reduction = "sum"
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-8
    curve: Curve = "exponential"
    warm_up: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    identity: IdentitySettings | None = None
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(shift=4, frames=300))

    def __post_init__(self) -> None:
        counts = (self.epochs, self.steps_per_epoch or 1, self.samples_per_person, self.embedding, self.hidden)
        if min(counts) < 1 or self.people_per_batch < 2:
            raise ValueError(
                "epochs, steps_per_epoch, samples_per_person, embedding and hidden are at least 1, people_per_batch at "
                f"least 2 (negatives), got {counts} and {self.people_per_batch}"
            )
        group = self.people_per_mining
        if group is not None and (group < 2 or self.people_per_batch % group):
            raise ValueError(
                f"people_per_mining divides people_per_batch ({self.people_per_batch}) into groups of at least 2, got "
                f"{group}"
            )
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"the learning rate falls from learning_rate ({self.learning_rate}) to final_learning_rate "
                f"({self.final_learning_rate}), both above 0"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, got {getattr(self, name)}")
        shares = (self.momentum, self.warm_up)
        if not all(0 <= one < 1 for one in shares) or min(self.weight_decay, self.margin, self.centre_weight) < 0:
            raise ValueError(
                f"momentum and warm_up are in [0, 1), got {shares}; weight_decay, margin and centre_weight at least 0, "
                f"got {self.weight_decay}, {self.margin} and {self.centre_weight}"
            )
        if self.ranking == "none" and not self.identity_loss and not self.centre_weight:
            raise ValueError("nothing to train by: set ranking, identity_loss or centre_weight")

    def fitting(self, people: int) -> Settings:
        """The same for fewer people than a batch would hold; some of them may turn out to be unusable."""
        most, taught, group = max(2, 3 * people // 4), self.identity, self.people_per_mining
        if taught is not None:
            taught = replace(taught, people_per_batch=min(most, taught.people_per_batch))
        if people >= 1.1 * self.people_per_batch:
            return replace(self, identity=taught)
        if group is not None and group <= most:
            return replace(self, identity=taught, people_per_batch=most - most % group)
        return replace(self, identity=taught, people_per_batch=most, people_per_mining=None)

    def begun_with(self, given: Collection[Modality]) -> Settings:
        """The same for a run that begins with weights for these networks: where both are given, neither is taught."""
        return replace(self, identity=None) if set(Modality) <= set(given) else self


POPULATION = Settings(
    face_backbone="small_face",
    voice_backbone="small_voice",
    face_preparation={},
    embedding=128,
    epochs=14,
    steps_per_epoch=50,
    people_per_batch=96,
    samples_per_person=1,
    people_per_mining=4,
    learning_rate=0.1,
    final_learning_rate=1e-4,
    curve="cosine",
    warm_up=0.1,
    weight_decay=2e-3,
    identity=IdentitySettings(),
    augmentation=Augmentation(brightness=0.25, contrast=0.15),
)
"""For small networks on invented people, found on training people of seed 0: 1,000 to learn from, 249 others to judge.

Its batch is that of S0's preset, with the hardest samples sought among four people. With the networks of the identity
stage frozen and 10 epochs the others' AUC was 0.862 with a linear layer of each modality's own and 0.814 with the
shared weighted residual layer; with the latter 0.803 by triplets alone, 0.759 without centres and 0.493 (nothing
learned) with λ = 0.03. With networks that learn on and 8 epochs it was 0.885.
"""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "plain triplet": {"ranking": "triplet"},
    "no ranking": {"ranking": "none"},
    "no identity": {"identity_loss": False},
    "no centres (lambda 0)": {"centre_weight": 0.0},
    "centres of the batch": {"centres": "batch"},
    "mean of the centre loss": {"reduction": "mean"},
    "lambda 0.0003": {"centre_weight": 0.0003},
    "lambda 0.01": {"centre_weight": 0.01},
    "lambda 0.03": {"centre_weight": 0.03},
    "16 people x 4 samples": {"people_per_batch": 16, "samples_per_person": 4, "people_per_mining": None},
    "hardest of the whole batch": {"people_per_mining": None},
}
"""Each constraint away, the other readings of the abstract, λ, and S0's batch."""


def centre_loss(
    faces: Tensor, face_centres: Tensor, voices: Tensor, voice_centres: Tensor, reduction: Reduction = "sum"
) -> Tensor:
    """Half the squared distances of samples to the centres of their people.

    Args:
        faces: (n, d) float.
        face_centres: (n, d) float, of each face's person.
        voices: (m, d) float.
        voice_centres: (m, d) float.
        reduction: ``sum`` over all samples, or the ``mean`` over faces plus that over voices.
    """
    face, voice = ((one - c).square().sum(dim=1) / 2 for one, c in ((faces, face_centres), (voices, voice_centres)))
    return face.sum() + voice.sum() if reduction == "sum" else face.mean() + voice.mean()


def batch_centres(faces: Tensor, face_people: Tensor, voices: Tensor, voice_people: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of all that a batch has of a person, faces and voices together, for each face and each voice.

    Args:
        faces: (n, d) float.
        face_people: (n,) int64.
        voices: (m, d) float.
        voice_people: (m,) int64.

    Returns:
        (n, d) and (m, d).
    """
    samples, people = torch.cat([faces, voices]), torch.cat([face_people, voice_people])
    alike = (people[:, None] == people[None, :]).to(samples.dtype)
    means = alike @ samples / alike.sum(dim=1, keepdim=True)
    return means[: len(faces)], means[len(faces) :]


class JointEmbeddingTask(Task):
    """The two networks, the layers behind them, and classifier and centres, which are thrown away after training.

    Args:
        settings: see :class:`Settings`.
        given: what it is made for.
    """

    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(given)
        self.settings = settings
        self.head = _head(settings, given)
        self.classifier = torch.nn.Linear(settings.embedding, given.people)
        if settings.centres == "learned":
            self.centres = torch.nn.Parameter(torch.zeros(given.people, settings.embedding))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the three losses, and ``total`` of those that are wanted."""
        settings = self.settings
        faces = self.embed(Modality.FACE, batch.faces)
        voices = self.embed(Modality.VOICE, batch.voices, batch.voice_lengths)
        with torch.autocast(faces.device.type, enabled=False):
            samples = (single(faces), batch.face_people, single(voices), batch.voice_people)
            groups = mining_groups(len(faces), settings.people_per_mining, settings.samples_per_person)
            terms = bi_quintuple(*samples, settings.margin, groups)
            terms["triplet"] = terms["cth_face"] + terms["cth_voice"]
            terms |= identity_loss(self.classifier, *samples)
            terms["centre"] = self._centre_loss(*samples)
        wanted = {settings.ranking: 1.0, "identity": float(settings.identity_loss), "centre": settings.centre_weight}
        total = torch.stack([terms[name] * weight for name, weight in wanted.items() if weight and name in terms]).sum()
        return {"total": total} | terms

    def _centre_loss(self, faces: Tensor, face_people: Tensor, voices: Tensor, voice_people: Tensor) -> Tensor:
        if self.settings.centres == "batch":
            face_centres, voice_centres = batch_centres(faces, face_people, voices, voice_people)
        else:
            # its own value; the gradient that reaches the centres is not weighed by λ
            weight, still = self.settings.centre_weight or 1.0, self.centres.detach()
            centres = still + (self.centres - still) / weight
            face_centres, voice_centres = centres[face_people], centres[voice_people]
        return centre_loss(faces, face_centres, voices, voice_centres, self.settings.reduction)


def stages(settings: Settings, frozen: bool) -> tuple[Stage, ...]:
    """One training of everything together; before it, if wanted, each network for identity on its own."""
    main = Stage(
        name="joint_embedding",
        settings=settings,
        build=partial(build, settings),
        optimiser=partial(optimiser, settings=settings),
        learning_rate=partial(learning_rate, settings),
    )
    return (*identity_first(settings.identity, settings, frozen=frozen), main)


def build(settings: Settings, given: Given, seed: int, before: Task | None = None) -> JointEmbeddingTask:
    """The task, drawn from ``seed`` alone but for the networks of a stage before it."""
    task = seeded(JointEmbeddingTask, seed, settings, given)
    begin_from(task, before)
    return task


def optimiser(task: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; centres know no weight decay."""
    named = dict(task.named_parameters())
    centres = [named.pop("centres")] if "centres" in named else []
    groups: list[dict[str, Any]] = [{"params": list(named.values()), "weight_decay": settings.weight_decay}]
    if centres:
        groups.append({"params": centres, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def learning_rate(settings: Settings, progress: float) -> float:
    """The learning rate after a share of the training, 0 to 1. Raises ValueError: progress outside."""
    rates = settings.learning_rate, settings.final_learning_rate
    return falling_rate(progress, *rates, settings.curve, settings.warm_up)


def _head(settings: Settings, given: Given) -> SharedSpaceHead:
    width = settings.embedding
    if settings.head == "weighted_residual":
        return shared_head(given, width, [["weighted_residual", width, settings.hidden]])
    face, voice = given.face.dimension, given.voice.dimension
    layers: list[list[Layer]] = [[["linear", face, width]], [["linear", voice, width]]]
    return SharedSpaceHead(layers[0], layers[1], [], face, voice)
