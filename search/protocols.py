"""Protocol folders: the lists that say which faces and voices are compared, and what may be trained on.

Two kinds have one shape: the lists published for VoxCeleb1, and those that the population writes beside its
media. This file reads and checks them; what the paths name is opened elsewhere. A path in a list begins with
the identity it shows, by either of the two names that the meta file gives it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.list_folder import ListFolder, cells
from search.list_folder import ProtocolError as ProtocolError

FORMAT = 1
SPLITS = "Splits/identity_splits.txt"
META = ("meta.csv", "vox1_meta.csv")
RETRIEVAL = {
    Modality.VOICE: ("retrieval/wav_all.csv", "retrieval/wav_20k.csv"),
    Modality.FACE: ("retrieval/jpg_all.csv", "retrieval/jpg_20k.csv"),
}
CRITERIA = {"random": "U", "G": "G", "N": "N", "A": "A", "GNA": "GNA"}
"""What the pairs of a verification list have in common, as its name says it and as it is called here."""
_TEST, _TRAIN, _VALIDATION = "4", "1", "2"
META_HEADER = ("VoxCeleb1 ID", "VGGFace1 ID", "Gender", "Nationality", "Set")
TRIALS_HEADER = ("id", "voice-speaker-id", "face-speaker-id", "label", "voice-path", "face-path")


@dataclass(frozen=True)
class Samples:
    """Files of one modality and whom they show.

    Args:
        paths: as the list writes them.
        people: identity of each.
    """

    paths: tuple[str, ...]
    people: tuple[str, ...]


@dataclass(frozen=True)
class Trials:
    """Verification: is this voice the voice of this face?

    Args:
        voices: paths of the voices.
        faces: paths of the faces, one each.
        same: whether both are of one person, as the list's label says.
    """

    voices: tuple[str, ...]
    faces: tuple[str, ...]
    same: tuple[bool, ...]


@dataclass(frozen=True)
class Lists:
    """1:N matching: which of these is the probe's person?

    Args:
        probes: path of each trial's probe.
        candidates: paths of its candidates, all of the other modality, as many in every trial: the right
            one first; the first N of them are the trial 1:N.
    """

    probes: tuple[str, ...]
    candidates: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Protocol:
    """Everything that a protocol folder says.

    Args:
        name: of the protocol.
        domain: whom it is about, such as ``invented people``.
        digest: what the folder calls itself; where it does not, ``lists_digest``.
        lists_digest: SHA-256 of the lists that were read.
        media: folder that the paths are relative to.
        identities: the test people.
        training: people who may be trained on; validation people are in ``validation``.
        validation: people on whom a checkpoint may be chosen.
        sex: ``f`` or ``m`` by identity.
        also_called: identity by its other name, where the meta file gives one.
        retrieval: the samples of each modality that are searched, and asked with.
        verification: by what the pairs have in common: ``U`` nothing, ``G`` sex, ….
        matching: likewise, by (modality of the probe, criterion).
        ceiling: by path (k,) float64: the likelihood-ratio score of a face and a voice is the dot product of
            their vectors. None where nobody knows it.
    """

    name: str
    domain: str
    digest: str
    lists_digest: str
    media: Path
    identities: frozenset[str]
    training: frozenset[str]
    validation: frozenset[str]
    sex: Mapping[str, str] = field(repr=False)
    also_called: Mapping[str, str] = field(repr=False)
    retrieval: Mapping[Modality, Samples] = field(repr=False)
    verification: Mapping[str, Trials] = field(repr=False)
    matching: Mapping[tuple[Modality, str], Lists] = field(repr=False)
    ceiling: Mapping[str, NDArray[np.float64]] | None = field(repr=False, default=None)

    def person_of(self, path: str) -> str:
        """The identity that a path of the lists shows."""
        first = path.split("/", 1)[0]
        return self.also_called.get(first, first)

    def samples(self, modality: Modality) -> Samples:
        """Every sample that any list names, each once, in the order of the lists."""
        return self._samples[modality]

    @cached_property
    def _samples(self) -> Mapping[Modality, Samples]:
        return {modality: self._named(modality) for modality in Modality}

    def _named(self, modality: Modality) -> Samples:
        voice = modality is Modality.VOICE
        named = list(self.retrieval[modality].paths)
        for trials in self.verification.values():
            named += trials.voices if voice else trials.faces
        for (probe, _), lists in self.matching.items():
            named += lists.probes if probe is modality else [path for line in lists.candidates for path in line]
        paths = tuple(dict.fromkeys(named))
        return Samples(paths, tuple(self.person_of(path) for path in paths))

    def test_people_among(self, identities: Collection[str]) -> frozenset[str]:
        """Those of the test people who are among ``identities``, under either of their names."""
        return self.identities & {self.also_called.get(name, name) for name in identities}


def read_protocol(folder: Path, media: Path | None = None) -> Protocol:
    """Read and check a protocol folder.

    Args:
        folder: holds ``Splits``, ``retrieval``, ``veriflist``, ``matching`` and the meta file; the
            population's also ``protocol.json`` and the ceiling.
        media: folder that the paths are relative to; default as ``protocol.json`` says, else ``media``.

    Raises:
        ProtocolError: a list is missing, or a line of one cannot be meant.
    """
    return _Reader(folder).read(media)


class _Reader(ListFolder):
    """Reads the files of one folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._identities: frozenset[str] = frozenset()
        self._also_called: dict[str, str] = {}

    def read(self, media: Path | None) -> Protocol:
        about = self._about()
        splits = self._splits()
        self._identities = frozenset(name for name, code in splits.items() if code == _TEST)
        sex = self._meta(splits)
        retrieval = {modality: self._retrieval(modality) for modality in Modality}
        verification = dict(self._verification())
        matching = dict(self._matching())
        lists_digest = self.digest
        protocol = Protocol(
            name=about.get("name", self.folder.name),
            domain=about.get("domain", "not stated"),
            digest=about.get("digest", lists_digest),
            lists_digest=lists_digest,
            media=media or self.folder / about.get("media", "media"),
            identities=self._identities,
            training=frozenset(name for name, code in splits.items() if code == _TRAIN),
            validation=frozenset(name for name, code in splits.items() if code == _VALIDATION),
            sex=sex, also_called=self._also_called,
            retrieval=retrieval, verification=verification, matching=matching, ceiling=self._ceiling(),
        )  # fmt: skip
        self._check_ceiling(protocol)
        return protocol

    def _about(self) -> dict[str, str]:
        """``protocol.json``, or nothing: the published lists have none."""
        path = self.folder / "protocol.json"
        if not path.is_file():
            return {}
        try:
            document: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ProtocolError(path, f"is not valid JSON ({error}): write the protocol again") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            told = document.get("format") if isinstance(document, dict) else type(document).__name__
            raise ProtocolError(path, f"has format {told!r}, this version reads {FORMAT}: write the protocol again")
        about: dict[str, Any] = {
            name: document[name] for name in ("name", "domain", "media", "digest") if name in document
        }
        if wrong := [name for name, value in about.items() if not isinstance(value, str)]:
            raise ProtocolError(path, f"{wrong[0]!r} must be text, got {about[wrong[0]]!r}")
        return about

    def _splits(self) -> dict[str, str]:
        splits: dict[str, str] = {}
        path = self.folder / SPLITS
        for number, line in self.lines(path):
            name, code = cells(path, number, line, " ", 2)
            if code not in ("1", "2", "3", "4"):
                raise ProtocolError(path, f"the code of {name} is 1, 2, 3 or 4, got {code!r}", number)
            if name in splits:
                raise ProtocolError(path, f"{name} is named a second time", number)
            splits[name] = code
        if _TEST not in splits.values():
            raise ProtocolError(path, f"names no test people (code {_TEST})")
        return splits

    def _meta(self, splits: Mapping[str, str]) -> dict[str, str]:
        """Sex by identity; fills in the other names."""
        path = self.one_of(META)
        sex: dict[str, str] = {}
        for number, (first, identity, gender, _country, _set) in self.table(path, "\t", [META_HEADER]):
            if gender not in ("f", "m"):
                raise ProtocolError(path, f"the gender of {identity} is f or m, got {gender!r}", number)
            if identity in sex:
                raise ProtocolError(path, f"{identity} is named a second time", number)
            sex[identity] = gender
            if first != identity:
                self._also_called[first] = identity
        if missing := sorted(self._identities - set(sex)):
            raise ProtocolError(path, f"does not name the test identity {missing[0]} (of {SPLITS})")
        return {name: gender for name, gender in sex.items() if name in splits}

    def _retrieval(self, modality: Modality) -> Samples:
        path = self.one_of(RETRIEVAL[modality])
        kind = "wav" if modality is Modality.VOICE else "jpg"
        people: dict[str, str] = {}
        for number, (person, sample) in self.table(path, "\t", [("person", kind), ("VoxCeleb1 ID", kind)]):
            shown = self._person(path, number, sample)
            if self._also_called.get(person, person) != shown:
                raise ProtocolError(
                    path, f"{sample} is said to be of {person}, but lies in the folder of {shown}", number
                )
            if sample in people:
                raise ProtocolError(path, f"{sample} is named a second time", number)
            people[sample] = shown
        if not people:
            raise ProtocolError(path, "names no samples")
        return Samples(tuple(people), tuple(people.values()))

    def _verification(self) -> Iterator[tuple[str, Trials]]:
        for written, criterion in CRITERIA.items():
            path = self.folder / "veriflist" / f"veriflist_test_{written}_unseenunheard.txt"
            if criterion in ("U", "G") or path.is_file():
                yield criterion, self._trials(path)

    def _trials(self, path: Path) -> Trials:
        rows: list[tuple[str, str, bool]] = []
        for number, (_id, _voice_id, _face_id, label, voice, face) in self.table(path, ",", [TRIALS_HEADER]):
            if label not in ("0", "1"):
                raise ProtocolError(path, f"a label is 0 or 1, got {label!r}", number)
            same = self._person(path, number, voice) == self._person(path, number, face)
            if same != (label == "1"):
                what = "one person" if same else "two people"
                raise ProtocolError(path, f"the label is {label}, but the paths are of {what}: {voice}, {face}", number)
            rows.append((voice, face, same))
        if not rows:
            raise ProtocolError(path, "holds no trials")
        voices, faces, labels = zip(*rows, strict=True)
        return Trials(voices, faces, labels)

    def _matching(self) -> Iterator[tuple[tuple[Modality, str], Lists]]:
        for direction, probe in (("v2f", Modality.VOICE), ("f2v", Modality.FACE)):
            for criterion in ("U", "G", "N", "GN"):
                path = self.folder / "matching" / f"matching_{direction}_{criterion}.csv"
                if criterion in ("U", "G") or path.is_file():
                    yield (probe, criterion), self._lists(path)

    def _lists(self, path: Path) -> Lists:
        rows: list[list[str]] = []
        for number, line in self.lines(path):
            row = line.split()
            if len(row) < 3 or (rows and len(row) != len(rows[0])):
                wanted = len(rows[0]) if rows else "a probe and at least 2 candidates,"
                raise ProtocolError(path, f"needs {wanted} paths separated by spaces, got {len(row)}", number)
            people = [self._person(path, number, sample) for sample in row]
            if people[1] != people[0]:
                raise ProtocolError(
                    path, f"the first candidate is the right one, but {row[1]} is not of {people[0]}", number
                )
            if people[0] in people[2:]:
                raise ProtocolError(path, f"a wrong candidate is of {people[0]} too: {line}", number)
            rows.append(row)
        if not rows:
            raise ProtocolError(path, "holds no trials")
        return Lists(tuple(row[0] for row in rows), tuple(tuple(row[1:]) for row in rows))

    def _ceiling(self) -> dict[str, NDArray[np.float64]] | None:
        path = self.folder / "ceiling.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                paths, vectors = stored["path"], np.asarray(stored["vector"], dtype=np.float64)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ProtocolError(path, f"cannot be read ({error}): write the protocol again") from error
        if vectors.ndim != 2 or paths.shape != vectors.shape[:1] or not np.isfinite(vectors).all():
            raise ProtocolError(
                path, f"needs a finite vector (n, k) for each path (n,), got {vectors.shape} for {paths.shape}"
            )
        return dict(zip(paths.tolist(), vectors, strict=True))

    def _check_ceiling(self, protocol: Protocol) -> None:
        for modality in Modality:
            for path in protocol.samples(modality).paths if protocol.ceiling is not None else ():
                if path not in (protocol.ceiling or {}):
                    raise ProtocolError(
                        self.folder / "ceiling.npz", f"has no vector for {path}: write the protocol again"
                    )

    def _person(self, path: Path, number: int, sample: str) -> str:
        """The test identity that a sample's path begins with."""
        parts = sample.split("/")
        if len(parts) < 2 or not all(parts) or ".." in parts:
            raise ProtocolError(path, f"a path is relative, <identity>/…, got {sample!r}", number)
        person = self._also_called.get(parts[0], parts[0])
        if person not in self._identities:
            raise ProtocolError(path, f"{sample} is not of a test identity (code {_TEST} in {SPLITS})", number)
        return person
