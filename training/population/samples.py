"""Samples of an invented person: photos and utterances, each showing the person a little differently.

A sample's shared latents are the person's plus noise of its own, drawn anew for every sample and known
to nobody but the truth file. That noise is what makes the population an instrument: without it a face
and a voice would tell for certain whether they are one person's, and no score could be compared with
the best reachable one (:mod:`~training.population.ceiling`).

Everything about a sample follows from (seed, person, modality, number), so that samples can be made in
any order, in any process, and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from training.population.faces import View, draw_view, render_face
from training.population.people import Person, SharedLatents
from training.population.voices import Delivery, draw_delivery, speak

NOISE: Mapping[Modality, float] = MappingProxyType({Modality.FACE: 0.52, Modality.VOICE: 0.52})
"""Deviation of a sample's continuous shared latents around its person's; the people's own deviation is 1."""

PHOTO_SIDE = 160
"""Height and width of a photo in pixels."""

_KEYS = {Modality.FACE: 1, Modality.VOICE: 2}


@dataclass(frozen=True)
class Photo:
    """One photo that can be taken.

    Args:
        person: who, with the shared latents that this photo shows.
        view: how it is taken.
        grain: starts the grain of sensor and wall.
    """

    person: Person
    view: View
    grain: int

    def render(self) -> NDArray[np.uint8]:
        """(``PHOTO_SIDE``, ``PHOTO_SIDE``, 3) uint8 RGB."""
        return render_face(self.person, self.view, PHOTO_SIDE, self.grain)


@dataclass(frozen=True)
class Utterance:
    """One sentence that can be said.

    Args:
        person: who, with the shared latents that this utterance shows.
        delivery: what is said, and how.
    """

    person: Person
    delivery: Delivery

    def render(self) -> NDArray[np.float32]:
        """(n,) float32 mono at 16 kHz in [-1, 1], a few seconds.

        Raises:
            SynthesiserError: if the speech synthesiser does not work here.
        """
        return speak(self.person, self.delivery)


def draw_photo(person: Person, number: int, seed: int = 0) -> Photo:
    """Draw a person's photo of this number; arguments as for :func:`draw_latents`."""
    random = _start(person, Modality.FACE, number, seed)
    shown = _show(person, Modality.FACE, random)
    return Photo(shown, draw_view(random), int(random.integers(2**31)))


def draw_utterance(person: Person, number: int, seed: int = 0) -> Utterance:
    """Draw a person's utterance of this number; arguments as for :func:`draw_latents`."""
    random = _start(person, Modality.VOICE, number, seed)
    shown = _show(person, Modality.VOICE, random)
    return Utterance(shown, draw_delivery(random))


def draw_latents(person: Person, modality: Modality, number: int, seed: int = 0) -> SharedLatents:
    """What the photo or utterance of this number shows of the shared latents, without drawing the rest.

    Args:
        person: who; told from others by its seed.
        modality: photo or utterance.
        number: which, at least 0.
        seed: of the set of samples, 0 to 2**32 - 1.

    Raises:
        ValueError: if the number or the seed is out of range.
    """
    return _show(person, modality, _start(person, modality, number, seed)).shared


def _start(person: Person, modality: Modality, number: int, seed: int) -> np.random.Generator:
    if number < 0 or not 0 <= seed < 2**32:
        raise ValueError(f"number must be at least 0 and seed 0 to 2**32 - 1, got {number} and {seed}")
    key = (_KEYS[modality], number)
    return np.random.default_rng(np.random.SeedSequence([seed, person.seed], spawn_key=key))


def _show(person: Person, modality: Modality, random: np.random.Generator) -> Person:
    """The person as this sample shows it: the renderers read ``shared`` and know of no noise."""
    own = person.shared.as_array()[1:] + NOISE[modality] * random.standard_normal(5)
    return replace(person, shared=SharedLatents(person.shared.sex, *own.tolist()))
