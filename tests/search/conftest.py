"""Fixtures of the search room: one real Milvus server for a whole run of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from search.published_lists import read_trial_lists
from search.trial_lists import TrialLists
from tests.search.real_milvus import real_milvus
from tests.search.small_protocol import published_lists


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a real Milvus server; tests that ask for it are skipped where it is not installed."""
    pytest.importorskip("milvus", reason="the package milvus carries the server")
    with real_milvus(tmp_path_factory.mktemp("milvus"), eager=True) as server:
        yield server.uri


@pytest.fixture(scope="session")
def published_trials() -> TrialLists:
    """The published lists of the P split, read once; tests are skipped where they are not beside this checkout."""
    return read_trial_lists(published_lists())
