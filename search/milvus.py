"""Rows in Milvus: one store for the embedded index (a ``.db`` path) and for a server (an http URI).

Only the subset that both understand is used: one vector field, full-row upserts, plain filters,
aliases. A space's rows live in ``<prefix>_<space>_<digest>_g<generation>``, reached through an alias
of that name without the generation, so that a rewrite can be switched in at once. The full digest is
kept with the collection and compared before its first use.

Two things differ. The server has an HNSW index; the embedded one compares every row (FLAT), because
its HNSW takes twice as long for fewer right answers. And :meth:`MilvusStore.erase` rewrites the
embedded collection, which otherwise keeps deleted rows in its files.

This is the only file that knows pymilvus.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from pymilvus import DataType, MilvusClient, MilvusException

from encoders.space import Embedding, Modality, Space, SpaceMismatch, require_same_space
from search.embedded import EmbeddedIndex
from search.link import BATCH_ROWS, SLOW_SECONDS, Link
from search.records import FIELDS, LONGEST_EVIDENCE, LONGEST_ID, is_id, to_expression, to_record, to_row
from search.store import EVERYTHING, MOST_HITS, Filter, Hit, Row, StoreError, StoreUnavailable

Consistency = Literal["Bounded", "Strong"]

_HNSW = {"M": 16, "efConstruction": 128}  # twice as much doubles the time to build it, for no more right answers

_DIGEST = "visavox.digest"
_NOT_FOUND = 100
# not ready, unavailable, too many requests, rate limit, not (fully) loaded, channels or nodes not there yet
_TRANSIENT = {1, 2, 4, 8, 101, 103, 500, 501, 502, 503, 901, 902, 903}
_GENERATION = re.compile(r"(?P<alias>.+_[0-9a-f]{12})_g(?P<number>\d+)")
_FOREIGN = (MilvusException, grpc.RpcError, grpc.FutureTimeoutError)


class MilvusStore:
    """See search.store.Store. Connects at the first call, and anew after a connection was lost.

    Safe to use from several threads. Stores of one process on one embedded index share it.

    Args:
        uri: a path ending in ``.db`` (embedded) or ``http(s)://[user:password@]host:port[/database]``.
        token: ``user:password`` or an API key, for servers that ask for one.
        timeout: seconds after which a server that does not answer counts as down.
        prefix: start of every collection's name, for servers that several installations share.
        wait: seconds to wait for another process to let go of an embedded index.
        consistency: what searches see. ``Bounded``: this store's own writes and all others older than
            5 s, at no cost. ``Strong``: every acknowledged write, up to 0.8 s later on a server.

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
    ) -> None:
        self._embedded = uri.endswith(".db")
        self._place = uri if self._embedded else _without_credentials(uri)
        if not self._embedded and urlsplit(uri).scheme not in ("http", "https"):
            raise ValueError(f"a Milvus URI is a path ending in .db or http(s)://host:port, got {self._place}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", prefix):
            raise ValueError(f"a collection prefix is a short identifier, got {prefix!r}")
        self._uri, self._token, self._timeout = uri, token, timeout
        self._prefix, self._wait, self._consistency = prefix, wait, consistency
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._closed = False

    def open(self) -> None:
        """Connect now rather than at the first call, so that StoreHeld and StoreUnavailable come now."""
        with self._session():
            pass

    def create(self, space: Space) -> None:
        """See Store.create."""
        with self._session() as link:
            self._ensure(link, space)

    def upsert(self, space: Space, rows: Sequence[Row]) -> None:
        """See Store.upsert. StoreError if an id is not of the form that filters can name."""
        require_same_space(space, *(row.embedding.space for row in rows))
        records = [to_record(row) for row in {row.key: row for row in rows}.values()]
        with self._session() as link:
            link.write(self._ensure(link, space), records)

    def delete(self, space: Space, keys: Sequence[str]) -> None:
        """See Store.delete."""
        with self._session() as link:
            if name := self._reach(link, space):
                link.delete(name, [key for key in keys if is_id(key)])

    def erase(self, space: Space, keys: Sequence[str]) -> None:
        """See Store.erase.

        The embedded index is rewritten without the rows. A server is told to delete, flush and
        compact; its garbage collection then removes the old files when its own delay is over
        (``dataCoord.gc.dropTolerance``, hours by default).
        """
        if not keys:
            return  # neither a rewrite nor a flush for nothing
        with self._session() as link:
            name = self._reach(link, space)
            if name is None:
                return
            if self._embedded:
                self._rewrite(link, space, name, set(keys))
                return
            link.delete(name, [key for key in keys if is_id(key)])
            link.client.flush(name, timeout=SLOW_SECONDS)
            link.client.compact(name, timeout=SLOW_SECONDS)

    def flush(self, space: Space) -> None:
        """See Store.flush. Cheap to call often: a server is only flushed when it has enough to gain by it."""
        with self._session() as link:
            if name := self._reach(link, space):
                link.flush(name)

    def search(
        self, probes: Sequence[Embedding], top: int, *, want: Modality, where: Filter = EVERYTHING
    ) -> list[list[Hit]]:
        """See Store.search. StoreError if ``top`` is beyond MOST_HITS. Ask for many probes in one call."""
        if not probes:
            return []
        space = probes[0].space
        require_same_space(space, *(probe.space for probe in probes))
        if top > MOST_HITS:
            raise StoreError(f"at most {MOST_HITS} hits can be asked for at once, got {top}")
        expression = to_expression(where, want)
        with self._session() as link:
            name = self._reach(link, space)
            return link.best(name, probes, top, expression) if name and top > 0 else [[] for _ in probes]

    def get(self, space: Space, keys: Sequence[str]) -> list[Row]:
        """See Store.get."""
        known = sorted({key for key in keys if is_id(key)})
        with self._session() as link:
            name = self._reach(link, space)
            return [to_row(space, record) for record in link.by_key(name, known)] if name else []

    def rows(self, space: Space, where: Filter = EVERYTHING) -> Iterator[Row]:
        """See Store.rows; a batch in memory at a time."""
        expression = to_expression(where)
        with self._session() as link:
            name = self._reach(link, space)
        for record in self._scan(name, FIELDS, expression) if name else ():
            yield to_row(space, record)

    def keys(self, space: Space) -> set[str]:
        """See Store.keys."""
        with self._session() as link:
            name = self._reach(link, space)
        return {record["key"] for record in self._scan(name, ["key"], "")} if name else set()

    def count(self, space: Space) -> int:
        """See Store.count."""
        with self._session() as link:
            name = self._reach(link, space)
            return link.count(name) if name else 0

    def drop(self, space: Space) -> None:
        """See Store.drop."""
        with self._session() as link:
            _drop_all(link, self._alias(space))

    def drop_others(self, name: str, but: Space | None = None) -> int:
        """See Store.drop_others; also of spaces whose making or dropping was interrupted."""
        keep = self._alias(but) if but else ""
        ours = re.compile(rf"{re.escape(self._prefix)}_{re.escape(name)}_[0-9a-f]{{12}}")
        with self._session() as link:
            found = (_GENERATION.fullmatch(one) for one in link.client.list_collections(timeout=link.timeout))
            aliases = {matched["alias"] for matched in found if matched} - {keep}
            unused = sorted(alias for alias in aliases if ours.fullmatch(alias))
            for alias in unused:
                _drop_all(link, alias)
        return len(unused)

    def close(self) -> None:
        """See Store.close; another process can open an embedded index when this returns."""
        with self._lock:
            self._closed = True
            self._disconnect()

    # Connection

    @contextlib.contextmanager
    def _session(self) -> Iterator[Link]:
        """A live connection, held alone if the index is embedded; foreign errors leave as StoreError."""
        link = self._connected()
        with link.index.lock if link.index else contextlib.nullcontext():
            try:
                yield link
            except _FOREIGN as error:
                raise self._translated(error, link) from error

    def _connected(self) -> Link:
        if self._closed:
            raise StoreError(f"{self._place}: this store has been closed")
        if link := self._link:
            return link
        # A server is not dialled under the lock: while it is down, callers fail side by side.
        made = None if self._embedded else self._dial()
        with self._lock:
            if self._link is None:
                self._link = made or self._embed()
            elif made:
                made.client.close()
            return self._link

    def _embed(self) -> Link:
        index = EmbeddedIndex.acquire(Path(self._uri), self._wait)
        try:
            link = Link(_client(index.address, "", SLOW_SECONDS), SLOW_SECONDS, self._consistency, index)
            with index.lock:
                _drop_leftovers(link)
        except _FOREIGN as error:
            index.release()
            raise StoreError(f"{self._place}: cannot be read ({error})") from error
        return link

    def _dial(self) -> Link:
        address = urlsplit(self._uri)
        try:
            # pymilvus connects under one lock of the whole process; a plain connection can tell before.
            port = address.port or (443 if address.scheme == "https" else 19530)
            socket.create_connection((address.hostname or "localhost", port), self._timeout).close()
            return Link(_client(self._uri, self._token, self._timeout), self._timeout, self._consistency)
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        except _FOREIGN as error:
            raise self._translated(error, None) from error

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link:
            link.client.close()
            if link.index:
                link.index.release()

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"Milvus at {self._place} does not answer ({reason}): start it, or check VISAVOX_MILVUS_URI"
        )

    def _translated(self, error: Exception, link: Link | None) -> StoreError:
        """The same trouble in our words; a lost connection is given up, and the next call makes a new one."""
        code = getattr(error, "code", None)
        code = code() if callable(code) else code
        text = (getattr(error, "message", "") or str(error)).split(", debug=")[0]
        if code == _NOT_FOUND and link:
            link.ready.clear()
            return StoreError(f"{self._place}: a collection has just been removed, ask again ({text})")
        lost = isinstance(error, grpc.FutureTimeoutError | grpc.RpcError) or isinstance(code, grpc.StatusCode)
        lost = lost or "Retry timeout" in text  # how pymilvus reports any error met after the time given
        if self._embedded or not (lost or link is None or code in _TRANSIENT):
            return StoreError(f"{self._place}: {text}")
        if lost and link:
            with self._lock:
                if self._link is link:
                    self._disconnect()
        return self._unavailable(text or type(error).__name__)

    # Collections

    def _alias(self, space: Space) -> str:
        return f"{self._prefix}_{space.name}_{space.digest[:12]}"

    def _reach(self, link: Link, space: Space) -> str | None:
        """The alias of the space's collection, compared and loaded at first use; None if there is none."""
        alias = self._alias(space)
        if link.ready.get(alias) == space.digest:
            return alias
        found = _described(link, alias)
        if found is None:
            return None
        digest = found.get("properties", {}).get(_DIGEST, "unknown")
        dimension = next(int(each["params"]["dim"]) for each in found["fields"] if each["name"] == "vector")
        if (digest, dimension) != (space.digest, space.dimension):
            raise SpaceMismatch(
                f"{found['collection_name']} holds {dimension}-d vectors of space {digest[:12]}, not those of "
                f"{space.name} ({space.digest[:12]}, {space.dimension}-d): use another prefix"
            )
        link.client.load_collection(alias, timeout=SLOW_SECONDS)
        link.ready[alias] = space.digest
        return alias

    def _ensure(self, link: Link, space: Space) -> str:
        alias = self._alias(space)
        if self._reach(link, space) is None:
            if self._embedded:  # on a server it might be what another process is just making
                _drop_generations(link, alias, but="")
            _make(link, f"{alias}_g1", space)
            link.client.create_alias(f"{alias}_g1", alias, timeout=link.timeout)
            link.ready[alias] = space.digest
        return alias

    def _rewrite(self, link: Link, space: Space, alias: str, without: set[str]) -> None:
        """Copy the survivors to a new generation, switch to it, remove the old one.

        Ended at any point, the alias names a complete generation; the next opening or rewrite removes the other.
        """
        old = link.client.describe_alias(alias, timeout=link.timeout)["collection_name"]
        new = f"{alias}_g{int(old.rpartition('_g')[2]) + 1}"
        _drop_generations(link, alias, but=old)  # what a rewrite that failed left behind
        _make(link, new, space)
        batch: list[dict[str, Any]] = []
        for record in self._scan(alias, FIELDS, ""):
            if record["key"] not in without:
                batch.append({name: record[name] for name in FIELDS})
            if len(batch) == BATCH_ROWS:
                link.write(new, batch)
                batch = []
        link.write(new, batch)
        link.client.flush(new, timeout=SLOW_SECONDS)
        os.sync()  # the embedded index leaves its data files to the page cache
        link.client.alter_alias(new, alias, timeout=link.timeout)
        os.sync()
        link.client.drop_collection(old, timeout=SLOW_SECONDS)

    def _scan(self, name: str, fields: Sequence[str], expression: str) -> Iterator[dict[str, Any]]:
        """All records that pass a filter; between batches others may use the index."""
        with self._session() as link:
            iterator = link.iterator(name, fields, expression)
        while True:
            with self._session():
                batch = iterator.next()
            if not batch:
                return
            yield from batch


