"""A protocol folder or a training population (see :mod:`training.population`), or published lists beside media.

::

    Splits/identity_splits.txt      <identity> <code>: 1 training, 2 validation, 4 test
    meta.csv or vox1_meta.csv       tab-separated: VoxCeleb1 ID, VGGFace1 ID, Gender, Nationality, Set
    media/<identity>/…              photos are faces, sounds are voices, at any depth

Test people are judged by :mod:`search.crossmodal`, never learned from: a manifest of a training split holds
none of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from training.corpora.files import complete, media_files, video_of
from training.corpora.lists import META_FILES, SEEN_HEARD, SPLITS_FILE, Person, listed_names, read_meta, read_splits
from training.corpora.manifest import CorpusError, Manifest, NobodyForSplit, Sample, Split, refuse_tested

DESCRIPTION_FILE = "protocol.json"


def read_manifest(
    folder: Path,
    split: Split = Split.TRAIN,
    *,
    media: Path | None = None,
    test: Collection[str] = frozenset(),
    least: int = 2,
) -> Manifest:
    """Find the samples of a split.

    Args:
        folder: with the lists.
        split: whose samples.
        media: folder of the media; without it the one that the folder names, which is ``media``.
        test: identities of protocols that the model will be tested on, beside the folder's own.
        least: people that there must be.

    Raises:
        CorpusError: a list or the media are missing or not as they should be, or somebody of a training or
            validation split is a test person.
    """
    description = _read_description(folder)
    media = media or folder / str(description.get("media", "media"))
    if not media.is_dir():
        raise CorpusError(f"{media} is missing: it should hold one folder of photos and sounds per person")
    codes = read_splits(folder / SPLITS_FILE)
    wanted = sorted(name for name, code in codes.items() if code is split)
    if not wanted:
        raise NobodyForSplit(f"{folder / SPLITS_FILE} lists nobody with code {split.value} ({split.name})")
    refuse_tested(folder, split, wanted, test)
    samples, missing = _find_samples(folder, media, split, wanted)
    name, domain = str(description.get("name", folder.name)), str(description.get("domain", "VoxCeleb1"))
    return Manifest(name, domain, media, split, tuple(samples), tuple(missing), least=least)


def _read_description(folder: Path) -> Mapping[str, object]:
    """protocol.json, or nothing where there is none, as beside the published lists."""
    path = folder / DESCRIPTION_FILE
    if not folder.is_dir():
        raise CorpusError(f"{folder} is no folder: name a protocol folder or a training population")
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read ({error}): write the folder again") from error
    if not isinstance(document, dict):
        raise CorpusError(f"{path} must hold a JSON object, not {type(document).__name__}: write the folder again")
    return document


def _find_samples(folder: Path, media: Path, split: Split, wanted: list[str]) -> tuple[list[Sample], list[str]]:
    """The samples of these people, and who is left out."""
    people = read_meta(folder)
    kept_for_test = _seen_heard(folder) if split is Split.TRAIN else frozenset()
    found: dict[str, list[Sample]] = {}
    for name in wanted:
        if name in people:
            there = [
                sample
                for folder_name in sorted({name, people[name].number})
                for sample in _samples_of(people[name], media, folder_name)
            ]
            found[name] = [one for one in there if kept_for_test.isdisjoint(_listed_as(one))]
    missing = [f"{name} has no row in {META_FILES[0]}" for name in wanted if name not in people]
    samples, lacking, _ = complete([name for name in wanted if name in people], found, str(media))
    return samples, missing + lacking


def _samples_of(person: Person, media: Path, folder_name: str) -> Iterator[Sample]:
    for path, modality in media_files(media / folder_name):
        place = path.relative_to(media)
        video = video_of(place.parts[1:])
        yield Sample(place.as_posix(), person.identity, modality, person.sex, video, person.nationality)


def _listed_as(sample: Sample) -> set[tuple[str, ...]]:
    path = Path(sample.path)
    return {(sample.identity, path.parent.name, path.stem), (sample.path,)}


def _seen_heard(folder: Path) -> frozenset[tuple[str, ...]]:
    """Clips of training people that are kept for testing, by relative path and by (identity, video, number).

    The published lists name a voice ``<identity>/<video>_<7 digits>.wav`` whose file is
    ``<id>/<video>/<last 5 digits>.wav``, and a face ``<identity>/<video>/<number>.jpg``.
    """
    kept: set[tuple[str, ...]] = set()
    for name in listed_names(folder, SEEN_HEARD):
        parts = name.rpartition(".")[0].split("/")
        if len(parts) > 1:  # else it is a header, an identity or a label
            video, _, number = parts[-1].rpartition("_")
            kept |= {(name,), (parts[0], parts[-2], parts[-1]), (parts[0], video, number[-5:])}
    return frozenset(kept)
