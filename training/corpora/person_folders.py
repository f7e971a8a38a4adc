"""Any folder that holds one folder per person: photos are faces, sounds are voices, at any depth.

::

    <person>/…                              or train/<person>/…, validation/<person>/…, test/<person>/…
    meta.csv or vox1_meta.csv               if there is one: sex, nationality, and which id is which name
    Splits/identity_splits.txt              if there is one: who is for what

Without a word on who is for what, a tenth of the people are test people and a tenth validation people, by a hash of
their names. The folders between a person and a file are what the file was cut from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from training.corpora.files import complete, media_files, refuse_absent, same_contents, video_of
from training.corpora.lists import SPLITS_FILE, Person, read_known, read_splits
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

SPLIT_FOLDERS = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}
_NO_PEOPLE = {"Splits", "veriflist", "matching", "retrieval"}


def read(source: Source, split: Split) -> Manifest:
    """A split of a folder. Raises CorpusError."""
    if source.faces is not None:
        raise CorpusError(f"a folder of people holds their faces too: leave {source.faces} out, or copy it there")
    known = read_known(source.lists_folder)
    folders = _folders(source.root, known)
    splits = _splits(source, folders)
    names = sorted(name for name, code in splits.items() if code is split)
    if not names:
        raise NobodyForSplit(
            f"{source.root}: nobody of {len(folders)} people is for {split.name}: sort them into folders train, "
            f"validation and test, or write {SPLITS_FILE}"
        )
    refuse_tested(source.root, split, names, source.test)
    found = {name: _samples(name, folders[name], source.root, known.get(name)) for name in names}
    samples, lacking, _ = complete(names, found, str(source.root))
    absent = refuse_absent(lacking, len(names), f"people of split {split.name}", source.most_missing)
    return Manifest(
        source.root.resolve().name, source.root.resolve().name, source.root, split, tuple(samples), (*absent, *lacking),
        notes=same_contents(samples, lambda one: source.root / one.path), least=source.least_people,
    )  # fmt: skip


def _folders(root: Path, known: Mapping[str, Person]) -> dict[str, list[Path]]:
    """The folders of everybody: two, where one is called by the id and one by the name."""
    there = [one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    if {"train"} <= {one.name for one in there} <= {*SPLIT_FOLDERS, *_NO_PEOPLE}:
        there = [person for one in there if one.name in SPLIT_FOLDERS for person in sorted(one.iterdir())]
    folders: dict[str, list[Path]] = {}
    for one in there:
        if one.is_dir() and one.name not in _NO_PEOPLE and not one.name.startswith("."):
            name = canonical_name(one.name)
            folders.setdefault(known[name].identity if name in known else name, []).append(one)
    return folders


def _splits(source: Source, folders: Mapping[str, list[Path]]) -> dict[str, Split]:
    """Whom everybody is for."""
    path = source.lists_folder / SPLITS_FILE
    codes = read_splits(path) if path.is_file() else None
    splits: dict[str, Split] = {}
    for name, mine in folders.items():
        sorted_into = {one.parent.name for one in mine if one.parent != source.root}
        if len(sorted_into) > 1:
            raise CorpusError(f"{source.root}: {name} is in {' and in '.join(sorted(sorted_into))}: keep one")
        if sorted_into:
            splits[name] = SPLIT_FOLDERS[sorted_into.pop()]
        elif codes is None:
            splits[name] = split_of_name(name)
        elif named := {code for one in (name, *(folder.name for folder in mine)) if (code := codes.get(one))}:
            if len(named) > 1:
                raise CorpusError(f"{path}: {name} is in two splits, by two names: keep one")
            splits[name] = named.pop()
        else:
            raise CorpusError(f"{path} does not say whom {name} is for: add a line, or take the folder away")
    return splits


def _samples(identity: str, folders: list[Path], root: Path, person: Person | None) -> list[Sample]:
    sex, nationality = (person.sex, person.nationality) if person else ("", "")
    return [
        Sample(
            path.relative_to(root).as_posix(), identity, modality, sex,
            video_of(path.relative_to(folder).parts), nationality,
        )
        for folder in folders
        for path, modality in media_files(folder)
    ]  # fmt: skip
