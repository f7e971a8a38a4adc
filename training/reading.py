"""Reading files into shards, in worker processes: one bad file never stops it, not even one that kills its reader.

A shard is one safetensors file, written whole or not at all::

    faces (a, side, side, 3) uint8      face_rows (a,) int64     place of each in the shard
    mels (frames, bands) float16        voice_rows (b,) int64    likewise
    lengths (b,) int64                  frames of each voice
    metadata: failures                  JSON: place in the shard -> why it is left out
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from encoders.backbones.backbone import Unusable
from encoders.backbones.small_face import SmallFacePreparation, prepare_chip
from encoders.backbones.small_voice import SmallVoicePreparation, prepare_mel
from encoders.face import load_face_detector
from encoders.space import Modality
from ingest.content import MediaError
from ingest.samples import NoSample, read_face, read_voice

# Deaths over one shard before we give up: two for each of several deadly files.
MOST_DEATHS = 10


class PreparationError(RuntimeError):
    """The samples of a manifest cannot be prepared; the message says why and what to do."""


@dataclass(frozen=True)
class Preparation:
    """How files become what the small networks take.

    Args:
        face: of a face crop.
        voice: of a waveform.
        detector: name of a row of :data:`encoders.face.DETECTORS`.
    """

    face: SmallFacePreparation = field(default_factory=SmallFacePreparation)
    voice: SmallVoicePreparation = field(default_factory=SmallVoicePreparation)
    detector: str = "dlib_hog"


@dataclass(frozen=True)
class Shard:
    """Samples that are read together.

    Args:
        path: of the file that they go to.
        media: folder that the samples' paths start from.
        samples: relative path and modality of each.
    """

    path: Path
    media: Path
    samples: tuple[tuple[str, Modality], ...]


class SampleReader(Protocol):
    """Reads one file of a corpus."""

    def face(self, path: Path) -> NDArray[np.uint8] | str:
        """(side, side, 3) uint8 chip, or a sentence that says why there is none."""
        ...

    def voice(self, path: Path) -> NDArray[np.float16] | str:
        """(frames, bands) float16 log-mel, or a sentence that says why there is none."""
        ...


class FileReader:
    """Reads files as serving does: see :mod:`ingest.samples`, ``prepare_chip`` and ``prepare_mel``.

    Args:
        preparation: how.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._detector = load_face_detector(preparation.detector)

    def face(self, path: Path) -> NDArray[np.uint8] | str:
        """See :class:`SampleReader`."""
        try:
            chip = prepare_chip(read_face(path, self._detector), self._preparation.face)
        except (MediaError, NoSample) as error:
            return _reason(error)
        return chip.detail if isinstance(chip, Unusable) else chip

    def voice(self, path: Path) -> NDArray[np.float16] | str:
        """See :class:`SampleReader`."""
        try:
            mel = prepare_mel(read_voice(path), self._preparation.voice)
        except (MediaError, NoSample) as error:
            return _reason(error)
        if isinstance(mel, Unusable):
            return mel.detail
        packed: NDArray[np.float16] = mel.numpy().astype(np.float16)
        return packed


MakeReader = Callable[[Preparation], SampleReader]


def read_shards(
    shards: Sequence[Shard], preparation: Preparation, make_reader: MakeReader, workers: int
) -> Iterator[Shard]:
    """Read shards and write their files; each is given back when it is done, in any order.

    Args:
        shards: what to read.
        preparation: how.
        make_reader: makes what reads a file, once per process.
        workers: processes, spawned; with 0 this one reads.

    Raises:
        PreparationError: the processes do not start, or die again and again.
        OSError: a shard cannot be written.
    """
    if not workers:
        for shard in shards:
            read_shard(shard, preparation, make_reader)
            yield shard
        return
    suspects: list[Shard] = []
    waiting = list(reversed(shards))
    while waiting:
        running: dict[Future[None], Shard] = {}
        try:
            with _pool(min(workers, len(waiting))) as pool:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:  # few at a time: a broken pool loses little
                        shard = waiting.pop()
                        running[pool.submit(read_shard, shard, preparation, make_reader)] = shard
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        future.result()
                        yield running.pop(future)
        except BrokenProcessPool as error:
            if not any(_current(shard).exists() for shard in running.values()):
                raise _not_started() from error
            suspects += running.values()
    for shard in suspects:
        _read_alone(shard, preparation, make_reader)
        yield shard


