"""How the service is run: ids of requests, one line of log for each, what it counts, and how it stops.

Nothing here says whom a request is about: logged are templates of routes, never paths, and of errors where they
arose and of which class, never their sentences, which quote names and files.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.api.meters import Meters

REQUEST_ID = "X-Request-ID"
# Where middleware leaves, in the scope of a request, the id of the key it was let in by, or why it was not.
KEY_ID, REFUSED = "visavox.key", "visavox.refused"
LOGGER = "visavox.requests"
UNMATCHED = "unmatched"
CANCELLED = "cancelled"
DEEPEST_TRACEBACK = 40

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request being answered, in threads that work for it too; None outside one."""

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")

Answer = Callable[[Exception], Response]


def with_request_id(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A processor of structlog: says during which request something was logged."""
    current = request_id.get()
    return event if current is None else {"request_id": current, **event}


def traceback_of(error: BaseException) -> str:
    """Where an error and its causes arose, the first cause first: lines of code and classes, nothing of the data."""
    told = traceback.TracebackException.from_exception(error, limit=-DEEPEST_TRACEBACK, capture_locals=False)
    parts: list[str] = []
    seen: traceback.TracebackException | None = told
    while seen is not None:
        name = seen.exc_type.__qualname__ if seen.exc_type else "an error"
        parts.insert(0, "".join(seen.stack.format()) + name)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(parts)


class Drain:
    """Whether the service is stopping, and how many requests are being answered."""

    def __init__(self) -> None:
        self.draining = False
        self.running = 0

    def begin(self) -> None:
        """Take no new requests from here on."""
        self.draining = True

    async def idle(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Wait until nothing is being answered, at most some seconds; whether that is so.

        Args:
            seconds: how long.
            hurry: whether to wait no longer.
        """
        with anyio.move_on_after(seconds):
            while self.running and not hurry():
                await anyio.sleep(0.05)
        return not self.running


@dataclass(frozen=True, eq=False)
class Operation:
    """What whoever runs the application looks after it with.

    Args:
        meters: what it counts.
        drain: how it stops.
        open_without_keys: let everybody ask as long as no key was ever made; right on loopback only.
    """

    meters: Meters = field(default_factory=Meters)
    drain: Drain = field(default_factory=Drain)
    open_without_keys: bool = False


class _Watched:
    """One request as it passes: what it weighs and how it is answered."""

    def __init__(self, receive: Receive, send: Send, identity: str) -> None:
        self._receive, self._send = receive, send
        self._identity = identity
        self._is_problem = False
        self.status: int | None = None
        self.problem: str | None = None
        self.bytes_in = self.bytes_out = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self._identity
            self._is_problem = headers.get("content-type", "") == "application/problem+json"
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            self.bytes_out += len(body)
            if self._is_problem and self.problem is None:
                self.problem = _kind_of_problem(body)
        await self._send(message)


def _kind_of_problem(body: bytes) -> str | None:
    """The end of a problem's type, which is one of a fixed table; None of one that says no more than its status."""
    try:
        kind = str(json.loads(body)["type"])
    except (ValueError, KeyError, TypeError):
        return None
    return None if kind == "about:blank" else kind.rsplit(":", 1)[-1]


class Observed:
    """Middleware that gives every request an id, a line of log and its place in the meters.

    What goes wrong inside without being known is answered and logged here, and goes no further.

    Args:
        app: what comes after.
        meters: what counts.
        failed: how an error that nobody knows is answered.
    """

    def __init__(self, app: ASGIApp, meters: Meters, failed: Answer) -> None:
        self._app = app
        self._meters = meters
        self._failed = failed
        self._log = structlog.wrap_logger(
            logging.getLogger(LOGGER),
            processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        given = Headers(scope=scope).get(REQUEST_ID, "")
        identity = given if _HARMLESS.fullmatch(given) else uuid.uuid4().hex
        watched = _Watched(receive, send, identity)
        token = request_id.set(identity)
        error: Exception | None = None
        self._meters.running.inc()
        try:
            try:
                await self._app(scope, watched.receive, watched.send)
            except Exception as unknown:  # the edge of the application
                error = unknown
                if watched.status is not None:
                    raise  # the answer has begun: all that is left is to cut the connection
                await self._failed(unknown)(scope, watched.receive, watched.send)
        finally:
            self._meters.running.dec()
            self._note(scope, watched, time.monotonic() - started, error)
            request_id.reset(token)

    def _note(self, scope: Scope, watched: _Watched, seconds: float, error: Exception | None) -> None:
        route = template(scope)
        self._meters.answered(route, scope["method"], str(watched.status or CANCELLED), seconds)
        if REFUSED in scope:
            self._meters.refused_keys.inc()
        line: dict[str, Any] = {
            "request_id": request_id.get(),
            "method": scope["method"],
            "route": route,
            "status": watched.status,
            "seconds": round(seconds, 4),
            "bytes_in": watched.bytes_in,
            "bytes_out": watched.bytes_out,
            "key": scope.get(KEY_ID),
        }
        line |= {
            name: value for name, value in (("problem", watched.problem), ("refused", scope.get(REFUSED))) if value
        }
        if error is not None:
            line |= {"error": type(error).__qualname__, "traceback": traceback_of(error)}
        failed = error is not None or watched.status is None or watched.status == 500
        (self._log.error if failed else self._log.info)("request", **line)


def template(scope: Scope) -> str:
    """The template of the route that answered, such as ``/v1/people/{person}``; one word for all others."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else UNMATCHED


class Draining:
    """Middleware that counts what runs, and refuses what comes once the service is stopping.

    Args:
        app: what comes after.
        drain: whether it is.
        refusal: the answer then.
    """

    def __init__(self, app: ASGIApp, drain: Drain, refusal: Callable[[], Response]) -> None:
        self._app = app
        self._drain = drain
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if self._drain.draining and scope["path"] != "/healthz":
            await self._refusal()(scope, receive, last)
            return
        self._drain.running += 1
        try:
            await self._app(scope, receive, last)
        finally:
            self._drain.running -= 1
