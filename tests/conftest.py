"""Fixtures that every room's tests share."""

from __future__ import annotations

import signal
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


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C works in tests and in their children, also where the run was begun in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
