"""What the service counts about itself, for Prometheus: durations, numbers and kinds, never whom it is about.

Labels take few values: templates of routes, methods, statuses, stages and spaces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import anyio
from anyio import CapacityLimiter, to_thread
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MOST_STAGES = 30
# What is held is counted at most once in this many seconds, and a scrape waits no longer than that for it.
HELD_FRESH_SECONDS = 10.0
HELD_PATIENCE_SECONDS = 2.0

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a series began, as one more series for each: of no use here


@dataclass(frozen=True)
class Held:
    """What an installation holds; None is not known now.

    Args:
        rows: rows in the index by name of space.
        media: media that are in.
        failed: files whose last attempt failed.
        people: people enrolled.
    """

    rows: Mapping[str, int] | None
    media: int | None
    failed: int | None
    people: int | None


class Meters:
    """The meters of one application, in a registry of its own.

    Args:
        version: of Visavox.
        held: see :meth:`count`.
    """

    def __init__(self, version: str = "0", held: Callable[[], Held] | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "visavox_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "visavox_request_seconds", "From the first byte of a request to the end of its answer.",
            ["route", "method"], registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self.running = Gauge("visavox_requests_running", "Requests being answered.", registry=registry)
        self.refused_keys = Counter("visavox_refused_keys", "Requests with a key that is not known.", registry=registry)
        self._stages = Histogram(
            "visavox_stage_seconds", "Stages of answering, waiting for one's turn (queue) included.",
            ["stage"], registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self._known_stages: set[str] = set()
        self._lock = threading.Lock()
        Info("visavox_build", "What runs.", registry=registry).info({"version": version})
        ProcessCollector(registry=registry)
        self._held = _HeldNumbers(held)
        registry.register(self._held)

    def count(self, held: Callable[[], Held]) -> None:
        """Say how to count what the installation holds; it may wait, and may raise: then those numbers are missing."""
        self._held.count = held

    def answered(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count one request: the template of its route, its method, its status, and how long it took."""
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, status).inc()
        self._seconds.labels(route, method).observe(seconds)

    def observe(self, stage: str, seconds: float) -> None:
        """Tell how many seconds a stage of answering took; safe from any thread.

        Args:
            stage: one of few names, fixed in the code; beyond ``MOST_STAGES`` of them they are counted as ``other``.
            seconds: ≥ 0.
        """
        with self._lock:
            if stage not in self._known_stages and len(self._known_stages) >= MOST_STAGES:
                stage = "other"
            self._known_stages.add(stage)
        self._stages.labels(stage).observe(seconds)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Every number as text, and its media type.

        Args:
            accept: the header of that name, which chooses between Prometheus' own format and OpenMetrics.
        """
        await self._held.refresh()
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


class _HeldNumbers(Collector):
    """What is held, as it was counted last; never waits, so that no scrape fails because of it."""

    def __init__(self, held: Callable[[], Held] | None) -> None:
        self.count = held
        self._last: Held | None = None
        self._asked = float("-inf")
        self._counting = CapacityLimiter(1)

    async def refresh(self) -> None:
        """Count anew if the last count is old; what does not answer in time is missing until the next one."""
        if self.count is None or time.monotonic() - self._asked < HELD_FRESH_SECONDS:
            return
        self._asked, self._last = time.monotonic(), None
        with anyio.move_on_after(HELD_PATIENCE_SECONDS):
            # a count that hangs keeps its place, so that there is never a second one
            self._last = await to_thread.run_sync(
                self._quietly, self.count, limiter=self._counting, abandon_on_cancel=True
            )

    @staticmethod
    def _quietly(count: Callable[[], Held]) -> Held | None:
        try:
            return count()
        except Exception:  # noqa: BLE001 - numbers that are missing say it; /readyz says why
            return None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The numbers that are known."""
        held = self._last
        if held is None:
            return
        if held.rows is not None:
            rows = GaugeMetricFamily("visavox_rows", "Rows in the index.", labels=["space"])
            for space, number in sorted(held.rows.items()):
                rows.add_metric([space], number)
            yield rows
        for name, text, value in (
            ("visavox_media", "Media that are in.", held.media),
            ("visavox_failed_files", "Files whose last attempt failed.", held.failed),
            ("visavox_people", "People enrolled.", held.people),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)
