"""Who does the jobs of a server: workers, or it itself, which may be stopped in the middle of one."""

from __future__ import annotations

import signal
import sqlite3
import time
from pathlib import Path

import pytest
import redis

from deploy.serving_jobs import ConfinedReader, work_of
from deploy.settings import load_settings
from deploy.wiring import Installation
from ingest.flow import walking_job
from ingest.sandbox import SandboxLimits
from ingest.track import media_id
from search.client import Client, Unreachable
from tests.deploy.live_server import live_server
from tests.ingest.conftest import StoppableRedis
from training.population.folder import MediaSize, write_demo_media

BOUNDED_SECONDS = 15.0
READER = "tests.ingest.obedient_reader:make_reader"


class NotWanted(Exception):
    """The file is of no use any more."""


def test_a_file_that_is_not_wanted_any_more_ends_its_process_and_the_next_one_is_read(tmp_path: Path) -> None:
    endless, good = tmp_path / "endless", tmp_path / "good"
    endless.write_text("spin")
    good.write_text("sleep 0")
    asked: list[float] = []

    def soon(share: float) -> None:
        asked.append(share)
        if len(asked) == 3:
            raise NotWanted

    reader = ConfinedReader(READER, SandboxLimits(300.0, 300_000_000))
    try:
        with pytest.raises(NotWanted):
            reader.extract(endless, soon)
        assert len(asked) == 3 and reader.extract(good, asked.append).media == media_id(good)
    finally:
        reader.close()
        reader.close()


def test_with_a_broker_workers_are_rung_for_and_the_server_does_nothing(
    tmp_path: Path, stoppable_redis: StoppableRedis
) -> None:
    given = {"VISAVOX_HOME": str(tmp_path), "VISAVOX_BROKER_URL": stoppable_redis.url, "VISAVOX_MEDIA_ROOTS": "/media"}
    opened = Installation(load_settings(given))
    with work_of(opened, lambda: False) as work, redis.Redis.from_url(stoppable_redis.url) as broker:
        job = work.hands.submit(walking_job([Path("/media/archive")], "films", within=work.roots))
        assert broker.llen("probe") == 1 and work.roots == (Path("/media"),)
        assert work.pages.page(job).state == "queued"
    opened.close()


@pytest.mark.long
def test_a_server_that_is_stopped_lets_go_of_its_file_and_its_next_start_goes_on(tmp_path: Path) -> None:
    write_demo_media(tmp_path / "media", 5, MediaSize(people=3, strangers=0, films=0, clip_seconds=4.0))
    roots = {"VISAVOX_MEDIA_ROOTS": str(tmp_path / "media")}
    with live_server(tmp_path, **roots) as server, Client(f"http://127.0.0.1:{server.port}") as client:
        following = client.follow(client.ingest([tmp_path / "media"]).job)
        page = next(one for one in following if one.counts["done"] >= 2 and one.counts["running"])
        before = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(Unreachable):
            list(following)
        assert server.process.wait(timeout=30) == 0 and time.monotonic() - before < BOUNDED_SECONDS
        assert "Traceback" not in server.errors.read_text()
    with sqlite3.connect(tmp_path / "home" / "records.sqlite") as records:
        assert records.execute("SELECT count(*) FROM tasks WHERE state = 'running'").fetchone() == (0,)
        assert records.execute("SELECT max(attempts) FROM tasks").fetchone() == (0,)
    with live_server(tmp_path, **roots) as server, Client(f"http://127.0.0.1:{server.port}") as client:
        *_, last = client.follow(page.job)
        assert last.counts["done"] == last.files and last.state == "done"
