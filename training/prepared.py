"""Samples as networks take them, read once and kept: face chips and log-mel voices of a manifest.

Faces and voices go through the very functions that serving uses (:mod:`ingest.samples`, the preparations of the
backbones), so a network never meets in service what it was not trained on. They are kept beside the
population in shards, one safetensors file each, in a folder named by a digest of manifest and preparation:
an interrupted preparation goes on where it stopped, and another manifest never meets an old cache.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from encoders.space import Modality
from training.corpora import Manifest, Sample, media_digest
from training.networks import trainable
from training.reading import FileReader, MakeReader, Preparation, PreparationError, Shard, read_shards

FORMAT = 1
ROOT = Path(__file__).resolve().parents[1]
# The code that makes a sample what a network sees: with other code samples are read again.
_READING = (
    "encoders/acoustics.py",
    "encoders/chips.py",
    "encoders/spectra.py",
    "ingest/faces.py",
    "ingest/samples.py",
    "ingest/shots.py",
)
SHARD_SAMPLES = 64
DEFAULT_PREPARATION = Preparation()


@dataclass(frozen=True)
class Failure:
    """A sample that is left out.

    Args:
        path: relative to the manifest's media; whole where faces lie elsewhere.
        reason: a sentence for people.
    """

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everybody's samples, in memory; people are numbered in the order of their names.

    Args:
        identities: names, sorted.
        sexes: ``f`` or ``m`` of each, empty where nobody says.
        faces: (n, side, side, 3) uint8 RGB chips, as the face backbone's preparation gives them.
        face_people: (n,) int64 numbers of identities.
        mels: (frames, bands) float16 spectra of all voices, one after the other, as the voice backbone's preparation
            gives them; or waveforms, 10 ms a row.
        offsets: (m + 1,) int64: voice i is ``mels[offsets[i]:offsets[i + 1]]``, never empty.
        voice_people: (m,) int64 numbers of identities.
        face_paths: where each face came from, relative to the media.
        voice_paths: likewise.
        failures: samples that could not be read, or whose person has no sample of the other modality.
        digest: SHA-256 of the manifest, its media and the preparation.
        preparation: how they were prepared.

    Raises:
        ValueError: the parts do not fit together, or somebody has no face or no voice.
    """

    identities: tuple[str, ...]
    sexes: tuple[str, ...]
    faces: NDArray[np.uint8]
    face_people: NDArray[np.int64]
    mels: NDArray[np.float16]
    offsets: NDArray[np.int64]
    voice_people: NDArray[np.int64]
    face_paths: tuple[str, ...] = ()
    voice_paths: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    digest: str = ""
    preparation: Preparation = DEFAULT_PREPARATION

    def __post_init__(self) -> None:
        count = len(self.identities)
        if len(self.sexes) != count or set(self.sexes) - {"f", "m", ""}:
            raise ValueError(f"{count} people need as many sexes, f or m, got {len(self.sexes)}")
        if self.faces.ndim != 4 or self.faces.shape[3] != 3 or self.faces.dtype != np.uint8:
            raise ValueError(f"faces are (n, side, side, 3) uint8, got {self.faces.shape} {self.faces.dtype}")
        if self.mels.ndim != 2 or self.mels.dtype != np.float16:
            raise ValueError(f"mels are (frames, bands) float16, got {self.mels.shape} {self.mels.dtype}")
        if len(self.faces) != len(self.face_people) or len(self.offsets) != len(self.voice_people) + 1:
            raise ValueError(
                f"{len(self.faces)} faces of {len(self.face_people)} people's numbers, {len(self.offsets)} offsets "
                f"of {len(self.voice_people)} voices do not fit together"
            )
        if (np.diff(self.offsets) < 1).any() or self.offsets[0] != 0 or self.offsets[-1] != len(self.mels):
            raise ValueError(f"offsets rise from 0 to the number of frames ({len(self.mels)}), without empty voices")
        for what, people in (("face", self.face_people), ("voice", self.voice_people)):
            owners = np.unique(people)
            if not np.array_equal(owners, np.arange(count)):
                raise ValueError(f"every one of {count} people needs a {what}, and no other is known: got {owners}")


def prepare(
    manifest: Manifest,
    cache: Path,
    preparation: Preparation = DEFAULT_PREPARATION,
    *,
    workers: int = 2,
    on_progress: Callable[[int, int, int], None] = lambda done, total, failures: None,
    make_reader: MakeReader = FileReader,
) -> Prepared:
    """The samples of a manifest, from the cache or read now.

    Args:
        manifest: which.
        cache: folder whose subfolder the samples are kept in.
        preparation: how they become what networks take.
        workers: processes that read; 0 reads in this one.
        on_progress: told (samples done, all samples, failures so far), now and then.
        make_reader: makes what reads a file, once in every process: something of a module, for other processes.

    Raises:
        PreparationError: too few people remain, or the worker processes cannot be started.
        OSError: the cache cannot be written.
    """
    digest = prepared_digest(manifest, preparation)
    folder = cache / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    groups = [manifest.samples[at : at + SHARD_SAMPLES] for at in range(0, len(manifest.samples), SHARD_SAMPLES)]
    shards = [
        Shard(
            folder / f"{number:05d}.safetensors",
            manifest.media,
            tuple((_place(manifest, one), one.modality) for one in group),
            tuple(one.span for one in group),
        )
        for number, group in enumerate(groups)
    ]
    total, done, failed, waiting = len(manifest.samples), 0, 0, []
    for shard in shards:
        failures = _failures(shard.path)
        if failures is None:
            waiting.append(shard)
        else:
            done, failed = done + len(shard.samples), failed + len(failures)
    on_progress(done, total, failed)
    for shard in read_shards(waiting, preparation, make_reader, workers):
        done, failed = done + len(shard.samples), failed + len(_failures(shard.path) or {})
        on_progress(done, total, failed)
    return _load(manifest, shards, digest, preparation)


