"""One suite for every store: memory, embedded Milvus, a real Milvus server. All give equal answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from encoders.space import Embedding, Modality, Space, SpaceMismatch
from search.milvus import MilvusStore
from search.store import Filter, MemoryStore, Row, Store, keys_digest, named, row_key

SPACE = Space("face_identity", 16, "a1" * 32)
OTHER = Space("face_identity", 16, "b2" * 32)
SHARED = Space("shared", 16, "d4" * 32)
FACE, VOICE = Modality.FACE, Modality.VOICE


@pytest.fixture(params=["memory", "embedded", "server"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Store]:
    """Opens one index again and again: the same rows are in each store that it gives."""
    if request.param == "memory":
        memory = MemoryStore()
        return lambda **_: memory
    if request.param == "embedded":
        return lambda **settings: MilvusStore(str(tmp_path / "index.db"), **settings)
    uri, prefix = request.getfixturevalue("milvus_server"), f"t{uuid4().hex[:8]}"
    return lambda **settings: MilvusStore(uri, prefix=prefix, **settings)


@pytest.fixture
def store(opening: Callable[..., Store]) -> Iterator[Store]:
    opened = opening()
    yield opened
    for space in opened.spaces():
        opened.drop(space)
    opened.close()


def make_row(number: int, *, person: str = "", media: str = "film", modality: Modality = FACE, at: int = -1) -> Row:
    """A row whose direction depends on ``at`` (default: its own number) only."""
    direction = np.random.default_rng(number if at < 0 else at).normal(size=SPACE.dimension)
    evidence = f"crop{number}"
    span = (number * 40, number * 40 + 40)
    return Row(
        row_key(media, modality, span, evidence, SPACE),
        Embedding.of(SPACE, modality, direction), media, number, span, evidence, person, 0.5,
    )  # fmt: skip


def crowd(count: int = 60) -> list[Row]:
    return [
        make_row(i, person=f"p{i % 4}" if i % 4 else "", media=f"m{i % 3}", modality=FACE if i % 5 else VOICE)
        for i in range(count)
    ]


def found(store: Store, probe: Row, top: int = 5, want: Modality = FACE, where: Filter | None = None) -> list[str]:
    hits = store.search([probe.embedding], top, want=want, where=where or Filter())[0]
    return [hit.row.key for hit in hits]


def test_all_stores_rank_alike_under_every_filter(store: Store) -> None:
    rows, exact = crowd(), MemoryStore()
    for each in (store, exact):
        each.upsert(SPACE, rows)
    filters = [
        Filter(),
        Filter(persons=("p1", "p3")),
        Filter(enrolled=True),
        Filter(enrolled=False, exclude_media=("m1",)),
        Filter(exclude_media=(*(f"absent{i}" for i in range(500)), "m0")),
    ]
    probes = [row.embedding for row in rows[:8]]
    for where in filters:
        for want in Modality:
            got = store.search(probes, 7, want=want, where=where)
            expected = exact.search(probes, 7, want=want, where=where)
            assert [[hit.row.key for hit in hits] for hits in got] == [
                [hit.row.key for hit in hits] for hits in expected
            ]
            np.testing.assert_allclose(
                [hit.score for hits in got for hit in hits],
                [hit.score for hits in expected for hit in hits],
                atol=1e-6,
            )


def test_a_search_may_be_for_any_modality(store: Store) -> None:
    rows, exact = crowd(), MemoryStore()
    for each in (store, exact):
        each.upsert(SPACE, rows)
    got, expected = (each.search([rows[0].embedding], 7, want=None)[0] for each in (store, exact))
    assert [hit.row.key for hit in got] == [hit.row.key for hit in expected]
    assert {hit.row.modality for hit in got} == set(Modality)


def test_rows_of_equal_vectors_score_equally_wherever_they_lie(store: Store) -> None:
    twins = [replace(make_row(7), key=f"{number:064x}") for number in range(6)]
    for start in (3, 0):
        store.upsert(SPACE, [*twins[start : start + 3], *crowd(20)[start : start + 3]])
        store.flush(SPACE)
    hits = store.search([make_row(8).embedding], 12, want=None)[0]
    mine = [hit for hit in hits if hit.row.key.startswith("0" * 60)]
    assert len(mine) == 6 and len({hit.score for hit in mine}) == 1
    assert [hit.row.key for hit in mine] == sorted(hit.row.key for hit in mine)


def test_long_answers_to_several_probes_are_those_of_an_exact_store(store: Store) -> None:
    rows, exact = crowd(400), MemoryStore()
    for each in (store, exact):
        each.upsert(SPACE, rows)
    got, expected = (each.search([row.embedding for row in rows[:3]], 300, want=FACE) for each in (store, exact))
    assert [[hit.row.key for hit in hits] for hits in got] == [[hit.row.key for hit in hits] for hits in expected]
    assert [len(hits) for hits in got] == [300] * 3


def test_evidence_may_have_any_name(store: Store) -> None:
    row = make_row(1)
    odd = Row(row.key, row.embedding, row.media, 0, (0, 1), """crops/Zoë's "best" %x% \\ 1.png""")
    store.upsert(SPACE, [odd])
    assert [back.evidence for back in (*store.get(SPACE, [row.key]), *store.rows(SPACE))] == [odd.evidence] * 2


