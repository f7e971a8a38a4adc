"""What is particular to Milvus: owners, crashes, dead servers, erasure from the files, safe filters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from pymilvus import MilvusException

from encoders.space import Embedding, Modality, Space, SpaceMismatch
from search.milvus import MilvusStore
from search.store import Filter, Row, StoreError, StoreHeld, StoreUnavailable, row_key

ROOT = Path(__file__).resolve().parents[2]
SPACE = Space("voice_identity", 32, "c3" * 32)
VOICE = Modality.VOICE


def make_row(number: int) -> Row:
    direction = np.random.default_rng(number).normal(size=SPACE.dimension)
    evidence = f"evidence-of-row-{number:05d}"
    return Row(
        row_key("film", VOICE, (number, number + 1), evidence, SPACE),
        Embedding.of(SPACE, VOICE, direction), "film", number, (number, number + 1), evidence,
    )  # fmt: skip


ROWS = [make_row(number) for number in range(300)]
KEYS = {row.key for row in ROWS}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "index.db"


@pytest.fixture
def store(path: Path) -> Iterator[MilvusStore]:
    opened = MilvusStore(str(path))
    opened.upsert(SPACE, ROWS)
    yield opened
    opened.close()


def python(code: str, path: Path) -> subprocess.Popen[str]:
    """A second process that runs ``code`` with ``store`` on the same path; it prints and is read by line."""
    setup = (
        "import os, signal, sys; from search.milvus import MilvusStore; "
        "from tests.search.test_milvus import SPACE, ROWS; store = MilvusStore(sys.argv[1]); "
    )
    return subprocess.Popen(
        [sys.executable, "-c", setup + code, str(path)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and all output of a process that ends by itself or when its input is closed."""
    out, errors = process.communicate(timeout=60)
    return process.returncode, out + errors


