"""Extracts frozen features (see :mod:`training.features`): in parallel, once per content, resumable after any kill.

While it goes on, ``work/<modality>/`` of the folder holds shards: the vectors of a few samples as ``.npy``, and
beside them ``.json``, written last, that says which samples they are of. A later call takes what shards and the
finished tables hold and encodes the rest. A sample is known by its path, size and time of change, and a vector by
the content of the file, the stretch of it that counts and the digest of the space: a file that moved, or is there
twice, is encoded once. In the end the shards become one table per modality, and go.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from encoders.folder import Description
from encoders.folder import read_description as describe_encoder
from encoders.space import Modality, Space
from training.checkpoint import replace_file, write_json
from training.corpora.manifest import Manifest, Sample, Split
from training.feature_shards import (
    NOWHERE,
    Fate,
    FeatureChunk,
    FeatureShard,
    Item,
    Setup,
    Stamp,
    encode_chunk,
    read_feature_shard,
    write_array,
)
from training.features import (
    COLUMNS,
    DESCRIPTION_FILE,
    FORMAT,
    UNUSABLE_FILE,
    FeatureRow,
    FeaturesError,
    read_description,
    read_rows,
    read_table,
)
from training.processes import run_chunks

WORK = "work"
LOCK_FILE = "lock"
KNOWN_FILE = "known.npy"
CHUNK_SAMPLES = 32
ROOT = Path(__file__).resolve().parents[1]
# The code that makes of a file what an encoder takes: with other code features are extracted again.
_READING = ("ingest/faces.py", "ingest/samples.py", "ingest/shots.py")
_UNUSABLE_COLUMNS = ("modality", *Stamp._fields, "reason", "again")

OnProgress = Callable[[Modality, int, int, int], None]
"""Told the modality, samples done, samples in all, and how many of those done have no vector."""


@dataclass(frozen=True)
class Order:
    """What to extract.

    Args:
        name: of the corpus.
        manifests: its samples, one manifest per split.
        encoders: folders; together they encode each modality at most once.
        folder: where the features go.
        split: ``train``, ``validation``, ``test`` or ``all``.
        detector: name of a row of :data:`encoders.face.DETECTORS`.
        device: that encoders run on.
    """

    name: str
    manifests: Sequence[Manifest]
    encoders: Sequence[Path]
    folder: Path
    split: str
    detector: str
    device: str = "cpu"


@dataclass(frozen=True)
class Extracted:
    """What an extraction came to.

    Args:
        rows: vectors by modality.
        spaces: they live in.
        unchanged: samples that cost no more than a look at the file's time, as they had been read before.
        unusable: path and reason of those without a vector.
        duplicates: samples whose content is that of another.
        shared: of those, the ones that another person's sample has.
    """

    rows: Mapping[Modality, int]
    spaces: Mapping[Modality, Space]
    unchanged: int
    unusable: Sequence[tuple[str, str]]
    duplicates: int
    shared: Sequence[str]


@dataclass
class _Known:
    """What is known from earlier calls and from shards.

    Args:
        fates: of samples.
        vectors: file and row of each key.
    """

    fates: dict[Stamp, Fate] = field(default_factory=dict)
    vectors: dict[str, tuple[Path, int]] = field(default_factory=dict)

    def take(self, shard: FeatureShard) -> None:
        """Take what a shard holds."""
        for number, key in enumerate(shard.keys):
            self.vectors.setdefault(key, (shard.vectors, number))
        self.fates.update(shard.fates)

    def forget_what_may_pass(self) -> None:
        """Forget samples that are worth another try, and those whose vector is nowhere."""
        for stamp, fate in list(self.fates.items()):
            if fate.again or (fate.key and fate.key not in self.vectors):
                del self.fates[stamp]


def extract(order: Order, *, workers: int, on_progress: OnProgress = lambda *_told: None) -> Extracted:
    """Extract what is not there yet; a call that is interrupted or killed is gone on with by the same call.

    Args:
        order: what.
        workers: processes; 0: this one.
        on_progress: see :data:`OnProgress`.

    Raises:
        FeaturesError: the folder holds features of another corpus or space, another process extracts there, or
            no sample of a modality can be used.
        EncoderError, PreparationError, OSError: see there.
    """
    branches = _branches(order.encoders)
    order.folder.mkdir(parents=True, exist_ok=True)
    with _held(order.folder):
        before = _before(order, {modality: description.make_space() for modality, (_, description) in branches.items()})
        works = {
            modality: _Work(order, modality, folder, description, before)
            for modality, (folder, description) in sorted(branches.items())
        }
        for work in works.values():
            work.encode(workers, on_progress)
        return _finish(order, works)


class _Work:
    """The extraction of one modality."""

    def __init__(
        self, order: Order, modality: Modality, encoder: Path, description: Description, before: Mapping[str, Any]
    ) -> None:
        self.modality, self.space = modality, description.make_space()
        self._order, self._encoder = order, encoder
        self._folder = order.folder / WORK / modality.value
        self.wanted = _wanted(order.manifests, modality)
        self._items = [Item(sample.path, file, sample.span) for sample, file, _ in self.wanted]
        self._stamps = [item.stamp() for item in self._items]
        self._known = _read_known(order.folder, self._folder, modality, before)
        self._known_before = frozenset(self._known.fates)

    def encode(self, workers: int, on_progress: OnProgress) -> None:
        """Encode what is not known yet, into shards."""
        pending = [item for item, stamp in zip(self._items, self._stamps, strict=True) if self._is_new(stamp)]
        done = len(self._items) - len(pending)
        unusable = sum(not self._fate(stamp).key for stamp in self._stamps if not self._is_new(stamp))
        on_progress(self.modality, done, len(self._items), unusable)
        if not pending:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        write_array(self._folder / KNOWN_FILE, np.array(sorted(self._known.vectors), dtype="S64"))
        setup = Setup(self._encoder, self.modality, self._order.detector, self._order.device, self._folder / KNOWN_FILE)
        for chunk in run_chunks(self._chunks(pending), partial(encode_chunk, setup=setup), workers):
            shard = read_feature_shard(chunk.path)
            self._known.take(shard)
            done, unusable = done + len(chunk.items), unusable + sum(not fate.key for fate in shard.fates.values())
            on_progress(self.modality, done, len(self._items), unusable)

    def outcome(self) -> tuple[list[FeatureRow], list[tuple[Any, ...]], int]:
        """Rows in order, lines about samples without a vector, and how many samples had been known before."""
        rows, unusable, unchanged = [], [], 0
        for (sample, _, split), stamp in zip(self.wanted, self._stamps, strict=True):
            fate = self._fate(stamp)
            unchanged += stamp in self._known_before
            if not fate.key:
                unusable.append((self.modality.value, *stamp, fate.reason, int(fate.again)))
                continue
            rows.append(
                FeatureRow(
                    sample.identity, sample.video, sample.path, sample.start, sample.end, sample.known_as,
                    split.name.lower(), sample.sex, sample.nationality, sample.language,
                    stamp.size, stamp.modified, fate.key,
                )
            )  # fmt: skip
        return rows, unusable, unchanged

    def write_vectors(self, path: Path, rows: Sequence[FeatureRow]) -> None:
        """The vectors of rows as one file, in their order, from wherever they are."""
        staging = path.with_name(f"{path.name}.partial")
        vectors = np.lib.format.open_memmap(
            staging, mode="w+", dtype=np.float32, shape=(len(rows), self.space.dimension)
        )
        sources: dict[Path, list[tuple[int, int]]] = defaultdict(list)
        for number, row in enumerate(rows):
            source, place = self._known.vectors[row.key]
            sources[source].append((number, place))
        for source, places in sources.items():
            numbers, taken = np.array(places).T
            vectors[numbers] = np.load(source, mmap_mode="r", allow_pickle=False)[taken]
        vectors.flush()
        del vectors
        with staging.open("rb") as stream:
            os.fsync(stream.fileno())
        staging.replace(path)

    def _is_new(self, stamp: Stamp) -> bool:
        return stamp.size != NOWHERE and stamp not in self._known.fates

    def _fate(self, stamp: Stamp) -> Fate:
        if stamp.size == NOWHERE:
            return Fate("", "is not there", again=True)
        return self._known.fates.get(stamp, Fate("", "was changed while features were extracted", again=True))

    def _chunks(self, pending: Sequence[Item]) -> list[FeatureChunk]:
        first = 1 + max((int(path.stem) for path in self._folder.glob("*.json")), default=-1)
        return [
            FeatureChunk(self._folder / f"{first + number:06d}.json", tuple(pending[at : at + CHUNK_SAMPLES]))
            for number, at in enumerate(range(0, len(pending), CHUNK_SAMPLES))
        ]


def _branches(encoders: Sequence[Path]) -> dict[Modality, tuple[Path, Description]]:
    """Which folder encodes what."""
    branches: dict[Modality, tuple[Path, Description]] = {}
    for folder in encoders:
        description = describe_encoder(folder)
        for modality in description.branches:
            if modality in branches:
                raise FeaturesError(
                    f"{branches[modality][0]} and {folder} both encode {modality}s: extract the features of the "
                    "second into a folder of their own (--output)"
                )
            branches[modality] = folder, description
    return branches


def _wanted(manifests: Sequence[Manifest], modality: Modality) -> list[tuple[Sample, Path, Split]]:
    """Samples of a modality by person, video and path, with their files."""
    owner: dict[str, Split] = {}
    found = []
    for manifest in manifests:
        for sample in manifest.samples:
            if owner.setdefault(sample.identity, manifest.split) is not manifest.split:
                raise FeaturesError(
                    f"{sample.identity} is in {owner[sample.identity].name} and in {manifest.split.name}: keep one"
                )
            if sample.modality is modality:
                found.append((sample, manifest.locate(sample), manifest.split))
    return sorted(found, key=lambda one: (one[0].identity, one[0].video, one[0].path, one[0].start, one[0].end))


def _before(order: Order, spaces: Mapping[Modality, Space]) -> dict[str, Any]:
    """What features.json says, after a check that it is of this corpus and these spaces."""
    described = read_description(order.folder) or {}
    begun = order.folder / WORK / DESCRIPTION_FILE
    known = described or (read_description(begun.parent) or {})
    told = {
        "format": FORMAT, "corpus": order.name, "reading": _reading(order.detector),
        "spaces": {modality.value: space.digest for modality, space in spaces.items()},
    }  # fmt: skip
    for name, what in (("corpus", "another corpus"), ("spaces", "other spaces")):
        if known and known.get(name) != told[name]:
            raise FeaturesError(
                f"{order.folder} holds features of {what} ({known.get(name)}, not {told[name]}): choose another "
                "--output, or remove the folder"
            )
    if known and known.get("reading") != told["reading"]:  # read in another way: nothing of it may be mixed in
        shutil.rmtree(order.folder / WORK, ignore_errors=True)
        described = {}
    begun.parent.mkdir(exist_ok=True)
    write_json(begun, told)
    return described


def _reading(detector: str) -> str:
    """Digest of how files are read."""
    code = b"".join((ROOT / name).read_bytes() for name in _READING)
    return hashlib.sha256(code + detector.encode()).hexdigest()


def _read_known(folder: Path, work: Path, modality: Modality, before: Mapping[str, Any]) -> _Known:
    """What the finished table and the shards hold."""
    known = _Known()
    told = before.get("tables", {}).get(modality.value)
    if told is not None and (folder / told["vectors"]).is_file() and (folder / told["rows"]).is_file():
        for number, row in enumerate(read_rows(folder / told["rows"])):
            known.fates[Stamp(row.path, row.start, row.end, row.size, row.modified)] = Fate(row.key)
            known.vectors.setdefault(row.key, (folder / told["vectors"], number))
        for line in read_table(folder / UNUSABLE_FILE):
            if line["modality"] == modality.value:
                stamp = Stamp.of([line[name] for name in Stamp._fields])
                known.fates[stamp] = Fate("", line["reason"], line["again"] == "1")
    for path in sorted(work.glob("[0-9]*.json")):
        known.take(read_feature_shard(path))
    known.forget_what_may_pass()
    return known


def _finish(order: Order, works: Mapping[Modality, _Work]) -> Extracted:
    """Write the tables, then features.json, then remove what it does not name."""
    tables: dict[str, dict[str, Any]] = {}
    unusable: list[tuple[Any, ...]] = []
    rows_of: dict[Modality, Sequence[FeatureRow]] = {}
    unchanged = 0
    for modality, work in works.items():
        rows, lines, before = work.outcome()
        if not rows:
            told = f", for example {lines[0][1]}: {lines[0][-2]}" if lines else ""
            raise FeaturesError(f"{order.folder}: none of {len(lines)} {modality}s can be used{told}")
        content = _csv(COLUMNS, map(astuple, rows))
        name = f"{modality}-{hashlib.sha256(work.space.digest.encode() + content).hexdigest()[:12]}"
        if not ((order.folder / f"{name}.npy").is_file() and (order.folder / f"{name}.csv").is_file()):
            work.write_vectors(order.folder / f"{name}.npy", rows)
            replace_file(order.folder / f"{name}.csv", content)
        space = {"name": work.space.name, "dimension": work.space.dimension, "digest": work.space.digest}
        tables[modality.value] = {
            "space": space, "vectors": f"{name}.npy", "rows": f"{name}.csv", "count": len(rows),
        }  # fmt: skip
        rows_of[modality], unusable, unchanged = rows, unusable + lines, unchanged + before
    replace_file(order.folder / UNUSABLE_FILE, _csv(_UNUSABLE_COLUMNS, unusable))
    write_json(
        order.folder / DESCRIPTION_FILE,
        {
            "format": FORMAT, "corpus": order.name, "domain": order.manifests[0].domain, "split": order.split,
            "reading": _reading(order.detector), "tables": tables,
            "spaces": {modality.value: work.space.digest for modality, work in works.items()},
        },
    )  # fmt: skip
    _clear(order.folder, {told[name] for told in tables.values() for name in ("vectors", "rows")})
    duplicates, shared = _duplicates(rows_of)
    return Extracted(
        {modality: len(rows) for modality, rows in rows_of.items()},
        {modality: work.space for modality, work in works.items()},
        unchanged, [(line[1], line[-2]) for line in unusable], duplicates, shared,
    )  # fmt: skip


def _duplicates(rows_of: Mapping[Modality, Sequence[FeatureRow]]) -> tuple[int, list[str]]:
    """How many samples have another's content, and the paths of those whose content another person's sample has."""
    duplicates, shared = 0, []
    for rows in rows_of.values():
        first: dict[str, FeatureRow] = {}
        for row in rows:
            if (other := first.setdefault(row.key, row)) is not row:
                duplicates += 1
                if other.person != row.person:
                    shared.append(row.path)
    return duplicates, shared


def _csv(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _clear(folder: Path, kept: set[str]) -> None:
    """Remove shards and the tables of before."""
    shutil.rmtree(folder / WORK, ignore_errors=True)
    for modality in Modality:
        for path in folder.glob(f"{modality}-*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Own the folder until the end, or until the process dies."""
    with (folder / LOCK_FILE).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeaturesError(f"another process extracts features into {folder}; wait for it or stop it") from error
        yield
