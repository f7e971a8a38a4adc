"""One worker and two on the same films, and the memory of a worker: ``python -m tests.benchmarks.worker_speed``.

Real workers over a real Redis into a real Milvus server, networks of one thread. The reference of two workers is one
of them in the same run, in turns, while the other one is held still by a signal; each run's films are new to the
archive, and each worker has read films on its own before, so that its models are loaded. With ``--files N`` the memory
of one worker's child is watched over N files instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
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
FILMS = 20
FILM_SECONDS = 10.0
START_SECONDS = 120.0


class Shop:
    """An installation that workers work for, all on this machine."""

    def __init__(self, folder: Path, redis: str, milvus: str, device: str) -> None:
        self._environment = {
            "VISAVOX_HOME": str(folder / "home"), "VISAVOX_DEVICE": device, "VISAVOX_BROKER_URL": redis,
            "VISAVOX_MILVUS_URI": milvus,
        }  # fmt: skip
        self._opened = Installation(load_settings(self._environment))
        self._pages = JobPages(self._opened.database)
        self.workers: list[subprocess.Popen[bytes]] = []

    def hire(self) -> None:
        """Have one worker more."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")}
        command = [sys.executable, "-m", "deploy.cli", "worker"]
        given = mine | self._environment | {"OMP_NUM_THREADS": "1"}
        nowhere = subprocess.DEVNULL
        worker = subprocess.Popen(command, env=given, stdout=nowhere, stderr=nowhere, start_new_session=True)
        self.workers.append(worker)

    def working(self, numbers: Collection[int]) -> None:
        """Have these workers work and hold the others still, all their processes."""
        for number, worker in enumerate(self.workers):
            os.killpg(worker.pid, signal.SIGCONT if number in numbers else signal.SIGSTOP)

    def dismiss(self) -> None:
        """Have no workers any more."""
        self.working(range(len(self.workers)))
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(timeout=60)

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
    for number in (0, 1):
        shop.hire()
        shop.working([number])
        for again in range(2):
            shop.ingest(anew(films[:2], folder / f"warm {number} {again}"))
    taken: dict[int, list[float]] = {1: [], 2: []}
    seconds = 0.0
    for number in range(ROUNDS):
        for workers in (1, 2):
            shop.working([number % 2] if workers == 1 else (0, 1))
            page = shop.ingest(anew(films, folder / f"run {number} {workers}"))
            seconds = page.seconds_of_media
            taken[workers].append(float(page.finished or 0) - float(page.started or 0))
    one, two = (statistics.median(taken[workers]) for workers in (1, 2))
    ratios = [one / two for one, two in zip(taken[1], taken[2], strict=True)]
    return {
        "films": len(films), "seconds_of_media": round(seconds, 1), "one_worker": round(one, 1),
        "two_workers": round(two, 1), "times_real_time_of_one": round(seconds / one, 2),
        "speed_of_two": round(statistics.median(ratios), 2), "ratios": [round(ratio, 2) for ratio in ratios],
    }  # fmt: skip


def watch_memory(shop: Shop, films: list[Path], folder: Path, files: int) -> dict[str, Any]:
    """Resident memory of one child after each round of the films, MB."""
    shop.hire()
    held = []
    for number in range(-(-files // len(films))):
        shop.ingest(anew(films, folder / f"round {number}"))
        status = Path(f"/proc/{shop.child()}/status").read_text()
        held.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    later = held[len(held) // 4 :]
    slope = np.polyfit(np.arange(len(later)) * len(films), later, 1)[0] if len(later) > 1 else 0.0
    return {"files": len(held) * len(films), "megabytes": [round(one) for one in held], "per_file": round(slope, 3)}


@contextmanager
def open_shop(folder: Path, device: str) -> Iterator[Shop]:
    """Redis, Milvus and an installation on them."""
    redis = StoppableRedis(folder)
    try:
        with real_milvus(folder / "milvus") as milvus:
            shop = Shop(folder, redis.url, milvus.uri, device)
            try:
                yield shop
            finally:
                shop.dismiss()
    finally:
        redis.stop()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cuda:0 has both workers share one GPU")
    asked = parser.parse_args()
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, open_shop(Path(name), asked.device) as shop:
        films, seconds = (6, 2.0) if asked.files else (FILMS, FILM_SECONDS)
        size = MediaSize(people=5, strangers=1, films=films, film_seconds=seconds)
        made = [film.path for film in write_demo_media(Path(name) / "media", 7, size).films]
        copies = Path(name) / "copies"
        copies.mkdir()
        told = watch_memory(shop, made, copies, asked.files) if asked.files else compare(shop, made, copies)
        sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