def _client(uri: str, token: str, timeout: float) -> MilvusClient:
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs with a traceback what it also raises
    # Dedicated: a shared connection stays open, and keeps its failures, when its client is closed.
    return MilvusClient(uri, token=token, timeout=timeout, dedicated=True)


def _make(link: Link, name: str, space: Space) -> None:
    """Make a collection, with its index, and load it; on a server, no trouble if it exists like that."""
    schema = link.client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, max_length=LONGEST_ID, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=space.dimension)
    for text in ("modality", "media", "person"):
        schema.add_field(text, DataType.VARCHAR, max_length=LONGEST_ID)
    schema.add_field("evidence", DataType.VARCHAR, max_length=LONGEST_EVIDENCE)
    for number in ("track", "start_ms", "end_ms"):
        schema.add_field(number, DataType.INT64)
    schema.add_field("quality", DataType.FLOAT)
    index = link.client.prepare_index_params()
    kind: dict[str, Any] = {"index_type": "HNSW", "params": _HNSW} if link.index is None else {"index_type": "FLAT"}
    index.add_index("vector", metric_type="COSINE", **kind)
    properties = {_DIGEST: space.digest}
    link.client.create_collection(name, schema=schema, properties=properties, timeout=SLOW_SECONDS)
    # Not awaited: nothing is in it yet, and the client waits in steps of half a second.
    link.client.create_index(name, index, sync=False, timeout=SLOW_SECONDS)
    link.client.load_collection(name, timeout=SLOW_SECONDS)


