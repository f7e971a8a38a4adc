"""Starts the search API: the parts of the installation, handed to the application, served by uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from deploy.wiring import Installation, installation
from encoders.encoder import EncoderError
from ingest.jobs import JobBoard
from search.api.app import create_app
from search.api.services import Limits, Services
from search.store import StoreError

# Running requests get this long to end after SIGTERM, in seconds.
GRACE_SECONDS = 15
OUTDATED = "another model was chosen with `visavox models use`: start this server again"


def run_server(host: str, port: int, on_listening: Callable[[int], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    An embedded index is owned from the start, so that nobody else can take it between two requests; a
    server may be down at the start and later: requests are refused with 503 until it is back. So they are once
    another model has been chosen than the one this process loaded.

    Args:
        host: loopback address.
        port: 0 for any that is free.
        on_listening: told the port once it is bound.

    Raises:
        StoreHeld: another process owns the embedded index. OSError: the port is taken.
    """
    with installation(consistency="Bounded") as opened:
        if opened.settings.embedded or opened.lacks_shared_rows:
            opened.archive.mend()
        limits = Limits(folder=opened.settings.home / "uploads")
        app = create_app(_services(opened), limits)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)
        with _listening(host, port) as listener:
            on_listening(listener.getsockname()[1])
            uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; raises OSError with the address in it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen there: {error.strerror}", f"{host}:{port}") from error
        yield listener


def _services(opened: Installation) -> Services:
    return Services(
        engine=opened.engine,
        archive=opened.archive,
        people=opened.records.people,
        encoders=list(opened.encoders.values()),
        board=JobBoard(),
        evidence=opened.records.evidence.file,
        ready=_readiness(opened),
        outdated=lambda: OUTDATED if opened.outdated else None,
    )


def _readiness(opened: Installation) -> Callable[[], Sequence[str]]:
    def missing() -> list[str]:
        try:
            for encoder in opened.encoders.values():
                opened.store.count(encoder.space)
            if opened.outdated:
                return [OUTDATED]
        except (StoreError, EncoderError) as error:
            return [str(error)]
        return []

    return missing
