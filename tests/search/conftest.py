"""Fixtures of the search room: one real Milvus server for a whole run of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.search.real_milvus import real_milvus


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a real Milvus server; tests that ask for it are skipped where it is not installed."""
    pytest.importorskip("milvus", reason="the package milvus carries the server")
    with real_milvus(tmp_path_factory.mktemp("milvus"), eager=True) as server:
        yield server.uri