def prepared_digest(manifest: Manifest, preparation: Preparation) -> str:
    """SHA-256 of all that determines the prepared samples."""
    prepare = (trainable(one, preparation.backbone(one)[0]).preparation for one in Modality)
    files = [*(ROOT / name for name in _READING), *(Path(inspect.getfile(one)) for one in prepare)]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    document = {"format": FORMAT, "code": code, "media": media_digest(manifest), "preparation": asdict(preparation)}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _place(manifest: Manifest, sample: Sample) -> str:
    """A sample's path from the manifest's media; the whole path where faces lie elsewhere."""
    apart = manifest.faces is not None and sample.modality is Modality.FACE
    return str(manifest.locate(sample).absolute()) if apart else sample.path


def _failures(path: Path) -> dict[str, str] | None:
    """Reasons by place in the shard, or None where there is no whole shard."""
    try:
        with safe_open(path, framework="numpy") as shard:
            failures: dict[str, str] = json.loads(shard.metadata()["failures"])
    except (OSError, SafetensorError):
        return None
    return failures


@dataclass
class _Found:
    """All that the shards of a manifest hold, in its order.

    Args:
        places: of each face and of each voice in the manifest.
        faces: (n, side, side, 3) uint8.
        mels: (frames, bands) float16.
        lengths: (m,) int64 frames of each voice.
        failures: samples that could not be read.
    """

    places: dict[Modality, NDArray[np.int64]]
    faces: NDArray[np.uint8]
    mels: NDArray[np.float16]
    lengths: NDArray[np.int64]
    failures: list[Failure]


def _read_found(shards: Sequence[Shard]) -> _Found:
    """Read the small arrays of every shard, then the large ones into arrays of their final size."""
    places: dict[Modality, list[NDArray[np.int64]]] = {modality: [] for modality in Modality}
    lengths, failures, first = [], [], 0
    for shard in shards:
        with safe_open(shard.path, framework="numpy") as content:
            for modality in Modality:
                places[modality].append(first + content.get_tensor(f"{modality}_rows"))
            lengths.append(content.get_tensor("lengths"))
            chip, bands = content.get_slice("faces").get_shape()[1:], content.get_slice("mels").get_shape()[1]
            reasons: dict[str, str] = json.loads(content.metadata()["failures"])
        failures += [Failure(shard.samples[int(place)][0], reason) for place, reason in reasons.items()]
        first += len(shard.samples)
    frames = [int(one.sum()) for one in lengths]
    faces = np.empty((sum(map(len, places[Modality.FACE])), *chip), dtype=np.uint8)
    mels = np.empty((sum(frames), bands), dtype=np.float16)
    face, frame = 0, 0
    for shard, chips, some in zip(shards, map(len, places[Modality.FACE]), frames, strict=True):
        with safe_open(shard.path, framework="numpy") as content:
            faces[face : face + chips] = content.get_tensor("faces")
            mels[frame : frame + some] = content.get_tensor("mels")
        face, frame = face + chips, frame + some
    found = {modality: np.concatenate(some) for modality, some in places.items()}
    return _Found(found, faces, mels, np.concatenate(lengths), failures)


def _load(manifest: Manifest, shards: Sequence[Shard], digest: str, preparation: Preparation) -> Prepared:
    """Everything of people with both modalities, in the order of the manifest."""
    found, samples = _read_found(shards), manifest.samples
    owners = {modality: [samples[place].identity for place in found.places[modality]] for modality in Modality}
    identities = tuple(sorted(set(owners[Modality.FACE]) & set(owners[Modality.VOICE])))
    if len(identities) < 2:
        told = f", for example {found.failures[0].path}: {found.failures[0].reason}" if found.failures else ""
        raise PreparationError(
            f"{manifest.media}: {len(identities)} people have a readable face and a readable voice, at least 2 are "
            f"needed; {len(found.failures)} of {len(samples)} samples cannot be used{told}"
        )
    number = {name: place for place, name in enumerate(identities)}
    stays = {modality: np.array([name in number for name in names]) for modality, names in owners.items()}
    for modality in Modality:
        found.failures += [
            Failure(samples[place].path, f"{samples[place].identity} has no usable {modality.other}")
            for place in found.places[modality][~stays[modality]]
        ]
    people = {
        modality: np.array([number[name] for name in names if name in number], dtype=np.int64)
        for modality, names in owners.items()
    }
    paths = {
        modality: tuple(samples[place].path for place in found.places[modality][stays[modality]])
        for modality in Modality
    }
    heard = stays[Modality.VOICE]
    return Prepared(
        identities=identities,
        sexes=tuple(manifest.sexes[name] for name in identities),
        faces=found.faces if stays[Modality.FACE].all() else found.faces[stays[Modality.FACE]],
        face_people=people[Modality.FACE],
        mels=found.mels if heard.all() else found.mels[np.repeat(heard, found.lengths)],
        offsets=np.concatenate([[0], np.cumsum(found.lengths[heard])]).astype(np.int64),
        voice_people=people[Modality.VOICE],
        face_paths=paths[Modality.FACE],
        voice_paths=paths[Modality.VOICE],
        failures=tuple(sorted(found.failures, key=lambda one: one.path)),
        digest=digest,
        preparation=preparation,
    )
