"""A real Milvus server in a child process, for tests and benchmarks (pip package ``milvus``)."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

PATIENCE_SECONDS = 90.0
ATTEMPTS = 3
# The server's own clocks, in milliseconds, made to tick faster: what Strong reads and new collections wait for takes
# a fifth and a half of its time, and the server three times its little work when idle. It answers the same.
EAGER = {
    "PROXY_TIMETICKINTERVAL": "50",
    "QUERYCOORD_CHECKINTERVAL": "100",
    "QUERYCOORD_CHECKCHANNELINTERVAL": "100",
    "QUERYCOORD_CHECKSEGMENTINTERVAL": "100",
    "QUERYCOORD_DISTPULLINTERVAL": "100",
    "QUERYCOORD_UPDATENEXTTARGETINTERVAL": "1",
}


class RealMilvus:
    """A server that keeps its data in a folder, on ports of its own: several can run side by side.

    Args:
        folder: where its binary is unpacked (300 MB) and its data lies.
        eager: whether its clocks tick faster than by default, so that tests wait less.
    """

    def __init__(self, folder: Path, *, eager: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        from milvus import MilvusServer, MilvusServerConfig

        port, client, peer = _free_ports(3)
        self.uri = f"http://127.0.0.1:{port}"
        config = MilvusServerConfig(data_dir=str(folder), proxy_port=port, etcd_port=client)
        self._server = MilvusServer(config, wait_for_started=False)
        self._settings = EAGER if eager else {}
        # Its metadata store listens on fixed ports unless a file of its own says otherwise.
        self._metadata = folder / "metadata_store.yaml"
        self._metadata.write_text(
            f"listen-client-urls: http://127.0.0.1:{client}\nadvertise-client-urls: http://127.0.0.1:{client}\n"
            f"listen-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\n"
            f"initial-cluster: default=http://127.0.0.1:{peer}\n"
        )

    def start(self) -> None:
        """Return when it is healthy (about 7 s); RuntimeError if it ends instead or takes too long."""
        settings = self._settings | {"ETCD_CONFIG_PATH": str(self._metadata)}
        with mock.patch.dict(os.environ, settings), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the package drops sockets of ports it tried
            self._server.start()
        # A second start keeps ports and settings; asking again would find the ports still lingering.
        self._server.config.resolve = lambda: None
        health = f"http://127.0.0.1:{self._server.webservice_port}/healthz"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _healthy(health):
            if self._server.server_proc.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the Milvus server did not start; its folder's logs/ say why")
            time.sleep(0.2)

    def freeze(self) -> None:
        """Let it take connections and answer nothing, until :meth:`thaw`."""
        self._server.server_proc.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it was."""
        self._server.server_proc.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without warning, as a crash does; ``start`` starts it again."""
        self._server.server_proc.kill()
        self.stop()

    def stop(self) -> None:
        """End it and wait for its end: asked politely first, after a second by force."""
        self._server.stop()


@contextmanager
def real_milvus(folder: Path, *, eager: bool = False) -> Iterator[RealMilvus]:
    """A running server, stopped whatever happens."""
    server = _started(folder, eager)
    try:
        yield server
    finally:
        server.stop()


def _started(folder: Path, eager: bool) -> RealMilvus:
    """A running server; another program may have taken one of its ports between choice and use, so it tries again."""
    for attempt in range(ATTEMPTS):
        server = RealMilvus(folder / str(attempt), eager=eager)
        try:
            server.start()
        except BaseException as error:
            server.stop()
            if not isinstance(error, RuntimeError) or attempt == ATTEMPTS - 1:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return b"OK" in answer.read()
    except (OSError, urllib.error.URLError):
        return False


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