def test_a_row_comes_back_as_it_was_written(store: Store) -> None:
    row = make_row(3, person="9f1c", media="c0ffee")
    store.upsert(SPACE, [row])
    (hit,) = store.search([row.embedding], 5, want=FACE)[0]
    assert hit.score == pytest.approx(1.0, abs=1e-6)
    for back in (hit.row, *store.get(SPACE, [row.key]), *store.rows(SPACE)):
        assert (back.key, back.media, back.track, back.span_ms) == (row.key, "c0ffee", 3, (120, 160))
        assert (back.evidence, back.person, back.quality) == ("crop3", "9f1c", 0.5)
    assert (hit.row.space, hit.row.modality) == (SPACE, FACE)
    for whole in (*store.get(SPACE, [row.key]), *store.rows(SPACE)):
        assert whole.embedding.modality is FACE and whole.embedding.vector.dtype == np.float32
        np.testing.assert_array_equal(whole.embedding.vector, row.embedding.vector)


def test_a_photo_without_a_time_span_keeps_that(store: Store) -> None:
    row = make_row(1)
    photo = Row(row.key, row.embedding, row.media, 0, (-1, -1), row.evidence)
    store.upsert(SPACE, [photo])
    assert store.get(SPACE, [row.key])[0].span_ms == (-1, -1)


def test_equal_scores_are_ordered_by_key_also_across_the_last_place(store: Store) -> None:
    twins = [make_row(i, at=7) for i in range(40)]
    store.upsert(SPACE, [make_row(100 + i) for i in range(20)] + twins)
    store.flush(SPACE)
    assert found(store, twins[0], top=5) == sorted(row.key for row in twins)[:5]


def test_writing_twice_changes_nothing(store: Store) -> None:
    rows = crowd()
    store.upsert(SPACE, rows)
    before = store.keys(SPACE)
    store.upsert(SPACE, rows[::-1] + rows[:5])
    assert store.keys(SPACE) == before
    assert store.count(SPACE) == len(before) == len(rows)


def test_an_upsert_replaces_the_row_of_that_key(store: Store) -> None:
    row = make_row(1)
    store.upsert(SPACE, [row])
    store.upsert(SPACE, [row, named(row, "p7")])
    assert [back.person for back in store.rows(SPACE)] == ["p7"]
    assert found(store, row, where=Filter(persons=("p7",))) == [row.key]


def test_deleted_rows_leave_every_answer_and_unknown_keys_are_ignored(store: Store) -> None:
    rows = crowd()
    store.upsert(SPACE, rows)
    store.delete(SPACE, [rows[1].key, "f" * 64, "no such key"])
    assert rows[1].key not in found(store, rows[1], top=60)
    assert store.get(SPACE, [rows[1].key, "f" * 64]) == []
    assert store.keys(SPACE) == {row.key for row in rows} - {rows[1].key}


def test_erased_rows_are_gone_and_the_others_stay(store: Store) -> None:
    rows = crowd()
    store.upsert(SPACE, rows)
    store.erase(SPACE, [*(row.key for row in rows[10:20]), "f" * 64, "no such key"])
    assert store.keys(SPACE) == {row.key for row in rows[:10] + rows[20:]}
    assert found(store, rows[2], top=1) == [rows[2].key]
    store.upsert(SPACE, rows[10:11])
    assert store.count(SPACE) == len(rows) - 9


def test_more_rows_than_a_batch_are_all_written_listed_and_deleted(store: Store) -> None:
    rows = [make_row(i) for i in range(9_000)]
    store.upsert(SPACE, rows)
    store.flush(SPACE)
    assert keys_digest(store.keys(SPACE)) == keys_digest(row.key for row in rows)
    assert len(store.get(SPACE, [row.key for row in rows])) == store.count(SPACE) == 9_000
    store.delete(SPACE, [row.key for row in rows[:2_500]])
    assert keys_digest(row.key for row in store.rows(SPACE)) == keys_digest(row.key for row in rows[2_500:])
    assert found(store, rows[0], top=1) != [rows[0].key] and store.count(SPACE) == 6_500


def test_every_filter_admits_the_same_rows_in_a_listing(store: Store) -> None:
    rows = crowd()
    store.upsert(SPACE, rows)
    for persons in ((), ("p1", "nobody")):
        for enrolled in (None, True, False):
            for exclude in ((), ("m0", "m2")):
                where = Filter(persons, enrolled, exclude)
                assert {row.key for row in store.rows(SPACE, where)} == {r.key for r in rows if where.admits(r)}


