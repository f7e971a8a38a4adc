"""A worker whose handler does what a file's own text says: ``count``, ``raise``, ``die`` or ``sleep SECONDS``.

Run as ``python -m tests.ingest.counting_worker BROKER_URL LEASE``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from ingest.jobs import FileReport, Handler
from ingest.worker import Limits, make_app, run_worker


def limits(lease: float = 4.0) -> Limits:
    return Limits(soft=60, hard=70, visibility=600, lease=lease, retries=1)


def _read(path: Path, archive: str) -> FileReport:
    with path.with_suffix(".runs").open("a") as runs:
        runs.write(f"{os.getpid()} {archive}\n")
    order, *seconds = path.read_text().split()
    if order == "raise":
        raise RuntimeError("the index is not there")
    if order == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "sleep":
        time.sleep(float(seconds[0]))
    return FileReport(str(path), "done", "0" * 64, 1, 2, 3.0, None, ("a warning",))


def make_handler() -> Handler:
    with Path(os.environ["COUNTING_WORKER_LOADS"]).open("a") as loads:
        loads.write(f"{os.getpid()}\n")
    return _read


if __name__ == "__main__":
    # the functions by their importable names: a spawned child knows no __main__ of ours
    from tests.ingest import counting_worker

    app = make_app(sys.argv[1], counting_worker.make_handler, limits(float(sys.argv[2])))
    sys.exit(run_worker(app))
