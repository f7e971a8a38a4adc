from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.test_topologies import clean

READY = "ready."


@pytest.fixture
def worker(tmp_path: Path, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of all queues, whose index is a server; nothing asks that server anything."""
    environment = {
        "VISAVOX_HOME": str(tmp_path / "home"), "VISAVOX_BROKER_URL": redis_url, "VISAVOX_DEVICE": "cpu",
        "VISAVOX_MILVUS_URI": "http://127.0.0.1:1",
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "worker"], env=clean(environment), stdout=log, stderr=log
        )
    wait_for(lambda: (tmp_path / "log").read_text().count(READY) == 2, tmp_path / "log")
    yield process
    process.kill()
    process.wait()


def wait_for(what: object, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def beside(worker: subprocess.Popen[bytes]) -> Path:
    """The process that is kept for who waits."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    (one,) = [child for child in children if b"interactive" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return Path(f"/proc/{one}")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_for_who_waits_comes_and_goes_with_its_worker(
    worker: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals
) -> None:
    companion = beside(worker)
    worker.send_signal(number)
    worker.wait(timeout=60)
    wait_for(lambda: not companion.exists() or "Z" in (companion / "stat").read_text().split()[2], tmp_path / "log")
