"""Retrieval through an index: at its depth, beside exact search; and the real voices that there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from encoders.probe_centres import without_centre
from encoders.space import Embedding, Modality, Space
from search.archive import NO_SPAN
from search.metrics import chance_average_precision
from search.milvus import MilvusStore
from search.ranking import judge, retrieval
from search.store import Hit, MemoryStore, Row, row_key
from search.through_index import average_precision_at, through_index
from search.two_way import Side
from tests.conftest import SHARED


@pytest.fixture(scope="module")
def sides() -> dict[Modality, Side]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(30, 8))

    def side(count: int) -> Side:
        person = random.integers(30, size=count)
        vectors = centres[person] + random.normal(size=(count, 8))
        return Side(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), person, np.full(count, -1))

    return {Modality.VOICE: side(150), Modality.FACE: side(180)}


def test_a_whole_ranking_gives_the_average_precision() -> None:
    random = np.random.default_rng(1)
    scores, right = np.round(random.normal(size=60), 1), random.random(60) < 0.2
    told = average_precision_at(scores, right, 60, int(right.sum()))
    assert told == pytest.approx(average_precision_score(right, scores), abs=1e-12)


def test_the_first_ones_count_and_are_measured_by_what_could_be_found() -> None:
    right = np.array([True, False, True, True, False])
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    assert average_precision_at(scores, right, 3, 3) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision_at(scores, right, 2, 3) == pytest.approx(1 / 2)
    # of five that tie, two fit: 2 · 3/5 right ones at a precision of 3/5
    assert average_precision_at(np.zeros(5), right, 2, 3) == pytest.approx(2 * 3 / 5 * 3 / 5 / 2)


def test_an_exact_index_costs_nothing(sides: dict[Modality, Side]) -> None:
    for figures in through_index(sides, MemoryStore(), depth=50).values():
        assert figures["map_at_1000"] == pytest.approx(figures["map_at_1000_exact"], abs=1e-9)
        assert (figures["index_recall"], figures["index_depth"]) == (1.0, 50)


def test_an_index_is_asked_without_the_centre_of_the_probes(sides: dict[Modality, Side]) -> None:
    centre = np.linspace(-0.3, 0.3, 8)
    asking = {one: replace(side, vectors=without_centre(side.vectors, centre)) for one, side in sides.items()}
    for way, figures in through_index(sides, MemoryStore(), depth=180, asking=asking).items():
        probe = Modality(way.split("_")[0])
        one, other = asking[probe], sides[probe.other]
        expected = retrieval(one.vectors, one.person, other.vectors, other.person).map
        assert figures["map_at_1000"] == pytest.approx(figures["map_at_1000_exact"], abs=1e-9)
        assert figures["map_at_1000"] == pytest.approx(expected, abs=1e-6)
        plain = retrieval(sides[probe].vectors, one.person, other.vectors, other.person).map
        assert figures["map_at_1000"] != pytest.approx(plain, abs=1e-3)


class Forgetful(MemoryStore):
    """An index that finds every other row only."""

    def search(self, probes: Any, top: int, **rest: Any) -> list[list[Hit]]:
        return [hits[::2] for hits in super().search(probes, top, **rest)]


def test_what_an_index_does_not_find_is_seen(sides: dict[Modality, Side]) -> None:
    for figures in through_index(sides, Forgetful(), depth=50, probes=40).values():
        assert figures["index_recall"] == pytest.approx(0.5) and figures["index_probes"] == 40
        assert figures["map_at_1000"] < figures["map_at_1000_exact"]


def test_the_embedded_index_finds_what_exact_search_finds(sides: dict[Modality, Side], tmp_path: Path) -> None:
    store = MilvusStore(str(tmp_path / "index.db"))
    try:
        for figures in through_index(sides, store, depth=50, probes=60).values():
            assert figures["map_at_1000"] == pytest.approx(figures["map_at_1000_exact"], abs=1e-6)
            assert figures["index_recall"] == 1.0
    finally:
        store.close()


@pytest.mark.parametrize("depth", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_real_voices_find_their_speakers_exactly_and_through_the_index(tmp_path: Path, depth: int) -> None:
    path = SHARED / "data" / "features" / "train_xvect.npz"
    if not path.is_file():
        pytest.skip("the real voice vectors are not beside this checkout")
    with np.load(path, allow_pickle=False) as stored:
        vectors, speakers = stored["x"].astype(np.float64), stored["speaker"]
    vectors -= vectors.mean(axis=0)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    itself = np.eye(len(vectors), dtype=bool)
    exact = retrieval(vectors, speakers, vectors, speakers, same_sample=itself)
    asked = exact.relevant > 0
    chance = np.mean([chance_average_precision(int(count), len(vectors) - 1) for count in exact.relevant[asked]])
    assert (int(asked.sum()), round(exact.map, 3)) == (612, 0.302)
    # expected, and what one random order gives
    assert chance == pytest.approx(0.00826, abs=5e-6)
    random = np.random.default_rng(3).normal(size=(len(vectors), 64))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    guessed = retrieval(random, speakers, random, speakers, same_sample=itself).map
    assert guessed == pytest.approx(0.0067, abs=0.0004)
    assert round(through(vectors, speakers, np.flatnonzero(asked), tmp_path, depth), 3) == 0.302


def through(vectors: Any, speakers: Any, probes: Any, folder: Path, depth: int) -> float:
    """The same by the embedded index; what is beyond the depth follows as exact search has it."""
    space = Space("voice_identity", vectors.shape[1], "c" * 64)
    names = [f"{row:064x}" for row in range(len(vectors))]
    keys = [row_key(name, Modality.VOICE, NO_SPAN, name, space) for name in names]
    points = [Embedding(space, Modality.VOICE, vector) for vector in vectors]
    place = {key: row for row, key in enumerate(keys)}
    scores = vectors[probes].astype(np.float64) @ vectors.T - 4.0
    store = MilvusStore(str(folder / "index.db"))
    try:
        store.create(space)
        rows = [Row(*one[:2], one[2], 0, NO_SPAN, one[2]) for one in zip(keys, points, names, strict=True)]
        store.upsert(space, rows)
        store.flush(space)
        for line, hits in enumerate(store.search([points[row] for row in probes], depth, want=Modality.VOICE)):
            assert len(hits) == depth
            scores[line, [place[hit.row.key] for hit in hits]] = [hit.score for hit in hits]
    finally:
        store.close()
    scores[np.arange(len(probes)), probes] = -np.inf
    return judge(scores, speakers[probes][:, None] == speakers[None, :]).map
