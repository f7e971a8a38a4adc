"""How jobs stand, told to whoever listens, as server-sent events.

However many listen, a job is looked at once for all of them, and none of them has a thread. A stream ends with its
job, when the service stops, or after some minutes, so that a key that was revoked hears no more: whoever still wants
to listen connects again, and is first told how the job stands now.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ingest.jobpage import JobPage, JobPages
from ingest.jobs import UnknownJob
from ingest.ledger import RecordsError
from search.api.services import Overloaded

MEDIA_TYPE = "text/event-stream"
PERIOD_SECONDS = 0.5
"""Between two looks at a job."""
HEARTBEAT_SECONDS = 15.0
"""After this long without news a listener is told that there is none, so that nobody takes the stream for dead."""
LONGEST_SECONDS = 600.0
MOST_LISTENERS = 1000
# Counting the files of a huge job takes a while: looking may take a fifth of the time.
_REST_PER_LOOK = 4.0
# Threads that look at jobs.
_LOOKERS = 2
# How often a feed sees whether the service is stopping, and how long those whose line is full get to notice.
_STOP_SECONDS, _STALLED_SECONDS = 0.1, 0.5
# What changes with the clock alone is no news.
_OF_THE_CLOCK = ("rate", "real_time", "remaining")
_GONE = "forgotten"


@dataclass(frozen=True)
class Pace:
    """How often things happen, in seconds.

    Args:
        period: between two looks at a job.
        heartbeat: without news, until that is said.
        longest: of one stream.
    """

    period: float = PERIOD_SECONDS
    heartbeat: float = HEARTBEAT_SECONDS
    longest: float = LONGEST_SECONDS


DEFAULT_PACE = Pace()


class Look(Protocol):
    """Looks how a job stands."""

    async def __call__(self, job: str, /) -> JobPage:
        """Raises UnknownJob, RecordsError."""


class Feeds:
    """The jobs that somebody listens to.

    Args:
        pages: how jobs stand.
        stopping: whether the service is.
        pace: how often things happen.
    """

    def __init__(self, pages: JobPages, stopping: Callable[[], bool], pace: Pace = DEFAULT_PACE) -> None:
        self._pages = pages
        self._stopping = stopping
        self._pace = pace
        self._threads = CapacityLimiter(_LOOKERS)
        self._feeds: dict[str, _Feed] = {}

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return sum(feed.listeners for feed in self._feeds.values())

    async def listen(self, job: str) -> EventStream:
        """A stream of what happens with a job, from how it stands now. Raises UnknownJob, RecordsError, Overloaded."""
        if self.listeners >= MOST_LISTENERS:
            raise Overloaded(f"{MOST_LISTENERS} listen already: ask how the job stands instead, now and then")
        return EventStream(self, job, await self.look(job))

    async def look(self, job: str) -> JobPage:
        """How a job stands. Raises UnknownJob, RecordsError."""
        return await to_thread.run_sync(self._pages.page, job, limiter=self._threads)

    @contextmanager
    def joined(self, job: str, page: JobPage) -> Iterator[_Feed]:
        """The feed of a job, for the time of a ``with`` block; the last one who leaves closes it."""
        feed = self._feeds.get(job)
        if feed is None or feed.over:
            feed = self._feeds[job] = _Feed(job, self.look, self._stopping, self._pace)
            feed.tell(page)
        with feed.joined():
            try:
                yield feed
            finally:
                if feed.listeners == 1 and self._feeds.get(job) is feed:
                    del self._feeds[job]


class _Feed:
    """One job, as those who listen see it."""

    def __init__(self, job: str, look: Look, stopping: Callable[[], bool], pace: Pace) -> None:
        self._job = job
        self._look = look
        self._stopping = stopping
        self._pace = pace
        self._news: dict[str, object] = {}
        self._text = ""
        self._number = 0
        self._end: str | None = None
        self._changed = anyio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._scopes: list[anyio.CancelScope] = []
        self.over = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._scopes)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Listen for the time of a ``with`` block, which is cut off if its line is full when the service stops."""
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            if self._watching is None:
                self._watching = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                self._scopes.remove(scope)
                if not self._scopes:
                    self._watching.cancel()

    def tell(self, page: JobPage) -> None:
        """Let those who listen know how the job stands, if that is news."""
        told = asdict(page)
        news = {name: value for name, value in told.items() if name not in _OF_THE_CLOCK}
        if news != self._news:
            self._news, self._text, self._number = news, json.dumps(told), self._number + 1
            self._wake()
        if page.finished is not None:
            self._finish(page.state)

    async def events(self) -> AsyncIterator[bytes]:
        """What one listener is sent."""
        told, until = 0, anyio.current_time() + self._pace.longest
        while True:
            changed = self._changed  # taken before anything is told: what happens meanwhile sets it
            if self._number != told:
                told = self._number
                yield _event("page", self._text)
            if self.over or anyio.current_time() >= until:
                break
            silent = True
            with anyio.move_on_after(min(self._pace.heartbeat, until - anyio.current_time())):
                await changed.wait()
                silent = False
            if silent:
                yield b": nothing new\n\n"
        if self._end is not None:
            yield _event("end", json.dumps({"job": self._job, "state": self._end}))

    async def _watch(self) -> None:
        """Look at the job for all who listen, until it is finished or the service stops."""
        try:
            await self._look_again_and_again()
        finally:  # nobody waits for news that do not come any more
            self._finish(self._end)
        while not self._stopping():  # who reads slowly may read to the end; the last who leaves cancels this
            await anyio.sleep(_STOP_SECONDS)
        await anyio.sleep(_STALLED_SECONDS)
        for scope in list(self._scopes):
            scope.cancel()

    async def _look_again_and_again(self) -> None:
        rest = self._pace.period
        while not self.over and not await self._stops_within(rest):
            began = anyio.current_time()
            try:
                self.tell(await self._look(self._job))
            except UnknownJob:
                self._finish(_GONE)
            except RecordsError:
                pass  # away for a moment: those who listen are told when there is news
            rest = max(self._pace.period, _REST_PER_LOOK * (anyio.current_time() - began))

    async def _stops_within(self, seconds: float) -> bool:
        until = anyio.current_time() + seconds
        while not self._stopping():
            left = until - anyio.current_time()
            if left <= 0:
                return False
            await anyio.sleep(min(left, _STOP_SECONDS))
        return True

    def _finish(self, end: str | None) -> None:
        self.over, self._end = True, end
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class EventStream(StreamingResponse):
    """What happens with a job, for one listener; nothing is kept of them however they go."""

    def __init__(self, feeds: Feeds, job: str, page: JobPage) -> None:
        # proxies keep nothing back
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(iter(()), headers=headers, media_type=MEDIA_TYPE)
        self._feeds, self._job, self._page = feeds, job, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one listener."""
        with self._feeds.joined(self._job, self._page) as feed:
            self.body_iterator = feed.events()
            await super().__call__(scope, receive, send)


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()
