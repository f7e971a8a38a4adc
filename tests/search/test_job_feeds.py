"""Streams of events, listened to as a server would: by the application's own protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.types import Message

from ingest.book import Book
from ingest.jobpage import JobPage, JobPages
from ingest.jobs import UnknownJob
from ingest.ledger import RecordsError
from ingest.queues import ALL_QUEUES
from ingest.runner import Runner
from search.api import job_feeds
from search.api.job_feeds import EventStream, Feeds, Pace
from search.api.services import Overloaded
from tests.ingest.small_jobs import Reader, book_in, small_job, work_of

QUICK = Pace(period=0.02, heartbeat=0.2, longest=60.0)
PATIENCE = 60.0


class CountedPages(JobPages):
    """Pages, and how often they were looked at, by how many threads at a time; ``broken`` ones cannot be."""

    def __init__(self, book: Book) -> None:
        super().__init__(book.database)
        self.looks = 0
        self.threads: set[int] = set()
        self.broken: Exception | None = None

    def page(self, job: str) -> JobPage:
        self.looks += 1
        self.threads.add(threading.get_ident())
        if self.broken:
            raise self.broken
        return super().page(job)


class House:
    """A book, a job of three files, and its feeds."""

    def __init__(self, folder: Path, pace: Pace = QUICK) -> None:
        self.book = book_in(folder)
        self.job = self.book.open_job(small_job("a", "bad", "c"))
        self.runner = Runner(self.book, work_of(Reader()), ())
        self.pages = CountedPages(self.book)
        self.stopping = False
        self.feeds = Feeds(self.pages, lambda: self.stopping, pace)

    def work(self, tasks: int) -> None:
        for _ in range(tasks):
            self.runner.run_one(ALL_QUEUES, "one")


class Listener:
    """One who listens to a stream: what they were sent so far, and whether it has ended."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.ended = False
        self.gone = anyio.Event()
        self.stalled = False

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.stalled and self.parts:
            await anyio.sleep_forever()
        if message["type"] == "http.response.body":
            self.parts += [message["body"].decode()] if message["body"] else []

    async def listen(self, stream: EventStream) -> None:
        await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, self.receive, self.send)
        self.ended = True

    @property
    def pages(self) -> list[dict[str, Any]]:
        told = [part.partition("data: ")[2] for part in self.parts if part.startswith("event: page\n")]
        return [json.loads(one) for one in told]


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not true():
            await anyio.sleep(0.005)


@asynccontextmanager
async def listening(house: House, count: int = 1, *, stalled: bool = False) -> AsyncIterator[list[Listener]]:
    """Some who listen, from when each was told how the job stands; they are gone afterwards."""
    listeners = [Listener() for _ in range(count)]
    async with anyio.create_task_group() as group:
        for one in listeners:
            one.stalled = stalled
            group.start_soon(one.listen, await house.feeds.listen(house.job))
        await until(lambda: all(one.parts for one in listeners))
        yield listeners
        for one in listeners:
            one.gone.set()


def run(scene: Callable[[House], Awaitable[None]], house: House) -> None:
    anyio.run(partial(scene, house))


def test_every_change_is_told_and_then_the_end(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house) as (one,):
            await anyio.to_thread.run_sync(house.work, 2)
            await until(lambda: one.pages[-1]["counts"]["done"] == 1)
            await anyio.to_thread.run_sync(house.work, 4)
            await until(lambda: one.ended)
            assert one.pages[0]["state"] == "queued" and one.pages[-1]["state"] == "done"
            assert one.parts[-1] == f'event: end\ndata: {{"job": "{house.job}", "state": "done"}}\n\n'
            assert [page["counts"]["failed"] for page in one.pages] == sorted(
                page["counts"]["failed"] for page in one.pages
            )
        assert house.feeds.listeners == 0 and not house.feeds._feeds

    run(scene, House(tmp_path))


