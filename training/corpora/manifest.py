"""The samples of one split of a corpus, by identity: what every layout is read into.

An identity has one form in all corpora, the name as VGGFace writes it (``Abbie_Cornish``), because evaluation
refuses people that an encoder was trained on by their identities: a VoxCeleb1 id, a VGGFace folder and a
MAV-Celeb row that mean one person must give one identity.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from encoders.space import Modality
from ingest.track import Span


class CorpusError(ValueError):
    """A corpus cannot be learned from; the message names the file, what is wrong and what to do."""


class NobodyForSplit(CorpusError):
    """A corpus has nobody in the split that was asked for."""


class Split(IntEnum):
    """What an identity is for: the codes of ``identity_splits.txt``."""

    TRAIN = 1
    VALIDATION = 2
    TEST = 4


@dataclass(frozen=True, order=True)
class Sample:
    """One photo or sound.

    Args:
        path: relative to the folder that :meth:`Manifest.locate` starts from, with forward slashes.
        identity: whom it shows.
        modality: what it shows of them.
        sex: ``f`` or ``m``; empty where nobody says.
        video: what it was cut from; empty where nobody says. Two of one person and one video are of one moment.
        nationality: of the person; empty where nobody says.
        language: that is spoken; empty where nobody says.
        start: of what counts of a sound, seconds.
        end: likewise; infinite: to the end of the file.
        listed: the path as published lists write it; empty where that is ``path``.

    Raises:
        CorpusError: the sex is none of these, or the sample ends before it begins.
    """

    path: str
    identity: str
    modality: Modality
    sex: str
    video: str = ""
    nationality: str = ""
    language: str = ""
    start: float = 0.0
    end: float = math.inf
    listed: str = ""

    def __post_init__(self) -> None:
        if self.sex not in ("f", "m", ""):
            raise CorpusError(f"{self.path}: a sex is f, m or empty, got {self.sex!r}")
        if not 0 <= self.start < self.end:
            raise CorpusError(f"{self.path}: a sample ends after it begins, got {self.start} to {self.end} s")

    @property
    def span(self) -> Span | None:
        """What counts of the file; None: all of it."""
        if self.start == 0.0 and math.isinf(self.end):
            return None
        return Span(self.start, self.end)

    @property
    def known_as(self) -> str:
        """The path as published lists write it."""
        return self.listed or self.path


@dataclass(frozen=True)
class Manifest:
    """The samples of one split, in the order of their paths.

    Args:
        name: of the corpus.
        domain: whom it shows, such as ``invented people``.
        media: folder that the paths start from.
        split: what the people are for.
        samples: every person has a face and a voice among them.
        missing: sentences about people and files of the split that are left out, and why.
        faces: folder that the paths of faces start from, where it is another one.
        notes: sentences about what is there but worth knowing, such as two files of one content.
        least: people that there must be; learning tells people apart and so takes two.

    Raises:
        CorpusError: fewer people, or one without face or voice.
    """

    name: str
    domain: str
    media: Path
    split: Split
    samples: tuple[Sample, ...]
    missing: tuple[str, ...] = ()
    faces: Path | None = None
    notes: tuple[str, ...] = ()
    least: int = 2

    def __post_init__(self) -> None:
        seen = {modality: {one.identity for one in self.samples if one.modality is modality} for modality in Modality}
        lopsided = sorted(seen[Modality.FACE] ^ seen[Modality.VOICE])
        if lopsided:
            raise CorpusError(f"{self.name}: {lopsided[0]} has no face or no voice: leave such people out")
        if len(self.identities) < self.least:
            told = f" ({self.missing[0]})" if self.missing else ""
            raise CorpusError(
                f"{self.media} has faces and voices of {len(self.identities)} people of split {self.split.name}, at "
                f"least {self.least} are needed{told}: write or copy their media there"
            )

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """Everybody, sorted."""
        return tuple(sorted({one.identity for one in self.samples}))

    @property
    def sexes(self) -> Mapping[str, str]:
        """``f`` or ``m`` by identity, empty where nobody says."""
        return {one.identity: one.sex for one in self.samples}

    def locate(self, sample: Sample) -> Path:
        """The file of a sample."""
        apart = self.faces if sample.modality is Modality.FACE else None
        return (apart or self.media) / sample.path


def of_fewer_people(manifest: Manifest, people: int) -> Manifest:
    """The same of so many people only, of whom others go by a hash of their names: of fewer, some of the same.

    Args:
        manifest: of a split.
        people: how many to keep, at least 2.

    Raises:
        CorpusError: the split has fewer.
    """
    if len(manifest.identities) < people:
        raise CorpusError(
            f"{manifest.media} has {len(manifest.identities)} people of split {manifest.split.name}, fewer than the "
            f"{people} that are asked for"
        )
    by_hash = sorted(manifest.identities, key=lambda one: hashlib.sha256(one.encode()).digest())
    kept = set(by_hash[:people])
    return replace(manifest, samples=tuple(one for one in manifest.samples if one.identity in kept))


def media_digest(manifest: Manifest) -> str:
    """SHA-256 of the rows and the sizes of their files: another file of the same name is another corpus."""
    digest = hashlib.sha256()
    for one in manifest.samples:
        try:
            size = manifest.locate(one).stat().st_size
        except OSError:
            size = -1
        span = [] if one.span is None else [one.start, one.end]
        digest.update(json.dumps([one.path, one.identity, one.modality, one.sex, size, *span]).encode())
    return digest.hexdigest()


def canonical_name(name: str) -> str:
    """The one form in which an identity is kept: as VGGFace writes names, with underscores for what separates.

    So it may stand in any list, and be a folder's name.
    """
    return unicodedata.normalize("NFC", re.sub(r"[\s,/\\]+", "_", name.strip()))


def split_of_name(identity: str) -> Split:
    """The split of somebody of a corpus that has none of its own: a tenth test, a tenth validation, by a hash.

    It follows from the name alone, so that nobody changes sides when others come or go.
    """
    share = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    if share < 0.1:
        return Split.TEST
    return Split.VALIDATION if share < 0.2 else Split.TRAIN


def refuse_tested(where: Path, split: Split, people: Collection[str], test: Collection[str]) -> None:
    """Raise CorpusError if somebody to learn from, or to choose a model on, is a test person elsewhere."""
    tested = sorted(set(people) & set(test)) if split is not Split.TEST else []
    if tested:
        raise CorpusError(
            f"{where}: {len(tested)} people of split {split.name} are test people of a protocol, such as "
            f"{tested[0]}: learn from other people, or test on another protocol"
        )
