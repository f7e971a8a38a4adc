"""One worker and two on the same films, and the memory of a worker: ``python -m tests.benchmarks.worker_speed``.

Real workers over a real Redis into a real Milvus server, networks of one thread. The reference of two workers is one
worker in the same run, in turns; each run's films are new to the archive, and the workers' models are loaded before.
With ``--files N`` the memory of one worker's child is watched over N files instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deploy.settings import load_settings
from deploy.wiring import Installation
from deploy.working import queue_of
from ingest.flow import ingest_job
from ingest.jobpage import JobPage, JobPages
from tests.ingest.conftest import StoppableRedis
from tests.search.real_milvus import real_milvus
from training.population.folder import MediaSize, write_demo_media

ROUNDS = 3
FILMS = 6
START_SECONDS = 120.0


class Shop:
    """An installation that workers work for, all on this machine."""

    def __init__(self, folder: Path, redis: str, milvus: str) -> None:
        self._environment = {
            "VISAVOX_HOME": str(folder / "home"), "VISAVOX_DEVICE": "cpu", "VISAVOX_BROKER_URL": redis,
            "VISAVOX_MILVUS_URI": milvus,
        }  # fmt: skip
        self._opened = Installation(load_settings(self._environment))
        self._pages = JobPages(self._opened.database)
        self.workers: list[subprocess.Popen[bytes]] = []

    def hire(self, count: int) -> None:
        """Have so many workers."""
        while len(self.workers) > count:
            worker = self.workers.pop()
            worker.terminate()
            worker.wait(timeout=60)
        while len(self.workers) < count:
            mine = {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")}
            command = [sys.executable, "-m", "deploy.cli", "worker"]
            given = mine | self._environment | {"OMP_NUM_THREADS": "1"}
            self.workers.append(subprocess.Popen(command, env=given, stderr=subprocess.DEVNULL))

    def ingest(self, films: list[Path]) -> JobPage:
        """Have films read; the job as it ended."""
        *_, page = queue_of(self._opened).follow(queue_of(self._opened).submit(ingest_job(films, "benchmark")))
        if page.counts["done"] != len(films):
            raise RuntimeError(f"not all films were read: {page}")
        return page

    def child(self) -> int:
        """Process id of the first worker's child."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for task in Path(f"/proc/{self.workers[0].pid}/task").glob("*/children"):
                for one in task.read_text().split():
                    if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes():
                        return int(one)
            time.sleep(0.1)
        raise RuntimeError("the worker has no child")


def anew(films: list[Path], folder: Path) -> list[Path]:
    """Copies with another content hash and the same pictures and sound."""
    folder.mkdir()
    copies = [folder / film.name for film in films]
    for film, copy in zip(films, copies, strict=True):
        shutil.copy(film, copy)
        with copy.open("ab") as file:  # an empty box at the end of the file, which readers pass over
            file.write((24).to_bytes(4, "big") + b"free" + folder.name.encode().ljust(16, b"\0")[:16])
    return copies


def compare(shop: Shop, films: list[Path], folder: Path) -> dict[str, Any]:
    """One worker against two, in turns: seconds from the first task's begin to the last one's end."""
    taken: dict[int, list[float]] = {1: [], 2: []}
    seconds = 0.0
    for number in range(ROUNDS):
        for workers in (1, 2):
            shop.hire(workers)
            shop.ingest(anew(films[:workers], folder / f"warm {number} {workers}"))
            page = shop.ingest(anew(films, folder / f"run {number} {workers}"))
            seconds = page.seconds_of_media
            taken[workers].append(float(page.finished or 0) - float(page.started or 0))
    one, two = (statistics.median(taken[workers]) for workers in (1, 2))
    return {
        "films": len(films), "seconds_of_media": round(seconds, 1), "one_worker": round(one, 1),
        "two_workers": round(two, 1), "times_real_time_of_one": round(seconds / one, 2),
        "speed_of_two": round(one / two, 2), "all": taken,
    }  # fmt: skip


def watch_memory(shop: Shop, films: list[Path], folder: Path, files: int) -> dict[str, Any]:
    """Resident memory of one child after each round of the films, MB."""
    shop.hire(1)
    held = []
    for number in range(-(-files // len(films))):
        shop.ingest(anew(films, folder / f"round {number}"))
        status = Path(f"/proc/{shop.child()}/status").read_text()
        held.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    later = held[len(held) // 4 :]
    slope = np.polyfit(np.arange(len(later)) * len(films), later, 1)[0] if len(later) > 1 else 0.0
    return {"files": len(held) * len(films), "megabytes": [round(one) for one in held], "per_file": round(slope, 3)}


@contextmanager
def open_shop(folder: Path) -> Iterator[Shop]:
    """Redis, Milvus and an installation on them."""
    redis = StoppableRedis(folder)
    try:
        with real_milvus(folder / "milvus") as milvus:
            shop = Shop(folder, redis.url, milvus.uri)
            try:
                yield shop
            finally:
                shop.hire(0)
    finally:
        redis.stop()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=0)
    asked = parser.parse_args()
    with TemporaryDirectory() as name, open_shop(Path(name)) as shop:
        seconds = 2.0 if asked.files else 15.0
        size = MediaSize(people=5, strangers=1, films=FILMS, film_seconds=seconds)
        films = [film.path for film in write_demo_media(Path(name) / "media", 7, size).films]
        copies = Path(name) / "copies"
        copies.mkdir()
        told = watch_memory(shop, films, copies, asked.files) if asked.files else compare(shop, films, copies)
        sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
