"""Frozen features of a corpus: one vector per sample, extracted once, read as memory maps.

A folder of features, written by :mod:`training.extraction`::

    features.json           corpus, domain, split, and per modality: space, number of rows, names of two files
    face-<digest>.npy       (n, dimension) float32 of unit length; likewise voice-…
    face-<digest>.csv       a line per row of it, in the same order: whom it shows and where it came from
    unusable.csv            samples without a vector, and why

Rows stand in the order of person, video and path, so that everything of a person, and everything of one of their
videos, is one slice of the memory map. No file is pickled.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality, Space
from training.corpora.manifest import Split

FORMAT = 1
DESCRIPTION_FILE = "features.json"
UNUSABLE_FILE = "unusable.csv"


class FeaturesError(Exception):
    """A folder of features cannot be used, or not be written; the message says why and what to do."""


@dataclass(frozen=True)
class FeatureRow:
    """Where one vector came from: a line of a table's CSV file.

    Args:
        person: whom it shows.
        video: what it was cut from; empty where nobody says.
        path: from the corpus's folder of this modality.
        start: of what counts of a sound, seconds.
        end: likewise; infinite: to the end.
        listed: the path as published lists write it.
        split: ``train``, ``validation`` or ``test``.
        sex: ``f``, ``m`` or empty.
        nationality: empty where nobody says.
        language: likewise.
        size: of the file, bytes.
        modified: when it was changed last, nanoseconds.
        key: SHA-256 of its content, and of the stretch of it that counts.
    """

    person: str
    video: str
    path: str
    start: float
    end: float
    listed: str
    split: str
    sex: str
    nationality: str
    language: str
    size: int
    modified: int
    key: str


COLUMNS = tuple(one.name for one in fields(FeatureRow))
_KINDS = {"start": float, "end": float, "size": int, "modified": int}


@dataclass(frozen=True, eq=False)
class Table:
    """The features of one modality.

    Args:
        space: what they live in.
        vectors: (n, dimension) float32 memory map, read-only.
        rows: where each came from, in the same order: by person, video, path.

    Raises:
        FeaturesError: vectors and rows do not fit together, or the rows are not in order.
    """

    space: Space
    vectors: NDArray[np.float32]
    rows: Sequence[FeatureRow]

    def __post_init__(self) -> None:
        wanted = (len(self.rows), self.space.dimension)
        if self.vectors.shape != wanted or self.vectors.dtype != np.float32:
            raise FeaturesError(f"features must be {wanted} float32, got {self.vectors.shape} {self.vectors.dtype}")
        keys = [(row.person, row.video) for row in self.rows]
        if any(one > other for one, other in pairwise(keys)):
            raise FeaturesError("rows must stand in the order of person and video: extract the features again")

    @cached_property
    def people(self) -> tuple[str, ...]:
        """Everybody, sorted."""
        return tuple(self._people)

    @cached_property
    def person_numbers(self) -> NDArray[np.int64]:
        """(n,) number of each row's person in :attr:`people`."""
        lengths = [part.stop - part.start for part in self._people.values()]
        return np.repeat(np.arange(len(lengths)), lengths)

    def videos(self, person: str) -> tuple[str, ...]:
        """The videos of somebody, sorted. Raises KeyError if there are none."""
        return tuple(self._videos[person])

    def of(self, person: str, video: str | None = None) -> NDArray[np.float32]:
        """(k, dimension) float32 memory map of somebody's features, or of one video's. Raises KeyError."""
        return self.vectors[self.place(person, video)]

    def place(self, person: str, video: str | None = None) -> slice:
        """The rows of somebody, or of one of their videos. Raises KeyError."""
        return self._people[person] if video is None else self._videos[person][video]

    def of_split(self, split: Split) -> NDArray[np.int64]:
        """(k,) numbers of the rows of a split's people, rising."""
        wanted = split.name.lower()
        return np.array([number for number, row in enumerate(self.rows) if row.split == wanted], dtype=np.int64)

    @cached_property
    def _people(self) -> dict[str, slice]:
        return _slices([row.person for row in self.rows], 0)

    @cached_property
    def _videos(self) -> dict[str, dict[str, slice]]:
        return {
            person: _slices([row.video for row in self.rows[part]], part.start) for person, part in self._people.items()
        }