@pytest.fixture
def owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the index until its input is closed."""
    code = (
        "sys.argv[:] = ['/bin/visavox', 'serve', 'Ada Lovelace']; "
        "store.upsert(SPACE, ROWS); print('open', flush=True); sys.stdin.read(); store.close()"
    )
    process = python(code, path)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    yield process
    if process.returncode is None:
        process.kill()
        process.communicate()


def bytes_below(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


# One owner at a time


def test_a_second_process_is_told_who_holds_the_index_and_what_to_do(path: Path, owner: subprocess.Popen[str]) -> None:
    with pytest.raises(StoreHeld) as caught:
        MilvusStore(str(path)).open()
    for word in (str(path), f"process {owner.pid}", "(visavox serve)", "over HTTP", "VISAVOX_MILVUS_URI"):
        assert word in str(caught.value)
    assert "Ada" not in str(caught.value)


def test_waiting_for_the_owner_ends_when_it_lets_go(path: Path, owner: subprocess.Popen[str]) -> None:
    started = time.monotonic()
    with pytest.raises(StoreHeld):
        MilvusStore(str(path), wait=0.3).open()
    assert 0.3 <= time.monotonic() - started < 3
    with ThreadPoolExecutor() as pool:
        patient = pool.submit(MilvusStore(str(path), wait=30).count, SPACE)
        finish(owner)
        assert patient.result() == len(ROWS)


def test_an_owner_killed_without_warning_leaves_no_claim_and_every_row(
    path: Path, owner: subprocess.Popen[str]
) -> None:
    owner.kill()
    owner.communicate()
    store = MilvusStore(str(path))
    assert store.keys(SPACE) == KEYS
    store.close()


def test_closing_lets_another_process_in(path: Path, store: MilvusStore) -> None:
    held = finish(python("store.open()", path))
    assert held[0] != 0 and "StoreHeld" in held[1] and f"process {os.getpid()}" in held[1]
    store.close()
    assert finish(python("print(store.count(SPACE)); store.close()", path)) == (0, f"{len(ROWS)}\n")


def test_stores_of_one_process_share_the_index_until_the_last_closes(path: Path, store: MilvusStore) -> None:
    second = MilvusStore(str(path))
    second.delete(SPACE, [ROWS[0].key])
    assert store.count(SPACE) == len(ROWS) - 1
    store.close()
    assert second.count(SPACE) == len(ROWS) - 1
    second.close()
    assert finish(python("store.open()", path))[0] == 0


def test_a_process_that_forgets_to_close_still_ends(path: Path) -> None:
    assert finish(python("store.upsert(SPACE, ROWS)", path)) == (0, "")


def test_a_closed_store_says_so(store: MilvusStore) -> None:
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.count(SPACE)


def test_threads_may_write_and_search_at_once(store: MilvusStore) -> None:
    def work(number: int) -> int:
        store.upsert(SPACE, [make_row(1000 + number * 10 + i) for i in range(10)])
        return len(store.search([ROWS[number].embedding], 3, want=VOICE)[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(16))) == [3] * 16
    assert store.count(SPACE) == len(ROWS) + 160


def test_a_file_in_the_index_s_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_text("not an index")
    with pytest.raises(StoreError, match=r"index\.db"):
        MilvusStore(str(tmp_path / "index.db")).open()


# Erasure


def test_erased_rows_are_gone_from_every_file(path: Path, store: MilvusStore) -> None:
    store.flush(SPACE)
    store.upsert(SPACE, ROWS[:50])  # also in the log that is not flushed yet
    victims, kept = ROWS[:20], ROWS[20]
    for row in victims:
        assert row.evidence.encode() in bytes_below(path.parent)
    store.delete(SPACE, [victims[0].key])
    store.erase(SPACE, [row.key for row in victims])
    for state in ("open", "closed"):
        left = bytes_below(path.parent)
        for row in victims:
            for trace in (row.evidence.encode(), row.key.encode(), row.embedding.vector.tobytes()):
                assert trace not in left, state
        assert kept.embedding.vector.tobytes() in left
        assert kept.evidence.encode() in left
        store.close()


@pytest.mark.parametrize("moment", ["before the switch", "after the switch"])
def test_a_rewrite_that_is_killed_leaves_one_complete_generation(path: Path, store: MilvusStore, moment: str) -> None:
    store.close()
    die_at = 1 if moment == "before the switch" else 2
    code = (
        "calls = []\n"
        "def sync():\n"
        "    calls.append(1)\n"
        f"    len(calls) == {die_at} and os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.sync = sync\n"
        "store.erase(SPACE, [row.key for row in ROWS[:20]])"
    )
    assert finish(python("\n" + code, path))[0] == -signal.SIGKILL
    reopened = MilvusStore(str(path))
    survivors = KEYS if die_at == 1 else {row.key for row in ROWS[20:]}
    assert reopened.keys(SPACE) == survivors
    assert len(list((path / "collections").iterdir())) == 1
    reopened.erase(SPACE, [row.key for row in ROWS[:20]])
    reopened.close()
    assert ROWS[0].evidence.encode() not in bytes_below(path.parent)


@pytest.mark.parametrize("moment", ["before the switch", "after the switch"])
def test_after_a_rewrite_that_failed_the_next_one_succeeds(
    path: Path, store: MilvusStore, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        if len(calls) == (1 if moment == "before the switch" else 2):
            raise MilvusException(message="no space left on the device")

    for victims in (ROWS[:20], ROWS[20:40]):
        calls.clear()
        monkeypatch.setattr("search.generations.os.sync", fail)
        with pytest.raises(StoreError, match="no space left"):
            store.erase(SPACE, [row.key for row in victims])
        monkeypatch.undo()
    store.erase(SPACE, [row.key for row in ROWS[:40]])
    assert store.keys(SPACE) == {row.key for row in ROWS[40:]}
    assert len(list((path / "collections").iterdir())) == 1
    assert ROWS[0].evidence.encode() not in bytes_below(path.parent)


@pytest.mark.parametrize("left", [0, 40, 200])
def test_an_index_whose_writing_was_cut_off_is_made_anew(path: Path, store: MilvusStore, left: int) -> None:
    store.flush(SPACE)
    store.close()
    indexes = list((path / "collections").rglob("*.idx"))
    for index in indexes:
        index.write_bytes(index.read_bytes()[:left])
    reopened = MilvusStore(str(path))
    assert indexes and reopened.keys(SPACE) == KEYS
    assert reopened.search([ROWS[0].embedding], 1, want=None)[0][0].row.key == ROWS[0].key
    reopened.close()


def test_half_made_and_half_dropped_collections_are_swept_away(path: Path, store: MilvusStore) -> None:
    store.close()
    half = path / "collections" / f"visavox_face_identity_{'d4' * 6}_g1"
    half.mkdir()
    (half / "data").write_bytes(b"what a killed drop left")
    reopened = MilvusStore(str(path))
    assert reopened.count(SPACE) == len(ROWS)
    assert not half.exists()
    reopened.create(Space("face_identity", 8, "d4" * 32))
    reopened.close()


def test_dropped_spaces_are_gone_from_every_file(path: Path, store: MilvusStore) -> None:
    store.flush(SPACE)
    store.upsert(SPACE, ROWS[:50])  # also in the log that is not flushed yet
    other = Space(SPACE.name, SPACE.dimension, "d4" * 32)
    store.create(other)
    assert store.drop_others(SPACE.name, other) == 1
    for state in ("open", "closed"):
        left = bytes_below(path.parent)
        for trace in (ROWS[0].evidence.encode(), ROWS[0].key.encode(), ROWS[0].embedding.vector.tobytes()):
            assert trace not in left, state
        store.close()


def test_a_drop_that_was_interrupted_is_finished_by_the_next_one(path: Path, store: MilvusStore) -> None:
    store.close()
    code = (
        "from search import generations\n"
        "generations.drop_generations = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.drop_others(SPACE.name)"
    )
    assert finish(python("\n" + code, path))[0] == -signal.SIGKILL
    assert ROWS[0].evidence.encode() in bytes_below(path.parent)
    reopened = MilvusStore(str(path))
    assert reopened.drop_others(SPACE.name) == 1 and reopened.drop_others(SPACE.name) == 0
    reopened.close()
    assert ROWS[0].evidence.encode() not in bytes_below(path.parent)


def test_collections_of_other_prefixes_and_names_are_not_dropped(path: Path, store: MilvusStore) -> None:
    other = MilvusStore(str(path), prefix="visavox_scratch_0123abcd")
    other.upsert(SPACE, ROWS[:5])
    assert store.drop_others("identity") == 0 and store.drop_others("scratch_0123abcd_voice") == 0
    assert store.drop_others(SPACE.name, SPACE) == 0 and other.count(SPACE) == 5
    other.close()


# Spaces, filters, limits


def test_a_collection_of_another_digest_is_refused(store: MilvusStore) -> None:
    lookalike = Space(SPACE.name, SPACE.dimension, SPACE.digest[:12] + "e5" * 26)
    with pytest.raises(SpaceMismatch, match="c3c3c3"):
        store.count(lookalike)


def test_only_ids_reach_a_filter(store: MilvusStore) -> None:
    for where in (Filter(persons=('x"] or key != "',)), Filter(exclude_media=("%",))):
        with pytest.raises(StoreError, match="not an id"):
            store.search([ROWS[0].embedding], 3, want=VOICE, where=where)


def test_a_row_that_no_filter_could_name_is_refused(store: MilvusStore) -> None:
    row = ROWS[0]
    odd = Row(row.key, row.embedding, "my film.mp4", 0, (0, 1), "crop")
    with pytest.raises(StoreError, match=r"my film\.mp4"):
        store.upsert(SPACE, [odd])


def test_more_hits_than_the_limit_are_refused_plainly(store: MilvusStore) -> None:
    with pytest.raises(StoreError, match="16384"):
        store.search([ROWS[0].embedding], 16_385, want=VOICE)
    assert len(store.search([ROWS[0].embedding], 16_384, want=VOICE)[0]) == len(ROWS)


@pytest.mark.parametrize("uri", ["index.sqlite", "ftp://host:1", "host:19530"])
def test_a_uri_of_another_form_is_refused_at_once(uri: str) -> None:
    with pytest.raises(ValueError, match="Milvus URI"):
        MilvusStore(uri)


# Servers


def test_two_stores_may_create_the_same_space_on_a_server_at_once(milvus_server: str) -> None:
    stores = [MilvusStore(milvus_server, prefix="twice") for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda store: store.upsert(SPACE, ROWS[:5]), stores))
    assert [store.count(SPACE) for store in stores] == [5, 5, 5]
    stores[0].drop(SPACE)
    for store in stores:
        store.close()


class HungUp(grpc.RpcError):
    """What gRPC raises when the other side closes a connection that is in use."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "GOAWAY received"


