"""What a process does that extracts features: some samples to one shard.

A shard is two files: the vectors as ``.npy`` (k, dimension) float32, and beside it, written last, ``.json``: the key
of each vector, and what became of each sample. Without its JSON file a shard is none.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder, Unusable
from encoders.face import load_face_detector
from encoders.space import Modality
from ingest.content import MediaError
from ingest.samples import NoSample, read_face, read_voice
from ingest.track import Span
from training.checkpoint import replace_file, write_json
from training.processes import DEADLY, marker

NOWHERE = -1
"""Size of a file that is not there."""


class Stamp(NamedTuple):
    """What a sample is known by without a look into its file.

    Args:
        path: as the manifest has it.
        start: of what counts of it, seconds.
        end: likewise; infinite: to its end.
        size: of the file, bytes.
        modified: when it was changed last, nanoseconds.
    """

    path: str
    start: float
    end: float
    size: int
    modified: int

    @classmethod
    def of(cls, cells: Sequence[Any]) -> Stamp:
        """From the cells of a line or list. Raises ValueError, TypeError."""
        path, start, end, size, modified = cells
        return cls(str(path), float(start), float(end), int(size), int(modified))

    def cells(self) -> list[str | int]:
        """As JSON keeps it, which has no infinity."""
        return [self.path, str(self.start), str(self.end), self.size, self.modified]


class Fate(NamedTuple):
    """What became of a sample.

    Args:
        key: of its vector; empty where it has none.
        reason: why it has none.
        again: whether the reason may pass, so that a later call tries again.
    """

    key: str
    reason: str = ""
    again: bool = False


@dataclass(frozen=True)
class Item:
    """A sample to encode.

    Args:
        path: as the manifest has it.
        file: where it is.
        span: what counts of it; None: all.
    """

    path: str
    file: Path
    span: Span | None

    def stamp(self) -> Stamp:
        """What it is known by now."""
        try:
            told = self.file.stat()
            size, modified = told.st_size, told.st_mtime_ns
        except OSError:
            size, modified = NOWHERE, 0
        start, end = (0.0, math.inf) if self.span is None else (self.span.start, self.span.end)
        return Stamp(self.path, start, end, size, modified)

    def key(self) -> str:
        """SHA-256 of its file's content, and of the stretch of it that counts. Raises OSError."""
        with self.file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        if self.span is not None:
            digest.update(f"@{self.span.start!r}-{self.span.end!r}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class FeatureChunk:
    """Samples whose vectors go to one shard; see :class:`training.processes.Chunk`.

    Args:
        path: of the shard's JSON file.
        items: the samples.
    """

    path: Path
    items: tuple[Item, ...]

    def file_at(self, place: int) -> Path:
        """See :class:`training.processes.Chunk`."""
        return self.items[place].file


@dataclass(frozen=True)
class Setup:
    """What a process needs.

    Args:
        encoder: folder.
        modality: what it encodes here.
        detector: of faces: name of a row of :data:`encoders.face.DETECTORS`.
        device: that the encoder runs on.
        known: file of the sorted keys that have a vector already: (n,) of 64 bytes.
    """

    encoder: Path
    modality: Modality
    detector: str
    device: str
    known: Path


@dataclass(frozen=True)
class FeatureShard:
    """What a shard holds.

    Args:
        vectors: the file of its vectors.
        keys: of them, in their order.
        fates: of its samples.
    """

    vectors: Path
    keys: tuple[str, ...]
    fates: Mapping[Stamp, Fate]


def read_feature_shard(path: Path) -> FeatureShard:
    """Read the JSON file of a shard. Raises ValueError, KeyError, TypeError."""
    document = json.loads(path.read_text(encoding="utf-8"))
    fates = {Stamp.of(cells): Fate(*fate) for cells, fate in document["samples"]}
    return FeatureShard(path.with_suffix(".npy"), tuple(document["keys"]), fates)


def encode_chunk(chunk: FeatureChunk, deadly: frozenset[int] | None, setup: Setup) -> None:
    """Read and encode the samples of a chunk and write its shard; see :data:`training.processes.Work`."""
    desk, current = _Desk(setup), marker(chunk)
    for place, item in enumerate(chunk.items):
        current.write_text(str(place))  # who goes on after this process's death must know what it died of
        desk.take(item, dead=place in (deadly or ()))
        if deadly is not None:
            desk.encode()  # one at a time, so that a death is blamed on the right one
    desk.encode()
    desk.write(chunk.path)
    current.unlink(missing_ok=True)


class _Desk:
    """The samples of one chunk on their way to vectors."""

    def __init__(self, setup: Setup) -> None:
        self._encoder, self._read = _tools(setup.encoder, setup.modality, setup.detector, setup.device)
        self._modality = setup.modality
        self._known: NDArray[np.bytes_] = np.load(setup.known, mmap_mode="r", allow_pickle=False)
        self._fates: list[tuple[Stamp, Fate]] = []
        self._fresh: dict[str, Any] = {}  # read and not yet encoded, by key
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._reasons: dict[str, str] = {}  # why a content has no vector

    def take(self, item: Item, *, dead: bool) -> None:
        """Read a sample unless its content is known."""
        stamp = item.stamp()
        if dead:
            self._fates.append((stamp, Fate("", DEADLY)))
            return
        try:
            key = item.key()
            if not any(key in one for one in (self._fresh, self._vectors, self._reasons)) and not self._knows(key):
                self._fresh[key] = self._read(item.file, item.span)
            fate = Fate(key)
        except (MediaError, NoSample) as error:
            fate = Fate("", error.reason)
        except OSError as error:
            fate = Fate("", f"cannot be read ({error.strerror or type(error).__name__})", again=True)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises, the other files are read
            fate = Fate("", f"cannot be read ({type(error).__name__}: {error})", again=isinstance(error, MemoryError))
        self._fates.append((stamp, fate))

    def encode(self) -> None:
        """Encode what has been read."""
        samples = list(self._fresh.values())
        for key, answer in zip(self._fresh, self._encoder.encode(self._modality, samples), strict=True):
            if isinstance(answer, Unusable):
                self._reasons[key] = answer.detail
            else:
                self._vectors[key] = answer.vector
        self._fresh.clear()

    def write(self, path: Path) -> None:
        """Write the shard, its vectors first."""
        nothing = np.zeros((0, self._encoder.space.dimension), np.float32)
        write_array(path.with_suffix(".npy"), np.stack(list(self._vectors.values())) if self._vectors else nothing)
        fates = [
            (stamp, Fate("", self._reasons[fate.key]) if fate.key in self._reasons else fate)
            for stamp, fate in self._fates
        ]
        samples = [(stamp.cells(), list(fate)) for stamp, fate in fates]
        write_json(path, {"keys": list(self._vectors), "samples": samples})

    def _knows(self, key: str) -> bool:
        """Whether there is a vector of this content already."""
        place = int(np.searchsorted(self._known, key.encode()))
        return place < len(self._known) and bool(self._known[place] == key.encode())


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write an array as ``.npy``: the file is there completely or not at all."""
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    replace_file(path, content.getvalue())


@cache
def _tools(
    folder: Path, modality: Modality, detector: str, device: str
) -> tuple[Encoder, Callable[[Path, Span | None], Any]]:
    """An encoder, and what reads a file into what it takes; loaded once in a process."""
    encoder = Encoder.load(folder, device=device)
    if modality is Modality.VOICE:
        return encoder, read_voice
    faces = load_face_detector(detector)
    return encoder, lambda path, _span: read_face(path, faces)
