"""A worker of the installation that the environment describes, with short leases, cells and shards.

Run as ``python -m tests.deploy.chaos_worker``.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from deploy import reading
from deploy.settings import calm_libraries, load_settings
from deploy.working import make_book, make_runner
from ingest.pipeline import ExtractionSettings
from ingest.runner import Runner
from ingest.worker import Limits, Making, make_app, run_worker

LEASE = 4.0
SHARD_SECONDS = 4.0
SHORT_CELLS = replace(reading.EXTRACTION, faces=replace(reading.EXTRACTION.faces, cell=2.0))


def settled(settings: ExtractionSettings = SHORT_CELLS) -> None:
    """Have this process read files in short cells."""
    reading.EXTRACTION = settings


def chaos_runner() -> Runner:
    settled()
    return make_runner(LEASE, SHARD_SECONDS)


if __name__ == "__main__":
    from tests.deploy import chaos_worker  # by its importable name: a spawned child knows no __main__ of ours

    calm_libraries()
    broker = load_settings().broker_url
    assert broker is not None
    making = Making(make_book, chaos_worker.chaos_runner, limits=Limits(LEASE, watch=1.0))
    sys.exit(run_worker(make_app(broker, making)))