def read_shard(
    shard: Shard, preparation: Preparation, make_reader: MakeReader, deadly: frozenset[int] = frozenset()
) -> None:
    """Read the samples of one shard and write its file.

    Args:
        shard: what to read.
        preparation: how.
        make_reader: makes what reads a file.
        deadly: places of samples that killed their reader and are not touched again.
    """
    reader, current = _reader_of(make_reader, preparation), _current(shard)
    found: dict[Modality, dict[int, NDArray[Any]]] = {modality: {} for modality in Modality}
    failures: dict[int, str] = {}
    for place, (path, modality) in enumerate(shard.samples):
        if place in deadly:
            failures[place] = "kills the process that reads it: the file is damaged, remove it"
            continue
        current.write_text(str(place))  # who reads on after this process' death must know what it died of
        try:
            read = reader.face if modality is Modality.FACE else reader.voice
            answer = read(shard.media / path)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises, the other files are read
            answer = f"cannot be read ({_reason(error)})"
        if isinstance(answer, str):
            failures[place] = answer
        else:
            found[modality][place] = answer
    _write_shard(shard.path, found, failures, preparation)
    current.unlink(missing_ok=True)


def _write_shard(
    path: Path,
    found: Mapping[Modality, Mapping[int, NDArray[Any]]],
    failures: Mapping[int, str],
    preparation: Preparation,
) -> None:
    faces, voices = found[Modality.FACE], found[Modality.VOICE]
    side, bands = preparation.face.side, preparation.voice.bands
    tensors = {
        "faces": np.array(list(faces.values()), dtype=np.uint8).reshape(len(faces), side, side, 3),
        "mels": np.concatenate([np.empty((0, bands), dtype=np.float16), *voices.values()]),
        "lengths": np.array([len(mel) for mel in voices.values()], dtype=np.int64),
    } | {f"{modality}_rows": np.array(list(places), dtype=np.int64) for modality, places in found.items()}
    content = save(tensors, {"failures": json.dumps(failures)})
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _read_alone(shard: Shard, preparation: Preparation, make_reader: MakeReader) -> None:
    """Read a shard during which a process died, in a process of its own; what is being read at two deaths is left out.

    Two, because a process may also die of what others do, such as using up the memory.
    """
    deaths = [int(_current(shard).read_text())] if _current(shard).exists() else []
    while len(deaths) < MOST_DEATHS:
        deadly = frozenset(place for place in deaths if deaths.count(place) > 1)
        _current(shard).unlink(missing_ok=True)
        try:
            with _pool(1) as pool:
                return pool.submit(read_shard, shard, preparation, make_reader, deadly).result()
        except BrokenProcessPool as error:
            if not _current(shard).exists():
                raise _not_started() from error
            deaths.append(int(_current(shard).read_text()))
    last = shard.media / shard.samples[deaths[-1]][0]
    raise PreparationError(
        f"the process that reads samples died {len(deaths)} times, last at {last}: is there memory enough? "
        "What is done is kept; begin again to go on"
    )


def _not_started() -> PreparationError:
    return PreparationError(
        "the processes that read the samples do not start: see their messages above; with 0 workers this process reads"
    )


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes; after an interrupt only what is being read is finished."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A worker process: one thread; an interrupt is the parent's to handle, and the parent's death is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@cache
def _reader_of(make_reader: MakeReader, preparation: Preparation) -> SampleReader:
    return make_reader(preparation)


def _current(shard: Shard) -> Path:
    """File that says which sample of a shard is being read."""
    return shard.path.with_suffix(".reading")


def _reason(error: Exception) -> str:
    """What an error says of a file, without its path."""
    return str(getattr(error, "reason", "")) or f"{type(error).__name__}: {error}"
