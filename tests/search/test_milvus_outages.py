"""A server that goes, falls silent, refuses or is full: clear errors in bounded time, and recovery by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ingest.outage import TRY_EVERY
from search.milvus import MilvusStore
from search.store import StoreError, StoreFull, StoreUnavailable
from tests.search.real_milvus import real_milvus
from tests.search.scripted_milvus import ScriptedMilvus, scripted_milvus
from tests.search.test_milvus import KEYS, ROWS, SPACE, VOICE
from tests.search.wire import Wire

DEAD = "http://somebody:secret@127.0.0.1:1"
# How much later than promised a call may end on a machine that does other things too.
LITTLE = 3.0


@pytest.fixture(scope="module")
def prefix(milvus_server: str) -> Iterator[str]:
    """Where the rows of this module lie on the server: none of its tests changes them."""
    store = MilvusStore(milvus_server, prefix=f"t{uuid4().hex[:8]}")
    store.upsert(SPACE, ROWS)
    yield store._prefix
    store.drop(SPACE)
    store.close()


@pytest.fixture
def wire(milvus_server: str) -> Iterator[Wire]:
    stretched = Wire(int(milvus_server.rpartition(":")[2]))
    yield stretched
    stretched.close()


@pytest.fixture
def store(wire: Wire, prefix: str) -> Iterator[MilvusStore]:
    """A store in use, behind a wire."""
    opened = MilvusStore(wire.uri, prefix=prefix, timeout=1.5, patience=3.0)
    assert opened.count(SPACE) == len(ROWS)
    yield opened
    opened.close()


def refused(work: Callable[[], Any]) -> tuple[StoreError, float]:
    """The error of something that must fail, and the seconds it took."""
    started = time.monotonic()
    with pytest.raises(StoreError) as caught:
        work()
    return caught.value, time.monotonic() - started


def soon(work: Callable[[], Any]) -> Any:
    """What something gives when the server is found again: it is tried once a second whether it is there."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return work()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# A server that is not there, or does not speak


def test_a_dead_server_is_reported_in_bounded_time_without_its_password() -> None:
    error, seconds = refused(lambda: MilvusStore(DEAD, patience=1).count(SPACE))
    assert isinstance(error, StoreUnavailable) and seconds < 1 + LITTLE
    assert "http://127.0.0.1:1" in str(error) and "secret" not in str(error)


def test_callers_of_a_dead_server_do_not_queue_behind_each_other() -> None:
    store = MilvusStore(DEAD, patience=1)
    started = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        errors = list(pool.map(lambda _: refused(lambda: store.count(SPACE))[0], range(24)))
    assert {type(error) for error in errors} == {StoreUnavailable}
    assert time.monotonic() - started < 1 + LITTLE


def test_an_outage_is_waited_for_once_and_not_by_every_question() -> None:
    store = MilvusStore(DEAD, patience=1)
    refused(lambda: store.count(SPACE))
    assert refused(lambda: store.count(SPACE))[1] < 0.5


def test_in_an_outage_one_caller_tries_and_the_others_are_told_at_once(wire: Wire, prefix: str) -> None:
    store = MilvusStore(wire.uri, prefix=prefix, timeout=2, patience=0)
    store.open()
    wire.set("silent")
    refused(lambda: store.count(SPACE))
    time.sleep(TRY_EVERY)
    with ThreadPoolExecutor(8) as pool:
        seconds = sorted(pool.map(lambda _: refused(lambda: store.count(SPACE))[1], range(8)))
    assert seconds[-2] < 1 and 1.9 < seconds[-1] < 2 + LITTLE
    wire.set("open")
    assert soon(lambda: store.count(SPACE)) == len(ROWS)
    store.close()


def test_a_server_that_takes_connections_and_never_answers_is_reported_to_all_callers_in_time() -> None:
    black_hole = Wire(1, "silent")
    black_hole._target = black_hole._port  # whom it would pass on to
    store = MilvusStore(black_hole.uri, timeout=1.5, patience=1)
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda _: refused(lambda: store.count(SPACE)), range(6)))
    assert {type(error) for error, _ in told} == {StoreUnavailable}
    assert max(seconds for _, seconds in told) < 1.5 + LITTLE
    black_hole.close()


def test_a_server_that_falls_silent_is_reported_in_time_and_used_again_when_it_speaks(
    store: MilvusStore, wire: Wire
) -> None:
    wire.set("silent")
    with ThreadPoolExecutor(4) as pool:
        told = list(
            pool.map(
                refused,
                [
                    lambda: store.search([ROWS[0].embedding], 3, want=VOICE),
                    lambda: store.upsert(SPACE, ROWS[:3]),
                    lambda: store.keys(SPACE),
                    store.spaces,
                ],
            )
        )
    assert {type(error) for error, _ in told} == {StoreUnavailable}
    assert max(seconds for _, seconds in told) < 3.0 + LITTLE
    wire.set("open")
    assert soon(lambda: store.count(SPACE)) == len(ROWS)


def test_not_even_an_iterator_that_is_being_made_hangs(store: MilvusStore, wire: Wire) -> None:
    link = store._connected()
    name = next(iter(link.ready))
    link.iterator(name, ["key"], "")  # the client now knows the collection's schema
    wire.set("silent")
    started = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)deadline"):
        link.client.query_iterator(name, filter="", output_fields=["key"], timeout=1.5)
    assert time.monotonic() - started < 1.5 + LITTLE


# A server that goes and comes back


