"""Requests to the search API: sent again where that does no harm, problems as one error, answers as dataclasses."""

from __future__ import annotations

import random
import time
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

Answer = TypeVar("Answer")

CONNECT_SECONDS = 10.0
MOST_ATTEMPTS = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
SILENCE_SECONDS = 60.0
_AGAIN = frozenset({429, 502, 503, 504})
_IN_PROGRESS = "in-progress"


class ProblemError(Exception):
    """The service answered with a problem document (RFC 9457).

    Args:
        status: of the answer.
        document: the problem document; empty if the answer was none.
        request_id: finds the request in the service's log.
    """

    def __init__(self, status: int, document: Mapping[str, Any], request_id: str | None) -> None:
        self.status = status
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", f"status {status}"))
        self.detail = str(document.get("detail", ""))
        self.document = dict(document)
        self.request_id = request_id
        super().__init__(f"{self.title}: {self.detail} (status {status}, request {request_id or 'without id'})")

    @property
    def kind(self) -> str:
        """The end of its type, such as ``unknown-person``."""
        return self.type.rsplit(":", 1)[-1]


class Unreachable(ConnectionError):
    """The service did not answer, or stopped in the middle of it."""


class Transport:
    """A connection to one service.

    Args:
        url: of the service, such as ``http://127.0.0.1:8000``.
        key: sent with every request; None for none.
        timeout: seconds that one answer may take.
    """

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # nothing of the environment: neither its proxies nor its passwords are meant for this service
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS), trust_env=False
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        files: Sequence[tuple[str, Path | str]] = (),
        headers: Mapping[str, str] | None = None,
        attempts: int = MOST_ATTEMPTS,
        **body: Any,  # noqa: ANN401 - json, data and params are httpx's own
    ) -> httpx.Response:
        """The answer, if it is a good one; repeated where that is safe.

        Args:
            method: of HTTP.
            path: below the service's URL.
            files: names of fields, and what is sent in them.
            headers: more headers.
            attempts: most attempts, where repeating is safe.
            body: ``json``, ``data`` or ``params``, as httpx takes them.

        Raises:
            ProblemError: the service answered with one. Unreachable: it did not answer.
        """
        headers = dict(headers or {})
        most = attempts if method == "GET" or "Idempotency-Key" in headers else 1
        for attempt in range(1, most + 1):
            try:
                with ExitStack() as opened:
                    if files:
                        # opened anew for each attempt, and under numbers: names of files are nobody's business
                        body["files"] = [
                            (field, (numbered(n, file), opened.enter_context(Path(file).open("rb"))))
                            for n, (field, file) in enumerate(files)
                        ]
                    response = self._http.request(method, path, headers=headers, **body)
            except httpx.TransportError as error:
                if attempt == most:
                    raise _unreachable(error) from error
                _pause(attempt, None)
                continue
            if response.is_success:
                return response
            problem = _problem(response)
            if attempt == most or not _may_pass(problem):
                raise problem
            _pause(attempt, response.headers.get("retry-after"))
        raise AssertionError("every attempt returns or raises")

    def stream(self, path: str) -> Iterator[bytes | None]:
        """The bytes of an answer as they come; None when they begin anew. Raises ProblemError, Unreachable."""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            wait: str | None = None
            try:
                with self._http.stream("GET", path) as response:
                    if response.is_success:
                        yield from response.iter_bytes()
                        return
                    response.read()
                    problem = _problem(response)
                if attempt == MOST_ATTEMPTS or not _may_pass(problem):
                    raise problem
                wait = response.headers.get("retry-after")
            except httpx.TransportError as error:
                if attempt == MOST_ATTEMPTS:
                    raise _unreachable(error) from error
            _pause(attempt, wait)
            yield None

    def events(self, path: str, last: str) -> Iterator[tuple[str, str]]:
        """Server-sent events, as pairs of name and data, connecting again where the stream breaks.

        Args:
            path: below the service's URL.
            last: name of the event after which nothing comes.

        Raises:
            ProblemError: the service answered with one.
            Unreachable: it could not be reached several times on end, without any event between.
        """
        attempt, wait = 0, None
        # what is silent for longer than this is dead: a live stream says something every 15 seconds
        patience = self._http.timeout
        timeout = httpx.Timeout(
            connect=patience.connect, write=patience.write, pool=patience.pool,
            read=max(SILENCE_SECONDS, patience.read or 0.0),
        )  # fmt: skip
        while True:
            attempt += 1
            try:
                with self._http.stream(
                    "GET", path, headers={"Accept": "text/event-stream"}, timeout=timeout
                ) as response:
                    if response.is_success:
                        for event in _events(response.iter_lines()):
                            yield event
                            if event[0] == last:
                                return
                            attempt = 0
                    else:
                        response.read()
                        problem = _problem(response)
                        if attempt >= MOST_ATTEMPTS or not _may_pass(problem):
                            raise problem
                        wait = response.headers.get("retry-after")
            except httpx.TransportError as error:
                if attempt >= MOST_ATTEMPTS:
                    raise _unreachable(error) from error
            _pause(max(attempt, 1), wait)
            wait = None


def numbered(index: int, file: Path | str) -> str:
    """The name under which a file is sent: its number among those of the request, and its extension."""
    return f"{index}{Path(file).suffix.lower()}"


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Events of a stream of lines; comments are passed over, and what was cut off."""
    name, data = "message", []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []


def _unreachable(error: httpx.TransportError) -> Unreachable:
    address = error.request.url if getattr(error, "_request", None) is not None else "the service"
    return Unreachable(f"{address} does not answer: {error or type(error).__name__}")


def _problem(response: httpx.Response) -> ProblemError:
    try:
        document = response.json()
    except ValueError:
        document = {}
    told = document if isinstance(document, dict) else {}
    return ProblemError(response.status_code, told, response.headers.get("x-request-id"))


def _may_pass(problem: ProblemError) -> bool:
    """Whether asking again may help; also where an earlier attempt of the same write is still at work."""
    return problem.status in _AGAIN or problem.kind == _IN_PROGRESS


def _pause(attempt: int, wanted: str | None) -> None:
    """Wait before another attempt: as long as the service asks for, else twice as long each time; never long."""
    asked = float(wanted) if wanted and wanted.isdecimal() else FIRST_PAUSE * 2 ** (attempt - 1)
    time.sleep(min(asked, LONGEST_PAUSE) * random.uniform(1.0, 1.2))  # noqa: S311 - so that clients spread


def read(kind: type[Answer], told: Any) -> Answer:  # noqa: ANN401 - any JSON
    """A value of a type from its JSON; fields that a newer service adds are passed over."""
    value: Answer = _value(kind, told)
    return value


def _value(kind: Any, told: Any) -> Any:  # noqa: ANN401 - types and JSON
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _value(hints[f.name], told[f.name]) for f in fields(kind) if f.name in told})
    if origin is types.UnionType:
        return None if told is None else _value(next(one for one in inner if one is not types.NoneType), told)
    if origin is list:
        return [_value(inner[0], one) for one in told]
    if origin is tuple:
        return tuple(_value(one, part) for one, part in zip(inner, told, strict=True))
    return float(told) if kind is float else told