@dataclass(frozen=True, eq=False)
class Features:
    """A folder of features.

    Args:
        folder: where it is.
        corpus: what they are of.
        domain: whom it shows.
        split: ``train``, ``validation``, ``test`` or ``all``.
        tables: by modality; one only where only faces or only voices were encoded.
    """

    folder: Path
    corpus: str
    domain: str
    split: str
    tables: Mapping[Modality, Table]

    @classmethod
    def open(cls, folder: Path) -> Features:
        """Open a folder; vectors are mapped into memory, not read.

        Raises:
            FeaturesError: it is none, or its extraction has not been finished, or its files do not fit together.
        """
        described = read_description(folder)
        if described is None:
            raise FeaturesError(f"{folder} holds no features: extract them with `visavox features`")
        try:
            tables = {Modality(name): _open_table(folder, told) for name, told in sorted(described["tables"].items())}
            return cls(folder, described["corpus"], described["domain"], described["split"], tables)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FeaturesError(f"{folder}: {error}: extract the features again") from error

    def __getitem__(self, modality: Modality) -> Table:
        """The table of a modality. Raises FeaturesError if there is none."""
        if modality not in self.tables:
            raise FeaturesError(
                f"{self.folder} has no features of {modality}s: extract them with an encoder of {modality}s"
            )
        return self.tables[modality]

    @property
    def identities(self) -> tuple[str, ...]:
        """Everybody of whom there is a feature of any modality, sorted."""
        return tuple(sorted({person for table in self.tables.values() for person in table.people}))

    def both(self, split: Split) -> tuple[str, ...]:
        """The people of a split who have features of every modality here, sorted."""
        people = [{table.rows[number].person for number in table.of_split(split)} for table in self.tables.values()]
        return tuple(sorted(set.intersection(*people))) if people else ()

    def unusable(self) -> list[tuple[str, str]]:
        """Path and reason of every sample without a vector."""
        return [(row["path"], row["reason"]) for row in read_table(self.folder / UNUSABLE_FILE)]


def read_description(folder: Path) -> dict[str, Any] | None:
    """What features.json says, or None where there is none. Raises FeaturesError."""
    try:
        document = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FeaturesError(f"{folder / DESCRIPTION_FILE} cannot be read ({error}): remove the folder") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        told = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise FeaturesError(f"{folder / DESCRIPTION_FILE} has format {told!r}, this version reads {FORMAT}")
    return document


def space_of(told: Mapping[str, Any]) -> Space:
    """The space that a table of features.json names. Raises ValueError, KeyError."""
    return Space(told["space"]["name"], told["space"]["dimension"], told["space"]["digest"])


def read_table(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file with a header, by column; nothing where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def read_rows(path: Path) -> list[FeatureRow]:
    """The rows of a table. Raises ValueError, TypeError."""
    return [FeatureRow(**{name: _KINDS.get(name, str)(cell) for name, cell in row.items()}) for row in read_table(path)]


def _open_table(folder: Path, told: Mapping[str, Any]) -> Table:
    vectors = np.load(folder / told["vectors"], mmap_mode="r", allow_pickle=False)
    return Table(space_of(told), vectors, read_rows(folder / told["rows"]))


def _slices(names: Sequence[str], first: int) -> dict[str, slice]:
    """Where each name stands in a list in which alike names stand together."""
    slices: dict[str, slice] = {}
    begin = 0
    for number, name in enumerate(names):
        if number + 1 == len(names) or names[number + 1] != name:
            slices[name] = slice(first + begin, first + number + 1)
            begin = number + 1
    return slices
