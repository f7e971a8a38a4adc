"""Whole installations: on real parts, in folders of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import load_settings
from deploy.wiring import Installation
from tests.ingest.conftest import StoppableRedis, redis_url, stoppable_redis
from tests.search.conftest import milvus_server

__all__ = ["StoppableRedis", "milvus_server", "redis_url", "stoppable_redis"]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Installation]:
    """An installation on the embedded index, new and empty."""
    installation = Installation(load_settings({"VISAVOX_HOME": str(tmp_path / "home"), "VISAVOX_DEVICE": "cpu"}))
    installation.archive.mend()
    yield installation
    installation.close()
