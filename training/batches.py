"""Which samples a batch holds, and how they are varied: pure functions of (seed, epoch, batch).

Nothing is drawn from a state that earlier batches left behind, so a resumed run sees the batches that it
would have seen, bit for bit.

Every person occurs equally often: after any number of epochs, the counts of two people differ by at most 1. People who
possibly are one (:attr:`training.vectors.Vectors.kin`) are never in one batch, where a contrast would teach them to be
two: they count as one person here, and take turns. A person's samples are drawn without replacement; when too few are
left for another turn, all are shuffled again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.backbones.small_face import SPREAD, chips_to_input
from encoders.space import Modality
from training.augmentation import SpecAugment, spec_augment
from training.networks import trainable
from training.prepared import Prepared
from training.recipe import Batch
from training.vectors import Vectors

# What a random stream is for: the second number of its seed, so that no two purposes share a stream.
_TURNS, _ORDER, _FACES, _VOICES, _VARIATION, _BLANKS = range(6)
_INPUT_RANGE = chips_to_input(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)).flatten().tolist()


@dataclass(frozen=True)
class Augmentation:
    """How the samples of a batch are varied, each drawn evenly up to the most given here; 0 leaves it out.

    Complexion and timbre are among what a face and a voice share, so colour and gain vary but a little.

    Args:
        mirror: share of faces that are mirrored, 0 to 1.
        shift: pixels that a face is moved by along each axis, either way; its edge is repeated.
        brightness: added to a face, either way, in units of 64 grey levels.
        contrast: factor of its distance to its mean, 1 - contrast to 1 + contrast.
        colour: added to each of its colour channels, either way, in units of 64 grey levels.
        frames: frames of a voice (10 ms each): a random stretch of longer ones; shorter ones are repeated.
        gain: added to all bands of a voice, either way, in units of the prepared spectrum.
        masked_bands: width of the stretch of bands that is set to 0, 0 to this many.
        masked_frames: width of the stretch of frames that is set to 0, 0 to this many.
    """

    mirror: float = 0.5
    shift: int = 3
    brightness: float = 0.1
    contrast: float = 0.1
    colour: float = 0.03
    frames: int = 200
    gain: float = 0.05
    masked_bands: int = 0
    masked_frames: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1 or not 0 <= self.contrast < 1:
            raise ValueError(f"mirror is in [0, 1], contrast in [0, 1), got {self.mirror} and {self.contrast}")
        strengths = (self.shift, self.brightness, self.colour, self.gain, self.masked_bands, self.masked_frames)
        if min(strengths) < 0 or self.frames < 1:
            raise ValueError(f"an augmentation has no negative strength and at least 1 frame, got {self}")


NO_AUGMENTATION = Augmentation(mirror=0, shift=0, brightness=0, contrast=0, colour=0, gain=0)
"""Only a random stretch of each voice, which a batch needs to be of one shape."""


class OrderSettings(Protocol):
    """What a recipe's ``Settings`` say of its batches.

    They may also have ``steps_per_epoch`` (batches of an epoch; without it, or with None, as many as show
    every sample about once) and ``augmentation`` (:class:`Augmentation`; without it its defaults).
    """

    @property
    def people_per_batch(self) -> int:
        """Identities of a batch, at least 2."""
        ...

    @property
    def samples_per_person(self) -> int:
        """Faces of each, and as many voices; a person who has fewer has some twice."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """The samples of every batch of one epoch; its length is their number.

    Args:
        people: (batches, people per batch) int64, numbers of identities; none twice in a row.
        faces: (batches, people per batch, samples per person) int64, numbers of faces.
        voices: likewise, numbers of voices.
        seed: of the run.
        epoch: 0, 1, …
        augmentation: how the samples are varied.
    """

    people: NDArray[np.int64]
    faces: NDArray[np.int64]
    voices: NDArray[np.int64]
    seed: int
    epoch: int
    augmentation: Augmentation

    def __len__(self) -> int:
        return len(self.people)


def batch_plan(prepared: Prepared | Vectors, settings: OrderSettings, seed: int, epoch: int) -> Plan:
    """Choose the samples of every batch of an epoch: a pure function of its arguments.

    Args:
        prepared: the samples; only who is whose matters.
        settings: see :class:`OrderSettings`.
        seed: of the run, at least 0.
        epoch: 0, 1, …

    Raises:
        ValueError: a batch needs more people than there are, or a number is out of range.
    """
    kin = _Owned.by(_kin(prepared))
    people, width, samples = len(kin.size), settings.people_per_batch, settings.samples_per_person
    steps = getattr(settings, "steps_per_epoch", None) or _steps(prepared, width * samples)
    if not 2 <= width <= people:
        raise ValueError(
            f"a batch of {width} people needs at least 2, and no more than there are ({people}): change "
            "people_per_batch or prepare more people"
        )
    if min(seed, epoch) < 0 or min(samples, steps) < 1:
        raise ValueError(
            f"seed and epoch are at least 0, samples_per_person and steps at least 1, got {seed}, {epoch}, "
            f"{samples}, {steps}"
        )
    places, before = _people_order(people, seed, epoch, steps, width)
    turns, of_kin = np.divmod(before[places] + _times_before(places), kin.size[places])
    order = kin.things[kin.first[places] + of_kin]
    faces, voices = (
        _draw(_Owned.by(owners), order, turns, samples, (seed, purpose))
        for owners, purpose in ((prepared.face_people, _FACES), (prepared.voice_people, _VOICES))
    )
    shape = (steps, width, samples)
    augmentation = getattr(settings, "augmentation", Augmentation())
    return Plan(order.reshape(shape[:2]), faces.reshape(shape), voices.reshape(shape), seed, epoch, augmentation)


def make_batch(prepared: Prepared | Vectors, plan: Plan, number: int) -> Batch:
    """Batch ``number`` (0, 1, …) of a plan: people in the plan's order, each one's samples side by side.

    A pure function of its arguments: whatever was made before, the same numbers come out, bit for bit. Frozen vectors
    are not varied.
    """
    faces, voices = plan.faces[number].ravel(), plan.voices[number].ravel()
    if isinstance(prepared, Vectors):
        return _batch_of_vectors(prepared, faces, voices)
    random = np.random.default_rng([plan.seed, _VARIATION, plan.epoch, number])
    spread = trainable(Modality.FACE, prepared.preparation.face_backbone).spread
    varied = vary_faces(prepared.faces, faces, plan.augmentation, random)
    return Batch(
        faces=varied if spread == SPREAD else varied.mul_(SPREAD / spread),
        face_people=torch.from_numpy(prepared.face_people[faces]),
        voices=vary_voices(prepared, voices, plan.augmentation, random),
        voice_lengths=None,
        voice_people=torch.from_numpy(prepared.voice_people[voices]),
    )


def make_batches(prepared: Prepared | Vectors, plan: Plan, first: int = 0, *, ahead: bool = False) -> Iterator[Batch]:
    """The batches of a plan from number ``first`` on, one after the other.

    Args:
        prepared: the samples.
        plan: which of them.
        first: 0, 1, …
        ahead: whether a thread makes the next one while this one is used; it ends with the iterator.
    """
    numbers = range(first, len(plan))
    if not ahead:
        yield from (make_batch(prepared, plan, number) for number in numbers)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batch") as thread:
        coming = deque[Future[Batch]]()
        for number in numbers:
            coming.append(thread.submit(make_batch, prepared, plan, number))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _batch_of_vectors(vectors: Vectors, faces: NDArray[np.int64], voices: NDArray[np.int64]) -> Batch:
    weights = [
        None if some is None else torch.from_numpy(some[chosen])
        for some, chosen in ((vectors.face_weights, faces), (vectors.voice_weights, voices))
    ]
    return Batch(
        faces=torch.from_numpy(vectors.faces[faces]),
        face_people=torch.from_numpy(vectors.face_people[faces]),
        voices=torch.from_numpy(vectors.voices[voices]),
        voice_lengths=None,
        voice_people=torch.from_numpy(vectors.voice_people[voices]),
        face_weights=weights[0],
        voice_weights=weights[1],
    )


def vary_faces(
    chips: NDArray[np.uint8], chosen: NDArray[np.int64], augmentation: Augmentation, random: np.random.Generator
) -> Tensor:
    """Faces as the small network takes them: mirrored, moved, their light varied; never outside its input's range.

    Args:
        chips: (all, side, side, 3) uint8.
        chosen: (n,) numbers of chips.
        augmentation: how much.
        random: where the variation is drawn from.

    Returns:
        (n, 3, side, side) float32.
    """
    count, side = len(chosen), chips.shape[1]
    mirrored = random.random(count) < augmentation.mirror
    moved = random.integers(-augmentation.shift, augmentation.shift + 1, (2, count, 1))
    contrast, brightness = random.uniform(-1, 1, (2, count, 1))
    colour = random.uniform(-1, 1, (count, 3))

    rows, columns = np.clip(np.arange(side) + moved, 0, side - 1)  # (n, side) each: which pixel comes here
    columns = np.where(mirrored[:, None], side - 1 - columns, columns)
    places = torch.from_numpy((chosen[:, None] * side + rows)[:, :, None] * side + columns[:, None, :])
    pixels = torch.from_numpy(chips).reshape(-1, 3)
    inputs = chips_to_input(pixels.index_select(0, places.flatten()).reshape(count, side, side, 3))

    factor = torch.from_numpy(1 + augmentation.contrast * contrast).float()[:, :, None, None]
    added = torch.from_numpy(augmentation.brightness * brightness + augmentation.colour * colour).float()
    offset = inputs.mean(dim=(1, 2, 3), keepdim=True) * (1 - factor) + added[:, :, None, None]
    return inputs.mul_(factor).add_(offset).clamp_(*_INPUT_RANGE)


def vary_voices(
    prepared: Prepared, chosen: NDArray[np.int64], augmentation: Augmentation, random: np.random.Generator
) -> Tensor:
    """Stretches of voices, all of one length, a little louder or softer, perhaps with bands blanked out.

    Voices that are shorter start anywhere and are repeated, not padded: batch normalisation would count the
    padding.

    Args:
        prepared: where the voices are.
        chosen: (n,) numbers of voices.
        augmentation: how much.
        random: where the variation is drawn from.

    Returns:
        (n, frames, bands) float32.
    """
    count, frames, bands = len(chosen), augmentation.frames, prepared.mels.shape[1]
    place, gain, wide, low = random.random((4, count))

    begins = prepared.offsets[chosen]
    whole = prepared.offsets[chosen + 1] - begins
    room = np.where(whole >= frames, whole - frames + 1, whole)
    start = (place * room).astype(np.int64)
    rows = begins[:, None] + (start[:, None] + np.arange(frames)) % whole[:, None]
    stretches = torch.from_numpy(prepared.mels).index_select(0, torch.from_numpy(rows.ravel()))
    mels = stretches.reshape(count, frames, bands).float()

    mels += torch.from_numpy(augmentation.gain * (2 * gain - 1)).float()[:, None, None]
    if augmentation.masked_bands:
        width = (wide * (min(augmentation.masked_bands, bands) + 1)).astype(np.int64)
        first = (low * (bands - width + 1)).astype(np.int64)
        band = np.arange(bands)
        kept = (band < first[:, None]) | (band >= (first + width)[:, None])
        mels *= torch.from_numpy(kept)[:, None, :]
    if augmentation.masked_frames:
        # a stream of its own: what is drawn above stays the same with and without it
        seed = int(random.integers(2**63))
        blanks = SpecAugment(frames=augmentation.masked_frames, bands=0, band_stretches=0)
        mels = spec_augment(mels, blanks, np.random.default_rng([_BLANKS, seed]))
    return mels


def _steps(prepared: Prepared | Vectors, samples: int) -> int:
    """Batches of so many samples per modality that show every sample about once."""
    return math.ceil(max(len(prepared.face_people), len(prepared.voice_people)) / samples)


@dataclass(frozen=True, eq=False)
class _Owned:
    """Numbers of things by owner: those of owner i are ``things[first[i] : first[i] + size[i]]``."""

    things: NDArray[np.int64]
    first: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def by(cls, owners: NDArray[np.int64]) -> _Owned:
        """Of the owner of each thing; owners that have nothing are left out."""
        _, size = np.unique(owners, return_counts=True)
        return cls(np.argsort(owners, kind="stable"), np.cumsum(size) - size, size)


def _kin(prepared: Prepared | Vectors) -> NDArray[np.int64]:
    """(people,) one number for those who possibly are one person."""
    told = prepared.kin if isinstance(prepared, Vectors) else None
    return np.arange(len(prepared.identities)) if told is None else told


def _people_order(
    people: int, seed: int, epoch: int, steps: int, per_batch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who comes when in an epoch, and how often each came before it.

    An epoch is a number of passes over all people and, before them, a part of one. Those who are in the
    part follow a fixed circle of people, where each epoch takes up where the last one stopped.

    Returns:
        (steps * per_batch,) and (people,) int64, numbers from 0 to people - 1.
    """
    passes, extra = divmod(steps * per_batch, people)
    circle = np.random.default_rng([seed, _TURNS]).permutation(people)
    gone = epoch * extra
    random = np.random.default_rng([seed, _ORDER, epoch])
    parts = [random.permutation(circle[(gone + np.arange(extra)) % people])]
    for number in range(passes):
        unfinished = (extra + number * people) % per_batch
        last = np.concatenate(parts[-2:])  # a batch is no larger than a pass
        parts.append(_follow(last[len(last) - unfinished :], random.permutation(people), per_batch))
    before = np.full(people, epoch * passes)
    before[circle] += (gone + people - 1 - np.arange(people)) // people
    return np.concatenate(parts), before


