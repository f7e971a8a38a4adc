"""Inside the sandbox: reads one file after the other and tells what it found."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ingest.confinement import restrain
from ingest.crossing import Message, pack, receive, send, unpack
from ingest.limits import MediaLimits, reading_within
from ingest.media import MediaError, probe
from ingest.track import Extraction


@dataclass(frozen=True)
class Setup:
    """What a child is told first.

    Args:
        make_extractor: dotted name, ``module:function``, of what makes the extractor; empty for none.
        media: limits of every file that it reads.
        memory_bytes: most that a file may take beyond what the extractor does.
    """

    make_extractor: str
    media: MediaLimits
    memory_bytes: int


@dataclass(frozen=True)
class Request:
    """A file to read.

    Args:
        want: what to find out.
        path: its bytes as Latin-1, since not every file name is text.
    """

    want: Literal["extract", "seconds"]
    path: str


@dataclass(frozen=True)
class Reply:
    """How a request ended: ``ready`` (the first, unasked), ``found``, or a reason why not.

    Args:
        outcome: ``refused`` for a file that cannot be read, ``memory`` for one that needs too much,
            ``failed`` for an error that is not the file's.
        reason: a sentence for people.
        seconds: found, if these were wanted.
        extraction: found, if this was wanted.
    """

    outcome: Literal["ready", "found", "refused", "memory", "failed"]
    reason: str = ""
    seconds: float | None = None
    extraction: Extraction | None = None


class Reader(Protocol):
    """What a factory makes: :class:`ingest.pipeline.Extractor`."""

    def extract(self, path: Path, /) -> Extraction:
        """Find everything in one file; raises MediaError."""


def serve(descriptor: int) -> None:
    """Read files until the parent closes the socket; the process is confined already.

    Args:
        descriptor: of the socket to the parent.
    """
    channel = socket.socket(fileno=descriptor)
    fill = _filler(channel)
    setup: Setup = unpack(receive(fill, 0), Setup)
    try:
        extractor = _made(setup.make_extractor) if setup.make_extractor else None
    except Exception as error:  # noqa: BLE001 - whatever a factory raises is told to the parent
        send(pack(Reply("failed", f"{type(error).__name__}: {error}"[:2000])), channel.sendall)
        return
    _silence()
    restrain(setup.memory_bytes)
    send(pack(Reply("ready")), channel.sendall)
    with reading_within(setup.media):
        while True:
            request: Request = unpack(receive(fill, 0), Request)
            send(_answer(request, extractor), channel.sendall)


def _made(name: str) -> Reader:
    module, _, function = name.partition(":")
    made: Reader = getattr(importlib.import_module(module), function)()
    return made


def _silence() -> None:
    """From here on what libraries print is nobody's: a hostile file must not write into the parent's log."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _filler(channel: socket.socket) -> Callable[[memoryview], None]:
    def fill(buffer: memoryview) -> None:
        while buffer:
            count = channel.recv_into(buffer)
            if not count:
                sys.exit(0)  # the parent is done
            buffer = buffer[count:]

    return fill


def _answer(request: Request, extractor: Reader | None) -> Message:
    path = Path(os.fsdecode(request.path.encode("latin-1")))
    try:
        if request.want == "seconds":
            return pack(Reply("found", seconds=probe(path).duration))
        if extractor is None:
            return pack(Reply("failed", "this process has no extractor"))
        return pack(Reply("found", extraction=extractor.extract(path)))
    except MediaError as error:
        return pack(Reply("memory") if _for_memory(error) else Reply("refused", error.reason[:2000]))
    except MemoryError:
        return pack(Reply("memory"))
    except Exception as error:  # noqa: BLE001 - the parent must hear of it, and goes on with another child
        return pack(Reply("failed", f"{type(error).__name__}: {error}"[:2000]))


def _for_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that memory ended."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False
