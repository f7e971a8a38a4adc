"""Uploaded files: a cap on what is received, a folder to read them from, and no trace afterwards.

A part's file name is never used to choose anything; cleaned, it names the file in answers and messages.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from fastapi import HTTPException, UploadFile
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "visavox-upload-"
LONGEST_LABEL_BYTES = 120
# What a server that was killed left behind is nobody's after a day.
LEFTOVER_SECONDS = 24 * 3600.0
# Each may fill the disk with as much as a request may weigh, twice.
MOST_UPLOADS = 64
# What the system says where nothing more can be written: disk, quota, longest file, open files.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})


class UploadTooLarge(HTTPException):
    """A request weighs more than it may; an HTTPException, FastAPI's own, so that it passes through its form parser."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"the request is larger than {most} bytes: send a shorter or smaller file")


class NoRoom(HTTPException):
    """The service has no room for another upload now: on its disk, or beside those that are being received."""

    def __init__(self, why: str) -> None:
        super().__init__(503, f"{why}: try again later")


@contextmanager
def room() -> Iterator[None]:
    """Translate a full disk, met in a ``with`` block, to NoRoom."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoom(f"an upload cannot be kept ({error.strerror})") from error
        raise


class BodyCap:
    """Middleware that counts the bytes of a request as they arrive and stops at a limit.

    Args:
        app: what comes after.
        upload_bytes: for multipart requests.
        json_bytes: for all others.
        uploads: multipart requests that are taken at a time.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int, json_bytes: int, uploads: int = MOST_UPLOADS) -> None:
        self._app = app
        self._upload_bytes = upload_bytes
        self._json_bytes = json_bytes
        self._places = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not is_multipart(Headers(scope=scope)):
            await self._app(scope, _counted(scope, receive, self._json_bytes), send)
            return
        full = self._places == 0
        self._places -= not full
        try:
            await self._app(scope, _refusing if full else _counted(scope, receive, self._upload_bytes), send)
        finally:
            self._places += not full


def _counted(scope: Scope, receive: Receive, most: int) -> Receive:
    """What a request sends, as long as it is not more than it may be."""
    declared = Headers(scope=scope).get("content-length", "")
    received = int(declared) if declared.isdecimal() and int(declared) > most else 0

    async def counted() -> Message:
        nonlocal received
        # what is declared as too large is refused before any of it is read
        message = {"type": "http.request"} if received > most else await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise UploadTooLarge(most)
        return message

    return counted


async def _refusing() -> Message:
    raise NoRoom("too many uploads at a time")


def is_multipart(headers: Headers) -> bool:
    """Whether a request says that it brings files."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


def label(file_name: str | None, index: int) -> str:
    """A harmless name for an upload: the last part of the name it came with, or its number without one.

    Only letters, digits, blanks and ``._-()`` stay: ``%`` for one would make FFmpeg look for a series.
    """
    last = (file_name or "").replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(one if one.isalnum() or one in " ._-()" else "_" for one in last).strip(" .")
    while len(clean.encode()) > LONGEST_LABEL_BYTES:
        clean = clean[1:]  # the end of a long name tells more: it has the extension
    return clean or str(index)


@dataclass(frozen=True)
class Uploads:
    """Files of one request in a folder of their own.

    Args:
        folder: holds them and nothing else.
        paths: in the order in which they were sent.
    """

    folder: Path
    paths: tuple[Path, ...]

    def labels(self) -> dict[str, str]:
        """From path to a name to show, different for each file."""
        names: dict[str, str] = {}
        for number, path in enumerate(self.paths):
            name = path.name
            while name in names.values():
                name = f"{name} ({number})"
            names[str(path)] = name
        return names

    def delete(self) -> None:
        """Remove the files; doing it twice is no error."""
        shutil.rmtree(self.folder, ignore_errors=True)


async def save(files: Sequence[UploadFile], folder: Path | None) -> Uploads:
    """Copy received parts to files; the caller deletes them.

    Args:
        files: parts of the request.
        folder: where to make a folder for them; None for the system's temporary folder.

    Raises:
        NoRoom: they cannot be written.
    """
    parts = [(file.file, label(file.filename, index)) for index, file in enumerate(files)]
    begun: list[Uploads] = []
    try:
        with room():
            return await to_thread.run_sync(_save, parts, folder, begun)
    except BaseException:  # also when the request is given up, which the thread does not notice
        for uploads in begun:
            uploads.delete()
        raise


def _save(parts: Sequence[tuple[BinaryIO, str]], folder: Path | None, begun: list[Uploads]) -> Uploads:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    uploads = Uploads(Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder)), ())
    begun.append(uploads)
    return Uploads(uploads.folder, tuple(_copy(part, uploads.folder / str(i)) for i, part in enumerate(parts)))


def _copy(part: tuple[BinaryIO, str], folder: Path) -> Path:
    source, name = part
    folder.mkdir()
    source.seek(0)
    with (folder / name).open("xb") as target:
        shutil.copyfileobj(source, target, 2**20)
    return folder / name


def told_by_label(text: str, folder: Path | None) -> str:
    """A message without the folder in which an upload lies: nobody outside knows it."""
    base = re.escape(str(folder or tempfile.gettempdir()))
    return re.sub(rf"{base}/{PREFIX}[^/\s]+/\d+/", "", text)


def sweep(folder: Path | None) -> None:
    """Remove what servers that were killed left behind long ago."""
    base = folder or Path(tempfile.gettempdir())
    if not base.is_dir():
        return
    for left in base.glob(f"{PREFIX}*"):
        try:
            old = left.stat().st_mtime < time.time() - LEFTOVER_SECONDS
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(left, ignore_errors=True)
