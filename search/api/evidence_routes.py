"""The face crop or speech turn behind a hit: whole, or a range of its bytes, straight from the disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Path, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from search.api import examples
from search.api.conditional import ByteRange, IfNoneMatch, RangeUnsatisfiable, asked_range, is_known
from search.api.desks import AtDesk
from search.api.problems import documented, headers_of
from search.api.services import Desk
from search.evidence import EvidenceMissing

router = APIRouter(tags=["index"])

TYPES = {".png": "image/png", ".flac": "audio/flac"}
# A recording of an hour is never in memory, only this much of it.
CHUNK_BYTES = 2**18
_TAG = {"ETag": "The id of the evidence: it names the content."}
_WHOLE = _TAG | {"Accept-Ranges": "`bytes`", "Cache-Control": "`no-store`: a person can be forgotten."}

Identity = Annotated[
    str, Path(description="As a hit names it: 64 hexadecimal digits.", examples=[examples.EVIDENCE], max_length=200)
]
Range = Annotated[
    str | None,
    Header(
        alias="Range", description="One range of bytes; of several the whole is answered.", examples=["bytes=0-1023"]
    ),
]
IfRange = Annotated[
    str | None,
    Header(
        alias="If-Range", description="Answer the whole unless this is the `ETag`.", examples=[examples.EVIDENCE_TAG]
    ),
]
_CONTENT = {one: {"schema": {"type": "string", "format": "binary"}} for one in TYPES.values()}
_HEAD: dict[int | str, dict[str, Any]] = {
    200: {"description": "What GET would answer, without its body.", "headers": headers_of(_WHOLE)}
}
_UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is what the caller has.", "headers": headers_of(_TAG)}
}


@dataclass(frozen=True)
class _Opened:
    """A file that stays readable though it be deleted meanwhile; its bytes, entity tag and media type."""

    stream: BinaryIO
    length: int
    tag: str
    media_type: str


def _answers() -> dict[int | str, dict[str, Any]]:
    content = {one: body | {"example": f"(the bytes of {one})"} for one, body in _CONTENT.items()}
    part = headers_of(_WHOLE | {"Content-Range": "Which bytes these are, and of how many."})
    return {
        200: {"description": "PNG for a face, FLAC for a voice.", "content": content, "headers": headers_of(_WHOLE)},
        206: {"description": "A range of it.", "content": content, "headers": part},
    }


@router.get(
    "/v1/evidence/{identity}", summary="The face crop or speech turn behind a hit", operation_id="evidence",
    response_class=Response,
    responses=documented(EvidenceMissing, RangeUnsatisfiable) | _answers() | _UNCHANGED,
)  # fmt: skip
async def evidence(
    desk: AtDesk, identity: Identity, known: IfNoneMatch = None, part: Range = None, unless: IfRange = None
) -> Response:
    """PNG for a face, FLAC for a voice; ranges of bytes are answered, so that a player can jump."""
    opened = await desk.look(lambda: _open(desk, identity))
    try:
        if is_known(known, opened.tag):
            opened.stream.close()
            return _unchanged(opened)
        asked = asked_range(part, unless, opened.tag, opened.length)
        return _FromDisk(desk, opened, asked)
    except BaseException:
        opened.stream.close()
        raise


@router.head(
    "/v1/evidence/{identity}", summary="How long the evidence behind a hit is, and of which type",
    operation_id="evidence_head",
    response_class=Response,
    responses=documented(EvidenceMissing) | _HEAD | _UNCHANGED,
)  # fmt: skip
async def evidence_head(desk: AtDesk, identity: Identity, known: IfNoneMatch = None) -> Response:
    """The headers of the whole; ranges are ignored, as they are for HEAD."""
    opened = await desk.look(lambda: _open(desk, identity))
    opened.stream.close()
    if is_known(known, opened.tag):
        return _unchanged(opened)
    return Response(headers=_headers(opened) | {"Content-Length": str(opened.length)})


class _FromDisk(StreamingResponse):
    """A file, or a range of it, in small pieces; closed however the answer ends."""

    def __init__(self, desk: Desk, opened: _Opened, asked: ByteRange | None) -> None:
        headers, sent = _headers(opened), asked or ByteRange(0, opened.length)
        if asked is not None:
            headers["Content-Range"] = f"bytes {asked.start}-{asked.end - 1}/{opened.length}"
        headers["Content-Length"] = str(sent.end - sent.start)
        super().__init__(_chunks(desk, opened.stream, sent), 200 if asked is None else 206, headers)
        self._stream = opened.stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._stream:
            await super().__call__(scope, receive, send)


async def _chunks(desk: Desk, stream: BinaryIO, asked: ByteRange) -> AsyncIterator[bytes]:
    stream.seek(asked.start)
    left = asked.end - asked.start
    while left:
        chunk = await desk.look(partial(stream.read, min(CHUNK_BYTES, left)))
        if not chunk:  # the length was promised: the connection has to break
            raise EvidenceMissing("evidence became shorter while it was read")
        left -= len(chunk)
        yield chunk


def _open(desk: Desk, identity: str) -> _Opened:
    path = desk.services.evidence(identity)
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:  # forgotten a moment ago
        raise EvidenceMissing(f"no evidence {identity!r} is stored") from error
    length = os.fstat(stream.fileno()).st_size
    if not length:
        stream.close()
        raise EvidenceMissing(f"the file of evidence {identity!r} is empty")
    return _Opened(stream, length, f'"{identity}"', TYPES.get(path.suffix, "application/octet-stream"))


def _headers(opened: _Opened) -> dict[str, str]:
    # nothing may keep a copy: a person can be forgotten
    return {
        "Content-Type": opened.media_type, "ETag": opened.tag, "Accept-Ranges": "bytes",
        "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
    }  # fmt: skip


def _unchanged(opened: _Opened) -> Response:
    return Response(status_code=304, headers={"ETag": opened.tag, "Cache-Control": "no-store"})
