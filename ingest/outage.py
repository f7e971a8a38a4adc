"""What a store does while its server is away: waits as long as its patience lasts, then fails at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

# Once patience is over, not more often than this is it tried whether the server is back, in seconds.
TRY_EVERY = 1.0

Away = TypeVar("Away", bound=Exception)


class Outage(Generic[Away]):
    """Counts the time since a server was last there, for all callers of a store together.

    So an outage is waited for once and not by every question, and while it lasts a service that many ask
    is not held up by threads that all wait for the same server: one of them tries, the others are told what
    the last one was told.

    Args:
        away: the error by which an attempt says that the server is away; made of its sentence.
        patience: seconds from the begin of an outage during which callers try again and again.
        notice: told, once per outage, that the server is being waited for.
    """

    def __init__(self, away: type[Away], patience: float, notice: Callable[[str], None] | None = None) -> None:
        self._away, self._patience, self._notice = away, patience, notice
        self._since: float | None = None
        self._last: tuple[float, Away] | None = None
        self._lock = threading.Lock()
        self._trying = threading.Lock()

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """The time of one attempt; it ends the outage if nothing is raised.

        Raises:
            Away: patience is over, and another caller tries just now or did so a moment ago.
        """
        alone = False
        last = self._last
        if last and self._is_over_patience():
            ended, error = last
            alone = time.monotonic() - ended >= TRY_EVERY and self._trying.acquire(blocking=False)
            if not alone:
                raise self._away(str(error)) from error
        try:
            yield
            self._since = self._last = None
        except self._away as error:
            self._last = time.monotonic(), error
            raise
        finally:
            if alone:
                self._trying.release()

    def wait(self, error: Away, asked: float, pause: float) -> None:
        """Sleep before the next attempt.

        Args:
            error: that of the last one.
            asked: when that one began, by ``time.monotonic``.
            pause: seconds to sleep.

        Raises:
            Away: ``error``, if there is to be no next attempt.
        """
        with self._lock:
            begins = self._since is None
            since = self._since = asked if self._since is None else self._since
        if time.monotonic() + pause > since + self._patience:
            raise error
        if begins and self._notice:
            self._notice(f"{error}; waiting up to {self._patience:.0f} s for it")
        time.sleep(pause)

    def _is_over_patience(self) -> bool:
        since = self._since
        return since is not None and time.monotonic() > since + self._patience
