"""Films read in pieces: which pieces, what each gives, and their results in files that other processes read.

The pictures are cut at the borders of cells (:mod:`ingest.sightings`); the sound is one piece, because resamplers and
the speech detector remember what went before, and it costs a fortieth of the pictures.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.content import MediaInfo
from ingest.crossing import NotAsAgreed, pack, receive, send, unpack
from ingest.sightings import Cell, FaceSettings
from ingest.track import Span, SpeechTurn

SHARD_SECONDS = 600.0
"""A film up to this long is one shard; a longer one is cut into shards that are no longer."""

_MAGIC = b"visavox part 1\n"
_HASH_BYTES = 32


class PartError(Exception):
    """A file that holds no result of a piece of work, or of another one: do that piece again."""


@dataclass(frozen=True)
class Plan:
    """Into which pieces of work a file is cut.

    Args:
        pictures: the shards of its pictures, in order of time; the last one's end is what the header says, and it
            is looked at to wherever it ends. Empty for what has no moving pictures.
        sound: whether its sound is to be listened to.
    """

    pictures: tuple[Span, ...]
    sound: bool

    @property
    def is_cut(self) -> bool:
        """Whether there is more than one shard of pictures."""
        return len(self.pictures) > 1


@dataclass(frozen=True, eq=False)
class Seen:
    """What the pictures of one shard showed.

    Args:
        first: number of its first cell.
        after: number of the first cell behind it; None: it goes to the end of the film.
        cells: those that have pictures, in their order.
        reached: second of its last picture, 0 without one.
        warnings: what was odd, for people to read.
        refusal: why the film's pictures are of no use, a sentence; empty if they are.
    """

    first: int
    after: int | None
    cells: tuple[Cell, ...] = ()
    reached: float = 0.0
    warnings: tuple[str, ...] = ()
    refusal: str = ""

    def __post_init__(self) -> None:
        numbers = [cell.number for cell in self.cells]
        bounds = [self.first, *numbers, self.after if self.after is not None else np.inf]
        if sorted(set(numbers)) != numbers or sorted(bounds) != bounds or self.after in numbers:
            raise ValueError(f"cells {numbers} do not lie in order from {self.first} to before {self.after}")


@dataclass(frozen=True, eq=False)
class Heard:
    """What the sound of a file holds.

    Args:
        turns: of speech, in order of time.
        loudness: see :func:`ingest.pairing.loudness`.
        seconds: at which it ends.
        warnings: what was odd, for people to read.
        refusal: why the sound is of no use, a sentence; empty if it is.
    """

    turns: tuple[SpeechTurn, ...]
    loudness: NDArray[np.float32]
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    refusal: str = ""


Part = TypeVar("Part", Seen, Heard)


def plan(info: MediaInfo, settings: FaceSettings | None = None, shard_seconds: float = SHARD_SECONDS) -> Plan:
    """Cut a file into pieces of work; equal files are cut alike.

    Args:
        info: what the file holds.
        settings: how faces are looked for; default :class:`FaceSettings`.
        shard_seconds: longest shard of pictures, at least a cell.

    Raises:
        ValueError: a shard would be shorter than a cell.
    """
    settings = settings or FaceSettings()
    if not (info.kind == "film" and info.has_pictures):
        return Plan((), info.has_sound)
    cells = int(shard_seconds / settings.border(1) + 1e-9)
    if cells < 1:
        raise ValueError(f"a shard of {shard_seconds} s is shorter than a cell of {settings.border(1)} s")
    starts = [0.0]
    while (start := settings.border(cells * len(starts))) < info.duration - 1e-6:
        starts.append(start)
    ends = [*starts[1:], max(info.duration, starts[-1])]
    return Plan(tuple(Span(*edges) for edges in zip(starts, ends, strict=True)), info.has_sound)


def whole_film(seen: Iterable[Seen]) -> Iterator[Seen]:
    """The shards of a film, one after the other, each behind the one before.

    Args:
        seen: in order of time; none for what has no pictures.

    Raises:
        PartError: one is missing, there twice or out of order.
    """
    ends: int | None = 0
    shard = None
    for shard in seen:
        if shard.first != ends:
            raise PartError(
                f"a shard begins with cell {shard.first}, and the next was to begin with {ends}: order them"
            )
        ends = shard.after
        yield shard
    if shard is not None and ends is not None:
        raise PartError(f"the shards end with cell {ends}, and the film goes on: look at the rest of it")


def write_part(path: Path, part: Seen | Heard, stamp: str = "") -> None:
    """Write what a piece of work gave; the file is there whole, or not at all.

    Args:
        path: the file; one that exists is replaced. Its folder exists.
        part: the result.
        stamp: names the work: content, settings, place. Only who names the same reads it back.

    Raises:
        OSError: the disk is full, or the folder is not there.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            head = _head(type(part), stamp)
            digest = hashlib.sha256()

            def put(piece: memoryview) -> None:
                digest.update(piece)
                stream.write(piece)

            stream.write(head + bytes(_HASH_BYTES))
            send(pack(part), put)
            stream.seek(len(head))
            stream.write(digest.digest())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_part(path: Path, kind: type[Part], stamp: str = "") -> Part:
    """Read what :func:`write_part` wrote. Its arrays stay in the file, which may be removed meanwhile.

    Args:
        path: the file.
        kind: what it holds.
        stamp: names the work as when it was written.

    Raises:
        PartError: it is missing, damaged, or holds something else.
    """
    try:
        with path.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise PartError(f"{path}: cannot be read ({error}): do this piece of work again") from error
    head = _head(kind, stamp)
    begin = len(head) + _HASH_BYTES
    if content[: len(head)] != head:
        raise PartError(f"{path}: is not the {kind.__name__} of {stamp!r}: do this piece of work again")
    whole = memoryview(content)
    if hashlib.sha256(whole[begin:]).digest() != content[len(head) : begin]:
        raise PartError(f"{path}: is damaged, its content is not what was written: do this piece of work again")
    pages = _Pages(whole, begin)
    try:
        part: Part = unpack(receive(pages.fill, len(whole), pages.array), kind)
    except NotAsAgreed as error:
        raise PartError(f"{path}: cannot be understood ({error}): do this piece of work again") from error
    return part


def _head(kind: type, stamp: str) -> bytes:
    """How a file of one kind and work begins."""
    named = hashlib.sha256(f"{kind.__name__}\n{stamp}".encode()).hexdigest()
    return _MAGIC + named.encode("ascii") + b"\n"


class _Pages:
    """Hands out a mapped file piece by piece; arrays without copying them."""

    def __init__(self, whole: memoryview, place: int) -> None:
        self._whole = whole
        self._place = place

    def fill(self, buffer: memoryview) -> None:
        """Fill a buffer with the next bytes; raises NotAsAgreed at the end."""
        buffer[:] = self._take(len(buffer))

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The next bytes as an array that cannot be written to."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._take(count * dtype.itemsize), dtype).reshape(shape)

    def _take(self, count: int) -> memoryview:
        piece = self._whole[self._place : self._place + count]
        if len(piece) != count:
            raise NotAsAgreed(f"{count} bytes were announced, and {len(piece)} are left")
        self._place += count
        return piece
