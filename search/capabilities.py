"""What an index can do, and which versions of Milvus Visavox was tested with.

Everything in :mod:`search.milvus` keeps to what all of them have in common; where they must be treated
differently, it asks the :class:`Capabilities` of the one it talks to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search.store import MOST_HITS

Kind = Literal["lite", "server"]

# The whole suite of the store, tests/search/test_store.py, runs against these. A server of the 2.6 line speaks the
# same subset, but is not among what the tests start.
TESTED_CLIENT = "3.0.2"
TESTED_VERSIONS: dict[Kind, tuple[str, ...]] = {"lite": ("3.2.2",), "server": ("2.3.5",)}

# Beyond it each search of Milvus Lite takes more than 50 ms: see tests/benchmarks/search_latency.py.
MOST_ROWS_OF_LITE = 50_000

# How Milvus Lite and the servers write their versions: milvus_lite-3.2.2, v2.6.10; 2.3.5-lite is the whole server of
# the pip package milvus.
_BEFORE_VERSION, _BEHIND_VERSION = ("milvus_lite-", "v"), "-lite"


@dataclass(frozen=True)
class Capabilities:
    """What one index can do.

    Args:
        kind: ``lite`` (embedded, in a folder) or ``server``.
        version: as the index reports it, such as ``2.3.5``; "" if it does not.
        index_type: how vectors are indexed, in Milvus's words: ``FLAT`` compares every row, ``HNSW`` does not.
        rewrites: whether deleted rows stay in its files until the collection is copied without them. If not,
            a server compacts deleted rows away and removes the old files when its own delay is over.
        settles: whether an index is built behind the answers, with less exact ones until it is complete.
        shared: whether several processes may use it at once.
        most_hits: hits per probe that can be asked for.
        most_rows: rows of a space up to which it is quick enough, or None if nothing is stated.
    """

    kind: Kind
    version: str
    index_type: Literal["FLAT", "HNSW"]
    rewrites: bool
    settles: bool
    shared: bool
    most_hits: int = MOST_HITS
    most_rows: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("lite", "server"):
            raise ValueError(f"an index is of kind lite or server, got {self.kind!r}")
        if self.most_hits < 1 or (self.most_rows is not None and self.most_rows < 1):
            raise ValueError(f"an index has room for a row and a hit, got {self!r}")

    @property
    def tested(self) -> bool:
        """Whether Visavox's own tests run against this version."""
        return self.version in TESTED_VERSIONS[self.kind]


def capabilities_of(kind: Kind, reported: str) -> Capabilities:
    """What an index of a kind can do.

    Args:
        kind: ``lite`` or ``server``.
        reported: its version in its own words, such as ``milvus_lite-3.2.2`` or ``v2.3.5``.
    """
    version = reported.removesuffix(_BEHIND_VERSION)
    for prefix in _BEFORE_VERSION:
        version = version.removeprefix(prefix)
    if kind == "server":
        return Capabilities(kind, version, "HNSW", rewrites=False, settles=True, shared=True)
    # its HNSW takes twice as long as comparing every row, for fewer right answers
    return Capabilities(
        kind, version, "FLAT", rewrites=True, settles=False, shared=False, most_rows=MOST_ROWS_OF_LITE
    )  # fmt: skip
