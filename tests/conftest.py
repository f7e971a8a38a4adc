"""Fixtures that every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_media() -> Path:
    """The folder of real media beside the project; tests that need it are skipped where it is absent."""
    folder = SHARED / "data" / "media"
    if not folder.is_dir():
        pytest.skip("the shared real media are not beside this checkout")
    return folder
