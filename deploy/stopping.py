"""How the server process ends: what runs may finish, and nothing holds the process for ever."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from deploy.logs import log
from search.api.operations import Drain

# After SIGTERM or Ctrl-C: running requests get this long, in seconds…
GRACE_SECONDS = 15.0
# …then they are cancelled and get this long to notice…
CANCEL_SECONDS = 1
# …and the process ends now, whatever a thread is stuck in. Service managers often kill after 20 or 30.
LAST_RESORT_SECONDS = 18.0
FORCED_EXIT = 1


class StoppableServer(uvicorn.Server):
    """uvicorn's server, stopping in order: no new connections, refusals on old ones, an end to what runs.

    Args:
        config: uvicorn's.
        drain: told when it begins to stop; knows what runs.
        grace: seconds that running requests get.
        last_resort: seconds after which the process ends however it stands, more than ``grace``.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        grace: float = GRACE_SECONDS,
        last_resort: float = LAST_RESORT_SECONDS,
    ) -> None:
        if not 0 <= grace < last_resort:
            raise ValueError(f"the last resort comes after the grace, got {grace} and {last_resort} seconds")
        config.timeout_graceful_shutdown = CANCEL_SECONDS
        super().__init__(config)
        self._drain = drain
        self._grace = grace
        self._last_resort = last_resort

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C for the time of serving; being asked to stop and doing so is no failure."""
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {one: signal.signal(one, self.handle_exit) for one in handled}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the second time, without waiting for what runs."""
        del sig, frame
        self.force_exit = self.should_exit
        if not self.should_exit:
            self._drain.begin()
            end_at_last(self._last_resort)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for what runs, cancel the rest."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        log().info("stopping", running=self._drain.running, grace_seconds=self._grace)
        if not await self._drain.idle(self._grace, hurry=lambda: self.force_exit):
            log().warning("requests are cut off", running=self._drain.running)
        await super().shutdown(sockets)


def end_at_last(seconds: float) -> None:
    """End this process after some seconds, unless :func:`ended_in_time` is called before.

    Twice over: a thread that says so in the log, and a second later, should a thread in native code hold the
    interpreter's lock, a timer that needs no lock.
    """
    watch = threading.Timer(seconds, _end, [seconds])
    watch.daemon = True
    watch.start()
    faulthandler.dump_traceback_later(seconds + 1.0, exit=True)


def ended_in_time() -> None:
    """Call off the timer that needs no lock; the other one ends with the process."""
    faulthandler.cancel_dump_traceback_later()


def _end(seconds: float) -> None:
    log().error("ended by force", reason="a thread did not stop", seconds=seconds)
    sys.stderr.flush()
    os._exit(FORCED_EXIT)
