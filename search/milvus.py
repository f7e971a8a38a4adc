"""Rows in Milvus: one store for the embedded index (a ``.db`` path) and for a server (an http URI).

Only the subset that both understand is used: one vector field, full-row upserts, plain filters,
aliases. What differs is asked of :class:`search.capabilities.Capabilities`.

Timeouts and retries are ours. The client would retry 75 times, or until a request's time is over, also
where a server refuses at once; it is told not to. Instead :class:`MilvusStore` asks again while a server
is away, for as long as its patience lasts (:mod:`ingest.outage`): every request may be repeated, since rows
are written and removed by key.

This is the only file that knows pymilvus.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from pymilvus import DataType, MilvusClient, MilvusException

from encoders.space import Embedding, Modality, Space
from ingest.outage import Outage
from search import generations
from search.capabilities import Capabilities, Kind, capabilities_of
from search.embedded import NO_ROOM, EmbeddedIndex
from search.generations import Holding, alias_named, alias_of, ensure, reach
from search.link import BATCH_KEYS, BATCH_ROWS, NOT_FOUND, SLOW_SECONDS, Link, RecordIterator
from search.records import FIELDS, is_id, quoted, to_expression, to_record, to_row
from search.store import (
    EVERYTHING,
    MOST_HITS,
    Filter,
    Hit,
    Row,
    StoreError,
    StoreFull,
    StoreUnavailable,
    require_one_shape,
)
from search.together import Together

Consistency = Literal["Bounded", "Strong"]
Answer = TypeVar("Answer")

# How long a question goes on asking while a server is away: a connection that broke is made anew in that time.
PATIENCE_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

# not ready, unavailable, too many requests, rate limit, not (fully) loaded, channels or nodes not there yet
_TRANSIENT = {1, 2, 4, 8, 101, 103, 500, 501, 502, 503, 901, 902, 903}
_FULL = {3, 7, 9}  # memory, disk, quota
_FOREIGN = (MilvusException, grpc.RpcError, grpc.FutureTimeoutError)
# A channel that lost its server tries again this soon, not after up to two minutes.
_RECONNECT = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1_000}
# The embedded index hangs up on a client that, by default, asks every 10 s whether it is still there.
_NO_PINGS = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": False}


class MilvusStore:
    """See search.store.Store. Connects at the first call; a server may go and come back while it is used.

    Safe to use from several threads. Stores of one process on one embedded index share it.

    Args:
        uri: a path ending in ``.db`` (embedded) or ``http(s)://[user:password@]host:port[/database]``.
        token: ``user:password`` or an API key, for servers that ask for one.
        timeout: seconds after which a server that does not answer a request counts as down.
        prefix: start of every collection's name, for servers that several installations share.
        wait: seconds to wait for another process to let go of an embedded index.
        consistency: what searches see. ``Bounded``: this store's own writes and all others older than
            5 s, at no cost. ``Strong``: every acknowledged write, up to 0.8 s later on a server.
        patience: seconds from the begin of a server's outage during which requests are repeated; after
            that one at a time tries whether it is back, for at most ``timeout``, and the others fail at once.
        notice: told, once per outage, that a server is being waited for.

    Raises:
        ValueError: a URI or prefix of another form.
    """

    def __init__(
        self,
        uri: str,
        *,
        token: str = "",
        timeout: float = 10.0,
        prefix: str = "visavox",
        wait: float = 0.0,
        consistency: Consistency = "Bounded",
        patience: float = PATIENCE_SECONDS,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self._embedded = uri.endswith(".db")
        self._place = uri if self._embedded else _without_credentials(uri)
        if not self._embedded and urlsplit(uri).scheme not in ("http", "https"):
            raise ValueError(f"a Milvus URI is a path ending in .db or http(s)://host:port, got {self._place}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", prefix):
            raise ValueError(f"a collection prefix is a short identifier, got {prefix!r}")
        self._uri, self._token, self._timeout = uri, token, timeout
        self._prefix, self._wait, self._consistency = prefix, wait, consistency
        self._outage = Outage(StoreUnavailable, patience, notice)
        self._together: Together[tuple[Space, int, str], Embedding, list[Hit]] = Together(self._search)
        self._link: Link | None = None
        self._failure: tuple[float, StoreError] | None = None  # of the last attempt to connect, and when
        self._lock = threading.Lock()
        self._closed = False

    @property
    def place(self) -> str:
        """Where the index is: its path, or its URI without user and password."""
        return self._place

    @property
    def capabilities(self) -> Capabilities:
        """What the index can do, as it says itself; connects. Raises StoreError."""
        return self._ask(lambda link: link.can)

    def open(self) -> None:
        """Connect now rather than at the first call, so that StoreHeld and StoreUnavailable come now."""
        self._ask(lambda _: None)

    def create(self, space: Space) -> None:
        """See Store.create."""
        self._ask(lambda link: self._ensure(link, space))

    def upsert(self, space: Space, rows: Sequence[Row]) -> None:
        """See Store.upsert. StoreError if an id is not of the form that filters can name."""
        require_one_shape(space, [row.embedding.space for row in rows])
        records = [to_record(row) for row in {row.key: row for row in rows}.values()]
        for start in range(0, max(1, len(records)), BATCH_ROWS):
            batch = records[start : start + BATCH_ROWS]
            self._ask(lambda link, batch=batch: link.write(self._ensure(link, space), batch))  # type: ignore[misc]

    def delete(self, space: Space, keys: Sequence[str]) -> None:
        """See Store.delete."""
        known = [key for key in keys if is_id(key)]
        for start in range(0, len(known), BATCH_KEYS):
            self._at(space, lambda link, name, at=start: link.delete(name, known[at : at + BATCH_KEYS]))  # type: ignore[misc]

    def erase(self, space: Space, keys: Sequence[str]) -> None:
        """See Store.erase.

        An index that keeps deleted rows is rewritten without them. A server is told to delete, flush and
        compact; its garbage collection then removes the old files when its own delay is over
        (``dataCoord.gc.dropTolerance``, hours by default).
        """
        if not keys:
            return  # neither a rewrite nor a flush for nothing
        if self.capabilities.rewrites:
            self._at(space, lambda link, name: generations.rewrite(link, name, space, set(keys)))
            return
        self.delete(space, keys)
        self._at(space, lambda link, name: link.client.flush(name, timeout=SLOW_SECONDS))
        self._at(space, lambda link, name: link.client.compact(name, timeout=SLOW_SECONDS))

    def flush(self, space: Space) -> None:
        """See Store.flush. Cheap to call often: a server is only flushed when it has enough to gain by it."""
        self._at(space, lambda link, name: link.flush(name))

    def search(
        self, probes: Sequence[Embedding], top: int, *, want: Modality | None, where: Filter = EVERYTHING
    ) -> list[list[Hit]]:
        """See Store.search. StoreError if ``top`` is beyond MOST_HITS. Ask for many probes in one call."""
        if not probes:
            return []
        space = probes[0].space
        require_one_shape(space, [probe.space for probe in probes])
        if top > MOST_HITS:
            raise StoreError(f"at most {MOST_HITS} hits can be asked for at once, got {top}")
        kind = space, top, to_expression(where, want)
        return self._together.ask(kind, probes) if top > 0 else [[] for _ in probes]

    def _search(self, kind: tuple[Space, int, str], probes: Sequence[Embedding]) -> list[list[Hit]]:
        """The hits of probes that ask for the same, in one request; maybe of several callers."""
        space, top, expression = kind
        found = self._at(space, lambda link, name: link.best(name, probes, top, expression))
        return found or [[] for _ in probes]

    def get(self, space: Space, keys: Sequence[str]) -> list[Row]:
        """See Store.get."""
        known = sorted({key for key in keys if is_id(key)})
        records = self._at(space, lambda link, name: link.by_key(name, known))
        return [to_row(space, record) for record in records or ()]

    def rows(self, space: Space, where: Filter = EVERYTHING) -> Iterator[Row]:
        """See Store.rows; a batch in memory at a time, ordered by key."""
        return (to_row(space, record) for record in self._scan(space, FIELDS, to_expression(where)))

    def keys(self, space: Space) -> set[str]:
        """See Store.keys."""
        return {record["key"] for record in self._scan(space, ["key"], "")}

    def count(self, space: Space) -> int:
        """See Store.count."""
        return self._at(space, lambda link, name: link.count(name)) or 0

    def drop(self, space: Space) -> None:
        """See Store.drop."""
        self._ask(lambda link: generations.drop_all(link, alias_of(self._prefix, space)))

    def spaces(self) -> list[Space]:
        """See Store.spaces."""
        found = {space for space in (holding.to_space() for holding in self.holdings()) if space}
        return sorted(found, key=lambda space: (space.name, space.digest))

    def holdings(self) -> list[Holding]:
        """Every collection of ours as it lies there, whole or not, for checking; ordered by name."""
        return self._ask(lambda link: generations.holdings(link, self._prefix))

    def drop_others(self, name: str, but: Space | None = None, *, keep: Collection[str] = ()) -> int:
        """See Store.drop_others; also of spaces whose making or dropping was interrupted."""
        digests = {*keep, *([but.digest] if but else [])}
        kept = {alias_named(self._prefix, name, digest) for digest in digests}
        unused = self._ask(lambda link: generations.aliases(link, self._prefix, name)) - kept
        for alias in sorted(unused):
            self._ask(lambda link, alias=alias: generations.drop_all(link, alias))  # type: ignore[misc]
        return len(unused)

    def close(self) -> None:
        """See Store.close; another process can open an embedded index when this returns."""
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link:
            link.client.close()
            if link.index:
                link.index.release()

    # Requests

    def _at(self, space: Space, work: Callable[[Link, str], Answer]) -> Answer | None:
        """Do something with a space's collection; None if there is none."""

        def reached(link: Link) -> Answer | None:
            name = reach(link, alias_of(self._prefix, space), space)
            return work(link, name) if name else None

        return self._ask(reached)

    def _ensure(self, link: Link, space: Space) -> str:
        return ensure(link, alias_of(self._prefix, space), space)

    def _scan(self, space: Space, fields: Sequence[str], expression: str) -> Iterator[dict[str, Any]]:
        """All records that pass a filter, ordered by key; between batches others may use the index."""
        source: RecordIterator | None = None
        last = ""

        def fetch(link: Link, name: str) -> list[dict[str, Any]]:
            nonlocal source
            if source is None:  # at first, and after an outage behind the last record that came
                parts = [f"key > {quoted([last])[1:-1]}"] if last else []
                source = link.iterator(name, fields, " and ".join([*parts, *([expression] if expression else [])]))
            try:
                return source.next()
            except _FOREIGN:
                source = None
                raise

        while batch := self._at(space, fetch):
            yield from batch
            last = batch[-1]["key"]

    def _ask(self, work: Callable[[Link], Answer]) -> Answer:
        """Do something with a live link: while a server is away again and again, until patience is over."""
        pause = _FIRST_PAUSE
        while True:
            asked = time.monotonic()
            try:
                with self._outage.attempt(), self._session() as link:
                    return work(link)
            except StoreUnavailable as error:
                self._outage.wait(error, asked, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    @contextlib.contextmanager
    def _session(self) -> Iterator[Link]:
        """A live connection, held alone if the index is embedded; foreign errors leave as StoreError."""
        link = self._connected()
        with link.index.lock if link.index else contextlib.nullcontext():
            try:
                yield link
            except _FOREIGN as error:
                self._raise_translated(error, link)

    # Connection

    def _connected(self) -> Link:
        """The link; one thread makes it, and those who wait for that share its failure."""
        if link := self._link:
            return link
        asked = time.monotonic()
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._place}: this store has been closed")
            if self._link is None:
                if self._failure and self._failure[0] > asked:
                    raise type(self._failure[1])(str(self._failure[1])) from self._failure[1]
                try:
                    self._link = self._embed() if self._embedded else self._dial()
                except StoreError as error:
                    self._failure = time.monotonic(), error
                    raise
            return self._link

    def _embed(self) -> Link:
        index = EmbeddedIndex.acquire(Path(self._uri), self._wait)
        try:
            link = self._linked(_client(index.address, "", SLOW_SECONDS, embedded=True), "lite", SLOW_SECONDS, index)
            with index.lock:
                generations.drop_leftovers(link)
        except _FOREIGN as error:
            index.release()
            raise StoreError(f"{self._place}: cannot be read ({error})") from error
        return link

    def _dial(self) -> Link:
        address = urlsplit(self._uri)
        try:
            # The client does not tell a refusal from silence, and waits its whole time for both.
            port = address.port or (443 if address.scheme == "https" else 19530)
            socket.create_connection((address.hostname or "localhost", port), self._timeout).close()
            return self._linked(_client(self._uri, self._token, self._timeout), "server", self._timeout)
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        except _FOREIGN as error:
            self._raise_translated(error, None)

    def _linked(self, client: MilvusClient, kind: Kind, timeout: float, index: EmbeddedIndex | None = None) -> Link:
        can = capabilities_of(kind, str(client.get_server_version(timeout=timeout)))
        return Link(client, DataType, can, timeout, self._consistency, index)

    # Errors

    def _unavailable(self, reason: str) -> StoreUnavailable:
        if self._embedded:
            return StoreUnavailable(f"{self._place}: the embedded index does not answer ({reason}): ask again")
        return StoreUnavailable(
            f"Milvus at {self._place} does not answer ({reason}): start it, or check VISAVOX_MILVUS_URI"
        )

    def _raise_translated(self, error: Exception, link: Link | None) -> NoReturn:
        """Raise the same trouble in our words."""
        code = getattr(error, "code", None)
        code = code() if callable(code) else code
        text = _told(error)
        lost = isinstance(error, grpc.RpcError | grpc.FutureTimeoutError) or isinstance(code, grpc.StatusCode)
        if link and (lost or code == NOT_FOUND):
            link.ready.clear()  # what is there is looked at again
        if code == NOT_FOUND and link:
            raise StoreError(f"{self._place}: a collection has just been removed, ask again ({text})") from error
        if code in _FULL or (self._embedded and NO_ROOM in text):
            where = f"the index {self._place}" if self._embedded else f"Milvus at {self._place}"
            raise StoreFull(f"{where} takes no more rows ({text}): make room there and do the same again") from error
        if not (lost or (not self._embedded and (link is None or code in _TRANSIENT))):
            raise StoreError(f"{self._place}: {text}") from error
        raise self._unavailable(text) from error


def _told(error: Exception) -> str:
    """What an error of the client says, without its traces."""
    details = getattr(error, "details", None)
    text = getattr(error, "message", "") or (str(details()) if callable(details) else str(error))
    return text.split(", debug=")[0] or type(error).__name__


def _client(uri: str, token: str, timeout: float, *, embedded: bool = False) -> MilvusClient:
    """A connected client that neither retries nor logs what it raises."""
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs with a traceback what it also raises
    options = _RECONNECT | (_NO_PINGS if embedded else {})
    # Dedicated: a shared connection stays open, and keeps its failures, when its client is closed.
    client = MilvusClient(uri, token=token, timeout=timeout, dedicated=True, grpc_options=options)
    handler = client._handler
    # It asks this after each error, under one lock of the whole process connects anew in it, and then retries
    # until the request's time is over. Its channel finds the server again without that.
    handler._on_rpc_error = _raise
    # Its iterators ask this without a time limit.
    handler.describe_collection = partial(handler.describe_collection, timeout=timeout)
    return client


def _raise(error: Exception) -> NoReturn:
    raise error


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
