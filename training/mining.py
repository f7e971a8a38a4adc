"""People mined out of an archive's own films, and the enrolled: who learns to be known by voice and by face.

A pair is a face that speaks and the voice of its turns, whole tracks of one film (:mod:`training.film_people`).
People of different films who surely are one are one, so that they are not each other's negatives; so is whoever is
enrolled with those who surely are them (:mod:`training.same_person`). Those who possibly are one stay two, but on one
side of the split, so that nobody is learned from and measured on, and never in one batch, where a contrast would make
them each other's negatives (a method's softmax over all people still tells them apart). What identity networks or
mouths have judged wrongly is wrong here too: weights say how sure everything is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality, Space
from search.people import learned_identity
from search.scores import Calibration
from training.corpora import Split
from training.film_people import FilmPerson, MiningSettings, enrolled_person, people_of_film
from training.filmed import EnrolledSamples, Film, Looks
from training.same_person import SamePerson, group_people, link_people
from training.vectors import Vectors

LEAST_TRAINED = 4
"""Fewer people to learn from have too few to be told from."""

LEAST_HELD_OUT = 4
"""Fewer people on a side of those held out calibrate and measure nothing."""

HELD_OUT_SHARE = 0.2


class TooFewMined(Exception):
    """There are too few people with face and voice to learn from and to measure on."""


@dataclass(frozen=True, eq=False)
class MinedPerson:
    """One person, as far as can be told.

    Args:
        name: unique: of the first film and track, or of the enrolled person; no name that people know them by.
        faces: with weights in [0, 1], how sure and how good each is.
        voices: likewise.
        confidence: probability that face and voice are one person's.
        films: media that show them.
        enrolled: whether somebody has said who they are.
        clear: those of the voices that are surely enough theirs to be measured on; None where there are none.
        parts: what they were put together of.
    """

    name: str
    faces: Looks
    voices: Looks
    confidence: float
    films: tuple[str, ...]
    enrolled: bool
    clear: Looks | None
    parts: tuple[FilmPerson, ...] = ()


@dataclass(frozen=True, eq=False)
class Mined:
    """What films and enrolments gave.

    Args:
        people: in order of their names.
        beside: by name, everybody who possibly is the same person, themselves included.
        films: media looked at.
        turns: speech turns in them.
        pairs: face tracks that were taken for the speakers of turns.
    """

    people: tuple[MinedPerson, ...]
    beside: Mapping[str, frozenset[str]]
    films: int
    turns: int
    pairs: int


def mine(
    films: Iterable[Film],
    enrolled: Sequence[EnrolledSamples],
    calibrations: Mapping[Modality, Calibration],
    settings: MiningSettings | None = None,
) -> Mined:
    """Mine everybody who is seen to speak, and everybody who is enrolled with face and voice.

    The same films in another order give the same.

    Args:
        films: of one archive; none to learn from the enrolled alone.
        enrolled: who is enrolled; none to learn from the films alone.
        calibrations: of each identity network, of a sample against a person's mean.
        settings: default :class:`MiningSettings`.
    """
    settings = settings or MiningSettings()
    voice = calibrations[Modality.VOICE]

    def agree(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
        return voice.log_odds(float(one @ other)) >= 0

    shown: list[FilmPerson] = []
    looked = turns = 0
    for film in sorted(films, key=lambda one: one.media):
        looked, turns = looked + 1, turns + len(film.turns)
        shown += people_of_film(film, agree, settings)
    people = [*(enrolled_person(samples) for samples in sorted(enrolled, key=lambda one: one.person)), *shown]
    same = SamePerson.among(people, calibrations[Modality.FACE], voice, settings.most_voice_log_odds)
    grouped = group_people(people, same, _log_odds(settings.same_person))
    mined = sorted((one for group in grouped if (one := _mined([people[place] for place in group]))), key=_name)
    pairs = sum(one.voices is not None for one in shown)
    return Mined(tuple(mined), _beside(mined, same, settings), looked, turns, pairs)


def split_people(mined: Mined, settings: MiningSettings | None = None) -> dict[Split, tuple[MinedPerson, ...]]:
    """Who is learned from, who calibrates, who is measured on: by name alone, nobody on two sides.

    Whoever possibly is one person is on one side. Those held out are the surest ones: of face and voice, and, as long
    as there are enough, nobody who possibly is somebody else too; else the surest of them alone, as the others would
    count as wrong answers. They have their clear voices only: others weigh less where one learns, but a threshold and a
    report would count each as the person's.

    Raises:
        TooFewMined: a side would have too few.
    """
    settings = settings or MiningSettings()
    groups = sorted({tuple(sorted(group)) for group in mined.beside.values()}, key=_surely_alone_first)
    wanted = max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * len(groups)))
    sides: dict[Split, list[MinedPerson]] = {split: [] for split in Split}
    different = dict.fromkeys(Split, 0)
    by_name = {one.name: one for one in mined.people}
    measurable = {
        one.name: replace(one, voices=one.clear)
        for one in mined.people
        if one.clear is not None and one.confidence >= settings.measured
    }
    for group in groups:
        sure = all(one in measurable for one in group)
        open_sides = [side for side in (Split.TEST, Split.VALIDATION) if sure and different[side] < wanted]
        side = open_sides[0] if open_sides else Split.TRAIN
        if open_sides:
            sides[side].append(min((measurable[one] for one in group), key=lambda one: (-one.confidence, one.name)))
        else:
            sides[side] += [by_name[one] for one in group]
        different[side] += 1
    least = {Split.TRAIN: LEAST_TRAINED, Split.VALIDATION: LEAST_HELD_OUT, Split.TEST: LEAST_HELD_OUT}
    if any(different[side] < count for side, count in least.items()):
        raise TooFewMined(
            f"{len(mined.people)} people with face and voice were found in {mined.films} films and among the enrolled, "
            f"{len(groups)} of them surely different, {len(measurable)} of them surely paired; at least "
            f"{sum(least.values())} are needed to learn from, calibrate and measure on: ingest films in which more "
            "people are seen to speak, or enrol people with faces and voices"
        )
    return {side: tuple(sorted(people, key=_name)) for side, people in sides.items()}


def vectors_of_people(
    people: Sequence[MinedPerson],
    spaces: Mapping[Modality, Space],
    beside: Mapping[str, frozenset[str]] | None = None,
) -> Vectors:
    """Mined people as what a head learns from.

    Args:
        people: at least one.
        spaces: that their points live in.
        beside: by name, everybody who possibly is the same person (:attr:`Mined.beside`); None: nobody is.
    """
    ordered = sorted(people, key=_name)
    kin = None
    if beside is not None:  # a group is called by its first name, and counted in the order of those
        called = [min(beside[one.name]) for one in ordered]
        kin = np.unique(called, return_inverse=True)[1].astype(np.int64)
    digest = hashlib.sha256("\n".join(spaces[modality].digest for modality in Modality).encode())
    parts: dict[Modality, Any] = {}
    for modality in Modality:
        looks = [one.faces if modality is Modality.FACE else one.voices for one in ordered]
        weights = np.concatenate([one.weights for one in looks]).astype(np.float32)
        owners = np.repeat(np.arange(len(ordered)), [len(one) for one in looks]).astype(np.int64)
        parts[modality] = np.ascontiguousarray(np.concatenate([one.vectors for one in looks])), owners, weights
        for one, mine in zip(ordered, looks, strict=True):
            digest.update(f"{modality} {one.name}\n".encode())
            for identity, weight in zip(mine.evidence, mine.weights, strict=True):
                digest.update(f"{identity} {weight:.6f}\n".encode())
    if kin is not None:
        digest.update(kin.tobytes())
    return Vectors(
        identities=tuple(one.name for one in ordered),
        sexes=("",) * len(ordered),
        faces=parts[Modality.FACE][0],
        face_people=parts[Modality.FACE][1],
        voices=parts[Modality.VOICE][0],
        voice_people=parts[Modality.VOICE][1],
        digest=digest.hexdigest(),
        face_weights=parts[Modality.FACE][2],
        voice_weights=parts[Modality.VOICE][2],
        kin=kin,
    )


def _mined(group: Sequence[FilmPerson]) -> MinedPerson | None:
    """A group as one person; None without a face or without a voice."""
    faces = [one.faces for one in group if one.faces is not None]
    voices = [one.voices for one in group if one.voices is not None]
    if not faces or not voices:
        return None
    said = any(not one.media and one.faces is not None and one.voices is not None for one in group)
    # one film in which face and voice are not one person's is enough to make it two people's
    confidence = 1.0 if said else min(one.confidence for one in group if one.voices is not None)
    named = [one.person for one in group if one.person]
    name = learned_identity(min(named)) if named else min(one.name for one in group if one.voices is not None)
    films = tuple(sorted({one.media for one in group if one.media}))
    heard = Looks.joined(voices)
    # what somebody is enrolled with is theirs, however unsure a film that shows it is
    given = {place for one in group if not one.media and one.voices is not None for place in one.voices.evidence}
    clear = heard.without({place for one in group for place in one.doubtful} - given)
    return MinedPerson(name, Looks.joined(faces), heard, confidence, films, bool(named), clear, tuple(group))


def _beside(mined: Sequence[MinedPerson], same: SamePerson, settings: MiningSettings) -> dict[str, frozenset[str]]:
    """By name, everybody who possibly is the same person."""
    as_one = [FilmPerson(one.name, one.faces, one.voices, one.confidence) for one in mined]
    parts = [one.parts for one in mined]
    groups = link_people(as_one, same, _log_odds(settings.possibly_same), parts)
    names = [frozenset(mined[place].name for place in group) for group in groups]
    return {name: group for group in names for name in group}


def _surely_alone_first(group: tuple[str, ...]) -> tuple[bool, bytes]:
    return len(group) > 1, hashlib.sha256(group[0].encode()).digest()


def _name(one: MinedPerson) -> str:
    return one.name


def _log_odds(probability: float) -> float:
    return math.log(max(probability, 1e-9) / max(1.0 - probability, 1e-9))
