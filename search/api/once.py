"""Writes that are done once, however often they are sent: ``Idempotency-Key``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

from fastapi import Header, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from ingest.ledger import RecordsError
from search.api.services import Desk
from search.idempotency import LEASE, Claim, Replies, Reply

_LOG = logging.getLogger("visavox")

REPLAYED = "Idempotency-Replayed"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Chosen anew for each write, such as a UUID. The same request with the same key is done once and "
        "gets the same answer for 24 hours.",
        examples=["6f1ed002-ab45-4b0c-9f0a-6a1e1f7f6f52"],
    ),
]


@dataclass(frozen=True)
class Done:
    """What a write answers once it is done: a dataclass, the status and headers of its own."""

    answer: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Work = Callable[[Claim | None], Awaitable[Done]]


async def once(desk: Desk, request: Request, content: bytes, work: Work) -> Response:
    """Do a write, or give the answer that it had when it was done before.

    Args:
        desk: where the records are looked at.
        request: its key, if it has one, who asks, and for what.
        content: digest of what it brings.
        work: does it; told the claim under which it works, None without a key. When it raises, nothing is kept.

    Raises:
        IdempotencyMismatch: the key was used for another request.
        RequestRunning: the request is being worked on.
        ReplyForgotten: it was done, and its person was forgotten since.
    """
    key, replies = request.headers.get("idempotency-key"), desk.services.people.replies
    if key is None:
        return _response(_reply(await work(None)), {})
    asked = f"{request.method}\n{request.url.path}\n".encode() + content
    caller = request.headers.get("authorization", "")
    claim = await desk.look(lambda: replies.claim(caller, key, asked))
    if isinstance(claim, Reply):
        return _response(claim, {REPLAYED: "true"})
    async with _renewed(desk, replies, claim):
        try:
            reply = _reply(await work(claim))
        except BaseException:
            # otherwise the claim lapses by itself
            with suppress(RecordsError):
                await desk.look(lambda: replies.release(claim))
            raise
    try:
        await desk.look(lambda: replies.keep(claim, reply))
    except RecordsError as error:  # it is done all the same, and the caller must hear so
        _LOG.warning("the answer of a write could not be kept: %s", error)
    return _response(reply, {})


@asynccontextmanager
async def _renewed(desk: Desk, replies: Replies, claim: Claim) -> AsyncIterator[None]:
    """Go on holding a claim for the time of a ``with`` block."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            with suppress(RecordsError):  # the next time, perhaps
                await desk.look(partial(replies.renew, claim))

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()


def _reply(done: Done) -> Reply:
    return Reply(done.status, done.headers, json.dumps(asdict(done.answer), ensure_ascii=False))


def _response(reply: Reply, headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse(json.loads(reply.body), reply.status, {**reply.headers, **headers})


def digest_of(fields: Mapping[str, str]) -> bytes:
    """What tells the fields of one request from another's."""
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).digest()


async def digest_of_files(desk: Desk, files: Sequence[UploadFile]) -> bytes:
    """What tells the files of one request from another's, whatever marks the borders of its parts."""

    def digest() -> bytes:
        whole = hashlib.sha256()
        for file in files:
            file.file.seek(0)
            content = hashlib.file_digest(file.file, "sha256")  # type: ignore[arg-type]
            file.file.seek(0)
            whole.update(json.dumps(file.filename).encode() + b"\n" + content.digest())
        return whole.digest()

    return await desk.look(digest)
