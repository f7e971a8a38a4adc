"""A home and a live search API on it, for benchmarks: real processes, asked over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

START_SECONDS = 120.0


@contextmanager
def live_api(home: Path, **settings: str) -> Iterator[str]:
    """Serve a home; gives the URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "serve", "--port", str(port)],
        env=environment | {"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"} | settings,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def latencies(asks: Sequence[Callable[[int], object]], each: int) -> tuple[list[float], float]:
    """Ask with as many clients at once as there are functions.

    Args:
        asks: one function per client, given the number of the question.
        each: questions of each client, after two to warm up.

    Returns:
        (milliseconds of every question, seconds that all of them took together).
    """

    def client(ask: Callable[[int], object]) -> list[float]:
        taken = []
        for number in range(each):
            began = time.perf_counter()
            ask(number)
            taken.append((time.perf_counter() - began) * 1000)
        return taken

    with ThreadPoolExecutor(len(asks)) as clients:
        list(clients.map(lambda ask: [ask(number) for number in range(2)], asks))
        began = time.perf_counter()
        taken = list(clients.map(client, asks))
        seconds = time.perf_counter() - began
    return [one for line in taken for one in line], seconds


def percentiles(taken: Sequence[float]) -> tuple[float, float]:
    """(median, 95th percentile)."""
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 95))
