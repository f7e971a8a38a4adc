"""VoxCeleb1 as distributed, with the split of "Learnable PINs" (P) or that of DIMNet (D).

::

    wav/idNNNNN/<video>/NNNNN.wav           below the root, once or in trees of their own for dev and test
    <Name>/1.6/<video>/NNNNNNN.jpg          face crops at one picture a second, below the root or the face root
    <Name>/NNNNNNNN.jpg                     or VGGFace stills, below the face root

Lists, beside the media or in a folder of their own: for P ``Splits/identity_splits.txt``, ``vox1_meta.csv`` and
``veriflist/…_seenheard.txt``, whose clips stay out of training; for D ``vox1_{train,val,test}.csv``, whose rows
with the set ``none`` are people without VGGFace stills (1,225 of 1,251 have some).

Where VoxCeleb1's own frames stand in for VGGFace stills (D without a face root), the manifest says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.space import Modality
from search.trial_lists import CROPS, below_identity
from training.corpora.files import complete, modality_of, refuse_absent, trees
from training.corpora.lists import SEEN_HEARD, SPLITS_FILE, Person, listed_names, read_lines, read_meta, read_splits
from training.corpora.manifest import CorpusError, Manifest, NobodyForSplit, Sample, Split, refuse_tested
from training.corpora.source import Source

DOMAIN = "VoxCeleb1"
D_FILES = {Split.TRAIN: "vox1_train.csv", Split.VALIDATION: "vox1_val.csv", Split.TEST: "vox1_test.csv"}
_D_HEADER = ("VoxCeleb1_ID", "VGGFace1_ID", "Gender", "Nationality", "Set")
_NUMBER = re.compile(r"id1\d{4}")
_SUBSTITUTE = "faces are VoxCeleb1's own frames, which stand in for VGGFace stills"


def read_p(source: Source, split: Split) -> Manifest:
    """A split of P. Raises CorpusError."""
    lists = source.lists_folder
    codes, people = read_splits(lists / SPLITS_FILE), read_meta(lists)
    wanted = {name for name, code in codes.items() if code is split}
    if unknown := sorted(wanted - set(people)):
        raise CorpusError(f"{lists / SPLITS_FILE} lists {unknown[0]}, whom the meta file does not have")
    held = _canonical(listed_names(lists, SEEN_HEARD), people) if split is Split.TRAIN else frozenset()
    if split is Split.TRAIN and not held:
        raise CorpusError(
            f"{lists / 'veriflist'} has no list {SEEN_HEARD}.txt: without them clips that are kept for testing would "
            "be learned from; copy the folder veriflist of the published lists"
        )
    listed = frozenset[str]()
    if split is Split.TEST:
        listed = _canonical(
            listed_names(lists, "*_unseenunheard*") | listed_names(lists, "matching_*") | listed_names(lists, "*_20k*"),
            people,
        )
    return _manifest(source, split, _Wanted("voxceleb1", [people[name] for name in wanted], people, held, listed))


def read_d(source: Source, split: Split) -> Manifest:
    """A split of D. Raises CorpusError."""
    lists = source.lists_folder
    rows = {one: _read_d_list(lists / name) for one, name in D_FILES.items()}
    for first, second in ((Split.TRAIN, Split.VALIDATION), (Split.TRAIN, Split.TEST), (Split.VALIDATION, Split.TEST)):
        if both := sorted(set(rows[first]) & set(rows[second])):
            raise CorpusError(f"{lists}: {both[0]} is in {D_FILES[first]} and in {D_FILES[second]}: keep one")
    people = {name: person for some in rows.values() for name, person in some.items()}
    listed = frozenset[str]()
    if split is Split.TEST:
        names = {
            name
            for pattern in ("verify_*_test.txt", "reterival_*_test.txt")
            for path in sorted(lists.glob(pattern))
            for _, line in read_lines(path, "which clips are compared")
            for name in line.split()
        }
        listed = _canonical(names, people)
    wanted = [one for one in rows[split].values() if one is not None]
    return _manifest(source, split, _Wanted("voxceleb1-d", wanted, people, frozenset(), listed))


def canonical_path(name: str, numbers: Mapping[str, str]) -> str:
    """A path as all lists' names are mapped to: ``idNNNNN/<video>/NNNNN.wav``, ``<Name>/1.6/<video>/NNNNNNN.jpg``.

    Args:
        name: as a list writes it: ``<Name>/<video>_NNNNNNN.wav``, ``<Name>/<video>/NNNNNNN.jpg``, or canonical.
        numbers: VoxCeleb1 id by identity.
    """
    modality = modality_of(name)
    identity, *rest = name.split("/")
    if modality is None:
        return name
    first = numbers.get(identity, identity) if modality is Modality.VOICE else identity
    return "/".join((first, *below_identity(modality, rest)))


@dataclass(frozen=True)
class _Wanted:
    """What to look for.

    Args:
        name: of the corpus.
        people: of the split.
        known: everybody of the corpus by identity.
        held: canonical paths that are kept for testing.
        listed: canonical paths that the lists of the split name.
    """

    name: str
    people: Sequence[Person]
    known: Mapping[str, Person]
    held: frozenset[str]
    listed: frozenset[str]


def _canonical(names: set[str], people: Mapping[str, Person]) -> frozenset[str]:
    numbers = {name: person.number for name, person in people.items()}
    return frozenset(canonical_path(name, numbers) for name in names)


def _read_d_list(path: Path) -> dict[str, Person]:
    """The people of one of D's lists who have VGGFace stills, by identity."""
    lines = read_lines(path, "who is in this split of D")
    if not lines or tuple(cell.strip() for cell in lines[0][1].split(",")) != _D_HEADER:
        raise CorpusError(f"{path} begins with {lines[0][1] if lines else ''!r} instead of {','.join(_D_HEADER)!r}")
    people: dict[str, Person] = {}
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(_D_HEADER) or cells[2] not in ("f", "m"):
            raise CorpusError(f"{path}, line {number}: expected {len(_D_HEADER)} cells with f or m third, got {line!r}")
        if cells[1] in people:
            raise CorpusError(f"{path}, line {number}: {cells[1]} is named a second time")
        if cells[4] != "none":
            people[cells[1]] = Person(cells[1], cells[0], cells[2], cells[3])
    return people


