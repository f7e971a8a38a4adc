"""What there is to train and validate on: the samples of one split of a folder, by identity.

A folder is a protocol folder or a training population (see :mod:`training.population`), or the published
VoxCeleb1 lists beside their media::

    Splits/identity_splits.txt      <identity> <code>: 1 training, 2 validation, 4 test
    meta.csv or vox1_meta.csv       tab-separated: VoxCeleb1 ID, VGGFace1 ID, Gender, Nationality, Set
    media/<identity>/…              photos are faces, sounds are voices, at any depth

Test people are judged by :mod:`search.crossmodal`, never learned from: a manifest of a training split holds
none of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from encoders.space import Modality
from ingest.content import PICTURE_EXTENSIONS

SPLITS_FILE = Path("Splits", "identity_splits.txt")
META_FILES = ("meta.csv", "vox1_meta.csv")
DESCRIPTION_FILE = "protocol.json"
SOUND_EXTENSIONS = frozenset({"wav", "flac", "mp3", "m4a", "aac", "ogg", "opus"})
# How the lists of clips of training people that are kept for testing are called.
SEEN_HEARD = "*_seenheard*"
LISTS = ("veriflist", "matching", "retrieval")


class CorpusError(ValueError):
    """A folder cannot be learned from; the message names the file, what is wrong and what to do."""


class Split(IntEnum):
    """What an identity is for: the codes of ``identity_splits.txt``."""

    TRAIN = 1
    VALIDATION = 2
    TEST = 4


@dataclass(frozen=True, order=True)
class Sample:
    """One photo or sound.

    Args:
        path: relative to the manifest's media, with forward slashes.
        identity: whom it shows.
        modality: what it shows of them.
        sex: ``f`` or ``m``.
    """

    path: str
    identity: str
    modality: Modality
    sex: str


@dataclass(frozen=True)
class Manifest:
    """The samples of one split, in the order of their paths.

    Args:
        name: of the corpus.
        domain: whom it shows, such as ``invented people``.
        media: folder that the paths start from.
        split: what the people are for.
        samples: every person has a face and a voice among them.
        missing: sentences about people of the split who are left out, and why.

    Raises:
        CorpusError: fewer than two people, or one without face or voice.
    """

    name: str
    domain: str
    media: Path
    split: Split
    samples: tuple[Sample, ...]
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen = {modality: {one.identity for one in self.samples if one.modality is modality} for modality in Modality}
        lopsided = sorted(seen[Modality.FACE] ^ seen[Modality.VOICE])
        if lopsided:
            raise CorpusError(f"{self.name}: {lopsided[0]} has no face or no voice: leave such people out")
        if len(self.identities) < 2:
            told = f" ({self.missing[0]})" if self.missing else ""
            raise CorpusError(
                f"{self.media} has faces and voices of {len(self.identities)} people of split {self.split.name}, at "
                f"least 2 are needed{told}: write or copy their media there"
            )

    @property
    def identities(self) -> tuple[str, ...]:
        """Everybody, sorted."""
        return tuple(sorted({one.identity for one in self.samples}))

    @property
    def sexes(self) -> Mapping[str, str]:
        """``f`` or ``m`` by identity."""
        return {one.identity: one.sex for one in self.samples}


def read_manifest(
    folder: Path, split: Split = Split.TRAIN, *, media: Path | None = None, test: Collection[str] = frozenset()
) -> Manifest:
    """Find the samples of a split.

    Args:
        folder: with the lists.
        split: whose samples.
        media: folder of the media; without it the one that the folder names, which is ``media``.
        test: identities of protocols that the model will be tested on, beside the folder's own.

    Raises:
        CorpusError: a list or the media are missing or not as they should be, or somebody of a training or
            validation split is a test person.
    """
    description = _read_description(folder)
    media = media or folder / str(description.get("media", "media"))
    if not media.is_dir():
        raise CorpusError(f"{media} is missing: it should hold one folder of photos and sounds per person")
    codes = _read_splits(folder / SPLITS_FILE)
    wanted = sorted(name for name, code in codes.items() if code is split)
    if not wanted:
        raise CorpusError(f"{folder / SPLITS_FILE} lists nobody with code {split.value} ({split.name})")
    tested = sorted(set(wanted) & set(test)) if split is not Split.TEST else []
    if tested:
        raise CorpusError(
            f"{folder}: {len(tested)} people of split {split.name} are test people of a protocol, such as "
            f"{tested[0]}: learn from other people, or test on another protocol"
        )
    samples, missing = _find_samples(folder, media, split, wanted)
    name, domain = str(description.get("name", folder.name)), str(description.get("domain", "VoxCeleb1"))
    return Manifest(name, domain, media, split, tuple(sorted(samples)), tuple(missing))


def media_digest(manifest: Manifest) -> str:
    """SHA-256 of the rows and the sizes of their files: another file of the same name is another corpus."""
    digest = hashlib.sha256()
    for one in manifest.samples:
        try:
            size = (manifest.media / one.path).stat().st_size
        except OSError:
            size = -1
        digest.update(json.dumps([one.path, one.identity, one.modality, one.sex, size]).encode())
    return digest.hexdigest()


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


def _read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, numbered from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read ({error}): it should say {what}") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _read_splits(path: Path) -> dict[str, Split]:
    """The code of every identity."""
    codes: dict[str, Split] = {}
    for number, line in _read_lines(path, "who is for training, validation and test"):
        parts = line.split()
        if len(parts) != 2 or parts[1] not in {str(one.value) for one in Split}:
            raise CorpusError(f"{path}, line {number}: expected `<identity> 1`, 2 or 4, got {line.strip()!r}")
        name, code = parts[0], Split(int(parts[1]))
        if codes.setdefault(name, code) is not code:
            raise CorpusError(f"{path}, line {number}: {name} is in {codes[name].name} and in {code.name}: keep one")
    return codes


def _read_meta(folder: Path) -> dict[str, tuple[str, str]]:
    """Sex and VoxCeleb1 id of every identity."""
    path = next((folder / name for name in META_FILES if (folder / name).is_file()), folder / META_FILES[0])
    people: dict[str, tuple[str, str]] = {}
    for number, line in _read_lines(path, "everybody's sex")[1:]:
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) < 3 or parts[2] not in ("f", "m"):
            raise CorpusError(f"{path}, line {number}: expected tab-separated ids and f or m, got {line!r}")
        people[parts[1]] = parts[2], parts[0]
    return people


def _find_samples(folder: Path, media: Path, split: Split, wanted: list[str]) -> tuple[list[Sample], list[str]]:
    """The samples of these people, and who is left out."""
    people, samples, missing = _read_meta(folder), [], []
    kept_for_test = _seen_heard(folder) if split is Split.TRAIN else frozenset()
    for name in wanted:
        if name not in people:
            missing.append(f"{name} has no row in {META_FILES[0]}")
            continue
        sex, number = people[name]
        found = [
            Sample(path.relative_to(media).as_posix(), name, modality, sex)
            for path, modality in _media_files(media, {name, number})
            if kept_for_test.isdisjoint({(name, path.parent.name, path.stem), (path.relative_to(media).as_posix(),)})
        ]
        lacks = [one.value for one in Modality if not any(sample.modality is one for sample in found)]
        if lacks:
            missing.append(f"{name} has no {' and no '.join(lacks)} in {media}")
        else:
            samples += found
    return samples, missing


def _media_files(media: Path, names: Collection[str]) -> Iterator[tuple[Path, Modality]]:
    """Photos and sounds in the folders of these names."""
    for name in sorted(names):
        for path in sorted((media / name).rglob("*")):
            extension = path.suffix.lower().lstrip(".")
            if extension in PICTURE_EXTENSIONS:
                yield path, Modality.FACE
            elif extension in SOUND_EXTENSIONS:
                yield path, Modality.VOICE


def _seen_heard(folder: Path) -> frozenset[tuple[str, ...]]:
    """Clips of training people that are kept for testing, by relative path and by (identity, video, number).

    The published lists name a voice ``<identity>/<video>_<7 digits>.wav`` whose file is
    ``<id>/<video>/<last 5 digits>.wav``, and a face ``<identity>/<video>/<number>.jpg``.
    """
    names: set[str] = set()
    for path in sorted(path for name in LISTS for path in (folder / name).glob(SEEN_HEARD)):
        for _, line in _read_lines(path, "which clips are kept for testing"):
            names.update(line.replace(",", " ").split())
    kept: set[tuple[str, ...]] = set()
    for name in names:
        parts = name.rpartition(".")[0].split("/")
        if len(parts) > 1:  # else it is a header, an identity or a label
            video, _, number = parts[-1].rpartition("_")
            kept |= {(name,), (parts[0], parts[-2], parts[-1]), (parts[0], video, number[-5:])}
    return frozenset(kept)
