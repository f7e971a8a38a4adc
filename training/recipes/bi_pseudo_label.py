"""Bi-directional pseudo-labels: each modality is taught the clusters that the other one falls into (S2, Bi-Pcm).

Zhu Minghang, Liu Xin, Yu Zhenning, Xu Xing, Zheng Shukai, "Cross Face-Voice Matching Method via Bi-Pseudo Label Based
Self-Supervised Learning" (2022). Two networks end in one weighted residual head with dropout that both modalities
share (CMWR, equations 1 and 2). In every batch the faces and the voices are clustered, each for itself, and the
clusters are ranked (:mod:`training.pseudo_labels`); a sample's label is the rank of its cluster. Four losses
(:mod:`training.pseudo_label_losses`) make L = L_cma + 10·L_Bi-P + 0.1·L_id + L_KL (equation 11): labels of a pair
shall go together, each modality predicts the other's labels, people and their sex are told apart, and both modalities
spread over the labels alike. Several numbers of clusters are used side by side, and their whole losses added, so that
L_id counts once for each. L_Bi-P and L_id are sums over the batch, L_cma is a mean, as printed; ``reduction`` changes
the sums.

Its ablations: ``id`` alone is ``head="linear"``, ``association="off"`` and neither ``bi_pseudo_label_loss`` nor
``distribution_loss``; each of them switches one module or loss on or off by itself; L_cma alone is both of the latter
off. A ``variant`` names the numbers of clusters. How often the labels of a pair agree is in the run's log for each
number of clusters (``agreement_8`` …, of training batches); fewer training people are an option of ``visavox train``.
Its figures are those of ``visavox evaluate --protocol DIR`` with the lists of D, which are of U and G; pairs of N and
GN are drawn (:mod:`search.generated_lists`). A and GNA of its table cannot be had of them: they tell nobody's age.

Where the paper is silent, and what is chosen here:

- dropout rate 0.5, and the head's share of the residual begins with 0 (as S0's); the inner layer is as wide as the
  features. Where networks or frozen vectors are not as wide as the head, a linear layer of each modality brings them
  there; without CMWR (``head="linear"``) the head is one fully connected layer that both share.
- 50 epochs; the learning rate falls in a straight line on a logarithmic scale (``curve``).
- faces are found and cut to 224 pixels with room around them, and then moved by up to 16, whose edge repeats the
  picture's: what a resize and a random cut come to. Voices are shortened or repeated to 10 s, after what is 40 dB
  quieter than the loudest 25 ms is left out: the paper names no detector of voice activity. There are 64 MFCCs, each
  normalised over the whole voice before it is cut; the paper cuts first.
- networks are drawn at random, as nothing is said of their weights.
- K-means starts with the same people in both modalities (``starts``).
- one prototype for each modality; earlier ones are averaged as they were after the step of equation 7, which comes
  before clusters are ranked. The point of equation 4 may lie anywhere, or be one of the batch (``prototype``).
- a column of one value, for which equation 3 divides by zero, becomes zeros.
- φ is one linear layer everywhere: φ_face and φ_voice of Algorithm 1, φ_face,voice of equation 8, which both
  modalities share, and φ_ID and φ_g of equation 9, which they share too.
- the scale of Algorithm 1's S in equation 6: it is brought into (0, 1), where equation 5's S is (``score_scale``).
  That one has no gradient; ``association="hard"`` uses it.
- of L_KL, the softmax is over the shares of the labels in the batch (``distribution_reduction``), with the gradient
  of soft labels: see :func:`~training.pseudo_label_losses.label_distribution`.
- a batch is 128 people with a face and a voice each. People of unknown sex are left out of the sexes' part of L_id.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from encoders.heads import Layer
from encoders.space import Modality
from training.batches import Augmentation
from training.pretraining import IdentitySettings, begin_from, identity_first
from training.pseudo_label_losses import (
    UNKNOWN,
    LearnedAssociation,
    Reduction,
    ScoreScale,
    association_loss,
    bi_pseudo_label_loss,
    distribution_loss,
    hard_association,
    identity_loss,
    label_distribution,
)
from training.pseudo_labels import (
    PROTOTYPES,
    PrototypeMemory,
    PseudoLabels,
    label_agreement,
    pair_labels,
    scale_columns,
)
from training.recipe import Batch, Given, Stage, Task, seeded, shared_head, single
from training.schedules import CURVES, Curve, falling_rate

VARIANTS = ("F", "S", "T", "FS", "FT", "ST", "FST")
"""Which of ``cluster_counts`` are used: the first, the second, the third, several side by side."""

AS_PUBLISHED = Augmentation(mirror=0.5, shift=16, brightness=0, contrast=0, colour=0, frames=1000, gain=0)
"""Faces mirrored half of the time and cut at random, voices of 10 s; nothing else is varied."""

_SEXES = {"f": 0, "m": 1}


@dataclass(frozen=True)
class Settings:
    """Every number of the method; the defaults are the paper's, or what the module says where it is silent.

    Args:
        face_backbone: row of ``encoders.face.BACKBONES``.
        voice_backbone: row of ``encoders.voice.BACKBONES``.
        face_preparation: fields of its preparation that are not at their defaults.
        voice_preparation: likewise.
        epochs: passes over the training samples.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: faces of each of them, and as many voices; these times people are B of the paper.
        learning_rate: of Adam, the largest; reached after ``warm_up``.
        final_learning_rate: where the curve ends.
        curve: of :data:`training.schedules.CURVES`.
        warm_up: share of the training in which the learning rate rises from 0 in a straight line.
        embedding: components of the shared space.
        head: ``cmwr``, the weighted residual layer with dropout, or ``linear``, a fully connected layer instead.
        hidden: width of CMWR's inner layer.
        dropout: share of its residual's components that are dropped out, in [0, 1).
        cluster_counts: q of F, S and T.
        variant: which of them are used; see :data:`VARIANTS`.
        prototype: ``geometric_median`` or ``medoid``.
        starts: of K-means: ``paired``, the same people in both modalities, or ``separate``.
        association: of L_cma: ``learned`` (Algorithm 1), ``hard`` (equation 5), or ``off``.
        score_scale: of Algorithm 1's S: ``bounded``, ``mean`` or ``sum``; see
            :class:`~training.pseudo_label_losses.LearnedAssociation`.
        bi_pseudo_label_loss: whether there is L_Bi-P.
        identity_loss: whether there is L_id.
        distribution_loss: whether there is L_KL.
        bi_pseudo_label_weight: γ₁.
        identity_weight: γ₂.
        reduction: of L_Bi-P and L_id over the batch: ``sum`` as printed, or ``mean``.
        distribution_reduction: whether L_KL's softmax is over shares (``mean``) or numbers (``sum``) of samples.
        temperature: of the soft labels that carry L_KL's gradient.
        augmentation: how samples are varied.
        pretraining: a stage that first teaches each network by itself to tell people apart, where a run does not begin
            with weights for both (``visavox train --initial``); None: there is none.
    """

    face_backbone: str = "resnet34_face"
    voice_backbone: str = "dimnet_voice"
    face_preparation: Mapping[str, Any] = field(default_factory=dict)
    voice_preparation: Mapping[str, Any] = field(default_factory=lambda: {"features": "mfcc", "quiet_below": 40.0})
    epochs: int = 50
    steps_per_epoch: int | None = None
    people_per_batch: int = 128
    samples_per_person: int = 1
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-8
    curve: Curve = "exponential"
    warm_up: float = 0.0
    embedding: int = 256
    head: Literal["cmwr", "linear"] = "cmwr"
    hidden: int = 256
    dropout: float = 0.5
    cluster_counts: tuple[int, int, int] = (8, 32, 64)
    variant: str = "FST"
    prototype: str = "geometric_median"
    starts: Literal["paired", "separate"] = "paired"
    association: Literal["learned", "hard", "off"] = "learned"
    score_scale: ScoreScale = "bounded"
    bi_pseudo_label_loss: bool = True
    identity_loss: bool = True
    distribution_loss: bool = True
    bi_pseudo_label_weight: float = 10.0
    identity_weight: float = 0.1
    reduction: Reduction = "sum"
    distribution_reduction: Reduction = "mean"
    temperature: float = 1.0
    augmentation: Augmentation = AS_PUBLISHED
    pretraining: IdentitySettings | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "cluster_counts", tuple(self.cluster_counts))
        self._check_training()
        self._check_method()
        if self.pseudo_labels and max(self.clusters) > self.people_per_batch * self.samples_per_person:
            raise ValueError(
                f"{max(self.clusters)} clusters need as many samples in a batch, which has {self.people_per_batch} "
                f"people with {self.samples_per_person} each: enlarge the batch or lessen cluster_counts"
            )

    def _check_training(self) -> None:
        """Epochs, batch, learning rate."""
        if self.epochs < 1 or (self.steps_per_epoch is not None and self.steps_per_epoch < 1):
            raise ValueError(f"a training needs epochs and steps, got {self.epochs} and {self.steps_per_epoch}")
        if self.people_per_batch < 2 or self.samples_per_person < 1:
            raise ValueError(
                f"a batch needs at least 2 people with at least 1 sample each, got {self.people_per_batch} with "
                f"{self.samples_per_person}"
            )
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"the learning rate falls from learning_rate ({self.learning_rate}) to final_learning_rate "
                f"({self.final_learning_rate}), both above 0"
            )
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up is in [0, 1), got {self.warm_up}")

    def _check_method(self) -> None:
        """Head, labels, losses."""
        for name, known in (
            ("curve", CURVES),
            ("head", ("cmwr", "linear")),
            ("variant", VARIANTS),
            ("prototype", tuple(PROTOTYPES)),
            ("starts", ("paired", "separate")),
            ("association", ("learned", "hard", "off")),
            ("score_scale", ("bounded", "mean", "sum")),
            ("reduction", ("sum", "mean")),
            ("distribution_reduction", ("sum", "mean")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
        if min(self.embedding, self.hidden) < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"embedding and hidden are at least 1, dropout in [0, 1), got {self.embedding}, {self.hidden}, "
                f"{self.dropout}"
            )
        if len(self.cluster_counts) != 3 or min(self.cluster_counts) < 2 or len(set(self.cluster_counts)) != 3:
            raise ValueError(f"cluster_counts are 3 different numbers of at least 2, got {self.cluster_counts}")
        if min(self.bi_pseudo_label_weight, self.identity_weight) < 0 or self.temperature <= 0:
            raise ValueError(
                f"weights are at least 0 and temperature above 0, got {self.bi_pseudo_label_weight}, "
                f"{self.identity_weight}, {self.temperature}"
            )
        if self.association != "learned" and not (
            self.bi_pseudo_label_loss or self.identity_loss or self.distribution_loss
        ):
            raise ValueError("nothing to train by: switch a loss on (association='hard' has no gradient)")

    @property
    def clusters(self) -> tuple[int, ...]:
        """The numbers of clusters that are used, each q."""
        return tuple(q for letter, q in zip("FST", self.cluster_counts, strict=True) if letter in self.variant)

    @property
    def pseudo_labels(self) -> bool:
        """Whether any loss asks for pseudo-labels."""
        return self.association != "off" or self.bi_pseudo_label_loss or self.distribution_loss

    def fitting(self, people: int) -> Settings:
        """The same for fewer people than a batch would hold: they bring more samples each, so it stays as large."""
        fewer, taught = max(2, 3 * people // 4), self.pretraining
        if taught is not None and people < 1.1 * taught.people_per_batch:
            taught = replace(taught, people_per_batch=min(fewer, taught.people_per_batch))
        if people >= 1.1 * self.people_per_batch:
            return replace(self, pretraining=taught)
        size = self.people_per_batch * self.samples_per_person
        return replace(self, people_per_batch=fewer, samples_per_person=math.ceil(size / fewer), pretraining=taught)

    def begun_with(self, given: Collection[Modality]) -> Settings:
        """The same for a run that begins with weights for these networks: where both are given, neither is taught."""
        return replace(self, pretraining=None) if set(Modality) <= set(given) else self


POPULATION = replace(
    Settings(),
    face_backbone="small_face",
    voice_backbone="small_voice",
    voice_preparation={},
    epochs=16,
    steps_per_epoch=60,
    final_learning_rate=1e-5,
    curve="cosine",
    embedding=128,
    hidden=128,
    bi_pseudo_label_weight=0.3,
    identity_weight=1.0,
    augmentation=Augmentation(brightness=0.25, contrast=0.15, masked_bands=8),
    pretraining=IdentitySettings(),
)
"""For invented people: small networks that a stage of their own has taught to tell people apart, clips of 2 s.

