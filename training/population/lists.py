"""The protocol's lists: which samples are compared with which, in the formats of the published lists.

Every list is drawn from the split alone, so that the same people always meet the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from encoders.space import Modality
from training.population.people import Person
from training.population.splits import Entry, Split, entries_of

PAIRS = 10_000
"""Most rows of a verification list, half of them genuine."""

TRIALS = 2_000
"""Most rows of a matching list."""

CANDIDATES = 10
"""Candidates of a matching trial, the right one among them; prefixes of a row give 1:2 to 1:10."""

UNRESTRICTED, SAME_SEX = "U", "G"
KINDS = (UNRESTRICTED, SAME_SEX)
"""Against anybody, and against people of the same sex, as the published lists name them."""

_TRIALS_PER_PROBE = 2
_VERIFICATION_NAMES = {UNRESTRICTED: "random", SAME_SEX: "G"}
_DIRECTIONS = {Modality.VOICE: "v2f", Modality.FACE: "f2v"}
_RETRIEVAL_NAMES = {Modality.VOICE: "wav", Modality.FACE: "jpg"}


@dataclass(frozen=True)
class Pair:
    """One row of a verification list."""

    voice: Entry
    face: Entry

    @property
    def genuine(self) -> bool:
        """Whether both are one person's."""
        return self.voice.identity == self.face.identity


@dataclass(frozen=True)
class Trial:
    """One row of a matching list: the first candidate is the right one."""

    probe: Entry
    candidates: tuple[Entry, ...]


@dataclass(frozen=True)
class Lists:
    """All lists of a split.

    Args:
        voices: every utterance, to be retrieved.
        faces: every photo, to be retrieved.
        verification: per kind of :data:`KINDS`, pairs in random order, half of them genuine.
        matching: per modality of the probe and kind, trials.
    """

    voices: tuple[Entry, ...]
    faces: tuple[Entry, ...]
    verification: dict[str, tuple[Pair, ...]]
    matching: dict[tuple[Modality, str], tuple[Trial, ...]]


def draw_lists(split: Split) -> Lists:
    """Draw all lists of a split, at least two people of each sex in it; the same split gives the same lists."""
    people = split.people()
    entries = {
        modality: [entry for person in people for entry in entries_of(person, modality, split.samples)]
        for modality in Modality
    }
    voices, faces = entries[Modality.VOICE], entries[Modality.FACE]
    verification = {
        kind: _draw_pairs(_groups(people, kind), voices, faces, _random(split, 1, place))
        for place, kind in enumerate(KINDS)
    }
    matching = {
        (modality, kind): _draw_trials(
            _groups(people, kind), entries[modality], entries[modality.other], _random(split, 2 + turn, place)
        )
        for turn, modality in enumerate((Modality.VOICE, Modality.FACE))
        for place, kind in enumerate(KINDS)
    }
    return Lists(tuple(voices), tuple(faces), verification, matching)


def write_lists(folder: Path, lists: Lists) -> None:
    """Write every list below a folder, which exists.

    ``veriflist/`` and ``retrieval/`` have headers, ``matching/`` has none.
    """
    numbers = {name: row for row, name in enumerate(sorted({entry.identity for entry in lists.voices}), start=1)}
    for kind, pairs in lists.verification.items():
        rows = [
            f"{row},{numbers[pair.voice.identity]},{numbers[pair.face.identity]},"
            f"{int(pair.genuine)},{pair.voice.path},{pair.face.path}"
            for row, pair in enumerate(pairs, start=1)
        ]
        header = "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"
        name = f"veriflist_test_{_VERIFICATION_NAMES[kind]}_unseenunheard.txt"
        _write(folder / "veriflist" / name, [header, *rows])
    for (modality, kind), trials in lists.matching.items():
        rows = [" ".join([trial.probe.path, *(entry.path for entry in trial.candidates)]) for trial in trials]
        _write(folder / "matching" / f"matching_{_DIRECTIONS[modality]}_{kind}.csv", rows)
    for modality, entries in ((Modality.VOICE, lists.voices), (Modality.FACE, lists.faces)):
        name = _RETRIEVAL_NAMES[modality]
        rows = [f"{entry.identity}\t{entry.path}" for entry in entries]
        _write(folder / "retrieval" / f"{name}_all.csv", [f"person\t{name}", *rows])


def _random(split: Split, which: int, place: int) -> np.random.Generator:
    key = (int(split.stream), which, place)
    return np.random.default_rng(np.random.SeedSequence([split.seed], spawn_key=key))


def _groups(people: Sequence[Person], kind: str) -> list[list[str]]:
    """Identities of those who are mistaken for each other."""
    if kind == UNRESTRICTED:
        return [[person.identity for person in people]]
    return [[person.identity for person in people if person.sex == sex] for sex in ("female", "male")]


def _draw_pairs(
    groups: Sequence[Sequence[str]], voices: Sequence[Entry], faces: Sequence[Entry], random: np.random.Generator
) -> tuple[Pair, ...]:
    """Genuine pairs, and as many impostor pairs in which every sample occurs as often as in genuine ones.

    For each utterance number and each photo number the people of a group stand in a ring, in an order of
    its own: everybody's utterance meets the next one's photo. So no sample's frequency betrays its label,
    and no pair occurs twice.
    """
    voice, face = ({(one.identity, one.number): one for one in entries} for entries in (voices, faces))
    numbers = list(product(sorted({one.number for one in voices}), sorted({one.number for one in faces})))
    genuine = [Pair(voice[one, a], face[one, b]) for group in groups for one in group for a, b in numbers]
    impostor = []
    for group, (a, b) in product(groups, numbers):
        ring = [group[int(index)] for index in random.permutation(len(group))]
        neighbours = zip(ring, [*ring[1:], ring[0]], strict=True)
        impostor += [Pair(voice[one, a], face[other, b]) for one, other in neighbours]
    kept = min(PAIRS // 2, len(genuine))
    chosen = [pairs[int(index)] for pairs in (genuine, impostor) for index in random.permutation(len(pairs))[:kept]]
    return tuple(chosen[int(index)] for index in random.permutation(len(chosen)))


def _draw_trials(
    groups: Sequence[Sequence[str]], probes: Sequence[Entry], candidates: Sequence[Entry], random: np.random.Generator
) -> tuple[Trial, ...]:
    """Every probe in turn, at most twice; its rivals are different people of its group."""
    shown: dict[str, list[Entry]] = {}
    for entry in candidates:
        shown.setdefault(entry.identity, []).append(entry)
    others = {one: [other for other in group if other != one] for group in groups for one in group}
    # As many in every row, so that prefixes compare like with like; a small group has fewer.
    rivals = min(CANDIDATES, *(len(group) for group in groups)) - 1
    first_right = {entry.path: int(random.integers(len(shown[entry.identity]))) for entry in probes}
    trials: list[Trial] = []
    for turn in range(_TRIALS_PER_PROBE):
        for index in random.permutation(len(probes)):
            probe = probes[int(index)]
            own, strangers = shown[probe.identity], others[probe.identity]
            right = own[(first_right[probe.path] + turn) % len(own)]
            chosen = [strangers[int(place)] for place in random.choice(len(strangers), rivals, replace=False)]
            wrong = [shown[other][int(random.integers(len(shown[other])))] for other in chosen]
            trials.append(Trial(probe, (right, *wrong)))
    return tuple(trials[:TRIALS])


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
