"""Our own method: contrast whole people across the modalities, among as many others as a batch can hold.

A face and a voice of one person are drawn together, and apart from everybody else's in a large batch, by a contrastive
loss with several positives per anchor (van den Oord et al., "Representation Learning with Contrastive Predictive
Coding", 2018, for the loss; Khosla et al., "Supervised Contrastive Learning", 2020, for several positives). Beside the
published methods:

- *many negatives*: on frozen vectors a batch of 1024 people, or of two samples of at least half as many, costs
  milliseconds;
- *same-identity masking*: an anchor's other positives are no negatives of the one that is looked at, and neither are
  further samples of the person in either modality;
- *one trunk of weighted residual layers for both modalities* (the layer of S0), behind a linear layer of each one's
  own;
- *negatives of the anchor's own sex count for more* (``same_sex``): they are what is hard, and what a gender oracle
  cannot tell apart;
- *confidence*: pairs that were mined and not given count by how sure they are;
- *a beginning in closed form* on frozen vectors: the directions in which people's faces and voices vary together
  (:mod:`training.correlation`), which the contrast then refines as long as people held out gain by it. Of few people a
  head that begins with random numbers learns less;
- *faces ask for voices without the mean of faces* (``centred``), so that voices which are near every face do not come
  up for all of them; kept where validation people gain by it.

On invented people (``POPULATION``) the networks start from nothing and are trained with the head. What was tried and
did not help is in ``training/NOTES.md``, with numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from encoders.heads import Layer, SharedSpaceHead
from encoders.space import Modality
from training.batches import Augmentation
from training.correlation import correlate
from training.pretraining import IdentitySettings, begin_from, identity_first
from training.recipe import Batch, Given, Stage, Task, seeded, shared_head, single
from training.schedules import falling_rate
from training.vectors import Vectors

WEIGHS_SAMPLES = True
SPARE = 0.01
"""Size of the random numbers that a beginning in closed form leaves in further components, by that of a new layer's."""

Networks = Literal["frozen", "trained"]
Asking = Literal["face", "voice"]
_SEXES = {"f": 0, "m": 1}


