"""A manifest of one's own: a CSV file, comma-separated with a header, beside the media or naming them from there.

Columns: ``path`` (relative to the file, with forward slashes), ``person``, ``modality`` (``face`` or ``voice``),
``split`` (``train``, ``validation`` or ``test``), and perhaps ``sex`` (``f`` or ``m``), ``nationality``,
``language``, ``video`` (what it was cut from), ``start`` and ``end`` (seconds of a sound).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from encoders.space import Modality
from training.corpora.files import complete, refuse_absent, same_contents
from training.corpora.lists import Person, read_known
from training.corpora.manifest import (
    CorpusError,
    Manifest,
    NobodyForSplit,
    Sample,
    Split,
    canonical_name,
    refuse_tested,
)
from training.corpora.source import Source

FILE = "manifest.csv"
NEEDED = ("path", "person", "modality", "split")
FURTHER = ("sex", "nationality", "language", "video", "start", "end")
SPLITS = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}


@dataclass(frozen=True)
class _Row:
    """A row: its line, its sample, what it is for."""

    line: int
    sample: Sample
    split: Split


def read(source: Source, split: Split) -> Manifest:
    """A split of a manifest. Raises CorpusError with file and line."""
    path = source.root if source.root.is_file() else source.root / FILE
    media = path.parent
    if source.faces is not None:
        raise CorpusError(f"a CSV manifest names its faces itself: leave {source.faces} out")
    rows = _whole(_read(path), read_known(source.lists or media))
    _check(path, rows)
    mine = [one.sample for one in rows if one.split is split]
    if not mine:
        raise NobodyForSplit(f"{path} has no row of split {split.name.lower()}: give some people that split")
    names = sorted({one.identity for one in mine})
    refuse_tested(path, split, names, source.test)
    gone = [one for one in mine if not (media / one.path).is_file()]
    absent = refuse_absent([one.path for one in gone], len(mine), f"files of {path.name}", source.most_missing)
    found: dict[str, list[Sample]] = {name: [] for name in names}
    for one in sorted(set(mine) - set(gone)):
        found[one.identity].append(one)
    samples, lacking, _ = complete(names, found, path.name)
    notes = same_contents(samples, lambda one: media / one.path)
    name = media.resolve().name if path.name == FILE else path.stem
    missing = (*absent, *lacking)
    return Manifest(name, name, media, split, tuple(samples), missing, notes=notes, least=source.least_people)


def _whole(rows: list[_Row], known: Mapping[str, Person]) -> list[_Row]:
    """Rows under one name for each person, with what other rows or the meta file say of them."""
    sexes: dict[str, str] = {}
    nations: dict[str, str] = {}
    named = [
        replace(row, sample=replace(row.sample, identity=known[name].identity))
        if (name := row.sample.identity) in known
        else row
        for row in rows
    ]
    for row in named:
        name = row.sample.identity
        sexes[name] = sexes.get(name) or row.sample.sex or (known[name].sex if name in known else "")
        nations[name] = (
            nations.get(name) or row.sample.nationality or (known[name].nationality if name in known else "")
        )
    return [
        replace(
            row,
            sample=replace(
                row.sample,
                sex=row.sample.sex or sexes[row.sample.identity],
                nationality=row.sample.nationality or nations[row.sample.identity],
            ),
        )
        for row in named
    ]


def _read(path: Path) -> list[_Row]:
    """Every row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read ({error}): a CSV manifest has a header {','.join(NEEDED)}") from error
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    header = [name.strip() for name in reader.fieldnames or ()]
    unknown, lacking = sorted(set(header) - {*NEEDED, *FURTHER}), [one for one in NEEDED if one not in header]
    if lacking or unknown or len(set(header)) != len(header):
        wrong = f"lacks {lacking[0]}" if lacking else f"has {unknown[0]!r}" if unknown else "names a column twice"
        raise CorpusError(
            f"{path}, line 1: the header {wrong}; it needs {','.join(NEEDED)} and may have {','.join(FURTHER)}"
        )
    reader.fieldnames = header
    rows: list[_Row] = []
    line = 1
    try:
        for cells in reader:
            line = reader.line_num
            if None in cells or None in cells.values():
                raise CorpusError(f"{path}, line {line}: expected {len(header)} cells, as the header has")
            rows.append(_row(f"{path}, line {line}", line, {name: cell.strip() for name, cell in cells.items()}))
    except csv.Error as error:
        raise CorpusError(f"{path}, line {line + 1}: is no CSV ({error})") from error
    return rows


def _row(where: str, line: int, cells: Mapping[str, str]) -> _Row:
    place = PurePosixPath(cells["path"])
    if not cells["path"] or place.is_absolute() or ".." in place.parts:
        raise CorpusError(f"{where}: a path is relative and stays beside the manifest, got {cells['path']!r}")
    if not cells["person"]:
        raise CorpusError(f"{where}: the person is empty")
    if cells["modality"] not in {one.value for one in Modality}:
        raise CorpusError(f"{where}: a modality is face or voice, got {cells['modality']!r}")
    if cells["split"] not in SPLITS:
        raise CorpusError(f"{where}: a split is {', '.join(SPLITS)}, got {cells['split']!r}")
    modality = Modality(cells["modality"])
    start, end = _seconds(where, cells, "start", 0.0), _seconds(where, cells, "end", math.inf)
    if modality is Modality.FACE and (cells.get("start") or cells.get("end")):
        raise CorpusError(f"{where}: start and end belong to sounds, a face is a photo: save the picture apart")
    try:
        sample = Sample(
            place.as_posix(), canonical_name(cells["person"]), modality, cells.get("sex", ""), cells.get("video", ""),
            cells.get("nationality", ""), cells.get("language", ""), start, end,
        )  # fmt: skip
    except CorpusError as error:
        raise CorpusError(f"{where}: {error}") from error
    return _Row(line, sample, SPLITS[cells["split"]])


def _seconds(where: str, cells: Mapping[str, str], name: str, default: float) -> float:
    try:
        seconds = float(cells.get(name) or default)
    except ValueError as error:
        raise CorpusError(f"{where}: {name} is a number of seconds, got {cells[name]!r}") from error
    if math.isnan(seconds):
        raise CorpusError(f"{where}: {name} is a number of seconds, got {cells[name]!r}")
    return seconds


def _check(path: Path, rows: list[_Row]) -> None:
    """Nobody on two sides, nobody of two sexes, no sample twice, none of two people."""
    first: dict[str, _Row] = {}
    said: dict[str, _Row] = {}
    shown: dict[Sample, _Row] = {}
    for row in rows:
        name = row.sample.identity
        before = first.setdefault(name, row)
        if before.split is not row.split:
            raise CorpusError(
                f"{path}, line {row.line}: {name} is in {row.split.name.lower()}, and in {before.split.name.lower()} "
                f"in line {before.line}: a person is on one side only"
            )
        if row.sample.sex and said.setdefault(name, row).sample.sex != row.sample.sex:
            raise CorpusError(
                f"{path}, line {row.line}: {name} is {row.sample.sex}, but {said[name].sample.sex} in line "
                f"{said[name].line}"
            )
        bare = replace(row.sample, identity="", sex="", video="", nationality="", language="")
        if (other := shown.setdefault(bare, row)) is not row:
            told = "named a second time" if other.sample.identity == name else f"of {other.sample.identity} too"
            raise CorpusError(f"{path}, line {row.line}: {row.sample.path} is {told}, see line {other.line}")
