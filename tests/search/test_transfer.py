"""Moving between indexes: equal rows and answers, resumable at any moment, nothing mixed, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from encoders.space import Modality, Space, SpaceMismatch
from search.milvus import MilvusStore
from search.store import MemoryStore, Row, Store, keys_digest, named
from search.transfer import TransferRefused, transfer
from tests.search.test_store import OTHER, SPACE, crowd, make_row

ROOT = Path(__file__).resolve().parents[2]
ROWS = crowd(300)
Open = Callable[[str], Store]


@pytest.fixture
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a new, empty store of a kind; its rows are gone afterwards."""
    opened: list[Store] = []

    def open_one(kind: str) -> Store:
        store: Store = MemoryStore()
        if kind == "embedded":
            store = MilvusStore(str(tmp_path / f"{len(opened)}.db"))
        elif kind == "server":
            store = MilvusStore(request.getfixturevalue("milvus_server"), prefix=f"t{uuid4().hex[:8]}")
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        for space in store.spaces():
            store.drop(space)
        store.close()


@pytest.mark.parametrize(
    ("here", "there"), [("embedded", "server"), ("server", "embedded"), ("memory", "embedded"), ("embedded", "memory")]
)
def test_a_copy_has_the_same_rows_and_gives_the_same_answers(opening: Open, here: str, there: str) -> None:
    source, target = opening(here), opening(there)
    source.upsert(SPACE, ROWS)
    source.create(OTHER)
    first, empty = transfer(source, target)
    assert (first.name, first.rows, first.copied, first.agreement, first.problems) == (SPACE.name, 300, 300, 1.0, ())
    assert first.keys_sha256 == keys_digest(source.keys(SPACE)) and (empty.rows, empty.agreement) == (0, 1.0)
    assert target.spaces() == source.spaces() and target.count(SPACE) == source.count(SPACE) == 300
    for want in Modality:
        probes = [row.embedding for row in ROWS[:20]]
        mine, theirs = (store.search(probes, 7, want=want) for store in (source, target))
        assert [[(hit.row.key, hit.row.person) for hit in hits] for hits in mine] == [
            [(hit.row.key, hit.row.person) for hit in hits] for hits in theirs
        ]


def test_a_second_copy_writes_what_has_changed_only(opening: Open) -> None:
    source, target = opening("memory"), opening("embedded")
    source.upsert(SPACE, ROWS)
    assert transfer(source, target)[0].copied == 300
    assert transfer(source, target)[0].copied == 0
    source.upsert(SPACE, [named(ROWS[0], "p9"), make_row(999)])
    assert transfer(source, target)[0].copied == 2
    assert target.get(SPACE, [ROWS[0].key])[0].person == "p9"


def test_rows_that_only_the_target_has_are_not_mixed_in(opening: Open) -> None:
    source, target = opening("memory"), opening("memory")
    source.upsert(SPACE, ROWS)
    source.upsert(OTHER, [])
    target.upsert(SPACE, [*ROWS[:10], make_row(999)])
    with pytest.raises(TransferRefused, match=r"1 rows of face_identity .*--replace"):
        transfer(source, target)
    assert target.count(SPACE) == 11 and target.spaces() == [SPACE]
    assert transfer(source, target, replace=True)[0].removed == 1
    assert target.keys(SPACE) == source.keys(SPACE)


def test_another_space_in_the_target_stays_as_it_is(opening: Open) -> None:
    source, target = opening("memory"), opening("memory")
    source.upsert(SPACE, ROWS)
    target.create(OTHER)
    transfer(source, target)
    assert target.spaces() == [SPACE, OTHER]


def test_a_target_of_another_dimension_is_refused(opening: Open) -> None:
    source, target = opening("memory"), opening("embedded")
    source.upsert(SPACE, ROWS)
    target.create(Space(SPACE.name, 8, SPACE.digest))
    with pytest.raises(SpaceMismatch):
        transfer(source, target)


def test_progress_is_told_in_rows(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.transfer.BATCH_ROWS", 120)
    source, told = opening("memory"), []
    source.upsert(SPACE, ROWS)
    transfer(source, opening("memory"), on_rows=lambda space, seen, total: told.append((space.name, seen, total)))
    assert told == [(SPACE.name, seen, 300) for seen in (120, 240, 300)]


class Losing(MemoryStore):
    """A store that acknowledges rows and loses one of them."""

    def upsert(self, space: Space, rows: Sequence[Row]) -> None:
        super().upsert(space, rows[:-1])


class Shuffling(MemoryStore):
    """A store whose rows have each other's vectors: everything is there, and every answer is wrong."""

    def upsert(self, space: Space, rows: Sequence[Row]) -> None:
        moved = [*rows[7:], *rows[:7]]
        super().upsert(
            space, [Row(r.key, m.embedding, r.media, 0, (0, 1), r.evidence) for r, m in zip(rows, moved, strict=True)]
        )


@pytest.mark.parametrize(("target", "words"), [(Losing(), "1 rows are missing"), (Shuffling(), "of the hits")])
def test_a_copy_that_is_not_equal_is_told(target: Store, words: str) -> None:
    source = MemoryStore()
    source.upsert(SPACE, ROWS)
    (done,) = transfer(source, target)
    assert any(words in problem for problem in done.problems)


def test_a_copy_that_is_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    batch = 3
    source = MilvusStore(str(tmp_path / "a.db"))
    source.upsert(SPACE, ROWS)
    source.close()
    program = (
        "import os, signal, sys; import search.transfer as t; from search.milvus import MilvusStore\n"
        "t.BATCH_ROWS = 50; a, b = (MilvusStore(path) for path in sys.argv[1:3]); calls = []\n"
        f"t.transfer(a, b, on_rows=lambda *_: (calls.append(1), len(calls) == {batch} and "
        "os.kill(os.getpid(), signal.SIGKILL)))"
    )
    paths = [str(tmp_path / name) for name in ("a.db", "b.db")]
    killed = subprocess.run([sys.executable, "-c", program, *paths], cwd=ROOT, env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    source, target = (MilvusStore(path) for path in paths)
    (done,) = transfer(source, target)
    assert (done.copied, done.problems) == (300 - 50 * batch, ()) and target.keys(SPACE) == source.keys(SPACE)
    for store in (source, target):
        store.close()
