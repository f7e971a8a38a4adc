"""Reads a protocol's lists as they are published: of the P split, of the D split, and the population's own.

Every list is checked while it is read: who may be named in it, which labels the people of a pair bear out, and
which candidate is the right one. A mistake is named with its file and line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.list_folder import ListFolder, ProtocolError, cells, even_cells, refuse_outside
from search.protocols import CRITERIA, META, META_HEADER, RETRIEVAL, SPLITS, TRIALS_HEADER
from search.trial_lists import (
    SEEN,
    SEEN_HEARD,
    TEST,
    TRAIN,
    UNSEEN,
    UNUSED,
    VALIDATION,
    CandidateList,
    ListedPathError,
    PairList,
    People,
    Register,
    Rows,
    TrialLists,
)

_SPLIT_OF_CODE = {"1": TRAIN, "2": VALIDATION, "3": SEEN_HEARD, "4": TEST}
_SPLIT_OF_FILE = {"vox1_train.csv": TRAIN, "vox1_val.csv": VALIDATION, "vox1_test.csv": TEST}
_D_HEADER = ("VoxCeleb1_ID", "VGGFace1_ID", "Gender", "Nationality", "Set")
_D_LISTS = {"U": "verify_{}_test.txt", "G": "verify_g_{}_test.txt"}
_SUFFIX = {UNSEEN: "unseenunheard", SEEN: "seenheard"}
_WAYS = (("v2f", Modality.VOICE), ("f2v", Modality.FACE))
VOXCELEB = "VoxCeleb1"

Person = tuple[str, str, str, str, str]


def read_trial_lists(folder: Path, within: Sequence[str] | None = None) -> TrialLists:
    """Read and check the lists of a protocol folder, of whichever of the known kinds.

    Args:
        folder: of the lists.
        within: folders that no list may lie outside of, links followed; None: wherever it lies.

    Raises:
        ProtocolError: a list is missing, a line of one cannot be meant, or two splits are mixed.
    """
    if not folder.is_dir():
        raise ProtocolError(folder, "there is no such folder")
    is_d = [name for name in _SPLIT_OF_FILE if (folder / name).is_file()]
    is_p = [name for name in (SPLITS, *META) if (folder / name).is_file()]
    if is_d and is_p:
        raise ProtocolError(
            folder, f"holds {is_p[0]} and {is_d[0]}, the lists of two splits: a protocol is of one, take them apart"
        )
    return (_DLists if is_d else _PLists)(folder, within).read()


class _Lists(ListFolder):
    """What the kinds have in common."""

    def __init__(self, folder: Path, within: Sequence[str] | None = None) -> None:
        super().__init__(folder, within)
        self._registers: dict[Modality, Register] = {}
        self._people = People((), (), *(np.array([], dtype=str),) * 3)

    def read(self) -> TrialLists:
        """Read everything."""
        raise NotImplementedError

    def _meet(self, people: Sequence[Person]) -> None:
        """(name, id, sex, nationality, split) of everybody."""
        names, ids, *rest = zip(*people, strict=True)
        self._people = People(names, ids, *(np.array(column) for column in rest))
        recordings: dict[tuple[int, str], int] = {}
        self._registers = {modality: Register(modality, self._people, recordings) for modality in Modality}

    def _rows(self, path: Path, modality: Modality, column: Sequence[str], splits: tuple[str, ...], first: int) -> Rows:
        """Rows of a column of paths, whose lines begin at ``first`` and whose people are of some splits."""
        try:
            rows = self._registers[modality].rows(column)
        except ListedPathError as error:
            raise ProtocolError(path, str(error), first + column.index(error.written)) from error
        shown = self._registers[modality].people_of(rows)
        wrong = np.flatnonzero(~np.isin(self._people.split[shown], splits))
        if len(wrong):
            person = shown[wrong[0]]
            raise ProtocolError(
                path,
                f"{column[wrong[0]]} is of {self._people.names[person]}, who is one of the "
                f"{self._people.split[person] or 'unused'} people, not of the {splits[0]} people: two splits are mixed",
                first + int(wrong[0]),
            )
        return rows

    def _paths(self, path: Path, least: int, most: int | None = None) -> list[Sequence[str]]:
        """Columns of paths with spaces between them and no header, at least so many, as many on every line."""
        lines = self.text(path).splitlines()
        if not lines:
            raise ProtocolError(path, "holds no trials")
        width = most or max(least, len(lines[0].split()))
        flat = even_cells(lines, " ", width)
        if flat is not None:
            return [flat[place::width] for place in range(width)]
        rows = [line.split() for line in lines]
        for number, row in enumerate(rows, start=1):
            if len(row) != width:
                raise ProtocolError(path, f"needs {width} paths separated by spaces, got {len(row)}", number)
        return list(zip(*rows, strict=True))

    def _same(self, voices: Rows, faces: Rows) -> NDArray[np.bool_]:
        registers = self._registers
        shown = registers[Modality.VOICE].people_of(voices), registers[Modality.FACE].people_of(faces)
        return np.asarray(shown[0] == shown[1])

    def _told(self, **lists: Any) -> TrialLists:  # noqa: ANN401
        catalogues = {modality: register.catalogue() for modality, register in self._registers.items()}
        rest = {"name": self.folder.name, "domain": VOXCELEB, "matching": {}, "matching_1_to_n": {}} | lists
        return TrialLists(digest=self.digest, people=self._people, catalogues=catalogues, **rest)


class _PLists(_Lists):
    """The lists of the P split (unseen-unheard and seen-heard), and the population's, which have their form."""

    def read(self) -> TrialLists:
        self._meet(self._everybody())
        published = self._whole()
        retrieval = {modality: self._searched(modality) for modality in Modality}
        verification = {
            split: {
                criterion: self._pairs(path, (TEST,) if split == UNSEEN else (TRAIN, SEEN_HEARD))
                for written, criterion in CRITERIA.items()
                for path in [self.folder / "veriflist" / f"veriflist_test_{written}_{suffix}.txt"]
                if published or (split == UNSEEN and criterion in ("U", "G")) or path.is_file()
            }
            for split, suffix in _SUFFIX.items()
        }
        matching = {
            (probe, criterion): self._candidates(path, probe)
            for way, probe in _WAYS
            for criterion in ("U", "G", "N", "GN")
            for path in [self.folder / "matching" / f"matching_{way}_{criterion}.csv"]
            if published or criterion in ("U", "G") or path.is_file()
        }
        longer = {key: one for key, one in matching.items() if one.candidates.shape[1] > 2}
        pairs = {key: CandidateList(one.probes, one.candidates[:, :2]) for key, one in matching.items()}
        about = {} if published else self._about()
        return self._told(
            **about, verification={split: groups for split, groups in verification.items() if groups},
            matching=pairs, matching_1_to_n=longer, retrieval=retrieval,
        )  # fmt: skip

    def _whole(self) -> bool:
        """Whether the folder claims to be the published protocol, and so must hold all of it."""
        return (self.folder / META[1]).is_file()

    def _about(self) -> dict[str, str]:
        refuse_outside(self.folder / "protocol.json", self._within)
        try:
            document = json.loads((self.folder / "protocol.json").read_text(encoding="utf-8"))
            return {name: str(document[name]) for name in ("name", "domain") if name in document}
        except FileNotFoundError:
            return {"domain": "not stated"}
        except (OSError, ValueError, TypeError) as error:
            raise ProtocolError(
                self.folder / "protocol.json", f"is not valid JSON ({error}): write the protocol again"
            ) from error

    def _everybody(self) -> list[Person]:
        path = self.folder / SPLITS
        split: dict[str, str] = {}
        for number, line in self.lines(path):
            name, code = cells(path, number, line, " ", 2)
            if code not in _SPLIT_OF_CODE:
                raise ProtocolError(path, f"the code of {name} is 1, 2, 3 or 4, got {code!r}", number)
            if split.setdefault(name, _SPLIT_OF_CODE[code]) != _SPLIT_OF_CODE[code]:
                raise ProtocolError(path, f"{name} is in two splits, {split[name]} and {_SPLIT_OF_CODE[code]}", number)
        meta = self.one_of(META)
        told: dict[str, Person] = {}
        for number, (first, name, sex, nationality, _) in self.table(meta, "\t", [META_HEADER]):
            if sex not in ("f", "m"):
                raise ProtocolError(meta, f"the gender of {name} is f or m, got {sex!r}", number)
            if name in told:
                raise ProtocolError(meta, f"{name} is named a second time", number)
            told[name] = (name, first, sex, nationality, split.get(name, UNUSED))
        if missing := sorted(set(split) - set(told)):
            raise ProtocolError(meta, f"does not name {missing[0]} (of {SPLITS})")
        if TEST not in split.values():
            raise ProtocolError(path, "names no test people (code 4)")
        return list(told.values())

    def _searched(self, modality: Modality) -> Rows:
        path = self.one_of(RETRIEVAL[modality])
        kind = "wav" if modality is Modality.VOICE else "jpg"
        people, samples = self._columns(path, "\t", [("person", kind), ("VoxCeleb1 ID", kind)])
        rows = self._rows(path, modality, samples, (TEST,), 2)
        shown = self._registers[modality].people_of(rows)
        said = np.array([self._people.number.get(name, -1) for name in people])
        for wrong in np.flatnonzero(said != shown)[:1]:
            name = self._people.names[shown[wrong]]
            raise ProtocolError(
                path, f"{samples[wrong]} is said to be of {people[wrong]}, but lies in the folder of {name}", 2 + wrong
            )
        _refuse_repeated(path, rows, samples, 2)
        return rows

    def _columns(self, path: Path, separator: str, headers: Sequence[tuple[str, ...]]) -> list[Sequence[str]]:
        columns = self.columns(path, separator, headers)
        if not columns:
            raise ProtocolError(path, "holds nothing but its header")
        return columns

    def _pairs(self, path: Path, splits: tuple[str, ...]) -> PairList:
        _, _, _, label, voice, face = self._columns(path, ",", [TRIALS_HEADER])
        if odd := sorted(set(label) - {"0", "1"}):
            raise ProtocolError(path, f"a label is 0 or 1, got {odd[0]!r}", 2 + label.index(odd[0]))
        voices = self._rows(path, Modality.VOICE, voice, splits, 2)
        faces = self._rows(path, Modality.FACE, face, splits, 2)
        said = np.array(label) == "1"
        for wrong in np.flatnonzero(said != self._same(voices, faces))[:1]:
            whose = "two people" if said[wrong] else "one person"
            raise ProtocolError(
                path, f"the label is {label[wrong]}, but the paths are of {whose}: {voice[wrong]}, {face[wrong]}",
                2 + int(wrong),
            )  # fmt: skip
        return PairList(voices, faces, said)

    def _candidates(self, path: Path, probe: Modality) -> CandidateList:
        asked, *offered = self._paths(path, least=3)
        probes = self._rows(path, probe, asked, (TEST,), 1)
        candidates = np.stack([self._rows(path, probe.other, column, (TEST,), 1) for column in offered], axis=1)
        own = self._registers[probe].people_of(probes)
        right = self._registers[probe.other].people_of(candidates) == own[:, None]
        for wrong in np.flatnonzero(~right[:, 0] | right[:, 1:].any(axis=1))[:1]:
            what = "a wrong candidate is of that person too" if right[wrong, 0] else "the first candidate is not"
            raise ProtocolError(path, f"{asked[wrong]} is of {self._people.names[own[wrong]]}, {what}", 1 + int(wrong))
        return CandidateList(probes, candidates)


