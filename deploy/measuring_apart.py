"""Measures on published lists in a process of its own, that is killed as soon as its report is not wanted any more.

A server that does its own jobs reads media of others there, and holds the vectors of a whole corpus: neither what
kills a reader nor what fills the memory may be the end of the server.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

from deploy.settings import Settings
from search.measurement import Measurement

CHECK_SECONDS = 0.25
"""Between two looks whether a report is still wanted."""


class MeasuringFailed(RuntimeError):
    """A measurement came to nothing, and trying again would not change that.

    Args:
        kind: of the error, one word.
        reason: for people to read.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Expected:
    """Errors that a measurement may end with.

    Args:
        final: those that trying again would not change.
        outages: those that it would.
    """

    final: tuple[type[Exception], ...]
    outages: tuple[type[Exception], ...]


def take_apart(asked: Measurement, settings: Settings, expected: Expected, check: Callable[[], None]) -> dict[str, Any]:
    """Measure in another process.

    Args:
        asked: on a protocol.
        settings: of the installation.
        expected: errors.
        check: called again and again; what it raises ends the process at once.

    Returns:
        The report.

    Raises:
        MeasuringFailed: a final error, or the death of the process. OSError: an outage.
    """
    context = get_context("spawn")
    answer, told = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(told, asked.to_json(), settings, expected), daemon=True)
    process.start()
    told.close()
    try:
        while not answer.poll(CHECK_SECONDS):
            check()
        found = json.loads(answer.recv_bytes())
    except EOFError:
        process.join()
        raise MeasuringFailed(
            "measuring_died", f"the process that measured died (exit code {process.exitcode}): is there memory enough?"
        ) from None
    finally:
        process.kill()
        process.join()
        answer.close()
    if "outage" in found:
        raise OSError(found["outage"])
    if "error" in found:
        raise MeasuringFailed(found["error"], found["reason"])
    report: dict[str, Any] = found["report"]
    return report


def kind_of(error: Exception) -> str:
    """What a kind of error is called where a program reads it: ``seen_in_training`` of SeenInTraining."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()


def _measure(told: Connection, asked: dict[str, Any], settings: Settings, expected: Expected) -> None:
    """What the process does: it ends with its parent, and an interrupt is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from deploy.protocols import Asked, measure_protocol

    found: dict[str, Any]
    try:
        found = {"report": measure_protocol(Asked.of(Measurement.from_json(asked)), settings=settings)}
    except expected.final as error:
        found = {"error": kind_of(error), "reason": str(error)}
    except expected.outages as error:
        found = {"outage": str(error)}
    told.send_bytes(json.dumps(found).encode())


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
