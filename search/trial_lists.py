"""Trials as rows of numbers: what a protocol's lists ask, ready to be scored all at once.

Every sample has one canonical path and one row, however the lists write it; people, recordings and trials are
arrays of such rows. A voice is ``idXXXXX/<video>/NNNNN.wav``, a face ``Name/1.6/<video>/NNNNNNN.jpg`` (one frame a
second, the box enlarged 1.6 times) or, in the lists of the D split, a still ``Name/NNNNNNNN.jpg``.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality

UNSEEN, SEEN = "unseen_unheard", "seen_heard"
"""Verification of people nobody was trained on, and of unused clips of people who were."""
TRAIN, VALIDATION, SEEN_HEARD, TEST, UNUSED = "train", "validation", "seen_heard", "test", ""
"""What a person is used for."""
DIRECTIONS = {Modality.VOICE: "voice_to_face", Modality.FACE: "face_to_voice"}
"""What a question is called, by the modality of its probe."""

CROPS = "1.6"
"""The folder of VoxCeleb1's face crops: the box enlarged so many times."""
_OLD_VOICE = re.compile(r"(?P<video>.+)_\d\d(?P<clip>\d{5}\.wav)")
_CROP = re.compile(r"\d{7}\.jpg")
_TAILS = {Modality.VOICE: ("00001.wav", ".wav"), Modality.FACE: ("0035550.jpg", ".jpg")}
"""What most names end with in either form, such as this number, and its suffix."""