def test_an_embedded_index_that_hangs_up_is_asked_again(store: MilvusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    link = store._connected()
    search, hangs_up = link.client.search, [True]

    def once_hung_up(*arguments: Any, **options: Any) -> Any:
        if hangs_up:
            hangs_up.clear()
            raise HungUp
        return search(*arguments, **options)

    monkeypatch.setattr(link.client, "search", once_hung_up)
    assert store.search([ROWS[5].embedding], 1, want=VOICE)[0][0].row.key == ROWS[5].key
    monkeypatch.setattr(link.client, "search", lambda *_, **__: (_ for _ in ()).throw(HungUp()))
    with pytest.raises(StoreUnavailable, match=r"index\.db: the embedded index does not answer \(GOAWAY received\)"):
        store.search([ROWS[5].embedding], 1, want=VOICE)


@pytest.mark.long
def test_an_embedded_index_that_was_not_asked_for_long_answers_without_hanging_up(path: Path) -> None:
    code = (
        "import time; store.upsert(SPACE, ROWS); time.sleep(100); "
        "print(len(store.search([ROWS[5].embedding], 3, want=ROWS[5].embedding.modality)[0]), flush=True)"
    )
    process = python(code, path)
    told, logged = process.communicate(timeout=200)
    assert told.split() == ["3"] and "GOAWAY" not in logged