class _DLists(_Lists):
    """The lists of the D split: faces are stills; there are no 1:2 lists, and labels follow from the names."""

    def read(self) -> TrialLists:
        self._meet(self._everybody())
        verification = {group: self._pairs(name) for group, name in _D_LISTS.items()}
        return self._told(verification={UNSEEN: verification}, retrieval=self._searched())

    def _everybody(self) -> list[Person]:
        told: dict[str, Person] = {}
        for file, split in _SPLIT_OF_FILE.items():
            path = self.folder / file
            for number, (first, name, sex, nationality, used) in self.table(path, ",", [_D_HEADER]):
                if sex not in ("f", "m"):
                    raise ProtocolError(path, f"the gender of {name} is f or m, got {sex!r}", number)
                if name in told:
                    raise ProtocolError(
                        path, f"{name} is in two splits, {told[name][4] or 'unused'} and {split}", number
                    )
                told[name] = (name, first, sex, nationality, UNUSED if used == "none" else split)
        return list(told.values())

    def _pairs(self, name: str) -> PairList:
        both = []
        for way, probe in _WAYS:
            path = self.folder / name.format(way)
            first, second = self._paths(path, least=2, most=2)
            sides = {
                probe: self._rows(path, probe, first, (TEST,), 1),
                probe.other: self._rows(path, probe.other, second, (TEST,), 1),
            }
            both.append((sides[Modality.VOICE], sides[Modality.FACE], np.full(len(first), probe is Modality.VOICE)))
        voices, faces, asked = (np.concatenate(parts) for parts in zip(*both, strict=True))
        return PairList(voices, faces, self._same(voices, faces), asked)

    def _searched(self) -> Mapping[Modality, Rows]:
        """Both lists hold the same samples, once as probes and once as what is searched."""
        found: dict[Modality, Rows] = {}
        for way, probe in _WAYS:
            path = self.folder / f"reterival_{way}_test.txt"
            lines = [line.split() for line in self.text(path).splitlines() if line.strip()]
            if len(lines) != 2:
                raise ProtocolError(path, f"needs two lines, probes and gallery, got {len(lines)}")
            for modality, samples in zip((probe, probe.other), lines, strict=True):
                rows = self._rows(path, modality, samples, (TEST,), 1)
                _refuse_repeated(path, rows, samples, 1)
                if set(found.setdefault(modality, rows).tolist()) != set(rows.tolist()):
                    raise ProtocolError(path, f"its {modality}s are not those of the other direction's list")
        return found


def _refuse_repeated(path: Path, rows: Rows, samples: Sequence[str], first: int) -> None:
    unlike, places = np.unique(rows, return_index=True)
    if len(unlike) != len(rows):
        again = min(set(range(len(rows))) - set(places.tolist()))
        raise ProtocolError(path, f"{samples[again]} is named a second time", first + again if first > 1 else None)
