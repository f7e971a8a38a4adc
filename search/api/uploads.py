"""Uploaded files: a cap on what is received, a folder to read them from, and no trace afterwards.

A part's file name is never used to choose anything; cleaned, it names the file in answers and messages.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Sequence
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


class UploadTooLarge(HTTPException):
    """A request weighs more than it may; an HTTPException, FastAPI's own, so that it passes through its form parser."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"the request is larger than {most} bytes: send a shorter or smaller file")


class BodyCap:
    """Middleware that counts the bytes of a request as they arrive and stops at a limit.

    Args:
        app: what comes after.
        upload_bytes: for multipart requests.
        json_bytes: for all others.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int, json_bytes: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes
        self._json_bytes = json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = self._upload_bytes if is_multipart(headers) else self._json_bytes
        declared = headers.get("content-length", "")
        received = int(declared) if declared.isdecimal() and int(declared) > most else 0

        async def counted() -> Message:
            nonlocal received
            # what is declared as too large is refused before any of it is read
            message = {"type": "http.request"} if received > most else await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise UploadTooLarge(most)
            return message

        await self._app(scope, counted, send)


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
            taken = path.name in names.values()
            names[str(path)] = f"{path.name} ({number})" if taken else path.name
        return names

    def delete(self) -> None:
        """Remove the files; doing it twice is no error."""
        shutil.rmtree(self.folder, ignore_errors=True)


async def save(files: Sequence[UploadFile], folder: Path | None) -> Uploads:
    """Copy received parts to files; the caller deletes them.

    Args:
        files: parts of the request.
        folder: where to make a folder for them; None for the system's temporary folder.
    """
    parts = [(file.file, label(file.filename, index)) for index, file in enumerate(files)]
    return await to_thread.run_sync(_save, parts, folder)


def _save(parts: Sequence[tuple[BinaryIO, str]], folder: Path | None) -> Uploads:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    uploads = Uploads(Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder)), ())
    try:
        return Uploads(uploads.folder, tuple(_copy(part, uploads.folder / str(i)) for i, part in enumerate(parts)))
    except BaseException:
        uploads.delete()
        raise


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
