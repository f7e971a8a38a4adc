"""People we invent: a name, what face and voice share, and what each keeps to itself.

A person is nothing but latents. :mod:`~training.population.faces` and
:mod:`~training.population.voices` read them and draw; neither invents anything of its own, so that a
face and a voice of one person agree exactly in the shared latents and in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import astuple, dataclass, replace
from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FACE_LATENTS = 96
EXPRESSIVENESS = 1.15  # how plainly faces and voices show what they share
MOST_SHOWN = 2.5  # deviations; monotonic, so that nothing of a latent is lost
VOICE_LATENTS = 48

_FEMALE, _MALE = -1.0, 1.0
_GIVEN_STARTS = ("Al", "Be", "Da", "El", "Fa", "Ga", "Ina", "Jo", "Ka", "Li", "Ma", "Ne", "Ori", "Pe", "Ra", "So")
_GIVEN_MIDDLES = ("", "ba", "di", "la", "lo", "mi", "na", "re", "si", "ve")
_GIVEN_ENDS = {_FEMALE: ("ra", "lia", "na", "sa", "mira"), _MALE: ("ron", "lo", "nek", "mar", "tis")}
_SURNAME_STARTS = ("Bran", "Cor", "Dal", "Fen", "Gor", "Hal", "Kes", "Lor", "Mol", "Nor", "Pol", "Ros", "Tor", "Vel")
_SURNAME_ENDS = ("aden", "berg", "ditz", "esco", "field", "gard", "ian", "ley", "mont", "ova", "sen", "wick")

MOST_PEOPLE = 20_000  # of a stream: names must be left to choose from
_STREAM_BITS = 29
_MOST_SEED = 2**32

_Option = TypeVar("_Option")


class Stream(IntEnum):
    """What people are invented for: streams of people who never meet.

    A person's own seed begins with the number of its stream, so that a person of one stream is nobody
    of another, whatever the seeds and counts. (``DEMO`` is older than the streams: its seeds are free.)
    """

    DEMO = 0
    TEST = 1
    VALIDATION = 2
    TRAINING = 3


@dataclass(frozen=True)
class SharedLatents:
    """What face and voice both show.

    The five continuous ones are standard normal and not bounded: what reads them bounds what it makes
    of them, so that prior and noise are exactly what the ceiling takes them to be.

    Args:
        sex: -1 female or 1 male; also a label.
        age: standard normal, larger is older.
        size: standard normal; a larger body has a longer vocal tract and a longer face.
        weight: standard normal; a fuller face, a fuller sound.
        warmth: standard normal; a ruddier complexion, a darker timbre.
        energy: standard normal; bolder brows and eyes, livelier speech.
    """

    sex: float
    age: float
    size: float
    weight: float
    warmth: float
    energy: float

    def as_array(self) -> NDArray[np.float64]:
        """(6,) float64: sex, age, size, weight, warmth, energy."""
        return np.array(astuple(self), np.float64)

    def shown(self) -> SharedLatents:
        """What renderers read: extremes bounded smoothly, so that no face or voice leaves the possible."""

        def bounded(latent: float) -> float:
            return EXPRESSIVENESS * MOST_SHOWN * math.tanh(latent / MOST_SHOWN)

        return replace(
            self,
            age=bounded(self.age),
            size=bounded(self.size),
            weight=bounded(self.weight),
            warmth=bounded(self.warmth),
            energy=bounded(self.energy),
        )


@dataclass(frozen=True)
class Person:
    """One invented person, wholly determined by these numbers.

    Args:
        name: given name and surname, unique within one population.
        seed: starts this person's own random textures, at least 0.
        shared: what face and voice both show.
        face: ``FACE_LATENTS`` standard normals that only the face shows.
        voice: ``VOICE_LATENTS`` standard normals that only the voice shows.
    """

    name: str
    seed: int
    shared: SharedLatents
    face: tuple[float, ...]
    voice: tuple[float, ...]

    @property
    def sex(self) -> str:
        """``female`` or ``male``."""
        return "female" if self.shared.sex < 0 else "male"

    @property
    def identity(self) -> str:
        """The name with ``_`` for spaces, ``_`` and the seed's eight hexadecimal digits."""
        return f"{self.name.replace(' ', '_')}_{self.seed:08x}"


class Reading:
    """Reads private latents in order, turning each standard normal into a trait.

    The order of the calls is what gives a latent its meaning: append new traits at the end.
    """

    def __init__(self, latents: Sequence[float]) -> None:
        self._left = iter(latents)

    def normal(self, mean: float, deviation: float, limit: float = 1.8) -> float:
        """A number around ``mean``, at most ``limit`` deviations away."""
        return mean + 1.3 * deviation * max(-limit, min(limit, next(self._left)))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number spread evenly over [low, high]."""
        return low + (high - low) * 0.5 * (1.0 + math.erf(next(self._left) / math.sqrt(2.0)))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def choice(self, options: Sequence[_Option]) -> _Option:
        """One of the options, each equally likely."""
        return options[min(len(options) - 1, int(self.uniform() * len(options)))]


def invent_people(count: int, seed: int, stream: Stream = Stream.DEMO) -> list[Person]:
    """Invent people, alternating between the sexes, with names and seeds that occur once.

    The first people of a seed are the same whatever the count.

    Args:
        count: how many, 0 to 20000 (names must be left to choose from).
        seed: at least 0, below 2**32.
        stream: what they are for; no person of one stream is also in another.

    Raises:
        ValueError: if the count or the seed is out of range.
    """
    if not 0 <= count <= MOST_PEOPLE or not 0 <= seed < _MOST_SEED:
        raise ValueError(f"count must be 0 to 20000 and seed 0 to 2**32 - 1, got {count} and {seed}")
    people: list[Person] = []
    names: set[str] = set()
    seeds: set[int] = set()
    for index in range(count):
        # A key, not a third number: zeros at the end of an entropy do not change it.
        key = () if stream is Stream.DEMO else (int(stream),)
        random = np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=key))
        sex = _FEMALE if index % 2 == 0 else _MALE
        person = _invent_person(random, sex, stream, names, seeds)
        names.add(person.name)
        seeds.add(person.seed)
        people.append(person)
    return people


def _invent_name(random: np.random.Generator, sex: float) -> str:
    def pick(options: Sequence[str]) -> str:
        return options[int(random.integers(len(options)))]

    given = pick(_GIVEN_STARTS) + pick(_GIVEN_MIDDLES) + pick(_GIVEN_ENDS[sex])
    return f"{given} {pick(_SURNAME_STARTS)}{pick(_SURNAME_ENDS)}"


def _invent_person(
    random: np.random.Generator, sex: float, stream: Stream, names: Container[str], seeds: Container[int]
) -> Person:
    """Draw one person; a name or seed that is taken is drawn again."""
    name = _invent_name(random, sex)
    while name in names:
        name = _invent_name(random, sex)
    age, size, weight, warmth, energy = random.standard_normal(5).tolist()
    own_seed = _invent_seed(random, stream)
    while own_seed in seeds:
        own_seed = _invent_seed(random, stream)
    return Person(
        name=name,
        seed=own_seed,
        shared=SharedLatents(sex, age, size, weight, warmth, energy),
        face=tuple(random.standard_normal(FACE_LATENTS).tolist()),
        voice=tuple(random.standard_normal(VOICE_LATENTS).tolist()),
    )


def _invent_seed(random: np.random.Generator, stream: Stream) -> int:
    if stream is Stream.DEMO:
        return int(random.integers(2**31))
    return (int(stream) << _STREAM_BITS) | int(random.integers(2**_STREAM_BITS))
