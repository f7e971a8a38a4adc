"""One network for faces and sounds, then gated fusion under orthogonal projection (S1 of the five methods).

Zhong Fanghao, Bu Fanliang, Qin Haoming, "Cross Modal Learning Method of Speech Face via Single Stream Network" (2025).
Stage 1 (``stream``) trains one Inception-ResNet-v1 on faces and on spectrograms shown to it as pictures
(:mod:`encoders.backbones.sound_pictures`): each batch goes through it in one piece, a softmax names the person, and
the centre that a person's faces and sounds have in common draws them together (equations 1 and 2). Stage 2
(``fusion``) learns from the vectors of stage 1: each modality is projected, a gate that sees both vectors mixes them,
and the mixture is named and made orthogonal between people (equations 3 to 11). With frozen vectors of other networks
only the second stage is trained.

Where the paper contradicts itself: equations 3 and 4 swap the two modalities, the text does not, nor does this;
equation 2 sums the classifier over n, which it also calls the classes of the batch: here all training people, as in
Wen et al. (2016), whose loss it is, and the centres over the people of the batch; lg is the natural logarithm.
Sums are as printed: both terms of equation 2 over the batch (``reduction``), and equation 10, whose first sum holds
every vector with itself (``orthogonality``; equation 9 is printed for one pair and is a mean over the batch). The
printed sums of 16,384 cosines outweigh the classifier by far; ``mean`` is what works best on invented people.

Where it is silent, and what is chosen here. Faces are found and aligned by the installation's detector; the paper's is
MTCNN (``VISAVOX_FACE_DETECTOR=mtcnn``). Sound: see ``inception_resnet_v1_voice``; a picture has the face's 256 x 256.
Stage 1: Adam from 1e-4 to 1e-6, 30 epochs; 45 is the number of faces in a batch, and of sounds, 3 of each of 15 people;
initial weights are what ``visavox train --initial`` is given; no dimension is left to unit length before the softmax;
pictures of faces are mirrored by chance (0.5), moved by up to 8 pixels, and made lighter or darker, harder or softer by
up to a tenth and each colour by 0.03. Stage 2: α = 1; u and v have 512 components and their layers an offset; the gate
is one per component (⊙; ``scalar_gate`` is the other reading); the rate falls tenfold; a pair is a random face and a
random sound of a person, 2 pairs each of 64 people. The checkpoint of either stage is the best on validation people.
What is compared at test: u and v, before fusion, as the closest published practice does (Saeed et al., 2022); a probe
has only one of the two, so that nothing can be fused.

The ablations of its table 6: ``fusion=False`` (the loss kept: u and v are named and made orthogonal as if each were
an I), ``orthogonal_weight=0`` (fusion, cross-entropy only), ``cross_entropy=False`` (fusion, cosines only), and all.
``stream.centre_weight=0`` is softmax alone in stage 1. Each is a line of a file for ``visavox train single_stream
--config``, or of :class:`Settings`. Its figures: ``visavox train single_stream --corpus voxceleb1 --root DIR``, then
``visavox evaluate --protocol DIR --media DIR --html PAGE`` with the lists of P: AUC and EER of U, G, N, A and GNA with
their ROC, 1:N both ways for N = 2 to 10 with its plot, mAP both ways and their mean, and pictures of what was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, cast, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from encoders.backbones.sound_pictures import mean_by_owner, sounds_to_pictures
from encoders.heads import Layer, SharedSpaceHead
from encoders.space import Modality
from training.batches import Augmentation
from training.fusion import GatedFusion, Orthogonality, orthogonal_loss
from training.networks import read_network_preparation
from training.recipe import Batch, Given, Stage, Task, seeded, single
from training.schedules import falling_rate

Reduction = Literal["sum", "mean"]


def _check(settings: Settings | StreamSettings) -> None:
    """Raises ValueError: what both stages have is impossible."""
    if settings.epochs < 1 or (settings.steps_per_epoch is not None and settings.steps_per_epoch < 1):
        raise ValueError(f"a training needs epochs and steps, got {settings.epochs} and {settings.steps_per_epoch}")
    if settings.people_per_batch < 2 or settings.samples_per_person < 1:
        raise ValueError(
            f"a batch needs at least 2 people with at least 1 sample each, got {settings.people_per_batch} with "
            f"{settings.samples_per_person}"
        )
    if not 0 < settings.final_learning_rate <= settings.learning_rate:
        raise ValueError(
            f"the learning rate falls from learning_rate ({settings.learning_rate}) to final_learning_rate "
            f"({settings.final_learning_rate}), both above 0"
        )
    if not 0 <= settings.warm_up < 1 or settings.weight_decay < 0:
        raise ValueError(
            f"warm_up is in [0, 1), weight_decay at least 0, got {settings.warm_up} and {settings.weight_decay}"
        )


ONE_NETWORK = True
"""Faces and sounds go through the network of faces."""


@dataclass(frozen=True)
class StreamSettings:
    """Numbers of stage 1.

    Args:
        epochs: passes over the training samples.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: faces of each, and as many sounds.
        learning_rate: the largest.
        final_learning_rate: where its exponential decay ends.
        warm_up: share of the training in which it rises from 0.
        weight_decay: on every parameter, apart from the gradient.
        centre_weight: λ of the joint centres; 0 is softmax alone.
        reduction: ``sum`` over the batch as printed, or ``mean``.
        augmentation: how samples are varied; a sound's frames are a whole number of pictures.
    """

    epochs: int = 30
    steps_per_epoch: int | None = None
    people_per_batch: int = 15
    samples_per_person: int = 3
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    warm_up: float = 0.0
    weight_decay: float = 0.0
    centre_weight: float = 1.0
    reduction: Reduction = "sum"
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(shift=8, frames=256, gain=0.0))

    def __post_init__(self) -> None:
        _check(self)
        if self.centre_weight < 0 or self.reduction not in get_args(Reduction):
            raise ValueError(
                f"centre_weight is at least 0, reduction sum or mean, got {self.centre_weight} and {self.reduction!r}"
            )


@dataclass(frozen=True)
class Settings:
    """Every number of the method; the defaults are the paper's.

    Args:
        stream: stage 1.
        epochs: passes of stage 2 over the training samples.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: pairs of a face and a sound of each.
        learning_rate: the largest.
        final_learning_rate: where its exponential decay ends.
        warm_up: share of the training in which it rises from 0.
        weight_decay: on every parameter, apart from the gradient.
        embedding: components of u, v and the shared space.
        fusion: whether u and v are mixed before they are judged.
        scalar_gate: whether one number mixes all components.
        cross_entropy: whether the bias-free classifier teaches.
        orthogonal_weight: α.
        orthogonality: what the orthogonal loss adds up: see :func:`training.fusion.orthogonal_loss`.
        face_backbone: name of a row of :data:`encoders.face.BACKBONES`.
        voice_backbone: the row of :data:`encoders.voice.BACKBONES` with the same network.
        face_preparation: fields of its preparation that are not at their defaults.
        voice_preparation: likewise.
    """

    stream: StreamSettings = field(default_factory=StreamSettings)
    epochs: int = 100
    steps_per_epoch: int | None = None
    people_per_batch: int = 64
    samples_per_person: int = 2
    learning_rate: float = 1e-5
    final_learning_rate: float = 1e-6
    warm_up: float = 0.0
    weight_decay: float = 0.0
    embedding: int = 512
    fusion: bool = True
    scalar_gate: bool = False
    cross_entropy: bool = True
    orthogonal_weight: float = 1.0
    orthogonality: Orthogonality = "sum"
    face_backbone: str = "inception_resnet_v1"
    voice_backbone: str = "inception_resnet_v1_voice"
    face_preparation: Mapping[str, Any] = field(default_factory=lambda: {"side": 256, "unit_length": False})
    voice_preparation: Mapping[str, Any] = field(default_factory=lambda: {"unit_length": False})

    def __post_init__(self) -> None:
        _check(self)
        if self.embedding < 1 or self.orthogonal_weight < 0 or self.orthogonality not in get_args(Orthogonality):
            raise ValueError(
                f"embedding is at least 1, orthogonal_weight at least 0, orthogonality one of "
                f"{', '.join(get_args(Orthogonality))}, got {self.embedding}, {self.orthogonal_weight} and "
                f"{self.orthogonality!r}"
            )
        if not self.cross_entropy and not self.orthogonal_weight:
            raise ValueError("nothing to train by: switch cross_entropy on or give orthogonal_weight")
        if self.voice_backbone != f"{self.face_backbone}_voice":
            raise ValueError(
                f"one network sees faces and hears sounds: beside {self.face_backbone} the voice_backbone is "
                f"{self.face_backbone}_voice, got {self.voice_backbone}"
            )
        _check_pictures(
            read_network_preparation(Modality.FACE, self.face_backbone, self.face_preparation),
            read_network_preparation(Modality.VOICE, self.voice_backbone, self.voice_preparation),
        )

    @property
    def augmentation(self) -> Augmentation:
        """How samples are varied where they are varied."""
        return self.stream.augmentation

    def fitting(self, people: int) -> Settings:
        """The same for fewer people than a batch would hold; some of them may turn out to be unusable."""
        most = max(2, 3 * people // 4)

        def fewer(wanted: int) -> int:
            return wanted if people >= 1.1 * wanted else min(wanted, most)

        stream = replace(self.stream, people_per_batch=fewer(self.stream.people_per_batch))
        return replace(self, stream=stream, people_per_batch=fewer(self.people_per_batch))


def _check_pictures(face: Any, voice: Any) -> None:  # noqa: ANN401 - each network has its own preparation
    """Raise ValueError where the one network would be given pictures, or asked for vectors, of two kinds."""
    for ours, theirs in (("side", "bands"), ("unit_length", "unit_length")):
        told = getattr(face, ours, None), getattr(voice, theirs, None)
        if told[0] != told[1]:
            raise ValueError(
                f"faces and sounds go through one network together: give face_preparation.{ours} ({told[0]}) and "
                f"voice_preparation.{theirs} ({told[1]}) the same value"
            )


POPULATION = Settings(
    stream=StreamSettings(
        epochs=8,
        steps_per_epoch=80,
        people_per_batch=128,
        samples_per_person=1,
        learning_rate=3e-3,
        final_learning_rate=1e-4,
        warm_up=0.05,
        weight_decay=0.05,
        centre_weight=0.01,
        reduction="mean",
        augmentation=Augmentation(brightness=0.25, contrast=0.15, frames=64),
    ),
    epochs=8,
    steps_per_epoch=50,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    orthogonal_weight=0.1,
    orthogonality="mean",
    face_backbone="small_picture",
    voice_backbone="small_picture_voice",
    face_preparation={},
    voice_preparation={},
)
"""For a small network that starts from nothing on invented people, found on validation people. Means instead of sums
and larger learning rates; smaller λ and α. With the paper's λ of 1 the centres hold back names. The orthogonal loss is
satisfied by a single axis of two opposite groups: where it outweighs the cross-entropy, as its sum over all pairs does,
it leaves more of sex and less of who somebody is. The figures are in ``training/NOTES.md``."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "no fusion, FOP loss": {"fusion": False},
    "fusion, CE only": {"orthogonal_weight": 0.0},
    "fusion, cosine only": {"cross_entropy": False},
    "softmax only in stage 1 (lambda 0)": {"stream": {"centre_weight": 0.0}},
    "lambda 0.1": {"stream": {"centre_weight": 0.1}},
    "lambda 1": {"stream": {"centre_weight": 1.0}},
    "sums in stage 1": {"stream": {"reduction": "sum"}},
    "means in stage 1": {"stream": {"reduction": "mean"}},
    "orthogonal sum with the diagonal": {"orthogonality": "sum"},
    "orthogonal sum without the diagonal": {"orthogonality": "sum_without_diagonal"},
    "orthogonal means": {"orthogonality": "mean"},
    "alpha 1": {"orthogonal_weight": 1.0},
    "scalar gate": {"scalar_gate": True},
}
"""The rows of table 6, then what the paper leaves to choose. A row that a preset has anyway is that preset in full."""


