"""Workers, their children, Redis and Milvus are killed at random: in the end everything is as after a quiet run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy import reading
from deploy.settings import load_settings
from deploy.wiring import Installation
from deploy.working import queue_of
from ingest.flow import ingest_job
from ingest.jobpage import JobPage, JobPages
from ingest.ledger import RecordsError
from tests.deploy import chaos_worker
from tests.deploy.test_topologies import clean
from tests.ingest.conftest import StoppableRedis
from tests.real_postgres import real_postgres
from tests.search.held import assert_nothing_is_left_over, held
from tests.search.real_milvus import RealMilvus
from training.population.folder import MediaSize, write_demo_media


@pytest.fixture(autouse=True)
def short_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Films are cut every few seconds, here as by the workers."""
    monkeypatch.setattr(reading, "EXTRACTION", chaos_worker.SHORT_CELLS)


@dataclass
class Fleet:
    """A few workers of one installation, and what can happen to them."""

    environment: dict[str, str]
    log: Path
    redis: StoppableRedis
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def hire(self) -> None:
        command = [sys.executable, "-m", "tests.deploy.chaos_worker"]
        given = clean(self.environment) | {"OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as output:
            self.workers.append(subprocess.Popen(command, env=given, stdout=output, stderr=output))

    def children(self) -> list[int]:
        """Process ids of pool children of living workers."""
        found: list[int] = []
        for worker in self.workers:
            for task in Path(f"/proc/{worker.pid}/task").glob("*/children"):
                children = map(int, task.read_text().split())
                found += [one for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]
        return found

    def kill_child(self, chance: random.Random) -> None:
        if children := self.children():
            os.kill(chance.choice(children), signal.SIGKILL)

    def kill_worker(self, chance: random.Random) -> None:
        worker = self.workers.pop(chance.randrange(len(self.workers)))
        worker.kill()
        worker.wait()
        self.hire()

    def kill_redis(self, _chance: random.Random) -> None:
        self.redis.kill()
        time.sleep(1.0)
        self.redis.start()

    def dismiss(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(timeout=60)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def write_media(folder: Path, films: int, seconds: float) -> list[Path]:
    """Films with truth, a copy under another name, and files that are of no use."""
    made = write_demo_media(folder / "films", 5, MediaSize(people=4, strangers=1, films=films, film_seconds=seconds))
    paths = [film.path for film in made.films]
    shutil.copy(paths[0], folder / "copy.mp4")
    (folder / "torn.mp4").write_bytes(paths[1].read_bytes()[:2000])
    (folder / "text.mp4").write_text("no film at all")
    return [*paths, folder / "copy.mp4", folder / "torn.mp4", folder / "text.mp4"]


def as_it_ended(environment: dict[str, str]) -> dict[str, Any]:
    """Rows by key, records and evidence, without what differs between two quiet runs."""
    home = Path(environment["VISAVOX_HOME"])
    with installed(environment) as opened:
        status = opened.archive.status()
        kept = held(home, opened.database if "VISAVOX_DATABASE_URL" in environment else None)
    assert_nothing_is_left_over(kept)
    assert not list((home / "parts").glob("*/*"))
    # PostgreSQL gives JSON as what it stands for, SQLite as it is written
    media = [tuple(json.dumps(one) if isinstance(one, list) else one for one in row) for row in kept["media"]]
    return {"spaces": status.spaces, "counts": (status.media, status.failed), "media": media} | {
        name: kept[name] for name in ("tracks", "on disk")
    }


@contextmanager
def installed(environment: dict[str, str]) -> Iterator[Installation]:
    opened = Installation(load_settings(environment))
    yield opened
    opened.close()


def quiet_run(folder: Path, media: list[Path]) -> dict[str, Any]:
    environment = {"VISAVOX_HOME": str(folder), "VISAVOX_DEVICE": "cpu"}
    with installed(environment) as opened:
        queue = queue_of(opened)
        *_, page = queue.follow(queue.submit(ingest_job(media, "default")))
        assert page.counts["failed"] == 2  # the files of no use
    return as_it_ended(environment)


def wild_run(
    fleet: Fleet, media: list[Path], count: int, blows: list[Callable[[random.Random], None]], pause: float
) -> JobPage:
    """Ingest by some workers; a blow now and then until all of them have fallen, and the job as it ended."""
    chance = random.Random(20)
    opened = Installation(load_settings(fleet.environment))
    job = queue_of(opened).submit(ingest_job(media, "default"))
    pages, over = JobPages(opened.database), threading.Event()

    def strike() -> None:
        for blow in blows:
            if over.wait(pause * chance.uniform(0.5, 1.5)):
                return
            blow(chance)

    for _ in range(count):
        fleet.hire()
    striker = threading.Thread(target=strike)
    striker.start()
    try:
        deadline = time.monotonic() + 60 * len(media) + 120 * len(blows)
        ended = False
        while not ended:
            assert time.monotonic() < deadline, pages.page(job)
            time.sleep(0.2)
            with suppress(RecordsError):  # its server may have been struck
                ended = pages.page(job).finished is not None
        return pages.page(job)
    finally:
        over.set()
        striker.join()
        fleet.dismiss()
        opened.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_whatever_is_killed_the_archive_ends_as_after_a_quiet_run(
    tmp_path: Path, stoppable_redis: StoppableRedis, milvus_server: str
) -> None:
    media = write_media(tmp_path, films=4, seconds=6.0)
    expected = quiet_run(tmp_path / "quiet", media)
    server = {"VISAVOX_HOME": str(tmp_path / "home"), "VISAVOX_DEVICE": "cpu", "VISAVOX_MILVUS_URI": milvus_server}
    fleet = Fleet(server | {"VISAVOX_BROKER_URL": stoppable_redis.url}, tmp_path / "log", stoppable_redis)
    page = wild_run(fleet, media, 2, [fleet.kill_child, fleet.kill_worker, fleet.kill_redis, fleet.kill_child], 8.0)
    print(fleet.log.read_text())
    assert page.counts | {"failed": 2, "waiting": 0, "running": 0, "cancelled": 0} == page.counts
    assert {Path(one.path).name for one in page.first_errors} == {"torn.mp4", "text.mp4"}
    assert as_it_ended(fleet.environment) == expected


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_forty_films_survive_every_kind_of_blow(tmp_path: Path) -> None:
    media = write_media(tmp_path, films=40, seconds=8.0)
    expected = quiet_run(tmp_path / "quiet", media)
    redis, milvus = StoppableRedis(tmp_path, keeps=True), RealMilvus(tmp_path / "milvus", eager=True)
    milvus.start()

    def stop_milvus(chance: random.Random) -> None:
        milvus.kill()
        time.sleep(chance.uniform(2.0, 10.0))
        milvus.start()

    try:
        server = {"VISAVOX_HOME": str(tmp_path / "home"), "VISAVOX_DEVICE": "cpu", "VISAVOX_MILVUS_URI": milvus.uri}
        fleet = Fleet(server | {"VISAVOX_BROKER_URL": redis.url}, tmp_path / "log", redis)
        blows = [fleet.kill_child, fleet.kill_worker, fleet.kill_redis, stop_milvus] * 4
        started = time.monotonic()
        page = wild_run(fleet, media, 3, blows, 12.0)
        print(fleet.log.read_text()[-20000:])
        print(f"{len(media)} files in {time.monotonic() - started:.0f} s with {len(blows)} blows: {page}")
        assert {Path(one.path).name for one in page.first_errors} == {"torn.mp4", "text.mp4"}
        assert page.counts["failed"] == 2 and page.files == len(media)
        assert as_it_ended(fleet.environment) == expected
    finally:
        redis.stop()
        milvus.stop()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_records_on_postgresql_survive_what_befalls_their_server(
    tmp_path: Path, stoppable_redis: StoppableRedis, milvus_server: str
) -> None:
    media = write_media(tmp_path, films=12, seconds=8.0)
    expected = quiet_run(tmp_path / "quiet", media)
    with real_postgres() as postgres, postgres.database() as url:

        def cut(_chance: random.Random) -> None:
            postgres.end_connections()

        def crash(chance: random.Random) -> None:
            postgres.crash()
            time.sleep(chance.uniform(0.5, 6.0))
            postgres.start()

        server = {
            "VISAVOX_HOME": str(tmp_path / "home"), "VISAVOX_DEVICE": "cpu", "VISAVOX_MILVUS_URI": milvus_server,
            "VISAVOX_DATABASE_URL": url, "VISAVOX_BROKER_URL": stoppable_redis.url,
        }  # fmt: skip
        fleet = Fleet(server, tmp_path / "log", stoppable_redis)
        page = wild_run(fleet, media, 3, [cut, fleet.kill_child, crash, fleet.kill_worker, cut, crash, cut], 6.0)
        print(fleet.log.read_text()[-20000:])
        assert {Path(one.path).name for one in page.first_errors} == {"torn.mp4", "text.mp4"}
        assert page.counts["failed"] == 2 and page.files == len(media)
        assert as_it_ended(server) == expected
