"""A worker of the installation that the environment describes, with short leases and short shards.

Run as ``python -m tests.deploy.chaos_worker LEASE SHARD_SECONDS``.
"""

from __future__ import annotations

import sys
from functools import partial

from deploy.settings import calm_libraries, load_settings
from deploy.working import make_book, make_runner
from ingest.worker import Limits, Making, make_app, run_worker

if __name__ == "__main__":
    calm_libraries()
    lease, shard_seconds = map(float, sys.argv[1:])
    broker = load_settings().broker_url
    assert broker is not None
    making = Making(make_book, partial(make_runner, lease, shard_seconds), limits=Limits(lease, watch=1.0))
    sys.exit(run_worker(make_app(broker, making)))
