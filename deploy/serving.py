"""Starts the search API: the parts of the installation, handed to the application, served by uvicorn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import uvicorn

from deploy.wiring import Installation, installation
from ingest.jobs import JobBoard
from search.api.app import create_app
from search.api.services import Limits, Services
from search.store import StoreError

# Running requests get this long to end after SIGTERM, in seconds.
GRACE_SECONDS = 15


def run_server(host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    An embedded index is owned from the start, so that nobody else can take it between two requests; a
    server may be down at the start and later: requests are refused with 503 until it is back.

    Raises:
        StoreHeld: another process owns the embedded index.
    """
    with installation(consistency="Bounded") as opened:
        if opened.settings.embedded:
            opened.archive.mend()
        limits = Limits(folder=opened.settings.home / "uploads")
        uvicorn.run(
            create_app(_services(opened), limits),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )


def _services(opened: Installation) -> Services:
    return Services(
        engine=opened.engine,
        archive=opened.archive,
        people=opened.records.people,
        encoders=list(opened.encoders.values()),
        board=JobBoard(),
        evidence=opened.records.evidence.file,
        ready=_readiness(opened),
    )


def _readiness(opened: Installation) -> Callable[[], Sequence[str]]:
    def missing() -> list[str]:
        try:
            for encoder in opened.encoders.values():
                opened.store.count(encoder.space)
        except StoreError as error:
            return [str(error)]
        return []

    return missing
