"""What ``POST /v1/search`` costs over a bare pymilvus call on the same server collection, and what recall costs.

Run ``python -m tests.benchmarks.search_latency [--rows 200000] [--json]``. The reference is one
``MilvusClient.search`` for the ten nearest rows with the fields that a hit shows, with the same breadth of search
(``ef``), asked by as many threads of this process as there are clients. Filling and indexing 200,000 rows takes
a few minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient

from encoders.encoder import Encoder, packaged_encoders
from encoders.space import Embedding, Modality, Space
from search.link import LEAST_EF
from search.milvus import MilvusStore
from search.store import Row, row_key
from tests.benchmarks.find_latency import TOP, exact, settle, vectors
from tests.benchmarks.live import latencies, live_api, percentiles
from tests.search.real_milvus import real_milvus

FIELDS = ["key", "modality", "media", "track", "start_ms", "end_ms", "evidence", "person", "quality"]
CLIENTS = (1, 16)
BREADTHS = (16, 32, 64, 128, 192, 256, 384)
FEWEST_QUESTIONS = 20  # of one client


@dataclass(frozen=True)
class Compared:
    """One line of the table: milliseconds of one question, and their ratio."""

    clients: int
    pymilvus_p50: float
    pymilvus_p95: float
    api_p50: float
    api_p95: float
    ratio_p50: float
    ratio_p95: float


@dataclass(frozen=True)
class Breadth:
    """One point of the curve of recall against time, of bare pymilvus with one client."""

    ef: int
    recall_at_10: float
    p50: float


def fill(uri: str, space: Space, gallery: NDArray[np.float32]) -> MilvusStore:
    """A store that holds the gallery as voices, each a track of its own."""
    store = MilvusStore(uri, timeout=120)
    for start in range(0, len(gallery), 20_000):
        store.upsert(space, [_row(space, place, gallery[place]) for place in range(start, start + 20_000)])
        store.flush(space)
    settle(store, Embedding(space, Modality.VOICE, gallery[0]), patience=60 + len(gallery) / 1000)
    return store


def _row(space: Space, place: int, vector: NDArray[np.float32]) -> Row:
    media, span = f"{place // 100:064x}", (place % 100 * 1000, place % 100 * 1000 + 900)
    key = row_key(media, Modality.VOICE, span, f"{place:064x}", space)
    return Row(key, Embedding(space, Modality.VOICE, vector), media, place, span, f"{place:064x}")


class Bare:
    """Asks the collection by pymilvus alone."""

    def __init__(self, uri: str, space: Space) -> None:
        self._client = MilvusClient(uri)
        self._name = f"visavox_{space.name}_{space.digest[:12]}"

    def ask(self, vector: NDArray[np.float32], ef: int) -> list[dict[str, Any]]:
        """The ten nearest, with their fields."""
        parameters = {"metric_type": "COSINE", "params": {"ef": ef}}
        hits: list[dict[str, Any]] = self._client.search(
            self._name,
            [vector],
            limit=TOP,
            output_fields=FIELDS,
            search_params=parameters,
        )[0]
        return hits


def api(url: str, space: Space, probes: NDArray[np.float32], offset: int) -> Callable[[int], list[int]]:
    """A client of the API that asks with ready vectors, over one connection and with little work of its own."""
    client = HTTPConnection(urlsplit(url).netloc, timeout=120)
    asked = [{"space_digest": space.digest, "modality": "voice", "vector": one.tolist(), "top": TOP} for one in probes]
    bodies = [json.dumps(one) for one in asked]

    def ask(number: int) -> list[int]:
        body = bodies[(offset + number) % len(bodies)]
        client.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        found = json.loads(answer.read())
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"{answer.status}: {found}")
        return [int(hit["evidence"], 16) for hit in found["hits"]]

    return ask


def run(rows: int, questions: int) -> dict[str, Any]:
    """Measure both."""
    random = np.random.default_rng(0)
    gallery = vectors(rows, random)
    noisy = gallery[random.integers(rows, size=200)] + random.normal(size=(200, gallery.shape[1])) * 0.03
    probes = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    truth = [set(exact(gallery, probe).tolist()) for probe in probes]
    space = Encoder.load(packaged_encoders()["voice_identity"]).space
    with tempfile.TemporaryDirectory() as folder, real_milvus(Path(folder) / "server") as server:
        fill(server.uri, space, gallery).close()
        with live_api(Path(folder) / "home", VISAVOX_MILVUS_URI=server.uri) as url:
            ask = api(url, space, probes, 0)
            recall = np.mean([len(set(ask(i)) & one) / TOP for i, one in enumerate(truth)])
            lines = [_compare(server.uri, url, space, probes, clients, questions) for clients in CLIENTS]
        curve = [_breadth(Bare(server.uri, space), probes, truth, ef) for ef in BREADTHS]
    return {
        "rows": rows, "api_recall_at_10": round(float(recall), 4), "compared": [asdict(one) for one in lines],
        "curve": [asdict(one) for one in curve],
    }  # fmt: skip


def _compare(uri: str, url: str, space: Space, probes: NDArray[np.float32], clients: int, questions: int) -> Compared:
    """Both, in turns, so that a busy moment falls on both."""
    each = max(FEWEST_QUESTIONS, questions // clients)
    bare, ours = [], []
    connected = [Bare(uri, space) for _ in range(clients)]
    raw = [
        lambda number, one=one, offset=offset: one.ask(probes[(offset + number) % len(probes)], LEAST_EF)
        for offset, one in enumerate(connected)
    ]
    asking = [api(url, space, probes, offset) for offset in range(clients)]
    for _ in range(3):
        bare += latencies(raw, each)[0]
        ours += latencies(asking, each)[0]
    (raw50, raw95), (api50, api95) = percentiles(bare), percentiles(ours)
    return Compared(clients, raw50, raw95, api50, api95, api50 / raw50, api95 / raw95)


def _breadth(bare: Bare, probes: NDArray[np.float32], truth: list[set[int]], ef: int) -> Breadth:
    found = [{int(hit["entity"]["evidence"], 16) for hit in bare.ask(probe, ef)} for probe in probes]
    recall = np.mean([len(one & other) / TOP for one, other in zip(found, truth, strict=True)])
    taken, _ = latencies([lambda number: bare.ask(probes[number % len(probes)], ef)], 100)
    return Breadth(ef, round(float(recall), 4), percentiles(taken)[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--questions", type=int, default=200, help="of all clients together, three times")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = run(options.rows, options.questions)
    if options.json:
        print(json.dumps(measured))
        return
    print(f"{measured['rows']} rows x 256, /v1/search by vector: recall@10 {measured['api_recall_at_10']:.4f}")
    print("clients  pymilvus p50/p95 ms     api p50/p95 ms    ratio p50   p95")
    for one in measured["compared"]:
        print(
            f"{one['clients']:>7}{one['pymilvus_p50']:>13.2f} /{one['pymilvus_p95']:>7.2f}{one['api_p50']:>10.2f} /"
            f"{one['api_p95']:>7.2f}{one['ratio_p50']:>13.2f}{one['ratio_p95']:>6.2f}"
        )
    print("recall@10 against time, bare pymilvus, one client:")
    for point in measured["curve"]:
        print(f"  ef {point['ef']:>4}: {point['recall_at_10']:.4f}, {point['p50']:.2f} ms")


if __name__ == "__main__":
    main()
