from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from ingest.book import MOST_ATTEMPTS, Book
from ingest.flow import ingest_job
from ingest.jobpage import FileStanding, JobPage, JobPages
from ingest.tasks import Queue
from ingest.worker import NO_WORKER, BrokerUnavailable, CeleryQueue, Limits, make_app
from tests.ingest.conftest import StoppableRedis, free_port
from tests.ingest.counting_worker import book_at, making

ROOT = Path(__file__).parents[2]
LEASE = 2.0


@dataclass
class House:
    """A folder with files, records, and workers that read them by a broker."""

    folder: Path
    broker: str
    said: list[str] = field(default_factory=list)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'records.sqlite'}"

    @property
    def book(self) -> Book:
        return book_at(self.database)

    @property
    def queue(self) -> CeleryQueue:
        return CeleryQueue(self.broker, self.book, self.said.append)

    def start(self, *queues: Queue, children: int = 1) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "tests.ingest.counting_worker",
            self.broker,
            self.database,
            str(LEASE),
            str(children),
            *queues,
        ]
        environment = os.environ | {"COUNTING_WORKER_LOADS": str(self.folder / "loads")}
        with (self.folder / "worker.log").open("ab") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        self.started.append(process)
        return process

    def stop(self) -> None:
        """End the workers at once, and with them their children: a quiet end takes ten seconds."""
        for process in self.started:
            process.kill()
        for process in self.started:
            process.wait()

    def submit(self, **orders: str) -> str:
        for name, order in orders.items():
            self.path(name).write_text(order)
        return self.queue.submit(ingest_job([self.path(name) for name in orders], "films"))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def runs(self, name: str) -> int:
        counted = self.path(name).with_suffix(".runs")
        return len(counted.read_text().splitlines()) if counted.exists() else 0

    def child(self, name: str) -> int:
        """Process id of the one that ran a file last."""
        return int(self.path(name).with_suffix(".runs").read_text().splitlines()[-1].split()[0])

    def loads(self) -> list[tuple[int, int]]:
        """Process id and number of each child that was made."""
        told = self.folder / "loads"
        lines = told.read_text().splitlines() if told.exists() else []
        return [(int(child), int(number)) for child, number in map(str.split, lines)]

    def files(self, job: str) -> dict[str, FileStanding]:
        return {Path(one.path).stem: one for one in JobPages(self.book.database).files(job)}

    def finished(self, job: str, seconds: float = 60.0) -> JobPage:
        pages = JobPages(self.book.database)
        wait_for(lambda: pages.page(job).finished is not None, seconds)
        return pages.page(job)


@pytest.fixture
def house(tmp_path: Path, redis_url: str) -> Iterator[House]:
    made = House(tmp_path, redis_url)
    yield made
    made.stop()
    log = tmp_path / "worker.log"
    print(log.read_text() if log.exists() else "no worker was started")


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_a_worker_reads_good_bad_and_deadly_files_and_loads_once_per_process(house: House) -> None:
    house.start()
    job = house.submit(good="count", bad="raise", deadly="die", last="count")
    page = house.finished(job, 120)
    files = house.files(job)
    assert {name: one.state for name, one in files.items()} == {
        "good": "done", "bad": "failed", "deadly": "failed", "last": "done",
    }  # fmt: skip
    assert page.state == "done" and page.counts["failed"] == 2
    assert files["bad"].reason == "ZeroDivisionError: no division"
    assert "ended the process" in (files["deadly"].reason or "")
    assert [house.runs(name) for name in files] == [1, MOST_ATTEMPTS, MOST_ATTEMPTS, 1]
    children = [child for child, _ in house.loads()]
    assert len(children) == len(set(children)) and house.path("good").with_suffix(".runs").read_text().endswith(
        "films\n"
    )


def test_a_killed_workers_task_is_done_by_another_within_the_lease_and_its_child_ends(house: House) -> None:
    first = house.start()
    job = house.submit(film="sleep 300")
    wait_for(lambda: house.runs("film") == 1)
    child = house.child("film")
    house.path("film").write_text("count")
    first.kill()
    first.wait()
    house.start()
    assert house.finished(job, 40).counts["done"] == 1
    assert house.runs("film") == 2 and house.files(job)["film"].attempts == 0
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


@pytest.mark.long
def test_a_task_that_outlasts_its_lease_runs_once_while_its_worker_lives(house: House) -> None:
    house.start()
    house.start()
    assert house.finished(house.submit(film=f"sleep {2.5 * LEASE}")).counts["done"] == 1
    assert house.runs("film") == 1


@pytest.mark.long
def test_two_workers_share_the_files_of_a_job(house: House) -> None:
    house.start()
    house.start()
    wait_for(lambda: len((house.folder / "worker.log").read_text().split("ready.")) == 3)
    assert house.finished(house.submit(**{f"film{n}": "sleep 0.5" for n in range(8)})).counts["done"] == 8
    assert len({house.child(f"film{n}") for n in range(8)}) == 2