def test_nothing_is_told_while_nothing_changes_but_that_somebody_is_there(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        house.work(1)
        async with listening(house) as (one,):
            await until(lambda: len(one.parts) > 2 and house.pages.looks > 3)
            assert set(one.parts[1:]) == {": nothing new\n\n"}

    run(scene, House(tmp_path))


def test_many_who_listen_cost_one_look_and_no_threads(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house, 200) as listeners:
            before, began = house.pages.looks, anyio.current_time()
            await anyio.to_thread.run_sync(house.work, 6)
            await until(lambda: all(one.ended for one in listeners))
            assert all(one.pages[-1]["state"] == "done" for one in listeners)
            most = (anyio.current_time() - began) / QUICK.period + 2  # for all of them, not for each
            assert house.pages.looks - before <= most and len(house.pages.threads) <= 4

    run(scene, House(tmp_path))


def test_who_goes_away_leaves_nothing_behind_and_the_others_go_on(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house, 2) as (gone, other):
            gone.gone.set()
            await until(lambda: gone.ended)
            assert house.feeds.listeners == 1
            await anyio.to_thread.run_sync(house.work, 6)
            await until(lambda: other.ended)
            assert other.parts[-1].startswith("event: end") and len(gone.parts) < len(other.parts)
        assert not house.feeds._feeds

    run(scene, House(tmp_path))


def test_nobody_looks_at_a_job_that_nobody_listens_to(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house):
            await until(lambda: house.pages.looks > 2)
        looks = house.pages.looks
        await anyio.sleep(0.5)
        assert house.pages.looks <= looks + 1  # one was under way

    run(scene, House(tmp_path))


def test_a_service_that_stops_ends_streams_without_an_end_of_the_job(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house, 3) as listeners:
            house.stopping = True
            await until(lambda: all(one.ended for one in listeners))
            assert not any("event: end" in part for one in listeners for part in one.parts)

    run(scene, House(tmp_path))


def test_a_service_that_stops_does_not_wait_for_who_reads_nothing(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house, stalled=True) as (one,):
            await anyio.to_thread.run_sync(house.work, 2)
            await anyio.sleep(0.1)
            house.stopping = True
            await until(lambda: one.ended)
        assert house.feeds.listeners == 0

    run(scene, House(tmp_path))


def test_a_stream_is_not_endless_so_that_keys_are_asked_for_again(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house) as (one,):
            await until(lambda: one.ended)
            assert len(one.pages) == 1 and "event: end" not in "".join(one.parts)

    run(scene, House(tmp_path, Pace(0.02, 0.05, 0.3)))


def test_records_that_are_away_for_a_moment_end_nothing(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house) as (one,):
            house.pages.broken = RecordsError("away")
            looks = house.pages.looks
            await until(lambda: house.pages.looks > looks + 2)
            house.pages.broken = None
            await anyio.to_thread.run_sync(house.work, 6)
            await until(lambda: one.ended)
            assert one.parts[-1].startswith("event: end")

    run(scene, House(tmp_path))


def test_a_job_that_is_forgotten_meanwhile_ends_its_stream(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house) as (one,):
            house.pages.broken = UnknownJob("gone")
            await until(lambda: one.ended)
            assert '"state": "forgotten"' in one.parts[-1]

    run(scene, House(tmp_path))


def test_a_defect_while_looking_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house) as (one,):
            house.pages.broken = ZeroDivisionError()
            await until(lambda: one.ended)

    run(scene, House(tmp_path))


def test_a_job_that_goes_on_after_its_end_has_a_new_stream(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        async with listening(house, stalled=True) as (old,):
            house.work(6)
            await until(lambda: house.feeds._feeds[house.job].over)
            house.book.retry(house.job, small_job("a").item_task)  # type: ignore[arg-type]
            async with listening(house) as (new,):
                assert new.pages[0]["counts"]["waiting"] == 1 and not new.ended and not old.ended

    run(scene, House(tmp_path))


def test_more_than_so_many_are_not_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_feeds, "MOST_LISTENERS", 2)

    async def scene(house: House) -> None:
        async with listening(house, 2):
            with pytest.raises(Overloaded):
                await house.feeds.listen(house.job)

    run(scene, House(tmp_path))


def test_a_huge_job_is_looked_at_less_often(tmp_path: Path) -> None:
    class Slow(CountedPages):
        def page(self, job: str) -> JobPage:
            threading.Event().wait(0.1)
            return super().page(job)

    async def scene(house: House) -> None:
        house.feeds = Feeds(slow := Slow(house.book), lambda: False, QUICK)
        began = anyio.current_time()
        async with listening(house):
            await anyio.sleep(1.2)
            assert slow.looks <= 2 + (anyio.current_time() - began) / 0.5

    run(scene, House(tmp_path))