class PictureNetwork(Protocol):
    """A network of pictures, whose features have not been brought to unit length."""

    def features(self, pictures: Tensor) -> Tensor:
        """(n, 3, side, side) float32 -> (n, dimension)."""
        ...


def joint_centre_distances(vectors: Tensor, people: Tensor) -> Tensor:
    """Σ over the people of a batch of d(f_c), each sample's squared distance to its person's centre (equation 1).

    Args:
        vectors: (n, d) float of faces and spectrograms alike.
        people: (n,) int64.

    Returns:
        A scalar; 0 where nobody has two samples.
    """
    names, owners = torch.unique(people, return_inverse=True)
    centres = mean_by_owner(vectors, owners, len(names))
    return (vectors - centres[owners]).square().sum()


def stream_loss(
    scores: Tensor, vectors: Tensor, people: Tensor, centre_weight: float, reduction: Reduction = "sum"
) -> dict[str, Tensor]:
    """The loss of the single stream (equation 2), over faces and spectrograms together.

    Args:
        scores: (n, training people) float, what the classifier says of each sample.
        vectors: (n, d) float, what the network gave.
        people: (n,) int64 in [0, training people).
        centre_weight: λ.
        reduction: ``sum`` as printed; ``mean`` divides both terms by n.

    Returns:
        Scalars: ``total``, ``identity`` and ``centre`` (its terms, the latter with λ/2), ``accuracy``.
    """
    samples = 1 if reduction == "sum" else len(people)
    identity = cross_entropy(scores, people, reduction="sum") / samples
    centre = centre_weight / 2 * joint_centre_distances(vectors, people) / samples
    return {
        "total": identity + centre,
        "identity": identity.detach(),
        "centre": centre.detach(),
        "accuracy": (scores.detach().argmax(dim=1) == people).float().mean(),
    }


