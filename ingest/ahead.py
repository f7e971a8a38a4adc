"""Work that runs ahead in a thread of its own: decoding goes on while faces are looked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _End:
    """Says that nothing more comes, and why."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Ahead(Generic[Item]):
    """A thread that fills a bounded queue from an iterator until it is told to stop."""

    def __init__(self, items: Iterator[Item], most: int) -> None:
        self._items = items
        self._queue: queue.Queue[Item | _End] = queue.Queue(most)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def next(self) -> Item | _End:
        return self._queue.get()

    def stop(self) -> None:
        """End the thread and wait for it, so that what it reads from is closed."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)  # it may wait for room
            except queue.Empty:
                continue
        self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                self._queue.put(item)
                if self._stopped.is_set():
                    break
        except BaseException as raised:  # noqa: BLE001 - it is raised again where the items are used
            error = raised
        finally:
            # A generator is closed by the thread that runs it.
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        self._queue.put(_End(error))


def ahead(items: Iterator[Item], most: int) -> Generator[Item, None, None]:
    """The same items, made by another thread up to ``most`` ahead of their use.

    What the iterator raises is raised here, in its place. Closing the generator ends the thread and closes the
    iterator, if it is one.

    Args:
        items: used by the other thread only.
        most: number of items that may wait.
    """
    thread = _Ahead(items, most)
    try:
        while not isinstance(item := thread.next(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        thread.stop()
