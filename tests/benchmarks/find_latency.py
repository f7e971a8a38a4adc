"""How long a search takes and how much of the truth it finds, beside NumPy's exact search.

Run ``python -m tests.benchmarks.find_latency [--rows 10000 50000] [--json]``. Every row of the table is
measured in one process on one machine, so trust the ratios rather than the milliseconds. Vectors are
people (clusters) in 256 dimensions, 20 samples each, as an archive of faces or voices would hold.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.space import Embedding, Modality, Space
from search.milvus import MilvusStore
from search.store import Row, row_key
from tests.search.real_milvus import real_milvus

DIMENSION, TOP, SAMPLES_PER_PERSON = 256, 10, 20
SPACE = Space("benchmark", DIMENSION, "0f" * 32)


@dataclass(frozen=True)
class Measured:
    """One line of the table; times in milliseconds for one probe, writing in seconds.

    ``fresh`` is the median just after writing, while a server still builds its index.
    """

    backend: str
    rows: int
    p50: float
    p95: float
    ratio_to_numpy: float
    recall_at_10: float
    batch_of_20: float
    write_seconds: float
    fresh: float


def vectors(count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(count, 256) unit vectors of people, 20 samples around each centre."""
    centres = random.normal(size=(count // SAMPLES_PER_PERSON, DIMENSION))
    samples = np.repeat(centres, SAMPLES_PER_PERSON, axis=0) + random.normal(size=(count, DIMENSION))
    unit: NDArray[np.float32] = (samples / np.linalg.norm(samples, axis=1, keepdims=True)).astype(np.float32)
    return unit


def as_rows(gallery: NDArray[np.float32]) -> list[Row]:
    """Rows whose track number is their place in the gallery."""
    return [
        Row(
            row_key("film", Modality.FACE, (i, i + 1), "crop", SPACE),
            Embedding(SPACE, Modality.FACE, vector), "film", i, (i, i + 1), "crop",
        )
        for i, vector in enumerate(gallery)
    ]  # fmt: skip


def clock(call: Callable[[int], object], times: int) -> tuple[float, float]:
    """(median, 95th percentile) in milliseconds after two calls to warm up."""
    taken = []
    for number in range(times + 2):
        started = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - started) * 1000)
    return float(np.percentile(taken[2:], 50)), float(np.percentile(taken[2:], 95))


def exact(gallery: NDArray[np.float32], probe: NDArray[np.float32]) -> NDArray[np.intp]:
    """Places of the ten best, best first."""
    scores = gallery @ probe
    best = np.argpartition(-scores, TOP)[:TOP]
    return best[np.argsort(-scores[best])]


def measure(
    name: str, store: MilvusStore, gallery: NDArray[np.float32], probes: list[Embedding], baseline: float
) -> Measured:
    """Fill a store, search it, empty it."""
    started = time.perf_counter()
    store.upsert(SPACE, as_rows(gallery))
    store.flush(SPACE)
    write_seconds = time.perf_counter() - started
    fresh, _ = clock(lambda i: store.search([probes[i % len(probes)]], TOP, want=Modality.FACE), 20)
    if name == "server":
        settle(store, probes[0], patience=45.0 + len(gallery) / 1000)

    def find(number: int) -> list[int]:
        hits = store.search([probes[number % len(probes)]], TOP, want=Modality.FACE)[0]
        return [hit.row.track for hit in hits]

    p50, p95 = clock(find, 60)
    shares = [len(set(find(i)) & set(exact(gallery, probe.vector))) / TOP for i, probe in enumerate(probes)]
    batch, _ = clock(lambda _: store.search(probes[:20], TOP, want=Modality.FACE), 10)
    store.drop(SPACE)
    return Measured(name, len(gallery), p50, p95, p50 / baseline, float(np.mean(shares)), batch, write_seconds, fresh)


def settle(store: MilvusStore, probe: Embedding, patience: float) -> None:
    """Ask for as long as a server of this size takes to build its index and put it to use."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        store.search([probe], TOP, want=Modality.FACE)
        time.sleep(1.0)


def run(sizes: list[int]) -> list[Measured]:
    """Measure every backend at every size."""
    random = np.random.default_rng(0)
    table = []
    with tempfile.TemporaryDirectory() as folder, real_milvus(Path(folder) / "server") as server:
        for size in sizes:
            gallery = vectors(size, random)
            noisy = gallery[random.integers(size, size=50)] + random.normal(size=(50, DIMENSION)) * 0.03
            probes = [Embedding.of(SPACE, Modality.FACE, vector) for vector in noisy]
            p50, p95 = clock(lambda i, g=gallery, p=probes: exact(g, p[i % len(p)].vector), 200)  # type: ignore[misc]
            table.append(Measured("numpy exact", size, p50, p95, 1.0, 1.0, 20 * p50, 0.0, p50))
            for name, uri in (("embedded", str(Path(folder) / f"{size}.db")), ("server", server.uri)):
                store = MilvusStore(uri, timeout=60)
                table.append(measure(name, store, gallery, probes, p50))
                store.close()
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000], help="sizes of the index")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()
    table = run(options.rows)
    if options.json:
        print(json.dumps([asdict(line) for line in table]))
        return
    print("backend        rows   p50 ms   p95 ms  × numpy  recall@10  20 probes ms  write s  fresh ms")
    for line in table:
        print(
            f"{line.backend:<12}{line.rows:>7}{line.p50:>9.2f}{line.p95:>9.2f}{line.ratio_to_numpy:>9.1f}"
            f"{line.recall_at_10:>11.3f}{line.batch_of_20:>14.1f}{line.write_seconds:>9.1f}{line.fresh:>10.1f}"
        )


if __name__ == "__main__":
    main()
