"""Media files below a folder, and what a layout came to: who lacks what, what is absent, what is there twice."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from encoders.space import Modality
from ingest.content import PICTURE_EXTENSIONS
from training.corpora.manifest import CorpusError, Sample

SOUND_EXTENSIONS = frozenset({"wav", "flac", "mp3", "m4a", "aac", "ogg", "opus"})
# Folders that sort files within a person, and say nothing of where they were cut from.
_SORTING = frozenset({"1.6", "face", "faces", "voice", "voices"})
_NAMED = 3  # so many of what is missing are named
_HEAD_BYTES = 64 * 1024


def media_files(folder: Path) -> Iterator[tuple[Path, Modality]]:
    """Photos and sounds at any depth below a folder, in the order of their paths."""
    for path in sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        modality = modality_of(path.name)
        if modality is not None:
            yield path, modality


def modality_of(name: str) -> Modality | None:
    """What a file shows by its extension; None: it is neither photo nor sound, or hidden."""
    extension = os.path.splitext(name)[1].lower().lstrip(".")
    if name.startswith("."):
        return None
    if extension in PICTURE_EXTENSIONS:
        return Modality.FACE
    return Modality.VOICE if extension in SOUND_EXTENSIONS else None


def video_of(below_person: Sequence[str]) -> str:
    """What a file was cut from: the folders between the person and the file, but those that only sort."""
    return "/".join(part for part in below_person[:-1] if part not in _SORTING)


def trees(folder: Path, is_person: Callable[[str], bool], depth: int = 3) -> list[Path]:
    """Folders that hold the folders of people, at most ``depth`` below this one; none lies within another."""
    try:
        entries = sorted(one.name for one in os.scandir(folder) if one.is_dir() and not one.name.startswith("."))
    except OSError as error:
        raise CorpusError(f"{folder} cannot be read ({error.strerror}): it should hold a corpus") from error
    if any(map(is_person, entries)):
        return [folder]
    return [tree for name in entries for tree in trees(folder / name, is_person, depth - 1)] if depth else []


def complete(
    wanted: Sequence[str], found: Mapping[str, Sequence[Sample]], where: str
) -> tuple[list[Sample], list[str], int]:
    """The samples of people who have a face and a voice, sentences about the others, and their number."""
    samples: list[Sample] = []
    lacking: list[str] = []
    for name in wanted:
        mine = found.get(name, ())
        lacks = [one.value for one in Modality if not any(sample.modality is one for sample in mine)]
        if lacks:
            lacking.append(f"{name} has no {' and no '.join(lacks)} in {where}")
        else:
            samples += mine
    return sorted(samples), lacking, len(lacking)


def refuse_absent(absent: Sequence[str], of: int, what: str, most: float) -> tuple[str, ...]:
    """A sentence about what is absent, or none.

    Args:
        absent: paths or people.
        of: how many there should be.
        what: they are, in the plural, with where that is said.
        most: share of them that may be absent, 0 to 1.

    Raises:
        CorpusError: more are.
    """
    if not absent:
        return ()
    named = ", ".join(absent[:_NAMED]) + (f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else "")
    told = f"{len(absent)} of {of} {what} are not there ({named})"
    if len(absent) > most * of:
        raise CorpusError(
            f"{told}, and at most {most:.0%} may be absent: copy them, or allow a larger share (--allow-missing)"
        )
    return (told,)


def same_contents(samples: Sequence[Sample], locate: Callable[[Sample], Path]) -> tuple[str, ...]:
    """A sentence about files of one content that are named for two people, or none.

    Only files of one size are looked into, and only those whose beginnings are alike are read to their end.
    """
    sized: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.span is None:
            sized[locate(sample).stat().st_size].append(sample)
    alike: dict[bytes, list[Sample]] = defaultdict(list)
    for group in sized.values():
        if len(group) > 1:
            for sample in group:
                with locate(sample).open("rb") as stream:
                    alike[hashlib.sha256(stream.read(_HEAD_BYTES)).digest()].append(sample)
    whole: dict[bytes, list[Sample]] = defaultdict(list)
    for group in alike.values():
        if len({one.identity for one in group}) > 1:
            for sample in group:
                with locate(sample).open("rb") as stream:
                    whole[hashlib.file_digest(stream, "sha256").digest()].append(sample)
    twice = [group for group in whole.values() if len({one.identity for one in group}) > 1]
    if not twice:
        return ()
    first, second = twice[0][0], next(one for one in twice[0] if one.identity != twice[0][0].identity)
    return (f"{len(twice)} files are there for two people with one content, such as {first.path} and {second.path}",)