def _manifest(source: Source, split: Split, wanted: _Wanted) -> Manifest:
    names = sorted(one.identity for one in wanted.people)
    if not names:
        raise NobodyForSplit(f"{source.lists_folder} lists nobody for {split.name}")
    refuse_tested(source.lists_folder, split, names, source.test)
    face_root, twice = source.faces or source.root, 0
    voice_trees = trees(source.root, lambda name: _NUMBER.fullmatch(name) is not None)
    face_trees = trees(face_root, lambda name: name in wanted.known)
    found: dict[str, list[Sample]] = {}
    there: set[str] = set()
    for person in wanted.people:
        mine: dict[str, Sample] = {}
        for sample in _samples_of(person, voice_trees, source.root, face_trees, face_root):
            twice += sample.listed in mine
            mine.setdefault(sample.listed, sample)
        there |= mine.keys()
        found[person.identity] = [one for one in mine.values() if one.listed not in wanted.held]
    samples, lacking, count = complete(
        names, found, f"{source.root}" if face_root == source.root else f"{source.root} and {face_root}"
    )
    absent = refuse_absent(lacking, len(names), f"people of split {split.name}", source.most_missing) if count else ()
    stills = any(one.modality is Modality.FACE and not one.video for one in samples)
    listed = sorted(name for name in wanted.listed - there if _comparable(name, stills))
    absent += refuse_absent(listed, len(wanted.listed), "files of the lists", source.most_missing)
    notes: tuple[str, ...] = (f"{twice} files are there twice, in two trees: the first is taken",) if twice else ()
    if wanted.name == "voxceleb1-d" and not stills:
        notes += (_SUBSTITUTE,)
    return Manifest(
        wanted.name, DOMAIN, source.root, split, tuple(samples), (*absent, *lacking),
        source.faces, notes, source.least_people,
    )  # fmt: skip


def _comparable(name: str, stills: bool) -> bool:
    """Whether a listed path can be there: stills are not where VoxCeleb1's frames stand in for them."""
    return modality_of(name) is Modality.VOICE or (f"/{CROPS}/" in name) is not stills


def _samples_of(
    person: Person, voice_trees: Sequence[Path], voice_root: Path, face_trees: Sequence[Path], face_root: Path
) -> Iterator[Sample]:
    for tree in voice_trees:
        for video, path in _files(tree / person.number, Modality.VOICE):
            listed = f"{person.number}/{video}/{path.name}"
            yield _sample(person, path.relative_to(voice_root), Modality.VOICE, video, listed)
    for tree in face_trees:
        crops = tree / person.identity / CROPS
        for video, path in _files(crops if crops.is_dir() else tree / person.identity, Modality.FACE):
            listed = f"{person.identity}/{CROPS}/{video}/{path.name}" if video else f"{person.identity}/{path.name}"
            yield _sample(person, path.relative_to(face_root), Modality.FACE, video, listed)


def _sample(person: Person, path: Path, modality: Modality, video: str, listed: str) -> Sample:
    return Sample(path.as_posix(), person.identity, modality, person.sex, video, person.nationality, listed=listed)


def _files(folder: Path, modality: Modality) -> Iterator[tuple[str, Path]]:
    """Files of a modality directly in a folder, with an empty video, and in the folders of videos in it."""
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        if not entry.is_dir():
            if modality_of(entry.name) is modality:
                yield "", Path(entry.path)
            continue
        for file in sorted(os.scandir(entry.path), key=lambda one: one.name):
            if modality_of(file.name) is modality:
                yield entry.name, Path(file.path)