def test_a_connection_that_was_cut_is_made_anew_and_nobody_notices(store: MilvusStore, wire: Wire) -> None:
    for _ in range(3):
        wire.cut()
        assert store.count(SPACE) == len(ROWS)
        assert store.search([ROWS[5].embedding], 1, want=VOICE)[0][0].row.key == ROWS[5].key


def test_a_store_finds_the_server_again_without_being_made_anew(store: MilvusStore, wire: Wire) -> None:
    wire.set("refusing")
    assert isinstance(refused(lambda: store.count(SPACE))[0], StoreUnavailable)
    error, seconds = refused(lambda: store.search([ROWS[0].embedding], 1, want=VOICE))
    assert isinstance(error, StoreUnavailable) and seconds < 0.5
    wire.set("open")
    assert soon(lambda: store.keys(SPACE)) == KEYS


def test_callers_whose_connection_breaks_do_not_wait_for_each_other_s_new_one(wire: Wire, prefix: str) -> None:
    hasty = MilvusStore(wire.uri, prefix=prefix, timeout=2, patience=0.3)
    assert hasty.count(SPACE) == len(ROWS)
    wire.set("silent")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(refused, lambda: hasty.count(SPACE)) for _ in range(8)]
        time.sleep(0.3)
        wire.cut()  # and new connections are taken, and nothing comes through them
        told = [each.result() for each in asked]
    assert {type(error) for error, _ in told} == {StoreUnavailable}
    assert max(seconds for _, seconds in told) < 2.3 + LITTLE
    hasty.close()


def test_a_refusal_is_told_long_before_a_request_s_time_is_over(wire: Wire, prefix: str) -> None:
    hasty = MilvusStore(wire.uri, prefix=prefix, timeout=30, patience=0.3)
    assert hasty.count(SPACE) == len(ROWS)
    wire.set("refusing")
    error, seconds = refused(lambda: hasty.count(SPACE))
    assert isinstance(error, StoreUnavailable) and seconds < 0.3 + LITTLE
    hasty.close()


def test_a_patient_store_waits_for_the_server_says_so_once_and_writes(wire: Wire, prefix: str) -> None:
    told: list[str] = []
    patient = MilvusStore(wire.uri, prefix=prefix, timeout=1.5, patience=30, notice=told.append)
    patient.open()
    wire.set("refusing")
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(patient.upsert, SPACE, ROWS[i : i + 5]) for i in range(0, 15, 5)]
        time.sleep(1.5)
        assert not any(each.done() for each in writing)
        wire.set("open")
        for each in writing:
            each.result(timeout=20)
    assert len(told) == 1 and "waiting up to 30 s" in told[0] and wire.uri in told[0]
    assert patient.keys(SPACE) == KEYS
    patient.close()


def test_a_listing_that_is_interrupted_goes_on_where_it_was(
    store: MilvusStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.link.SCAN_ROWS", 70)
    listed = []
    for number, row in enumerate(store.rows(SPACE)):
        if number in (75, 220):
            wire.set("refusing")
            threading.Timer(0.4, wire.set, ["open"]).start()
        listed.append(row.key)
    assert listed == sorted(KEYS)


# A server that refuses


@pytest.fixture
def scripted() -> Iterator[tuple[MilvusStore, ScriptedMilvus]]:
    with scripted_milvus() as (uri, script):
        store = MilvusStore(uri, timeout=1.5, patience=1)
        yield store, script
        store.close()


@pytest.mark.parametrize("code", [3, 7, 9])
def test_a_full_server_is_told_apart_and_not_asked_again(
    scripted: tuple[MilvusStore, ScriptedMilvus], code: int
) -> None:
    store, script = scripted
    script.refusals["ShowCollections"] = (code, "quota exceeded", 99)
    error, seconds = refused(store.spaces)
    assert isinstance(error, StoreFull) and "quota exceeded" in str(error) and "make room" in str(error)
    assert script.asked["ShowCollections"] == 1 and seconds < LITTLE


@pytest.mark.parametrize("code", [1, 8, 101, 503])
def test_a_busy_or_starting_server_is_asked_again_for_a_while(
    scripted: tuple[MilvusStore, ScriptedMilvus], code: int
) -> None:
    store, script = scripted
    script.refusals["ShowCollections"] = (code, "not now", 3)
    assert store.spaces() == []
    assert script.asked["ShowCollections"] == 4
    script.refusals["ShowCollections"] = (code, "not now", 99)
    error, seconds = refused(store.spaces)
    assert isinstance(error, StoreUnavailable) and "not now" in str(error) and seconds < 1 + LITTLE


def test_what_asking_again_cannot_mend_is_not_asked_again(scripted: tuple[MilvusStore, ScriptedMilvus]) -> None:
    store, script = scripted
    script.refusals["ShowCollections"] = (1100, "invalid parameter", 99)
    error, _ = refused(store.spaces)
    assert type(error) is StoreError and "invalid parameter" in str(error)
    assert script.asked["ShowCollections"] == 1


@pytest.mark.long
def test_a_store_recovers_when_a_killed_server_is_started_again(tmp_path: Path) -> None:
    with real_milvus(tmp_path / "milvus") as server:
        store = MilvusStore(server.uri, timeout=3)
        store.upsert(SPACE, ROWS)
        server.kill()
        assert refused(lambda: store.count(SPACE))[1] < 3 + LITTLE
        server.start()
        deadline = time.monotonic() + 90
        while True:
            started = time.monotonic()
            try:
                assert store.keys(SPACE) == KEYS
                break
            except StoreUnavailable:
                assert time.monotonic() - started < 3 + LITTLE
                assert time.monotonic() < deadline
                time.sleep(0.1)
        store.close()
