"""MAV-Celeb: people who speak two languages, each version in a folder of its own.

::

    voices/idNNNN/<language>/<video>/NNNNN.wav
    faces/idNNNN/<language>/<video>/NNNNNNN.jpg
    *meta*.csv                                      ids, name, gender

The test files that are published beside them (``voices/<language>/NNNNN.wav``) say of nobody whom they show and are
left alone. The versions count their people from ``id0001`` each, so an id alone means nobody: the meta file gives
the name, and without it the identity holds the version's folder. Who is for what: ``Splits/identity_splits.txt`` by
id or name, beside the media or among the lists, else a tenth each by a hash of the identity.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from encoders.space import Modality
from training.corpora.files import complete, media_files, refuse_absent
from training.corpora.lists import SPLITS_FILE, Person, read_lines, read_splits
from training.corpora.manifest import (
    CorpusError,
    Manifest,
    NobodyForSplit,
    Sample,
    Split,
    canonical_name,
    refuse_tested,
    split_of_name,
)
from training.corpora.source import Source

FOLDERS = {Modality.VOICE: "voices", Modality.FACE: "faces"}
_NUMBER = re.compile(r"id\d{4}")
_SEXES = {"male": "m", "m": "m", "female": "f", "f": "f"}


def read(source: Source, split: Split) -> Manifest:
    """A split of one version. Raises CorpusError."""
    roots = {
        Modality.VOICE: source.root / FOLDERS[Modality.VOICE],
        Modality.FACE: source.faces or source.root / FOLDERS[Modality.FACE],
    }
    for folder in roots.values():
        if not folder.is_dir():
            raise CorpusError(f"{folder} is missing: the root of MAV-Celeb holds the folders voices and faces")
    numbers = sorted({one.name for folder in roots.values() for one in folder.iterdir() if _NUMBER.fullmatch(one.name)})
    people = _people(source, numbers)
    splits = _splits(source, people)
    wanted = [one for one in people if splits[one.identity] is split]
    if not wanted:
        raise NobodyForSplit(
            f"{source.root}: nobody of {len(people)} people is for {split.name}: write {SPLITS_FILE} beside the media, "
            "`<id> 1` for training, 2 for validation, 4 for test"
        )
    names = sorted(one.identity for one in wanted)
    refuse_tested(source.root, split, names, source.test)
    start = {Modality.VOICE: source.root, Modality.FACE: source.faces or source.root}
    found = {
        one.identity: [sample for kind in Modality for sample in _samples(one, roots[kind], start[kind], kind)]
        for one in wanted
    }
    samples, lacking, _ = complete(names, found, str(source.root))
    absent = refuse_absent(lacking, len(names), f"people of split {split.name}", source.most_missing)
    return Manifest(
        f"mav-celeb {source.root.name}", "MAV-Celeb", source.root, split, tuple(samples), (*absent, *lacking),
        source.faces, least=source.least_people,
    )  # fmt: skip


def _samples(person: Person, folder: Path, start: Path, modality: Modality) -> Iterator[Sample]:
    for path, shows in media_files(folder / person.number):
        parts = path.relative_to(folder).parts
        if shows is modality and len(parts) == 4:  # id, language, video, file
            place = path.relative_to(start).as_posix()
            yield Sample(place, person.identity, modality, person.sex, parts[2], language=parts[1])


def _people(source: Source, numbers: list[str]) -> list[Person]:
    """Everybody who has a folder."""
    told = _read_meta(source)
    return [
        told.get(number) or Person(f"MAV-Celeb_{canonical_name(source.root.name)}_{number}", number, "")
        for number in numbers
    ]


def _read_meta(source: Source) -> dict[str, Person]:
    """Everybody of the meta file by id; nobody where there is none."""
    files = sorted(path for folder in {source.root, source.lists_folder} for path in folder.glob("*meta*.csv"))
    if len(files) > 1:
        raise CorpusError(f"{files[0]} and {files[1]} both tell who people are: keep the one of this version")
    people: dict[str, Person] = {}
    for path in files:
        lines = read_lines(path, "everybody's name and gender")
        rows = csv.reader([line for _, line in lines])
        header = [cell.strip().lower() for cell in next(rows, [])]
        if header[:3] != ["ids", "name", "gender"]:
            raise CorpusError(f"{path}, line 1: expected the header ids,name,gender, got {','.join(header)!r}")
        for (number, line), row in zip(lines[1:], rows, strict=True):
            sex = _SEXES.get(row[2].strip().lower()) if len(row) > 2 else None
            if sex is None or not _NUMBER.fullmatch(row[0].strip()) or not row[1].strip():
                raise CorpusError(f"{path}, line {number}: expected id, name and Male or Female, got {line!r}")
            if row[0].strip() in people:
                raise CorpusError(f"{path}, line {number}: {row[0].strip()} is named a second time")
            people[row[0].strip()] = Person(canonical_name(row[1]), row[0].strip(), sex)
    return people


def _splits(source: Source, people: list[Person]) -> dict[str, Split]:
    """Whom everybody is for; who is in no list is for nobody's test, so for training."""
    path = source.lists_folder / SPLITS_FILE
    if not path.is_file():
        return {one.identity: split_of_name(one.identity) for one in people}
    codes = read_splits(path)
    splits: dict[str, Split] = {}
    for one in people:
        named = {codes[name] for name in (one.number, one.identity) if name in codes}
        if len(named) != 1:
            told = "is in two splits, by id and by name" if named else "is in no split"
            raise CorpusError(f"{path}: {one.number} ({one.identity}) {told}: give one")
        splits[one.identity] = named.pop()
    return splits
