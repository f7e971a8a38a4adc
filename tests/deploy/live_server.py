"""A server process as a user starts one, its logs kept, ended afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 90.0


@dataclass
class LiveServer:
    """A running server: its process, its port, and the file that has its standard error."""

    process: subprocess.Popen[bytes]
    port: int
    errors: Path

    def log(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        return [json.loads(line) for line in self.errors.read_text().splitlines() if line.startswith("{")]


def environment_of(home: Path) -> dict[str, str]:
    """The environment of an installation in a home of its own."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")}
    return given | {"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}


@contextmanager
def live_server(folder: Path, *arguments: str, **settings: str) -> Iterator[LiveServer]:
    """A server on the installation in ``folder/home``, with further settings, from when it listens."""
    errors = folder / "errors.txt"
    command = [sys.executable, "-m", "deploy.cli", "serve", "--port", "0", "--log-format", "json", *arguments]
    with errors.open("wb") as stream:
        process = subprocess.Popen(command, env=environment_of(folder / "home") | settings, stderr=stream)
    try:
        yield LiveServer(process, wait_for_port(process, errors), errors)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def wait_for_port(process: subprocess.Popen[bytes], errors: Path) -> int:
    """The port that a server says it listens on."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        told = errors.read_text()
        assert process.poll() is None, told
        for line in told.splitlines():
            if '"listening"' in line and line.endswith("}"):
                return int(json.loads(line)["port"])
        time.sleep(0.1)
    raise TimeoutError(told)