Rows = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class People:
    """Everybody whom a protocol names.

    Args:
        names: VGGFace1 names; a person is the place in this line.
        ids: VoxCeleb1 ids, in the same order; the name again where there is none.
        sex: (people,) ``f`` or ``m``.
        nationality: (people,) text.
        split: (people,) ``train``, ``validation``, ``seen_heard``, ``test``, or empty for nobody's.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    sex: NDArray[np.str_] = field(repr=False)
    nationality: NDArray[np.str_] = field(repr=False)
    split: NDArray[np.str_] = field(repr=False)

    def __post_init__(self) -> None:
        sizes = {len(self.names), len(self.ids), len(self.sex), len(self.nationality), len(self.split)}
        if len(sizes) != 1:
            raise ValueError(f"people need one name, id, sex, nationality and split each, got {sorted(sizes)} of them")

    @cached_property
    def number(self) -> Mapping[str, int]:
        """Each person's place, by either name."""
        return {name: place for names in (self.names, self.ids) for place, name in enumerate(names)}

    def of(self, split: str) -> frozenset[str]:
        """Names of the people of a split."""
        return frozenset(name for name, used in zip(self.names, self.split.tolist(), strict=True) if used == split)

    def known_among(self, names: Collection[str]) -> frozenset[str]:
        """Names of the test people who are among ``names``, under either of their names."""
        places = {self.number[name] for name in names if name in self.number}
        return frozenset(self.names[place] for place in places if self.split[place] == TEST)

    def group(self, criterion: str) -> NDArray[np.intp]:
        """(people,) a number that people share who have ``G`` sex, ``N`` nationality, ``GN`` both or ``U`` nothing.

        Raises:
            ValueError: another criterion.
        """
        if criterion not in ("U", "G", "N", "GN"):
            raise ValueError(f"a group is U, G, N or GN, not {criterion!r}")
        shared = np.zeros(len(self.names), dtype="U1")
        if "G" in criterion:
            shared = np.char.add(shared, self.sex)
        if "N" in criterion:
            shared = np.char.add(np.char.add(shared, "/"), self.nationality)
        return np.unique(shared, return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Every sample of one modality that a list names.

    Args:
        paths: canonical, each once.
        person: (samples,) int32, places in :class:`People`.
        recording: (samples,) int32, equal where samples of any modality come from one video; −1: not known.
    """

    paths: tuple[str, ...] = field(repr=False)
    person: Rows = field(repr=False)
    recording: Rows = field(repr=False)

    @cached_property
    def row(self) -> Mapping[str, int]:
        """Row of each path."""
        return {path: row for row, path in enumerate(self.paths)}


@dataclass(frozen=True, eq=False)
class PairList:
    """Verification: is this voice the voice of this face?

    Args:
        voices: (pairs,) rows.
        faces: (pairs,) rows.
        genuine: (pairs,) whether both are of one person.
        asked_by: (pairs,) whether the voice is the probe, where a list says so; else None.
    """

    voices: Rows
    faces: Rows
    genuine: NDArray[np.bool_]
    asked_by: NDArray[np.bool_] | None = None

    def kept(self, mask: NDArray[np.bool_]) -> PairList:
        """Some of the pairs."""
        asked = None if self.asked_by is None else self.asked_by[mask]
        return PairList(self.voices[mask], self.faces[mask], self.genuine[mask], asked)


@dataclass(frozen=True, eq=False)
class CandidateList:
    """1:N matching: which of these is the probe's person?

    Args:
        probes: (trials,) rows of one modality.
        candidates: (trials, N) rows of the other: the right one first.
    """

    probes: Rows
    candidates: Rows


@dataclass(frozen=True, eq=False)
class TrialLists:
    """Everything that a protocol asks.

    Args:
        name: of the protocol.
        domain: whom it is about.
        digest: SHA-256 of the lists.
        people: everybody it names.
        catalogues: samples by modality.
        verification: by :data:`UNSEEN` or :data:`SEEN`, then by what both people of a pair share.
        matching: by (modality of the probe, what all candidates share): 1:2 as published.
        matching_1_to_n: likewise, with up to ten candidates.
        retrieval: rows of each modality that are searched, and asked with.
        drawn: how lists were drawn that nobody published, ready for JSON.
    """

    name: str
    domain: str
    digest: str
    people: People
    catalogues: Mapping[Modality, Catalogue] = field(repr=False)
    verification: Mapping[str, Mapping[str, PairList]] = field(repr=False)
    matching: Mapping[tuple[Modality, str], CandidateList] = field(repr=False)
    matching_1_to_n: Mapping[tuple[Modality, str], CandidateList] = field(repr=False)
    retrieval: Mapping[Modality, Rows] = field(repr=False)
    drawn: Mapping[str, object] = field(default_factory=dict, repr=False)

    def usable(self, present: Mapping[Modality, NDArray[np.bool_]]) -> TrialLists:
        """The trials all of whose samples are there; the others are left out for every scorer.

        Args:
            present: by modality (samples,) whether a sample of the catalogue can be scored.
        """
        voices, faces = present[Modality.VOICE], present[Modality.FACE]
        if voices.all() and faces.all():
            return self

        def candidates(
            lists: Mapping[tuple[Modality, str], CandidateList],
        ) -> dict[tuple[Modality, str], CandidateList]:
            left = {}
            for (probe, group), one in lists.items():
                kept = present[probe][one.probes] & present[probe.other][one.candidates].all(axis=1)
                left[probe, group] = CandidateList(one.probes[kept], one.candidates[kept])
            return left

        return replace(
            self,
            verification={
                split: {name: pairs.kept(voices[pairs.voices] & faces[pairs.faces]) for name, pairs in groups.items()}
                for split, groups in self.verification.items()
            },
            matching=candidates(self.matching),
            matching_1_to_n=candidates(self.matching_1_to_n),
            retrieval={modality: rows[present[modality][rows]] for modality, rows in self.retrieval.items()},
        )


class ListedPathError(ValueError):
    """A path of a list cannot be meant.

    Args:
        written: as the list writes it.
        reason: what is wrong with it.
    """

    def __init__(self, written: str, reason: str) -> None:
        super().__init__(f"{written!r} {reason}")
        self.written = written


class Register(dict[str, int]):
    """Row of each path of one modality as lists write it; a new one is checked, mapped and gets the next row.

    Args:
        modality: of the samples.
        people: whom they may show.
        recordings: number of each (person, video), shared by the modalities of a protocol.
    """

    def __init__(self, modality: Modality, people: People, recordings: dict[tuple[int, str], int]) -> None:
        super().__init__()
        self._modality, self._people, self._recordings = modality, people, recordings
        self._rows: dict[str, int] = {}
        self._heads: dict[str, tuple[str, int, int]] = {}
        example, self._suffix = _TAILS[modality]
        self._tail = -len(example)
        self._person = array("i")
        self._recording = array("i")

    def __missing__(self, written: str) -> int:
        at = self._tail
        # what stands before a number says all the rest, and is the same for many samples
        known, tail = self._heads.get(written[:at]), written[at:]
        if known is not None and tail[-4:] == self._suffix and tail[:-4].isdecimal():
            canonical = known[0] + tail
        else:
            canonical, known = self._checked(written)
        new = len(self._rows)
        row = self[written] = self._rows.setdefault(canonical, new)
        if row == new:
            self._person.append(known[1])
            self._recording.append(known[2])
        return row

    def _checked(self, written: str) -> tuple[str, tuple[str, int, int]]:
        """Its canonical path, and what is known of all that begin as it does, if it ends with a number."""
        canonical, person, video = canonical_path(self._modality, written, self._people)
        recordings, at = self._recordings, self._tail
        recording = -1 if video is None else recordings.setdefault((person, video), len(recordings))
        known, tail = (canonical[:at], person, recording), written[at:]
        if tail[-4:] == self._suffix and tail[:-4].isdecimal():
            self._heads[written[:at]] = known
        return canonical, known

    def rows(self, written: Collection[str]) -> Rows:
        """(n,) rows of paths. Raises ListedPathError."""
        return np.fromiter(map(self.__getitem__, written), dtype=np.int32, count=len(written))

    def catalogue(self) -> Catalogue:
        """Everything registered so far."""
        person, recording = np.array(self._person, dtype=np.int32), np.array(self._recording, dtype=np.int32)
        return Catalogue(tuple(self._rows), person, recording)

    def people_of(self, rows: Rows) -> Rows:
        """(n,) whom rows show."""
        return np.frombuffer(self._person, dtype=np.int32)[rows]


def canonical_path(modality: Modality, written: str, people: People) -> tuple[str, int, str | None]:
    """A path as everybody writes it, whom it shows, and the video it comes from (None: not known).

    ``Name/<video>_0000001.wav`` is ``idXXXXX/<video>/00001.wav``: the last five of seven digits;
    ``Name/<video>/0035550.jpg`` is ``Name/1.6/<video>/0035550.jpg``. Others stay as they are.

    Raises:
        ListedPathError: it is no relative path, or of nobody whom the protocol knows.
    """
    first, *rest = written.split("/")
    if not rest or "" in rest or ".." in rest or "." in rest:
        raise ListedPathError(written, "is no relative path <identity>/…")
    person = people.number.get(first)
    if person is None:
        raise ListedPathError(written, f"is of {first!r}, whom the protocol does not know")
    rest = below_identity(modality, rest)
    if modality is Modality.VOICE:
        return "/".join((people.ids[person], *rest)), person, rest[0] if len(rest) == 2 else None
    return "/".join((people.names[person], *rest)), person, rest[1] if len(rest) == 3 else None


def below_identity(modality: Modality, rest: Sequence[str]) -> list[str]:
    """What stands behind the identity in a canonical path, see :func:`canonical_path`.

    Args:
        modality: of the sample.
        rest: the same as a list writes it, between slashes.
    """
    if modality is Modality.VOICE:
        old = _OLD_VOICE.fullmatch(rest[0]) if len(rest) == 1 else None
        return list(rest) if old is None else [old["video"], old["clip"]]
    return [CROPS, *rest] if len(rest) == 2 and _CROP.fullmatch(rest[1]) else list(rest)