def _described(link: Link, name: str) -> dict[str, Any] | None:
    """What the index knows of a collection or alias; None if it does not exist."""
    try:
        return dict(link.client.describe_collection(name, timeout=link.timeout))
    except MilvusException as error:
        if error.code == _NOT_FOUND:
            return None
        raise


def _drop_all(link: Link, alias: str) -> None:
    """Drop everything of a space."""
    link.ready.pop(alias, None)
    if _described(link, alias) is not None:
        link.client.drop_alias(alias, timeout=link.timeout)
    _drop_generations(link, alias, but="")


def _drop_generations(link: Link, alias: str, *, but: str) -> None:
    """Drop the collections of a space, all but one."""
    for name in link.client.list_collections(timeout=link.timeout):
        matched = _GENERATION.fullmatch(name)
        if matched and matched["alias"] == alias and name != but:
            link.client.drop_collection(name, timeout=SLOW_SECONDS)


def _drop_leftovers(link: Link) -> None:
    """Finish interrupted rewrites: drop generations beside the one that an alias names."""
    for name in link.client.list_collections(timeout=link.timeout):
        matched = _GENERATION.fullmatch(name)
        current = _described(link, matched["alias"]) if matched else None
        if current and current["collection_name"] != name:
            link.client.drop_collection(name, timeout=SLOW_SECONDS)


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
