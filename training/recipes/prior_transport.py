"""Contrast, optimal transport and what a face teacher knows (S3 of the five methods).

Sun Jing, Su Jianbo, "Construction and Analysis of Cross-Modal General Feature Space Driven by Prior Information"
(2025). A network that recognises faces gives T, the teacher's vectors; a small network raises T to F, in the dimension
of the voice network's V. Three losses, summed as in algorithm 1: a pair's F and V are told from those of all other
pairs (L_C, equations 1 to 4); the cloud of all F is carried to that of all V at least cost (L_OT, equations 5 to 7,
:mod:`training.optimal_transport`); two faces are as alike in F as they are in T (L_RKD, equation 9), so that what the
teacher knows is not lost.

Misprints, and what is done here: equation 4 puts *distances* 1 − cos into its exponentials, which would drive pairs
apart; it is similarity. The three phases of a transformer's learning rate are printed as 15 %, 1 % and 7 %; both of the
latter must have lost a digit, and 15 % + 15 % + 70 % is the whole (``phases``). The text raises 80 mel cepstra and the
augmentation works on log-mel; the backbone's row decides, which is log-mel for ``ecapa_tdnn``. Equation 8 weighs L_OT
by an α that changes, algorithm 1 does not weigh it; α is 1 here and may rise (``transport_rise``).

Where the paper is silent, and what is chosen: τ is 0.07; 50 epochs; ReLU between the two layers that raise T, 512 wide;
the face network is frozen; the stepped learning rate has six steps, a tenth each; in a transformer's it rises in a
straight line and falls exponentially; how the face network learned, which is on whom a folder for it says, or on the
training people (``identity``); all samples weigh alike in the transport, its solver is exact, and where no sample is
chosen L_OT is 0; the best checkpoint by validation people is kept, and a voice network begins with public weights or
random numbers; 84.4 may or may not hold L_RKD, which is on here (``distillation_loss``). Pairs are drawn of different
people, one each; where a batch has several of a person (``samples_per_person``) these are neither positives nor rivals
of each other (``rivals``). On frozen vectors, where no voice network can be tuned, layers like those of the faces stand
behind the voices too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from encoders.folder import backbone_row
from encoders.heads import Layer, SharedSpaceHead
from encoders.space import Modality
from training.batches import Augmentation
from training.optimal_transport import SOLVERS, Solver, mutual_best, transport_loss
from training.pretraining import IdentitySettings, begin_from, identity_first
from training.recipe import Batch, Given, Stage, Task, seeded, single

Reduction = Literal["sum", "mean"]
Schedule = Literal["stepped", "three_phase"]

_OF_SPECTRA: tuple[float, float, Schedule] = (1e-3, 1e-8, "stepped")
_OF_WAVEFORMS: tuple[float, float, Schedule] = (1e-5, 1e-7, "three_phase")
_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "schedule": ("stepped", "three_phase", None),
    "reduction": ("sum", "mean"),
    "rivals": ("other_people", "all"),
    "transport_solver": SOLVERS,
}


@dataclass(frozen=True)
class Settings:
    """Every number of the method; the defaults are the paper's, with ECAPA-TDNN.

    Args:
        face_backbone: the teacher; a row of ``encoders.face.BACKBONES``.
        voice_backbone: a row of ``encoders.voice.BACKBONES``: ``ecapa_tdnn``, ``wav2vec2_base``, ``hubert_base`` …
        face_preparation: fields of the face backbone's preparation; 122 px are the paper's for a ResNet-34.
        voice_preparation: likewise.
        epochs: passes over the training people.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: pairs of each of them.
        learning_rate: the largest; None for the paper's: 1e-3, of a transformer 1e-5.
        final_learning_rate: the last, and the first of three phases; None for the paper's: 1e-8, of a transformer 1e-7.
        schedule: ``stepped`` or ``three_phase``; None for the paper's: three phases for a transformer.
        steps: of a stepped learning rate, all of one length, each lower by the same factor.
        phases: shares of the training in which three phases rise, stay and fall.
        weight_decay: on every parameter.
        temperature: τ.
        reduction: ``sum`` of L_C over samples and of L_RKD over pairs, as printed, or their ``mean``.
        rivals: ``other_people``, or ``all`` other pairs, those of the same person too.
        contrastive_loss: whether L_C counts.
        transport_loss: whether L_OT counts.
        distillation_loss: whether L_RKD counts.
        transport_weight: α of equation 8.
        transport_rise: batches in which α rises from 0 to it in a straight line.
        transport_choice: whether only pairs take part that beat their row and column.
        transport_unit: whether it carries vectors of unit length; else as they are, as printed.
        transport_solver: ``exact`` or ``sinkhorn``.
        transport_regularisation: of Sinkhorn: see :func:`~training.optimal_transport.transport_plan`.
        hidden: width between the two layers that raise T.
        identity: the stage that teaches the teacher first, to tell the training people apart, where a run does not
            begin with weights for it (``visavox train --initial``); None: never. Its backbones are these here.
        teacher_frozen: whether the face network stays as it is.
        voice_taught: whether the voice network begins as that training leaves it too; else with the weights that a run
            begins with.
        on_vectors: whether the voice network stays as it is too, so that only what stands behind both learns; both
            networks are then those that ``identity`` taught, or given.
        augmentation: how samples are varied; 2 s of a voice; of a waveform nothing is blanked out.
    """

    face_backbone: str = "resnet34_face"
    voice_backbone: str = "ecapa_tdnn"
    face_preparation: Mapping[str, Any] = field(default_factory=lambda: {"side": 122})
    voice_preparation: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 50
    steps_per_epoch: int | None = None
    people_per_batch: int = 64
    samples_per_person: int = 1
    learning_rate: float | None = None
    final_learning_rate: float | None = None
    schedule: Schedule | None = None
    steps: int = 6
    phases: tuple[float, float, float] = (0.15, 0.15, 0.70)
    weight_decay: float = 2e-5
    temperature: float = 0.07
    reduction: Reduction = "sum"
    rivals: Literal["other_people", "all"] = "other_people"
    contrastive_loss: bool = True
    transport_loss: bool = True
    distillation_loss: bool = True
    transport_weight: float = 1.0
    transport_rise: int = 0
    transport_choice: bool = True
    transport_unit: bool = False
    transport_solver: Solver = "exact"
    transport_regularisation: float = 0.05
    hidden: int = 512
    identity: IdentitySettings | None = field(default_factory=lambda: IdentitySettings(epochs=30, steps_per_epoch=None))
    teacher_frozen: bool = True
    voice_taught: bool = False
    on_vectors: bool = False
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(
            shift=0, brightness=0, contrast=0, colour=0, gain=0, masked_frames=5, masked_bands=10
        )
    )

    def __post_init__(self) -> None:
        counts = (self.epochs, self.steps_per_epoch or 1, self.samples_per_person, self.steps, self.hidden)
        if min(counts) < 1 or self.people_per_batch < 2 or self.transport_rise < 0:
            raise ValueError(
                "epochs, steps_per_epoch, samples_per_person, steps and hidden are at least 1, people_per_batch at "
                f"least 2 (rivals), transport_rise at least 0, got {counts}, {self.people_per_batch} and "
                f"{self.transport_rise}"
            )
        first, last = self.learning_rate, self.final_learning_rate
        if min(first or 1, last or 1) <= 0 or 0 in (first, last) or (first and last and last > first):
            raise ValueError(
                f"the learning rate falls from learning_rate ({first}) to final_learning_rate ({last}), both above 0"
            )
        if len(self.phases) != 3 or min(self.phases) < 0 or not math.isclose(sum(self.phases), 1):
            raise ValueError(f"phases are three shares that sum to 1, got {self.phases}")
        above, least = (self.temperature, self.transport_regularisation), (self.weight_decay, self.transport_weight)
        if min(above) <= 0 or min(least) < 0:
            raise ValueError(
                f"temperature and transport_regularisation are above 0, got {above}; weight_decay and transport_weight "
                f"at least 0, got {least}"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(map(str, choices))}, got {getattr(self, name)}")
        if not (self.contrastive_loss or self.transport_loss or self.distillation_loss):
            raise ValueError("nothing to train by: switch contrastive_loss, transport_loss or distillation_loss on")

    def fitting(self, people: int) -> Settings:
        """The same for fewer people than a batch would hold; some of them may turn out to be unusable."""
        most, taught = max(2, 3 * people // 4), self.identity
        return replace(
            self,
            people_per_batch=self.people_per_batch if people >= 1.1 * self.people_per_batch else most,
            identity=taught and replace(taught, people_per_batch=min(most, taught.people_per_batch)),
        )

    def begun_with(self, given: Collection[Modality]) -> Settings:
        """The same for a run that begins with weights for these networks: what is given is not taught first."""
        return replace(self, identity=None) if set(self.taught) <= set(given) else self

    def resolved(self) -> Settings:
        """The same with nothing left to the voice network to say."""
        first, last, schedule = self.rates
        told = replace(self, learning_rate=first, final_learning_rate=last, schedule=schedule)
        if not self._waveforms:
            return told
        return replace(told, augmentation=replace(self.augmentation, gain=0, masked_frames=0, masked_bands=0))

    @property
    def rates(self) -> tuple[float, float, Schedule]:
        """The largest learning rate, the last one, and how it comes from one to the other."""
        first, last, schedule = _OF_WAVEFORMS if self._waveforms else _OF_SPECTRA
        return self.learning_rate or first, self.final_learning_rate or last, self.schedule or schedule

    @property
    def taught(self) -> tuple[Modality, ...]:
        """The networks that are gone on with behind the identity stage."""
        return tuple(Modality) if self.voice_taught or self.on_vectors else (Modality.FACE,)

    @property
    def _waveforms(self) -> bool:
        return backbone_row(Modality.VOICE, self.voice_backbone).network == "speech_transformer"


POPULATION = Settings(
    face_backbone="small_face",
    voice_backbone="small_voice",
    face_preparation={},
    epochs=12,
    steps_per_epoch=50,
    people_per_batch=128,
    learning_rate=2e-3,
    final_learning_rate=1e-4,
    steps=3,
    temperature=0.3,
    reduction="mean",
    transport_unit=True,
    hidden=256,
    voice_taught=True,
    identity=IdentitySettings(),
    augmentation=Augmentation(brightness=0.25, contrast=0.15),
)
"""For small networks on invented people, found on training people of seed 0: 1,000 to learn from, 249 others to judge.

