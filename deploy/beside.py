"""A second process beside a worker, for what somebody waits for."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@contextmanager
def beside_for_who_waits() -> Iterator[None]:
    """Run a worker of the queue ``interactive`` while the block lasts; it ends when this process does, however it ends.

    It loads no model before something comes.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "worker", "--queues", "interactive"],
        preexec_fn=_end_with_parent,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    """Have the kernel ask this process to end when the one that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
