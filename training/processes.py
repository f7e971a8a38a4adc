"""Work on files in processes of its own: one bad file never stops it, not even one that kills who reads it.

Work comes in chunks of a few items. Before an item is touched its place is written beside the chunk's output
(:func:`marker`), so that after the death of a process it is known what it died of.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import torch

# Deaths over one chunk before we give up: two for each of several deadly files.
MOST_DEATHS = 10
DEADLY = "kills the process that reads it: the file is damaged, remove it"
"""Why an item is left out that killed its reader twice."""


class PreparationError(RuntimeError):
    """The samples of a corpus cannot be prepared; the message says why and what to do."""


class Chunk(Protocol):
    """A few items whose outcome goes to one file."""

    @property
    def path(self) -> Path:
        """The file that the outcome goes to; no other chunk has it."""
        ...

    def file_at(self, place: int) -> Path:
        """The file of the item at a place."""
        ...


SomeChunk = TypeVar("SomeChunk", bound=Chunk)
Work = Callable[[SomeChunk, frozenset[int] | None], None]
"""Does a chunk. It is given the places of items that killed their reader and are not touched again, or None where
no process has died over this chunk."""


def marker(chunk: Chunk) -> Path:
    """File that says which item of a chunk is being read, by its place."""
    return chunk.path.with_suffix(".reading")


def run_chunks(chunks: Sequence[SomeChunk], work: Work[SomeChunk], workers: int) -> Iterator[SomeChunk]:
    """Do all chunks; each is given back when it is done, in any order.

    Args:
        chunks: what to do.
        work: does one; a function of a module, or a partial of one.
        workers: processes, spawned, of one thread each; with 0 this one works.

    Raises:
        PreparationError: the processes do not start, or die again and again.
        Exception: whatever ``work`` raises.
    """
    if not workers:
        for chunk in chunks:
            work(chunk, None)
            yield chunk
        return
    suspects: list[SomeChunk] = []
    waiting = list(reversed(chunks))
    while waiting:
        running: dict[Future[None], SomeChunk] = {}
        try:
            with _pool(min(workers, len(waiting))) as pool:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:  # few at a time: a broken pool loses little
                        chunk = waiting.pop()
                        running[pool.submit(work, chunk, None)] = chunk
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        future.result()
                        yield running.pop(future)
        except BrokenProcessPool as error:
            if not any(marker(chunk).exists() for chunk in running.values()):
                raise _not_started() from error
            suspects += running.values()
    for chunk in suspects:
        _do_alone(chunk, work)
        yield chunk


def _do_alone(chunk: SomeChunk, work: Work[SomeChunk]) -> None:
    """Do a chunk during which a process died, in a process of its own; what is being read at two deaths is left out.

    Two, because a process may also die of what others do, such as using up the memory.
    """
    deaths = [int(marker(chunk).read_text())] if marker(chunk).exists() else []
    while len(deaths) < MOST_DEATHS:
        deadly = frozenset(place for place in deaths if deaths.count(place) > 1)
        marker(chunk).unlink(missing_ok=True)
        try:
            with _pool(1) as pool:
                return pool.submit(work, chunk, deadly).result()
        except BrokenProcessPool as error:
            if not marker(chunk).exists():
                raise _not_started() from error
            deaths.append(int(marker(chunk).read_text()))
    raise PreparationError(
        f"the process that reads samples died {len(deaths)} times, last at {chunk.file_at(deaths[-1])}: is there "
        "memory enough? What is done is kept; begin again to go on"
    )


def _not_started() -> PreparationError:
    return PreparationError(
        "the processes that read the samples do not start: see their messages above; with 0 workers this process reads"
    )


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes; after an interrupt only what is being read is finished."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A worker process: one thread; an interrupt is the parent's to handle, and the parent's death is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