With the networks of the identity stage frozen, 10 to 15 epochs and unit vectors carried, the others' AUC was 0.790 at
τ = 0.07, 0.844 at 0.2, 0.875 at 0.3 and 0.876 at 0.5. At 0.07 sums instead of means made 0.760 of 0.745. At 0.2 the
contrast alone had 0.821, with the other two 0.838, with unit vectors carried 0.844; the transport alone had 0.468, and
0.505 without the choice of samples: as the paper reports, chance. With a voice network that learns on it was 0.892.
"""

_CONTRAST: Mapping[str, Any] = {"transport_loss": False, "distillation_loss": False}
# each voice network by the paper's own learning rates, beginning with the weights that the run is given
_OWN_RATES: Mapping[str, Any] = {
    "learning_rate": None,
    "final_learning_rate": None,
    "schedule": None,
    "voice_taught": False,
}
_VOICE_NETWORKS = {"ECAPA-TDNN": "ecapa_tdnn", "wav2vec 2.0": "wav2vec2_base", "HuBERT": "hubert_base"}
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "contrast only": _CONTRAST,
    "transport only": {"contrastive_loss": False, "distillation_loss": False},
    "contrast and transport (no RKD)": {"distillation_loss": False},
    "contrast and RKD": {"transport_loss": False},
    "transport and RKD": {"contrastive_loss": False},
    "Sinkhorn": {"transport_solver": "sinkhorn"},
    "transport of all samples": {"transport_choice": False},
    "transport as printed": {"transport_unit": False},
    "rising alpha (equation 8)": {"transport_rise": 300},
    "sums": {"reduction": "sum"},
    "means": {"reduction": "mean"},
    "temperature 0.07": {"temperature": 0.07},
    "temperature 0.1": {"temperature": 0.1},
    "temperature 0.2": {"temperature": 0.2},
    "temperature 0.5": {"temperature": 0.5},
    **{name: {"voice_backbone": row, **_OWN_RATES} for name, row in _VOICE_NETWORKS.items()},
    **{
        f"{name}, contrast": {"voice_backbone": row, **_OWN_RATES, **_CONTRAST} for name, row in _VOICE_NETWORKS.items()
    },
    "vision transformer for faces": {"face_backbone": "vit_face", "face_preparation": {}},
}
"""Tables 3 and 4, the switches, and the numbers that the paper does not give. The rows of other networks are for
weights that they begin with."""


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """(n, d) and (m, d) to (n, m) cosine similarities."""
    return normalize(one, dim=1) @ normalize(other, dim=1).T


def contrastive(
    similarities: Tensor, rivals: Tensor, temperature: float, reduction: Reduction = "sum"
) -> dict[str, Tensor]:
    """Each sample's own pair against its rivals, from both sides (equations 1 to 4, with similarities).

    Args:
        similarities: (n, n) float cosines, face i with voice j; (i, i) are the pairs.
        rivals: (n, n) bool, symmetric: which other pairs stand in the denominators; (i, i) is no rival.
        temperature: τ, above 0.
        reduction: ``sum`` over the samples, as printed, or their ``mean``.

    Returns:
        Scalars ``contrastive`` (the loss) and its terms ``face_to_voice`` and ``voice_to_face``.
    """
    own = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    scores = (similarities / temperature).masked_fill(~(rivals | own), -math.inf)
    answers = torch.arange(len(scores), device=scores.device)
    face, voice = (cross_entropy(one, answers, reduction=reduction) for one in (scores, scores.T))
    return {"contrastive": face + voice, "face_to_voice": face, "voice_to_face": voice}


def relational_distillation(students: Tensor, teachers: Tensor, reduction: Reduction = "sum") -> Tensor:
    """Squared error between the students' cosines and the teachers' (equation 9).

    Args:
        students: (n, d) float, F.
        teachers: (n, e) float, T of the same faces; no gradient reaches them, for they say what is to be.
        reduction: ``sum`` over all ordered pairs of faces, as printed, or the ``mean`` over them. A face with itself is
            among them and adds nothing.
    """
    errors = (cosines(students, students) - cosines(teachers, teachers).detach()).square()
    return errors.sum() if reduction == "sum" else errors.mean()


class PriorTransportTask(Task):
    """Teacher, voice network, and the layers that raise the teacher's vectors.

    Args:
        settings: resolved ones.
        given: what it is made for.
    """

    batches: Tensor  # () int64, how many were trained on: α may rise with them

    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(given)
        self.settings = settings
        face, width = given.face.dimension, given.voice.dimension
        # a voice network is tuned itself; frozen vectors cannot be
        voices = _raising(width, settings.hidden, width) if given.voice.backbone is None else []
        self.head = SharedSpaceHead(_raising(face, settings.hidden, width), voices, [], face, width)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        if settings.teacher_frozen:
            self.face.requires_grad_(False)

    def train(self, mode: bool = True) -> PriorTransportTask:
        """See torch; a frozen teacher stays in evaluation, or its normalisation would drift."""
        super().train(mode)
        if self.settings.teacher_frozen:
            self.face.eval()
        return self

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the three losses, ``total`` of those that are switched on, and how the transport went.

        ``chosen`` is the share of samples that take part in the transport.
        """
        settings = self.settings
        teachers = self.features(Modality.FACE, batch.faces)
        faces = self.head(teachers, Modality.FACE)
        voices = self.embed(Modality.VOICE, batch.voices, batch.voice_lengths)
        with torch.autocast(faces.device.type, enabled=False):
            teachers, faces, voices = single(teachers), single(faces), single(voices)
            similarities = cosines(faces, voices)
            same = _same_person(batch, settings.rivals)
            chosen = mutual_best(similarities, same) if settings.transport_choice else same.diagonal()
            terms = contrastive(similarities, ~same, settings.temperature, settings.reduction)
            terms["transport"] = self._transport(faces[chosen], voices[chosen])
            terms["distillation"] = relational_distillation(faces, teachers, settings.reduction)
        if self.training:
            self.batches += 1
        wanted: dict[str, tuple[bool, Tensor | float]] = {
            "contrastive": (settings.contrastive_loss, 1.0),
            "transport": (settings.transport_loss, self._transport_weight()),
            "distillation": (settings.distillation_loss, 1.0),
        }
        total = torch.stack([terms[name] * weight for name, (on, weight) in wanted.items() if on]).sum()
        return {"total": total} | terms | {"chosen": chosen.float().mean()}

    def _transport(self, faces: Tensor, voices: Tensor) -> Tensor:
        """L_OT of the samples that take part."""
        settings = self.settings
        if settings.transport_unit:
            faces, voices = normalize(faces, dim=1), normalize(voices, dim=1)
        return transport_loss(faces, voices, settings.transport_solver, settings.transport_regularisation)

    def _transport_weight(self) -> Tensor:
        """α now."""
        rise = max(1, self.settings.transport_rise)
        return self.settings.transport_weight * (self.batches / rise).clamp(max=1.0)