def test_reads_see_what_was_written_a_moment_ago_also_through_another_store(opening: Callable[..., Store]) -> None:
    writer, reader = opening(), opening(consistency="Strong")
    rows = crowd(3)
    reader.create(SPACE)
    for number, row in enumerate(rows, start=1):
        writer.upsert(SPACE, [row])
        for each in (writer, reader):
            assert found(each, row, top=1, want=row.embedding.modality) == [row.key]
            assert each.count(SPACE) == number
    writer.delete(SPACE, [rows[1].key])
    for each in (writer, reader):
        assert found(each, rows[1], top=1) != [rows[1].key] and each.get(SPACE, [rows[1].key]) == []
        assert each.keys(SPACE) == {rows[0].key, rows[2].key}
    writer.drop(SPACE)
    reader.close()
    writer.close()


def test_an_unknown_space_is_empty_and_nothing_fails(store: Store) -> None:
    assert store.search([make_row(1).embedding], 5, want=FACE) == [[]]
    assert (store.count(SPACE), store.keys(SPACE), list(store.rows(SPACE))) == (0, set(), [])
    for harmless in (store.delete, store.erase):
        harmless(SPACE, ["f" * 64])
    store.flush(SPACE)
    store.drop(SPACE)


def test_creating_twice_keeps_the_rows(store: Store) -> None:
    store.create(SPACE)
    store.upsert(SPACE, [make_row(1)])
    store.create(SPACE)
    assert store.count(SPACE) == 1


def test_spaces_of_one_name_and_different_digests_never_meet(store: Store) -> None:
    store.upsert(SPACE, [make_row(1)])
    store.create(OTHER)
    assert (store.count(SPACE), store.count(OTHER)) == (1, 0)
    with pytest.raises(SpaceMismatch):
        store.upsert(OTHER, [make_row(2)])
    stranger = Embedding(OTHER, FACE, make_row(1).embedding.vector)
    with pytest.raises(SpaceMismatch):
        store.search([make_row(1).embedding, stranger], 1, want=FACE)


def test_vectors_of_another_dimension_are_refused_whoever_writes_or_asks(store: Store) -> None:
    store.upsert(SPACE, [make_row(1)])
    narrow = Space(SPACE.name, 8, SPACE.digest)
    vector = Embedding.of(narrow, FACE, np.ones(8))
    row = Row("f" * 64, vector, "film", 0, (0, 1), "crop")
    for refused in (
        lambda: store.upsert(narrow, [row]),
        lambda: store.upsert(SPACE, [row]),
        lambda: store.search([vector], 1, want=FACE),
        lambda: store.search([make_row(1).embedding, vector], 1, want=FACE),
        lambda: store.get(narrow, ["f" * 64]),
        lambda: store.count(narrow),
        lambda: store.delete(narrow, ["f" * 64]),
        lambda: list(store.rows(narrow)),
    ):
        with pytest.raises(SpaceMismatch):
            refused()
    assert store.keys(SPACE) == {make_row(1).key}


def test_every_space_that_has_a_collection_is_listed(store: Store) -> None:
    assert store.spaces() == []
    store.create(OTHER)
    store.upsert(SPACE, [make_row(1)])
    assert store.spaces() == [SPACE, OTHER]
    store.drop(SPACE)
    assert store.spaces() == [OTHER]


def test_a_dropped_space_is_empty_and_can_be_used_again(store: Store) -> None:
    store.upsert(SPACE, crowd())
    store.drop(SPACE)
    assert store.count(SPACE) == 0
    store.upsert(SPACE, [make_row(1)])
    assert store.keys(SPACE) == {make_row(1).key}


def test_all_spaces_of_a_name_but_one_can_be_dropped(store: Store) -> None:
    store.upsert(SPACE, crowd())
    store.create(OTHER)
    store.create(SHARED)
    assert store.drop_others(SPACE.name, SPACE) == 1
    assert store.count(SPACE) == len(crowd()) and store.drop_others(SPACE.name, SPACE) == 0
    assert store.drop_others(SHARED.name, keep=[SHARED.digest]) == 0
    assert store.drop_others(SHARED.name) == 1
    assert store.drop_others(SPACE.name, OTHER, keep=[SPACE.digest]) == 0 and store.count(SPACE) == len(crowd())
    assert store.drop_others(SPACE.name, OTHER) == 1 and store.count(SPACE) == 0
    store.upsert(SPACE, [make_row(1)])
    assert store.keys(SPACE) == {make_row(1).key}


def test_no_probes_no_top_and_no_keys_are_fine(store: Store) -> None:
    store.upsert(SPACE, crowd())
    assert store.search([], 5, want=FACE) == []
    assert store.search([make_row(1).embedding], 0, want=FACE) == [[]]
    assert store.get(SPACE, []) == []
    store.upsert(SPACE, [])
    store.delete(SPACE, [])