@dataclass(frozen=True)
class Settings:
    """Every number of the method; the defaults are for vectors of networks that millions of samples have taught.

    They were found on 60 to 500 invented people (``training/NOTES.md``); of thousands of people, a larger
    ``learning_rate`` and a smaller ``temperature`` may teach more, which nobody has tried.

    Args:
        networks: whether the networks are ``frozen`` (their vectors are extracted once) or ``trained`` with the head.
        identity: the stage that teaches the networks to tell people apart first, where a run does not begin with
            weights for both (``visavox train --initial``), as with frozen ones it must; None: never.
        epochs: passes of ``steps_per_epoch`` batches.
        steps_per_epoch: batches of an epoch; None for as many as show every sample about once.
        people_per_batch: identities of a batch.
        samples_per_person: faces of each, and as many voices: the positives of an anchor.
        learning_rate: the largest, reached after ``warm_up``.
        final_learning_rate: where it ends, along a cosine.
        warm_up: share of the training in which it rises.
        weight_decay: on every parameter (AdamW).
        temperature: cosines are divided by it.
        shrinkage: in (0, 1], of the canonical correlation that the head begins with where vectors are learned from
            (:func:`training.correlation.correlate`); None: it begins with random numbers.
        same_sex: added to the scores of negatives of the anchor's own sex; 0 treats all negatives alike.
        average: decay of the moving average of the weights, which is what is kept; 0: the weights themselves.
        within: weight of the same contrast within each modality, which takes two samples of a person.
        embedding: components of the shared space.
        trunk: how many weighted residual layers both modalities share.
        hidden: width within each of them.
        dropout: share of their inner components that is dropped out.
        centred: modalities whose probes do without their mean (:mod:`training.centring`) where validation people gain
            by it. On invented people faces find more voices then, and voices no more faces.
        augmentation: how samples are varied where networks are trained.
        face_backbone: name of a row of :data:`encoders.face.BACKBONES`.
        voice_backbone: name of a row of :data:`encoders.voice.BACKBONES`.
        face_preparation: fields of its preparation that are not at their defaults.
        voice_preparation: likewise.
    """

    networks: Networks = "frozen"
    identity: IdentitySettings | None = None
    epochs: int = 20
    steps_per_epoch: int | None = 20
    people_per_batch: int = 1024
    samples_per_person: int = 1
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    warm_up: float = 0.1
    weight_decay: float = 0.1
    temperature: float = 0.5
    shrinkage: float | None = 0.9
    same_sex: float = 0.0
    average: float = 0.98
    within: float = 0.0
    embedding: int = 256
    trunk: int = 1
    hidden: int = 256
    dropout: float = 0.3
    centred: tuple[Asking, ...] = ("face",)
    augmentation: Augmentation = field(default_factory=Augmentation)
    face_backbone: str = "inception_resnet_v1"
    voice_backbone: str = "ecapa_tdnn"
    face_preparation: Mapping[str, Any] = field(default_factory=dict)
    voice_preparation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.networks not in ("frozen", "trained"):
            raise ValueError(f"networks are frozen or trained, got {self.networks!r}")
        if self.epochs < 1 or (self.steps_per_epoch is not None and self.steps_per_epoch < 1):
            raise ValueError(f"a training needs epochs and steps, got {self.epochs} and {self.steps_per_epoch}")
        if self.people_per_batch < 2 or self.samples_per_person < 1:
            raise ValueError(
                f"a batch needs at least 2 people (negatives) with at least 1 sample each, got "
                f"{self.people_per_batch} with {self.samples_per_person}"
            )
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"the learning rate falls from learning_rate ({self.learning_rate}) to final_learning_rate "
                f"({self.final_learning_rate}), both above 0"
            )
        if self.temperature <= 0 or not 0 <= self.warm_up < 1:
            raise ValueError(f"temperature is above 0, warm_up in [0, 1), got {self.temperature} and {self.warm_up}")
        if min(self.weight_decay, self.within, self.trunk) < 0 or min(self.embedding, self.hidden) < 1:
            raise ValueError(
                f"weight_decay, within and trunk are at least 0, embedding and hidden at least 1, got "
                f"{self.weight_decay}, {self.within}, {self.trunk}, {self.embedding}, {self.hidden}"
            )
        if self.within and self.samples_per_person < 2:
            raise ValueError("within a modality nobody is alike with one sample: give samples_per_person 2 or more")
        if self.shrinkage is not None and not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage is in (0, 1], or nothing for a random beginning, got {self.shrinkage}")
        if not 0 <= self.dropout < 1 or not math.isfinite(self.same_sex):
            raise ValueError(f"dropout is in [0, 1), same_sex a number, got {self.dropout} and {self.same_sex}")
        if set(self.centred) - set(Modality):
            raise ValueError(f"probes are of a face or a voice, got {', '.join(self.centred)}")

    def fitting(self, people: int) -> Settings:
        """The same for fewer people than a batch would hold; some of them may turn out to be unusable.

        On frozen vectors two samples of each stand for people who are missing, where these make the batch as large as
        it was: of VoxCeleb1's 901 training people it then holds 675, twice.
        """

        def fit(width: int) -> int:
            return width if people >= 1.1 * width else max(2, 3 * people // 4)

        identity = self.identity
        if identity is not None:
            identity = replace(identity, people_per_batch=fit(identity.people_per_batch))
        fewer, samples = fit(self.people_per_batch), self.samples_per_person
        if self.networks == "frozen" and samples == 1 and self.people_per_batch / 2 <= fewer < self.people_per_batch:
            samples = 2
        return replace(self, people_per_batch=fewer, samples_per_person=samples, identity=identity)

    def begun_with(self, given: Collection[Modality]) -> Settings:
        """The same for a run that begins with weights for these networks: where both are given, neither is taught."""
        return replace(self, identity=None) if set(Modality) <= set(given) else self


POPULATION = Settings(
    networks="trained",
    epochs=12,
    steps_per_epoch=50,
    people_per_batch=256,
    learning_rate=2e-3,
    final_learning_rate=4e-4,
    weight_decay=0.1,
    temperature=0.15,
    shrinkage=None,
    same_sex=0.7,
    average=0.99,
    embedding=128,
    hidden=128,
    dropout=0.0,
    augmentation=Augmentation(brightness=0.25, contrast=0.15, masked_bands=8),
    face_backbone="small_face",
    voice_backbone="small_voice",
)
"""For small networks that start from nothing on invented people."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "same-sex negatives off": {"same_sex": 0.0},
    "same-sex negatives 0.7": {"same_sex": 0.7},
    "no average": {"average": 0.0},
    "no shared trunk": {"trunk": 0},
    "two samples of a person": {"people_per_batch": 128, "samples_per_person": 2},
    "two samples, contrast within each modality too": {
        "people_per_batch": 128,
        "samples_per_person": 2,
        "within": 0.5,
    },
    "80 people": {"people_per_batch": 80},
    "320 people": {"people_per_batch": 320},
    "temperature 0.05": {"temperature": 0.05},
    "temperature 0.1": {"temperature": 0.1},
    "temperature 0.3": {"temperature": 0.3},
}
"""What each part is worth. Two parts have no row: masking of the same identity, which is what the loss is, and
``centred``, which changes no network; what it gains stands in every report on invented people or a protocol. The
defaults have no same-sex negatives, the population's numbers have: either row changes nothing for one of them.
"""


def contrast(scores: Tensor, same: Tensor, ignored: Tensor, weights: Tensor | None = None) -> Tensor:
    """Contrast of every anchor's positives with its negatives, one positive at a time.

    For an anchor i and a positive p: −log(exp s_ip / (exp s_ip + Σ over negatives n of exp s_in)); the anchor's other
    positives are not in the sum. Mean over the positives of an anchor, then over the anchors that have a positive and
    a negative; with weights w, Σ_i Σ_p w_ip l_ip / n_i over Σ_i Σ_p w_ip / n_i, of n_i positives each, so that what is
    unsure counts for less whether it is an anchor's only positive or one of several.

    Args:
        scores: (n, m) float, anchors to candidates, divided by the temperature.
        same: (n, m) bool, candidates of the anchor's person.
        ignored: (n, m) bool, candidates that are neither: the anchor itself within its modality.
        weights: (n, m) float at least 0, how much each pair counts as a positive; None: all alike.

    Returns:
        A scalar; 0 where no anchor has both.
    """
    negatives = ~same & ~ignored
    positives = (same & ~ignored).to(scores.dtype)
    shares = positives / positives.sum(dim=1, keepdim=True).clamp(min=1)
    if weights is not None:
        shares = shares * weights
    usable = (shares.sum(dim=1) > 0) & negatives.any(dim=1)
    if not usable.any():
        return scores.sum() * 0
    against = torch.logsumexp(scores.masked_fill(~negatives, -torch.inf)[usable], dim=1)
    # -log(e^s / (e^s + e^a)) = softplus(a - s)
    each = softplus(against[:, None] - scores[usable])
    return (each * shares[usable]).sum() / shares[usable].sum()


class VisavoxTask(Task):
    """The networks, or frozen vectors, under a head of linear layers and a shared trunk.

    Args:
        settings: see :class:`Settings`.
        given: what it is made for.
    """

    sexes: Tensor

    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(given)
        self.settings = settings
        width = settings.embedding
        trunk: list[Layer] = [
            ["weighted_residual_dropout", width, settings.hidden, settings.dropout] for _ in range(settings.trunk)
        ]
        if given.face.backbone is None:
            # vectors that nothing in front of the head adapts: each modality's are brought to one scale and turned
            own = [
                [["batch_norm", one], ["linear", one, width]] for one in (given.face.dimension, given.voice.dimension)
            ]
            self.head = SharedSpaceHead(own[0], own[1], trunk, given.face.dimension, given.voice.dimension)
        else:
            self.head = shared_head(given, width, trunk)
        self.register_buffer("sexes", torch.tensor([_SEXES.get(one, -1) for one in given.sexes]), persistent=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Both directions across the modalities, both modalities within themselves where wanted, and their sum."""
        faces = self.embed(Modality.FACE, batch.faces)
        voices = self.embed(Modality.VOICE, batch.voices, batch.voice_lengths)
        with torch.autocast(faces.device.type, enabled=False):  # three digits of a cosine are too few for a contrast
            return self._contrasts(normalize(single(faces), dim=1), normalize(single(voices), dim=1), batch)

    def _contrasts(self, faces: Tensor, voices: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms of points of unit length."""
        parties = {
            "face": (faces, batch.face_people, batch.face_weights),
            "voice": (voices, batch.voice_people, batch.voice_weights),
        }
        terms = {"face_to_voice": self._between(parties["face"], parties["voice"])}
        terms["voice_to_face"] = self._between(parties["voice"], parties["face"])
        total = terms["face_to_voice"] + terms["voice_to_face"]
        if self.settings.within:
            for name, party in parties.items():
                terms[f"{name}_to_{name}"] = self._between(party, party, itself=True)
                total = total + self.settings.within * terms[f"{name}_to_{name}"]
        return {"total": total} | terms

    def _between(
        self,
        anchors: tuple[Tensor, Tensor, Tensor | None],
        candidates: tuple[Tensor, Tensor, Tensor | None],
        *,
        itself: bool = False,
    ) -> Tensor:
        """The contrast of anchors (vectors, people, weights) among candidates, perhaps of the anchors themselves."""
        scores = anchors[0] @ candidates[0].T / self.settings.temperature
        same = anchors[1][:, None] == candidates[1][None, :]
        ignored = torch.eye(len(scores), dtype=torch.bool, device=scores.device) if itself else torch.zeros_like(same)
        if self.settings.same_sex:
            sexes = self.sexes[anchors[1]][:, None], self.sexes[candidates[1]][None, :]
            hard = (sexes[0] == sexes[1]) & (sexes[0] >= 0) & ~same
            scores = scores + self.settings.same_sex * hard
        weights = None
        if anchors[2] is not None and candidates[2] is not None:
            weights = anchors[2][:, None] * candidates[2][None, :]
        return contrast(scores, same, ignored, weights)


def stages(settings: Settings, frozen: bool) -> tuple[Stage, ...]:
    """Identity first where networks start from nothing, then the contrast, with the networks or on their vectors."""
    first = identity_first(settings.identity, settings, frozen=frozen)
    last = Stage(
        name="visavox",
        settings=settings,
        build=partial(build, settings),
        optimiser=partial(optimiser, settings=settings),
        learning_rate=partial(learning_rate, settings),
        on_vectors=settings.networks == "frozen" and not frozen,
        average=settings.average,
        begin=None if settings.shrinkage is None else partial(begin_correlated, settings.shrinkage),
    )
    return (*first, last)


def build(settings: Settings, given: Given, seed: int, before: Task | None = None) -> VisavoxTask:
    """The task with parameters drawn from ``seed``, and the networks of the stage before it, if there is one."""
    task = seeded(VisavoxTask, seed, settings, given)
    begin_from(task, before)
    return task


def begin_correlated(shrinkage: float, task: Task, vectors: Vectors) -> None:
    """Let a head begin with the directions in which its people's faces and voices vary together."""
    head = cast(SharedSpaceHead, task.head)
    with torch.no_grad():
        for modality, found in correlate(vectors, shrinkage, head.output_dimension).items():
            scale, turn = getattr(head, modality.value)
            scale.running_mean.copy_(torch.from_numpy(found.mean))
            scale.running_var.copy_(torch.from_numpy(found.variance))
            turn.bias.zero_()
            turn.weight.mul_(SPARE)  # a component that is 0 in both modalities would have no gradient, ever
            turn.weight[: len(found.rows)] = torch.from_numpy(found.rows)


def optimiser(task: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW over what is trained; networks that are frozen have nothing to train."""
    return torch.optim.AdamW(task.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def learning_rate(settings: Settings, progress: float) -> float:
    """The learning rate after a share of the training, 0 to 1. Raises ValueError: progress outside."""
    return falling_rate(progress, settings.learning_rate, settings.final_learning_rate, "cosine", settings.warm_up)
