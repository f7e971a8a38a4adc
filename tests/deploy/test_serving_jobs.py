"""A server that does its jobs itself is stopped in the middle of one, and started again: real processes."""

from __future__ import annotations

import signal
import sqlite3
import time
from pathlib import Path

import pytest

from search.client import Client, Unreachable
from tests.deploy.live_server import live_server
from training.population.folder import MediaSize, write_demo_media

BOUNDED_SECONDS = 15.0


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