@pytest.mark.long
def test_a_worker_numbers_its_children_and_a_dead_ones_successor_takes_its_number_over(house: House) -> None:
    house.start(children=2)
    job = house.submit(a="sleep 300", b="sleep 300")
    wait_for(lambda: len(house.loads()) == 2, 60)
    first = house.loads()
    house.book.cancel(job)
    assert sorted(number for _, number in first) == [0, 1]
    dead, number = first[0]
    os.kill(dead, signal.SIGKILL)
    job = house.submit(c="sleep 300", d="sleep 300")
    wait_for(lambda: len(house.loads()) == 3, 60)
    house.book.cancel(job)
    assert house.loads()[2][1] == number


@pytest.mark.long
def test_bells_that_are_lost_with_redis_are_rung_again(house: House) -> None:
    job = house.submit(one="count", two="count")
    with redis.Redis.from_url(house.broker) as client:
        assert client.llen(Queue.PROBE.value) == 2
        client.flushall()
    house.start()
    assert house.finished(job).counts["done"] == 2


@pytest.mark.long
def test_a_worker_takes_tasks_of_its_queues_only(house: House) -> None:
    house.start(Queue.PROBE)
    job = house.submit(one="count")
    wait_for(lambda: house.book.waiting([Queue.ENCODE]) == 1)
    assert house.runs("one") == 0
    house.start(Queue.ENCODE)
    assert house.finished(job).counts["done"] == 1


def test_a_cancelled_job_stops_within_a_heartbeat(house: House) -> None:
    house.start()
    job = house.submit(film="sleep 300", other="count")
    wait_for(lambda: house.runs("film") == 1)
    house.book.cancel(job)
    after = house.submit(later="count")
    assert house.finished(after, 20).counts["done"] == 1 and house.runs("other") == 0
    assert house.files(job)["film"].state == "cancelled"


def test_an_urgent_job_comes_before_the_rest_of_an_archive(house: House) -> None:
    archive = house.submit(**{f"film{n}": "sleep 0.2" for n in range(20)})
    house.path("urgent").write_text("count")
    urgent = house.queue.submit(ingest_job([house.path("urgent")], "films", priority=10))
    house.start()
    house.finished(urgent)
    assert JobPages(house.book.database).page(archive).counts["done"] < 5
    house.book.cancel(archive)


def test_following_a_job_without_workers_says_so_and_keeps_waiting(house: House) -> None:
    for _ in house.queue.follow(house.submit(one="count")):
        if house.said:
            break
    assert house.said == [NO_WORKER]


def test_a_job_goes_on_when_redis_comes_back(tmp_path: Path, stoppable_redis: StoppableRedis) -> None:
    house = House(tmp_path, stoppable_redis.url)
    house.start()
    job = house.submit(one="sleep 1", two="count")
    try:
        wait_for(lambda: house.runs("one") == 1)
        stoppable_redis.stop()
        wait_for(lambda: house.files(job)["one"].state == "done")
        stoppable_redis.start()
        assert house.finished(job).counts["done"] == 2
    finally:
        house.stop()


def test_a_broker_that_is_down_is_told_within_seconds_and_without_its_password(tmp_path: Path) -> None:
    queue = CeleryQueue(f"redis://:hush@127.0.0.1:{free_port()}/0", book_at(f"sqlite:///{tmp_path / 'r.sqlite'}"))
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="does not answer") as raised:
        queue.submit(ingest_job([tmp_path / "a"], "films"))
    assert time.monotonic() - started < 20 and "hush" not in str(raised.value)
    assert JobPages(book_at(f"sqlite:///{tmp_path / 'r.sqlite'}").database).recent() == []


def test_a_broker_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="must be Redis"):
        make_app("memory://")


def test_a_worker_that_would_look_too_seldom_is_refused() -> None:
    with pytest.raises(ValueError, match="watch <= lease"):
        Limits(lease=1.0, watch=2.0)


def test_an_application_comes_out_of_a_pickle_with_what_it_was_made_of(tmp_path: Path) -> None:
    app = make_app("redis://127.0.0.1:1/0", making(f"sqlite:///{tmp_path / 'r.sqlite'}", 9.0, (Queue.PROBE,)))
    again = pickle.loads(pickle.dumps(app))
    assert again.conf.broker_url == app.conf.broker_url and again.made_of[1].queues == (Queue.PROBE,)
    assert again.made_of[1].limits.lease == 9.0 and "visavox.work" in again.tasks


def test_only_json_travels() -> None:
    conf = make_app("redis://127.0.0.1:1/0").conf
    assert conf.task_serializer == "json" and conf.accept_content == ["json"]
