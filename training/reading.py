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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from encoders.backbones.backbone import Unusable
from encoders.backbones.small_face import SmallFacePreparation
from encoders.backbones.small_voice import SmallVoicePreparation
from encoders.face import load_face_detector
from encoders.space import Modality
from ingest.content import MediaError
from ingest.samples import NoSample, read_face, read_voice
from ingest.track import Span
from training.networks import frame_values, read_network_preparation, trainable
from training.processes import DEADLY, PreparationError, marker, run_chunks

__all__ = [
    "FileReader", "MakeReader", "Preparation", "PreparationError", "SampleReader", "Shard", "preparation_for",
    "read_shard", "read_shards",
]  # fmt: skip


@dataclass(frozen=True)
class Preparation:
    """How files become what networks take.

    Args:
        face: of a face crop: the preparation of the face backbone, which has a ``side``.
        voice: of a waveform: the preparation of the voice backbone.
        detector: name of a row of :data:`encoders.face.DETECTORS`.
        face_backbone: name of a row of :data:`encoders.face.BACKBONES`.
        voice_backbone: name of a row of :data:`encoders.voice.BACKBONES`.

    Raises:
        ValueError: there is no such backbone, or it is not trained, or the preparation is another one's.
    """

    face: Any = field(default_factory=SmallFacePreparation)
    voice: Any = field(default_factory=SmallVoicePreparation)
    detector: str = "dlib_hog"
    face_backbone: str = "small_face"
    voice_backbone: str = "small_voice"

    def __post_init__(self) -> None:
        for modality, backbone, given in (
            (Modality.FACE, self.face_backbone, self.face),
            (Modality.VOICE, self.voice_backbone, self.voice),
        ):
            wanted = trainable(modality, backbone).preparation
            if type(given) is not wanted:
                raise ValueError(f"{backbone} is prepared by a {wanted.__name__}, got a {type(given).__name__}")

    def backbone(self, modality: Modality) -> tuple[str, Any]:
        """Backbone and preparation of a modality."""
        return (self.face_backbone, self.face) if modality is Modality.FACE else (self.voice_backbone, self.voice)


def preparation_for(settings: Any, detector: str) -> Preparation:  # noqa: ANN401 - a recipe's own Settings
    """How samples are prepared for the backbones that a recipe's settings name.

    Args:
        settings: see :class:`training.recipe.RecipeSettings`.
        detector: name of a row of :data:`encoders.face.DETECTORS`.

    Raises:
        ValueError: a backbone that is not trained, or a preparation that it does not have.
    """
    face, voice = settings.face_backbone, settings.voice_backbone
    return Preparation(
        face=read_network_preparation(Modality.FACE, face, getattr(settings, "face_preparation", {})),
        voice=read_network_preparation(Modality.VOICE, voice, getattr(settings, "voice_preparation", {})),
        detector=detector,
        face_backbone=face,
        voice_backbone=voice,
    )


@dataclass(frozen=True)
class Shard:
    """Samples that are read together.

    Args:
        path: of the file that they go to.
        media: folder that the samples' paths start from.
        samples: path from there and modality of each.
        spans: what counts of each; empty, or None: all of it.
    """

    path: Path
    media: Path
    samples: tuple[tuple[str, Modality], ...]
    spans: tuple[Span | None, ...] = ()

    def file_at(self, place: int) -> Path:
        """See :class:`training.processes.Chunk`."""
        return self.media / self.samples[place][0]


class SampleReader(Protocol):
    """Reads one file of a corpus."""

    def face(self, path: Path) -> NDArray[np.uint8] | str:
        """(side, side, 3) uint8 chip, or a sentence that says why there is none."""
        ...

    def voice(self, path: Path, span: Span | None = None) -> NDArray[np.float16] | str:
        """(frames, bands) float16 log-mel of a stretch, or a sentence that says why there is none."""
        ...


class FileReader:
    """Reads files as serving does: see :mod:`ingest.samples` and :class:`training.networks.Trainable`.

    Args:
        preparation: how.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._detector = load_face_detector(preparation.detector)
        self._prepare = {one: trainable(one, preparation.backbone(one)[0]).prepare for one in Modality}

    def face(self, path: Path) -> NDArray[np.uint8] | str:
        """See :class:`SampleReader`."""
        try:
            chip = self._prepare[Modality.FACE](read_face(path, self._detector), self._preparation.face)
        except (MediaError, NoSample) as error:
            return _reason(error)
        return chip.detail if isinstance(chip, Unusable) else chip

    def voice(self, path: Path, span: Span | None = None) -> NDArray[np.float16] | str:
        """See :class:`SampleReader`."""
        try:
            mel = self._prepare[Modality.VOICE](read_voice(path, span), self._preparation.voice)
        except (MediaError, NoSample) as error:
            return _reason(error)
        if isinstance(mel, Unusable):
            return mel.detail
        return mel.astype(np.float16)


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
    yield from run_chunks(shards, partial(read_shard, preparation=preparation, make_reader=make_reader), workers)


def read_shard(shard: Shard, deadly: frozenset[int] | None, preparation: Preparation, make_reader: MakeReader) -> None:
    """Read the samples of one shard and write its file.

    Args:
        shard: what to read.
        deadly: places of samples that killed their reader and are not touched again; None: no process has died.
        preparation: how.
        make_reader: makes what reads a file.
    """
    reader, current = _reader_of(make_reader, preparation), marker(shard)
    found: dict[Modality, dict[int, NDArray[Any]]] = {modality: {} for modality in Modality}
    failures: dict[int, str] = {}
    for place, (path, modality) in enumerate(shard.samples):
        if place in (deadly or ()):
            failures[place] = DEADLY
            continue
        current.write_text(str(place))  # who reads on after this process' death must know what it died of
        try:
            answer = _read(reader, shard.media / path, modality, shard.spans[place] if shard.spans else None)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises, the other files are read
            answer = f"cannot be read ({_reason(error)})"
        if isinstance(answer, str):
            failures[place] = answer
        else:
            found[modality][place] = answer
    _write_shard(shard.path, found, failures, preparation)
    current.unlink(missing_ok=True)


def _read(reader: SampleReader, path: Path, modality: Modality, span: Span | None) -> NDArray[Any] | str:
    if modality is Modality.FACE:
        return reader.face(path)
    return reader.voice(path) if span is None else reader.voice(path, span)


def _write_shard(
    path: Path,
    found: Mapping[Modality, Mapping[int, NDArray[Any]]],
    failures: Mapping[int, str],
    preparation: Preparation,
) -> None:
    faces, voices = found[Modality.FACE], found[Modality.VOICE]
    side, bands = preparation.face.side, frame_values(preparation.voice)
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


@cache
def _reader_of(make_reader: MakeReader, preparation: Preparation) -> SampleReader:
    return make_reader(preparation)


def _reason(error: Exception) -> str:
    """What an error says of a file, without its path."""
    return str(getattr(error, "reason", "")) or f"{type(error).__name__}: {error}"