def stages(settings: Settings, frozen: bool) -> tuple[Stage, ...]:
    """The teacher, unless it is given or its vectors are; then what the paper trains."""
    settings = settings.resolved()
    main = Stage(
        name="prior_transport",
        settings=settings,
        build=partial(build, settings),
        optimiser=partial(optimiser, settings=settings),
        learning_rate=partial(learning_rate, settings),
        on_vectors=settings.on_vectors and not frozen,
    )
    taught = Modality.VOICE in settings.taught
    return (*identity_first(settings.identity, settings, frozen=frozen, voices=taught), main)


def build(settings: Settings, given: Given, seed: int, before: Task | None = None) -> PriorTransportTask:
    """The task, its layers drawn from ``seed`` alone, its networks those of the stage before it."""
    task = seeded(PriorTransportTask, seed, settings, given)
    if before is not None and given.face.backbone is not None:
        begin_from(task, before) if settings.voice_taught else task.face.load_state_dict(before.face.state_dict())
    return task


def optimiser(task: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam with weight decay, as published, over all that is not frozen."""
    learning = [one for one in task.parameters() if one.requires_grad]
    return torch.optim.Adam(learning, lr=settings.rates[0], weight_decay=settings.weight_decay)


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
    largest, last, schedule = settings.rates
    if schedule == "stepped":
        step = min(int(progress * settings.steps), settings.steps - 1)
        return float(largest * (last / largest) ** (step / max(1, settings.steps - 1)))
    rising, staying, falling = settings.phases
    if progress < rising:
        return last + (largest - last) * progress / rising
    if progress <= rising + staying or not falling:
        return largest
    return float(largest * (last / largest) ** ((progress - rising - staying) / falling))


def _raising(before: int, hidden: int, behind: int) -> list[Layer]:
    return [["linear", before, hidden], ["relu"], ["linear", hidden, behind]]


def _same_person(batch: Batch, rivals: str) -> Tensor:
    """(n, n) bool, symmetric: face i and voice j are one pair, or no rivals for being of one person."""
    if rivals == "all":
        return torch.eye(len(batch.face_people), dtype=torch.bool, device=batch.face_people.device)
    return batch.face_people[:, None] == batch.voice_people[None, :]
