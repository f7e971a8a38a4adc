"""Where the samples of a protocol lie in a shared space: embedded here, or brought along as a file."""

from __future__ import annotations

import hashlib
import typing
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Unusable as NotEncoded
from encoders.probe_centres import ARRAY, ProbeCentres, check_centre, without_centre
from encoders.space import UNIT_TOLERANCE, Embedding, Modality, Space
from ingest.media import MediaError
from ingest.samples import NoSample
from search.measurement import Model as Model
from search.measurement import PointsError as PointsError
from search.measurement import SeenInTraining as SeenInTraining
from search.measurement import Unusable
from search.protocols import Protocol

Readers = Mapping[Modality, Callable[[Path], Any]]
"""How a file of each modality becomes what an encoder takes; may raise MediaError or NoSample."""
# Samples read before they are encoded together; crops and sounds of so many are held at once.
BATCH = 64


class CrossModalEncoder(Model, typing.Protocol):
    """A model that encodes faces and voices into one space."""

    @property
    def probe_centres(self) -> ProbeCentres:
        """What is taken from a probe that asks for the other modality."""

    def encode(self, modality: Modality, samples: Sequence[Any]) -> Sequence[Embedding | NotEncoded]:
        """An Embedding or Unusable for each sample, in order."""


@dataclass(frozen=True, eq=False)
class Points:
    """Samples of both modalities as points of one space.

    Args:
        space: what they live in.
        paths: of the samples by modality, as the protocol's lists write them; each once.
        vectors: by modality (samples, dimension) float32 of unit length, in the same order.
        unusable: samples that have no vector, and why.
        people: who each sample shows, in the same order; empty where nobody said, and then not to export.
        probe_centres: what is taken from a sample that asks for the other modality.

    Raises:
        ValueError: lengths or dimensions do not fit, a path comes twice, a vector is not of unit length, or a centre
            is too long.
    """

    space: Space
    paths: Mapping[Modality, tuple[str, ...]]
    vectors: Mapping[Modality, NDArray[np.float32]]
    unusable: tuple[Unusable, ...] = ()
    people: Mapping[Modality, tuple[str, ...]] = field(default_factory=dict)
    probe_centres: ProbeCentres = field(default_factory=dict)

    def __post_init__(self) -> None:
        single = {modality: np.asarray(self.vectors[modality], dtype=np.float32) for modality in Modality}
        object.__setattr__(self, "vectors", single)
        for modality, vectors in single.items():
            paths = self.paths[modality]
            if vectors.shape != (len(paths), self.space.dimension):
                wanted = (len(paths), self.space.dimension)
                raise ValueError(f"{modality} vectors must be {wanted} in {self.space.name}, got {vectors.shape}")
            if len(set(paths)) != len(paths):
                raise ValueError(f"a {modality} path comes twice")
            if self.people and len(self.people[modality]) != len(paths):
                raise ValueError(f"{len(paths)} {modality} paths, but {len(self.people[modality])} people")
            off = np.abs(np.linalg.norm(vectors, axis=1) - 1.0)
            if len(paths) and not off.max() <= UNIT_TOLERANCE:
                raise ValueError(f"{modality} vectors must be finite and of unit length, one is off by {off.max()}")
        for centre in self.probe_centres.values():
            check_centre(centre, self.space.dimension)

    def asking(self, modality: Modality) -> NDArray[np.float32]:
        """(samples, dimension) vectors of a modality's samples as they ask for the other one, of unit length."""
        vectors = self.vectors[modality]
        if modality not in self.probe_centres:
            return vectors
        return without_centre(vectors, self.probe_centres[modality]).astype(np.float32)

    def export(self, path: Path) -> None:
        """Write ``path``, ``person``, ``modality`` (text) and ``vector`` (float32) to an npz file.

        ``space`` and ``space_digest`` stand beside them, so that :func:`read_points` knows where they live, and
        ``centre_face`` and ``centre_voice`` where probes are to be moved.

        Raises:
            ValueError: nobody said who the samples show.
        """
        if not self.people:
            raise ValueError("these points do not say whom they show: give `people`")
        arrays = {
            "path": np.array([one for modality in Modality for one in self.paths[modality]]),
            "person": np.array([one for modality in Modality for one in self.people[modality]]),
            "modality": np.array([str(modality) for modality in Modality for _ in self.paths[modality]]),
            "vector": np.concatenate([self.vectors[modality] for modality in Modality]),
            "space": np.array(self.space.name),
            "space_digest": np.array(self.space.digest),
        }
        np.savez(path, **arrays, **{ARRAY[modality]: np.asarray(one) for modality, one in self.probe_centres.items()})  # type: ignore[arg-type]


def refuse_seen(protocol: Protocol, identities: Collection[str]) -> None:
    """Raise SeenInTraining if somebody of the test was in the training."""
    if seen := sorted(protocol.test_people_among(identities)):
        named = ", ".join(seen[:3]) + (f" and {len(seen) - 3} more" if len(seen) > 3 else "")
        raise SeenInTraining(
            f"the encoder was trained on {len(seen)} of the {len(protocol.identities)} people of {protocol.name} "
            f"({named}): measure it on people it has never seen"
        )