def _follow(unfinished: NDArray[np.int64], following: NDArray[np.int64], per_batch: int) -> NDArray[np.int64]:
    """Everybody of ``following``, first those who complete a batch of which there is a part."""
    there = np.isin(following, unfinished)
    fresh = np.flatnonzero(~there)[: per_batch - len(unfinished)] if len(unfinished) else np.empty(0, dtype=np.int64)
    return np.concatenate([following[fresh], np.delete(following, fresh)])


def _times_before(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) how often each number occurs before its place."""
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]
    times = np.empty(len(numbers), dtype=np.int64)
    times[order] = np.arange(len(numbers)) - np.searchsorted(ranked, ranked)
    return times


def _draw(
    owned: _Owned, people: NDArray[np.int64], turns: NDArray[np.int64], count: int, seed: tuple[int, int]
) -> NDArray[np.int64]:
    """The samples of people's turns (0, 1, …): each shuffle of all of somebody's serves as many turns as it fills.

    A shuffle orders samples by numbers that are a function of seed, shuffle and sample, so that all people's are made
    at once: a generator for each, of which thousands are needed for a step, would take longer than the step.

    Returns:
        (turns, count) numbers of samples; who has fewer has some twice.
    """
    size = owned.size[people]
    shuffle, place = np.divmod(turns, np.maximum(1, size // count))
    highest = int(shuffle.max()) + 1
    needed, which = np.unique(people * highest + shuffle, return_inverse=True)  # every shuffle once
    owner, number = np.divmod(needed, highest)
    length = owned.size[owner]
    begins = np.cumsum(length) - length
    of_shuffle = np.repeat(np.arange(len(needed)), length)
    rows = owned.things[np.arange(len(of_shuffle)) - begins[of_shuffle] + owned.first[owner][of_shuffle]]
    shuffled = rows[np.lexsort((_scattered(seed, number[of_shuffle], rows), of_shuffle))]
    within = (place * count)[:, None] + np.arange(count) % np.minimum(count, size)[:, None]
    return np.asarray(shuffled[begins[which][:, None] + within])


def _scattered(seed: tuple[int, int], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n,) 64 bits of each pair of numbers, without likeness between near ones (SplitMix64: Steele et al., 2014)."""
    mixed = np.full(len(one), np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    for part in (one, other):
        mixed = (mixed ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed
