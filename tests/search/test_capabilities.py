"""What an index says it can do is what it does; and the tested versions are those that the tests run against."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from search.capabilities import TESTED_CLIENT, TESTED_VERSIONS, Capabilities, capabilities_of
from search.milvus import MilvusStore


def test_the_tested_versions_are_those_that_are_installed_here() -> None:
    assert version("pymilvus") == TESTED_CLIENT
    assert version("milvus-lite") in TESTED_VERSIONS["lite"]


def test_milvus_lite_says_what_it_can_do(tmp_path: Path) -> None:
    store = MilvusStore(str(tmp_path / "index.db"))
    can = store.capabilities
    assert (can.kind, can.version, can.tested, can.index_type) == ("lite", version("milvus-lite"), True, "FLAT")
    assert can.rewrites and not can.shared and can.most_rows == 50_000
    store.close()


def test_a_server_says_what_it_can_do(milvus_server: str) -> None:
    store = MilvusStore(milvus_server)
    can = store.capabilities
    assert can.kind == "server" and can.version == version("milvus") and can.tested
    assert (can.index_type, can.rewrites, can.shared, can.most_rows) == ("HNSW", False, True, None)
    store.close()


@pytest.mark.parametrize(
    ("reported", "read", "tested"),
    [("v2.6.10", "2.6.10", False), ("2.3.5-lite", "2.3.5", True), ("2.6.0-dev", "2.6.0-dev", False), ("", "", False)],
)
def test_a_server_s_version_is_read_however_it_is_written(reported: str, read: str, tested: bool) -> None:
    can = capabilities_of("server", reported)
    assert (can.version, can.tested) == (read, tested)


def test_an_index_without_room_is_none() -> None:
    with pytest.raises(ValueError, match="room"):
        Capabilities("server", "2.3.5", "HNSW", rewrites=False, settles=True, shared=True, most_hits=0)