class StreamTask(Task):
    """Stage 1: the network that sees and hears, and the classifier that is thrown away.

    Args:
        settings: see :class:`StreamSettings`.
        given: what it is made for; faces and windows of sounds must be pictures of one size.

    Raises:
        ValueError: the two rows' networks are not of one class, their pictures not of one size, or the vectors of one
            modality are brought to unit length and those of the other are not.
    """

    def __init__(self, settings: StreamSettings, given: Given) -> None:
        super().__init__(given)
        networks = dict(self.named_children())
        if type(networks["face"]) is not type(networks["voice"]):
            raise ValueError(
                f"one network sees faces and hears sounds: {given.face.backbone} and {given.voice.backbone} are two"
            )
        _check_pictures(given.face.preparation, given.voice.preparation)
        self.settings = settings
        del self.voice  # one network: see below
        self.head = SharedSpaceHead([], [], [], given.face.dimension, given.voice.dimension)
        self.classifier = torch.nn.Linear(given.face.dimension, given.people)

    @property
    def voice(self) -> torch.nn.Module:  # type: ignore[override] # noqa: D102 - see Task
        return self.face

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of :func:`stream_loss`, of a batch that goes through the network in one piece.

        Batch normalisation then sees what it will be asked to normalise: both modalities at once.
        """
        pictures, owners = sounds_to_pictures(batch.voices, batch.voice_lengths)
        network = cast(PictureNetwork, self.face)
        rows = self.divided(lambda samples, _: network.features(samples), torch.cat([batch.faces, pictures]))
        faces, windows = rows[: len(batch.faces)], rows[len(batch.faces) :]
        vectors = torch.cat([faces, mean_by_owner(windows, owners, len(batch.voices))])
        people = torch.cat([batch.face_people, batch.voice_people])
        wanted = self.settings
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = single(vectors)
            return stream_loss(self.classifier(vectors), vectors, people, wanted.centre_weight, wanted.reduction)


class FusionTask(Task):
    """Stage 2: the two projections that serve, and the gate and the classifier that are thrown away.

    Args:
        settings: see :class:`Settings`.
        given: what it is made for.
    """

    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(given)
        self.settings, width = settings, settings.embedding
        sizes = given.face.dimension, given.voice.dimension
        own: list[list[Layer]] = [[["linear", size, width], ["tanh"], ["unit"]] for size in sizes]
        self.head = SharedSpaceHead(own[0], own[1], [], *sizes)
        self.fusion = GatedFusion(sum(sizes), width, scalar=settings.scalar_gate) if settings.fusion else None
        self.classifier = torch.nn.Linear(width, given.people, bias=False) if settings.cross_entropy else None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``identity`` (equation 9) and ``orthogonal`` (equation 10) with its sums, of the pairs of a batch.

        Raises:
            ValueError: a face and the sound beside it are of different people.
        """
        if not torch.equal(batch.face_people, batch.voice_people):
            raise ValueError("fusion takes pairs: faces and voices of the same people in the same order")
        faces = self.features(Modality.FACE, batch.faces)
        voices = self.features(Modality.VOICE, batch.voices, batch.voice_lengths)
        u, v = self.head(faces, Modality.FACE), self.head(voices, Modality.VOICE)
        with torch.autocast(faces.device.type, enabled=False):
            return self._fused((single(faces), single(voices)), (single(u), single(v)), batch)

    def _fused(self, features: tuple[Tensor, Tensor], points: tuple[Tensor, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The terms of what the networks gave, and of that as projected: u and v."""
        found: dict[str, Tensor] = {}
        if self.fusion is None:
            judged, people = torch.cat(points), torch.cat([batch.face_people, batch.voice_people])
        else:
            share = self.fusion.share(*features)
            judged, people = self.fusion(points, share), batch.face_people
            found["face_share"] = share.detach().mean()
        orthogonal = orthogonal_loss(judged, people, self.settings.orthogonality)
        total = self.settings.orthogonal_weight * orthogonal["orthogonal"]
        if self.classifier is not None:
            scores = self.classifier(judged)
            identity = cross_entropy(scores, people)
            total = total + identity
            found |= {"identity": identity, "accuracy": (scores.detach().argmax(dim=1) == people).float().mean()}
        return {"total": total} | orthogonal | found


def stages(settings: Settings, frozen: bool) -> tuple[Stage, ...]:
    """The network, then fusion on its vectors; fusion alone where vectors are frozen."""
    fusion = Stage(
        name="fusion",
        settings=settings,
        build=partial(build_fusion, settings),
        optimiser=partial(optimiser, settings=settings),
        learning_rate=partial(learning_rate, settings),
        on_vectors=not frozen,
    )
    if frozen:
        return (fusion,)
    stream = Stage(
        name="stream",
        settings=settings.stream,
        build=partial(build_stream, settings.stream),
        optimiser=partial(optimiser, settings=settings.stream),
        learning_rate=partial(learning_rate, settings.stream),
    )
    return stream, fusion


def build_stream(settings: StreamSettings, given: Given, seed: int, before: Task | None = None) -> StreamTask:
    """Stage 1 with parameters drawn from ``seed`` alone."""
    return seeded(StreamTask, seed, settings, given)


def build_fusion(settings: Settings, given: Given, seed: int, before: Task | None = None) -> FusionTask:
    """Stage 2 with parameters drawn from ``seed`` alone; of the stage before it sees the vectors."""
    return seeded(FusionTask, seed, settings, given)


def optimiser(task: torch.nn.Module, settings: Settings | StreamSettings) -> torch.optim.Optimizer:
    """Adam over all parameters."""
    return torch.optim.AdamW(task.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def learning_rate(settings: Settings | StreamSettings, progress: float) -> float:
    """The learning rate after a share of the training, 0 to 1. Raises ValueError: progress outside."""
    first, last = settings.learning_rate, settings.final_learning_rate
    return falling_rate(progress, first, last, "exponential", settings.warm_up)