def embed_protocol(
    protocol: Protocol,
    encoder: CrossModalEncoder,
    readers: Readers,
    on_sample: Callable[[int, int, int], None] = lambda seen, total, unusable: None,
) -> Points:
    """Read every file that a list names, once, and encode it.

    Args:
        protocol: what to read.
        encoder: gives the points; must not have been trained on the protocol's people.
        readers: open the files.
        on_sample: called with (files seen, files in all, unusable so far) after each is read, and again when
            a batch of them is encoded.

    Returns:
        The points; files that cannot be read or encoded are listed with their reason and stop nothing.

    Raises:
        SeenInTraining: the encoder was trained on a test identity.
    """
    refuse_seen(protocol, encoder.identities)
    files = {one: {path: protocol.media / path for path in protocol.samples(one).paths} for one in Modality}
    found, unusable = embed_files(files, encoder, readers, on_sample)
    nothing = np.zeros((0, encoder.space.dimension), dtype=np.float32)
    return Points(
        encoder.space,
        {modality: tuple(some) for modality, some in found.items()},
        {modality: np.stack(list(some.values())) if some else nothing for modality, some in found.items()},
        unusable,
        {modality: tuple(map(protocol.person_of, some)) for modality, some in found.items()},
        encoder.probe_centres,
    )


def embed_files(
    files: Mapping[Modality, Mapping[str, Path]],
    encoder: CrossModalEncoder,
    readers: Readers,
    on_sample: Callable[[int, int, int], None] = lambda seen, total, unusable: None,
) -> tuple[dict[Modality, dict[str, NDArray[np.float32]]], tuple[Unusable, ...]]:
    """Read files, each once, and encode them.

    Args:
        files: by modality, where each sample lies, by what it is called.
        encoder: gives the points.
        readers: open the files.
        on_sample: see :func:`embed_protocol`.

    Returns:
        Vectors by modality and name, and what could not be read or encoded.
    """
    work = _Work(files, encoder, readers, on_sample)
    for modality in Modality:
        work.embed(modality)
    return work.found, tuple(work.unusable)


def read_points(path: Path) -> Points:
    """Read what :meth:`Points.export` wrote, or another program in the same form.

    Args:
        path: an npz file with ``path``, ``person``, ``modality`` (``face`` or ``voice``) and ``vector``
            (n, dimension), which is brought to unit length. ``space`` and ``space_digest`` may be absent:
            then the file is a space of its own. So may ``centre_face`` and ``centre_voice``, (dimension,) each.

    Raises:
        PointsError: it is no such file, or its content does not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            held = {name: stored[name] for name in stored.files}
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PointsError(f"{path}: is no npz file without objects ({error})") from error
    if missing := [name for name in ("path", "person", "modality", "vector") if name not in held]:
        raise PointsError(f"{path}: lacks the array {missing[0]!r}; it holds {', '.join(sorted(held)) or 'nothing'}")
    vectors = _unit_vectors(path, held)
    kinds = held["modality"].astype(str)
    if unknown := sorted(set(kinds.tolist()) - {str(modality) for modality in Modality}):
        raise PointsError(f"{path}: a modality is face or voice, got {unknown[0]!r}")
    name, digest = str(held.get("space", "embeddings")), str(held.get("space_digest", digest))
    try:
        return Points(
            Space(name, vectors.shape[1], digest),
            {one: tuple(held["path"].astype(str)[kinds == one].tolist()) for one in Modality},
            {one: vectors[kinds == one] for one in Modality},
            people={one: tuple(held["person"].astype(str)[kinds == one].tolist()) for one in Modality},
            probe_centres={one: held[name] for one, name in ARRAY.items() if name in held},
        )
    except ValueError as error:
        raise PointsError(f"{path}: {error}") from error


def _unit_vectors(path: Path, held: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    vectors = held["vector"]
    shapes = {name: held[name].shape for name in ("path", "person", "modality")}
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or set(shapes.values()) != {vectors.shape[:1]}:
        raise PointsError(f"{path}: needs a vector (n, dimension) for each path (n,), got {vectors.shape} and {shapes}")
    if "dimension" in held and (held["dimension"] != vectors.shape[1]).any():
        raise PointsError(f"{path}: holds vectors of spaces of unlike dimension; faces and voices must share one space")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        worst = int(np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[0])
        raise PointsError(f"{path}: the vector of {held['path'][worst]} has no direction (length {lengths[worst, 0]})")
    unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
    return unit


class _Work:
    """Samples on their way to points."""

    def __init__(
        self,
        files: Mapping[Modality, Mapping[str, Path]],
        encoder: CrossModalEncoder,
        readers: Readers,
        on_sample: Callable[[int, int, int], None],
    ) -> None:
        self._files, self._encoder, self._readers, self._on_sample = files, encoder, readers, on_sample
        self._total = sum(map(len, files.values()))
        self._seen = 0
        self.found: dict[Modality, dict[str, NDArray[np.float32]]] = {modality: {} for modality in Modality}
        self.unusable: list[Unusable] = []

    def embed(self, modality: Modality) -> None:
        """Read and encode the samples of one modality, a batch at a time."""
        waiting = iter(self._files[modality].items())
        while batch := list(islice(waiting, BATCH)):
            read: dict[str, Any] = {}
            for name, path in batch:
                try:
                    read[name] = self._readers[modality](path)
                except (MediaError, NoSample, OSError) as error:
                    reason = getattr(error, "reason", str(error))
                    self.unusable.append(Unusable(name, reason, readable=isinstance(error, NoSample)))
                self._seen += 1
                self._on_sample(self._seen, self._total, len(self.unusable))
            for name, point in zip(read, self._encoder.encode(modality, list(read.values())), strict=True):
                if isinstance(point, Embedding):
                    self.found[modality][name] = point.vector
                else:
                    self.unusable.append(Unusable(name, point.detail, readable=True))
            self._on_sample(self._seen, self._total, len(self.unusable))
