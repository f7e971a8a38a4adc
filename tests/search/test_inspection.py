"""What is wrong with an index is found, counted and told with its remedy; nothing is changed by looking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from encoders.space import Modality, Space
from ingest.ledger import Finding
from search.capabilities import capabilities_of
from search.generations import Holding
from search.inspection import Inspector, Problem, SpaceInspection, inspect_holdings, inspect_size
from search.milvus import MilvusStore
from search.store import MemoryStore, Store, named
from tests.search.test_store import OTHER, SPACE, make_row

ROWS = [make_row(number) for number in range(20)]
FINDINGS = [Finding(row.media, "face", row.evidence, *row.span_ms, row.track, row.quality) for row in ROWS]


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[MilvusStore]:
    store = MilvusStore(str(tmp_path / "index.db"))
    yield store
    store.close()


def inspect(
    store: Store, samples: list[tuple[Finding, str]], space: Space = SPACE
) -> tuple[SpaceInspection, dict[str, int]]:
    inspected, problems = Inspector(store, FINDINGS, samples).space(space, {Modality.FACE})
    assert all(problem.remedy for problem in problems)
    return inspected, {problem.kind: problem.count for problem in problems}


def test_an_index_that_has_what_the_records_say_has_no_problem() -> None:
    store = MemoryStore()
    store.upsert(SPACE, [named(ROWS[0], "p1"), *ROWS[1:]])
    # the archive's own film shows what is a sample of p1 too, as another track perhaps
    sample = replace(FINDINGS[0], track=7)
    inspected, problems = inspect(store, [(sample, "p1")])
    assert (inspected.rows, inspected.expected, problems) == (20, 20, {})


def test_missing_unknown_and_misnamed_rows_are_counted() -> None:
    store = MemoryStore()
    store.upsert(SPACE, [*ROWS[3:], make_row(100), make_row(101), named(ROWS[5], "p1"), named(ROWS[6], "p2")])
    _, problems = inspect(store, [(FINDINGS[6], "p2"), (FINDINGS[7], "p3")])
    assert problems == {"missing_rows": 3, "unknown_rows": 2, "misnamed_rows": 2}
    assert store.count(SPACE) == 19


def test_samples_that_the_encoder_cannot_encode_are_not_missed() -> None:
    voice = replace(FINDINGS[0], modality="voice")
    store = MemoryStore()
    store.upsert(SPACE, ROWS)
    assert inspect(store, [(voice, "p1")])[1] == {}


def test_a_collection_of_other_vectors_is_told_and_the_rest_is_still_inspected(lite: MilvusStore) -> None:
    lite.create(Space(SPACE.name, 8, SPACE.digest))
    inspected, problems = inspect(lite, [])
    assert (inspected.rows, problems) == (0, {"other_contents": 0})
    assert inspect(lite, [], OTHER)[1] == {"missing_rows": 20}


def test_what_lies_beside_the_serving_spaces_is_told(lite: MilvusStore) -> None:
    lite.create(SPACE)
    lite.create(OTHER)
    assert [problem.kind for problem in inspect_holdings(lite.holdings(), {SPACE, OTHER})] == []
    assert [problem.kind for problem in inspect_holdings(lite.holdings(), {SPACE})] == ["unserved_space"]
    name = f"visavox_{SPACE.name}_{SPACE.digest[:12]}"
    odd = [
        Holding(f"{name}_g2", SPACE.name, SPACE.digest, 16, current=False),
        Holding(f"{name}_g1", SPACE.name, OTHER.digest, 16, current=True),
        Holding(f"{name}_g1", SPACE.name, "unknown", 16, current=True),
    ]
    assert [problem.kind for problem in inspect_holdings(odd, {SPACE})] == ["leftover", *["other_contents"] * 2]


def test_an_index_beyond_its_stated_size_is_to_be_moved() -> None:
    big = SpaceInspection("face_identity", SPACE.digest, 128, 50_001, 50_001)
    (problem,) = inspect_size(capabilities_of("lite", "milvus_lite-3.2.2"), [big, replace(big, rows=50_000)])
    assert isinstance(problem, Problem) and problem.count == 50_001 and "store move" in problem.remedy
    assert inspect_size(capabilities_of("server", "v2.6.10"), [big]) == []