L_Bi-P weighs less than L_id: with 10 and 0.1, in so short a training, labels that still change with every batch drown
what L_id teaches. With both at 1, 10 epochs and no band of a voice masked, validation mAP was 0.190 and unseen people's
AUC 0.859; without the stage before it 0.149 and 0.848.
"""

_NO_SELF_LEARNING: Mapping[str, Any] = {
    "association": "off",
    "bi_pseudo_label_loss": False,
    "distribution_loss": False,
}
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "id": {"head": "linear", **_NO_SELF_LEARNING},
    "id+self-learn": {"head": "linear"},
    "CMWR+id": _NO_SELF_LEARNING,
    "without L_Bi-P": {"bi_pseudo_label_loss": False},
    "without L_KL": {"distribution_loss": False},
    "L_cma alone": {"bi_pseudo_label_loss": False, "distribution_loss": False},
    "hard labels (equation 5)": {"association": "hard"},
    "medoid": {"prototype": "medoid"},
    "means": {"reduction": "mean"},
    **{f"variant {one}": {"variant": one} for one in VARIANTS if one != "FST"},
}
"""The rows of table 4 and figure 4, the other readings of the formulas, and the sets of pseudo-labels. L_id is in all
of them. Fewer training people, which the paper tries too, are no setting: see ``visavox train --people``."""


class BiPseudoLabelTask(Task):
    """The two networks and the head they share; all that only training needs is made if a loss asks for it.

    Args:
        settings: see :class:`Settings`.
        given: what it is made for.
    """

    sexes: Tensor  # (people,) int64

    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(given)
        self.settings, width = settings, settings.embedding
        layers: dict[str, Layer] = {
            "cmwr": ["weighted_residual_dropout", width, settings.hidden, settings.dropout],
            "linear": ["linear", width, width],
        }
        self.head = shared_head(given, width, [layers[settings.head]])
        sexes = torch.tensor([_SEXES.get(sex, UNKNOWN) for sex in given.sexes])
        self.register_buffer("sexes", sexes, persistent=False)
        if settings.identity_loss:
            self.people = torch.nn.Linear(width, given.people)
            self.sex = torch.nn.Linear(width, len(_SEXES))
        if settings.pseudo_labels:
            self.prototypes = torch.nn.ModuleDict({one.value: PrototypeMemory(width) for one in Modality})
        if settings.bi_pseudo_label_loss:
            self.labellers = torch.nn.ModuleDict({str(q): torch.nn.Linear(width, q) for q in settings.clusters})
        if settings.association == "learned":
            self.associations = torch.nn.ModuleDict(
                {str(q): LearnedAssociation(width, q, settings.score_scale) for q in settings.clusters}
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``total`` (equation 11, added up over the numbers of clusters) and its terms, before they are weighted.

        ``association`` is L_cma, ``bi_pseudo_label`` L_Bi-P, ``distribution`` L_KL, each added up over the numbers of
        clusters; ``identity`` is L_id, ``person`` and ``sex`` its parts. ``agreement_<q>`` is the share of pairs
        whose face and voice have one label (the paper's figure 7).

        Raises:
            ValueError: the rows of faces and voices are not of the same people.
        """
        if not torch.equal(batch.face_people, batch.voice_people):
            raise ValueError("pseudo-labels need pairs: face i and voice i of a batch must be of one person")
        faces = self.embed(Modality.FACE, batch.faces)
        voices = self.embed(Modality.VOICE, batch.voices, batch.voice_lengths)
        with torch.autocast(faces.device.type, enabled=False):
            return self._of_points(single(faces), single(voices), batch.face_people)

    def _of_points(self, faces: Tensor, voices: Tensor, people: Tensor) -> dict[str, Tensor]:
        settings, terms = self.settings, dict[str, Tensor]()
        weighted = list[Tensor]()
        if settings.pseudo_labels:
            terms |= self._pseudo_label_losses(faces, voices)
            weights = {"bi_pseudo_label": settings.bi_pseudo_label_weight}
            weighted += [weights.get(name, 1.0) * term for name, term in terms.items() if "agreement" not in name]
        if settings.identity_loss:
            terms |= self._identity_losses(faces, voices, people)
            weighted.append(settings.identity_weight * len(settings.clusters) * terms["identity"])
        return {"total": torch.stack(weighted).sum()} | terms

    def _pseudo_label_losses(self, faces: Tensor, voices: Tensor) -> dict[str, Tensor]:
        """Each loss that is switched on, added up over the numbers of clusters, and the agreement of each number."""
        settings, sums, agreements = self.settings, dict[str, Tensor](), dict[str, Tensor]()
        for q, (of_faces, of_voices) in self._labels(faces, voices).items():
            names = of_faces.labels.to(faces.device), of_voices.labels.to(faces.device)
            labelled, found = (faces, names[0], voices, names[1]), dict[str, Tensor]()
            if settings.association != "off":
                hard = settings.association == "hard"
                scores = hard_association(*names) if hard else self.associations[str(q)](*labelled)
                found["association"] = association_loss(scores)
            if settings.bi_pseudo_label_loss:
                labeller = self.labellers[str(q)]
                found["bi_pseudo_label"] = bi_pseudo_label_loss(labeller, *labelled, settings.reduction)
            if settings.distribution_loss:
                how = settings.temperature, settings.distribution_reduction
                found["distribution"] = distribution_loss(
                    label_distribution(faces, of_faces, *how), label_distribution(voices, of_voices, *how)
                )
            sums = {name: sums.get(name, 0) + term for name, term in found.items()}
            agreements[f"agreement_{q}"] = label_agreement(*names)
        return sums | agreements

    def _labels(self, faces: Tensor, voices: Tensor) -> dict[int, tuple[PseudoLabels, PseudoLabels]]:
        """Labels of faces and of voices by number of clusters; the prototypes are found once for all of them.

        Features that are not finite count as 0 here, so that it is the losses that show them, to the loop.
        """
        settings, find = self.settings, PROTOTYPES[self.settings.prototype]
        scaled = [torch.nan_to_num(scale_columns(one.detach().cpu().double())) for one in (faces, voices)]
        face, voice = (
            self.get_submodule(f"prototypes.{one}")(find(points)) for one, points in zip(Modality, scaled, strict=True)
        )
        paired = settings.starts == "paired"
        return {q: pair_labels(scaled[0], scaled[1], (face, voice), q, paired) for q in settings.clusters}

    def _identity_losses(self, faces: Tensor, voices: Tensor, people: Tensor) -> dict[str, Tensor]:
        """L_id of both modalities, and how often each names the person rightly."""
        how = people, self.sexes[people], self.settings.reduction
        face, voice = (identity_loss(self.people, self.sex, one, *how) for one in (faces, voices))
        parts = {name: face[name] + voice[name] for name in ("person", "sex")}
        named = {"face_accuracy": face["accuracy"], "voice_accuracy": voice["accuracy"]}
        return {"identity": parts["person"] + parts["sex"]} | parts | named


def build(settings: Settings, given: Given, seed: int, before: Task | None = None) -> BiPseudoLabelTask:
    """The task with parameters drawn from ``seed`` alone; its networks begin as those of the stage before, if any."""
    task = seeded(BiPseudoLabelTask, seed, settings, given)
    begin_from(task, before)
    return task


def optimiser(task: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam, as published."""
    return torch.optim.Adam(task.parameters(), lr=settings.learning_rate)


def learning_rate(settings: Settings, progress: float) -> float:
    """The learning rate after a share of the training, 0 to 1. Raises ValueError: progress outside."""
    rates = settings.learning_rate, settings.final_learning_rate
    return falling_rate(progress, *rates, settings.curve, settings.warm_up)


def stages(settings: Settings, frozen: bool) -> tuple[Stage, ...]:
    """Everything at once, as published, or the head alone where vectors are frozen; before it perhaps the networks."""
    method = Stage(
        name="bi_pseudo_label",
        settings=settings,
        build=partial(build, settings),
        optimiser=partial(optimiser, settings=settings),
        learning_rate=partial(learning_rate, settings),
    )
    return (*identity_first(settings.pretraining, settings, frozen=frozen), method)
