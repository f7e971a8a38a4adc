"""Networks that tell people apart, faces and voices each on their own: where the published methods begin.

Every one of the five methods starts from networks that millions of other faces and voices have taught. Where no such
weights are, as with invented people, this stage stands for them: two classifiers over the training people by a softmax
of cosines (Wang et al., "NormFace", 2017), without anything that ties a face to a voice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from encoders.space import Modality
from training.batches import Augmentation
from training.beginnings import joining_nothing
from training.recipe import Batch, Given, Stage, Task, seeded, single
from training.schedules import falling_rate


@dataclass(frozen=True)
class IdentitySettings:
    """Numbers of the stage; the defaults are for small networks on invented people.

    Args:
        epochs: passes of ``steps_per_epoch`` batches.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: faces of each, and as many voices.
        learning_rate: the largest.
        weight_decay: on every parameter.
        smoothing: share of the truth that is spread over all people.
        scale: of the cosines, which the softmax sees.
        augmentation: how samples are varied.
        voices: whether voices are taught too; else their network stays as it begins.
        face_backbone: name of a row.
        voice_backbone: likewise.
        face_preparation: fields that are not at their defaults.
        voice_preparation: likewise.
    """

    epochs: int = 6
    steps_per_epoch: int | None = 100
    people_per_batch: int = 128
    samples_per_person: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    scale: float = 16.0
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(brightness=0.25, contrast=0.15))
    voices: bool = True
    face_backbone: str = "small_face"
    voice_backbone: str = "small_voice"
    face_preparation: Mapping[str, Any] = field(default_factory=dict)
    voice_preparation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1 or self.scale <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"smoothing is in [0, 1), scale above 0, weight_decay at least 0, got {self.smoothing}, {self.scale}, "
                f"{self.weight_decay}"
            )


class NamedNetworks(Protocol):
    """What a method's settings say of its networks."""

    @property
    def face_backbone(self) -> str:
        """Name of a row of ``encoders.face.BACKBONES``."""
        ...

    @property
    def voice_backbone(self) -> str:
        """Name of a row of ``encoders.voice.BACKBONES``."""
        ...

    @property
    def face_preparation(self) -> Mapping[str, Any]:
        """Fields that are not at their defaults."""
        ...

    @property
    def voice_preparation(self) -> Mapping[str, Any]:
        """Likewise."""
        ...


class IdentityTask(Task):
    """Two networks, two classifiers of cosines, and a head that joins nothing.

    Args:
        settings: see :class:`IdentitySettings`.
        given: what it is made for; features of both modalities have one width.
    """

    def __init__(self, settings: IdentitySettings, given: Given) -> None:
        super().__init__(given)
        self.settings = settings
        self.head = joining_nothing(given)
        self.face_classifier = torch.nn.Linear(given.face.dimension, given.people, bias=False)
        self.voice_classifier = torch.nn.Linear(given.voice.dimension, given.people, bias=False)
        if not settings.voices:
            self.voice.requires_grad_(False)
            self.voice_classifier.requires_grad_(False)

    def train(self, mode: bool = True) -> IdentityTask:
        """See torch; a voice network that is not taught stays in evaluation, or its normalisation would drift."""
        super().train(mode)
        if not self.settings.voices:
            self.voice.eval()
        return self

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy over the training people, ``face`` + ``voice``, and the shares named rightly."""
        terms = self._named("face", self.features(Modality.FACE, batch.faces), batch.face_people)
        if self.settings.voices:
            voices = self.features(Modality.VOICE, batch.voices, batch.voice_lengths)
            terms |= self._named("voice", voices, batch.voice_people)
        return {"total": terms["face"] + terms.get("voice", 0.0)} | terms

    def _named(self, modality: str, features: Tensor, people: Tensor) -> dict[str, Tensor]:
        """The modality's cross-entropy and the share of it that is named rightly."""
        classifier = self.get_parameter(f"{modality}_classifier.weight")
        with torch.autocast(features.device.type, enabled=False):
            scores = self.settings.scale * normalize(single(features), dim=1) @ normalize(classifier, dim=1).T
        return {
            modality: cross_entropy(scores, people, label_smoothing=self.settings.smoothing),
            f"{modality}_accuracy": (scores.detach().argmax(dim=1) == people).float().mean(),
        }


def identity_stage(settings: IdentitySettings | None = None) -> Stage:
    """The stage of these settings. The last checkpoint is kept: across modalities there is nothing to choose by."""
    numbers = settings or IdentitySettings()
    return Stage(
        name="identity",
        settings=numbers,
        build=partial(_build, numbers),
        optimiser=partial(_optimiser, numbers),
        learning_rate=lambda progress: falling_rate(
            progress, numbers.learning_rate, numbers.learning_rate / 1000, "cosine", 0.05
        ),
        keep="last",
    )


def identity_first(
    taught: IdentitySettings | None, settings: NamedNetworks, *, frozen: bool, voices: bool = True
) -> tuple[Stage, ...]:
    """The stage in front of a method: its own networks taught to tell people apart; nothing where it is not wanted.

    Args:
        taught: the method's settings of the stage; None: it is not wanted. Its networks are replaced.
        settings: the method's, which name its networks.
        frozen: whether the data are vectors of frozen networks: there is nothing to teach.
        voices: whether the method goes on from the voice network that the stage leaves.
    """
    if frozen or taught is None:
        return ()
    own = replace(
        taught,
        voices=taught.voices and voices,
        face_backbone=settings.face_backbone,
        voice_backbone=settings.voice_backbone,
        face_preparation=settings.face_preparation,
        voice_preparation=settings.voice_preparation,
    )
    return (identity_stage(own),)


def begin_from(task: Task, before: Task | None) -> None:
    """Give a task's networks the weights of the stage before it, where both have the same backbones."""
    if before is None:
        return
    for modality in Modality:
        if task.given.of(modality).backbone == before.given.of(modality).backbone is not None:
            name = str(modality)
            task.get_submodule(name).load_state_dict(before.get_submodule(name).state_dict())


def _build(settings: IdentitySettings, given: Given, seed: int, before: Task | None) -> IdentityTask:
    return seeded(IdentityTask, seed, settings, given)


def _optimiser(settings: IdentitySettings, task: Task) -> torch.optim.Optimizer:
    learning = [one for one in task.parameters() if one.requires_grad]
    return torch.optim.AdamW(learning, lr=settings.learning_rate, weight_decay=settings.weight_decay)
