"""How a server process ends: on real sockets, with requests that finish, that do not, and that cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.stopping import GRACE_SECONDS, LAST_RESORT_SECONDS
from tests.deploy.live_server import LiveServer, wait_for_port

# Routes that take as long as they say; one opens a pipe that nobody writes to, and never returns from the system.
PROGRAM = """
import asyncio, socket, sys
import uvicorn
from anyio import to_thread
from starlette.responses import PlainTextResponse
from deploy.logs import LogFormat, log, start_logging
from deploy.stopping import StoppableServer, ended_in_time
from search.api.operations import Drain, Draining

async def app(scope, receive, send):
    if scope["path"] == "/stuck":
        await to_thread.run_sync(open, sys.argv[1], "rb")
    await asyncio.sleep(float(scope["path"][1:]))
    await PlainTextResponse("done")(scope, receive, send)

start_logging(LogFormat.JSON)
drain, listener = Drain(), socket.create_server(("127.0.0.1", 0))
app = Draining(app, drain, lambda: PlainTextResponse("stopping", 503))
config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, lifespan="off")
log().info("listening", port=listener.getsockname()[1])
StoppableServer(config, drain, *map(float, sys.argv[2:])).run(sockets=[listener])
ended_in_time()
log().info("stopped")
"""


@contextmanager
def stoppable(folder: Path, *seconds: float) -> Iterator[LiveServer]:
    os.mkfifo(folder / "pipe")
    errors = folder / "errors.txt"
    with errors.open("wb") as stream:
        command = [sys.executable, "-c", PROGRAM, str(folder / "pipe"), *map(str, seconds)]
        process = subprocess.Popen(command, stderr=stream)
    try:
        yield LiveServer(process, wait_for_port(process, errors), errors)
    finally:
        process.kill()
        process.wait(timeout=10)


def ask(server: LiveServer, path: str) -> socket.socket:
    """A request under way."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    time.sleep(0.3)
    return connection


def answer(connection: socket.socket) -> bytes:
    """What comes until the connection ends."""
    with connection:
        return b"".join(iter(lambda: connection.recv(4096), b""))


def ended(server: LiveServer, since: float, within: float) -> int:
    code = server.process.wait(timeout=within + 10)
    assert time.monotonic() - since < within
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_answered_and_nothing_new_is_taken(tmp_path: Path, number: signal.Signals) -> None:
    with stoppable(tmp_path) as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as kept:
        kept.get("/0")
        running, began = ask(server, "/1.5"), time.monotonic()
        server.process.send_signal(number)
        time.sleep(0.4)
        refused = kept.get("/0")
        assert refused.status_code == 503 and refused.headers["connection"] == "close"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        told = answer(running)
        assert told.endswith(b"done") and b"connection: close" in told.lower()
        assert ended(server, began, 4) == 0 and server.log()[-1]["event"] == "stopped"


def test_with_nothing_to_finish_it_ends_at_once(tmp_path: Path) -> None:
    with stoppable(tmp_path) as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as kept:
        kept.get("/0")
        began = time.monotonic()
        server.process.terminate()
        assert ended(server, began, 3) == 0


def test_what_does_not_finish_is_cut_off(tmp_path: Path) -> None:
    with stoppable(tmp_path, 0.5, 10.0) as server:
        running, began = ask(server, "/60"), time.monotonic()
        server.process.terminate()
        assert b"done" not in answer(running)
        assert ended(server, began, 5) == 0 and "requests are cut off" in [line["event"] for line in server.log()]


def test_a_thread_stuck_in_the_system_does_not_hold_the_process(tmp_path: Path) -> None:
    with stoppable(tmp_path, 0.3, 2.0) as server:
        running, began = ask(server, "/stuck"), time.monotonic()
        server.process.terminate()
        assert ended(server, began, 4) == 1 and server.log()[-1]["event"] == "ended by force"
        running.close()


def test_a_second_signal_waits_no_longer(tmp_path: Path) -> None:
    with stoppable(tmp_path, 30.0, 40.0) as server:
        running, began = ask(server, "/60"), time.monotonic()
        server.process.terminate()
        time.sleep(0.5)
        server.process.terminate()
        assert ended(server, began, 5) == 0
        running.close()


@pytest.mark.long
def test_the_real_times_are_kept(tmp_path: Path) -> None:
    for name in ("slow", "stuck"):
        (tmp_path / name).mkdir()
    with stoppable(tmp_path / "slow") as slow, stoppable(tmp_path / "stuck") as stuck:
        running, held = [ask(slow, "/13"), ask(slow, "/60")], ask(stuck, "/stuck")
        began = time.monotonic()
        slow.process.terminate()
        stuck.process.terminate()
        assert answer(running[0]).endswith(b"done")
        assert ended(slow, began, 20) == 0 and time.monotonic() - began > GRACE_SECONDS
        assert ended(stuck, began, 20) == 1 and LAST_RESORT_SECONDS < 20
        held.close()
        running[1].close()
