"""What routes have in common: the desk of the application they belong to, and what can go wrong there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated

from fastapi import Depends, Request, UploadFile

from encoders.encoder import EncoderError
from ingest.content import MediaError
from ingest.ledger import RecordsError
from ingest.sandbox import SandboxError
from search.api.problems import CrossSite
from search.api.services import Desk, MediaTooLong, NotReady, Overloaded
from search.api.uploads import Uploads, save
from search.probes import ProbeUnusable
from search.store import StoreError, StoreHeld, StoreUnavailable

MOST_FILES = 100

INDEX_PROBLEMS = (StoreUnavailable, StoreHeld, StoreError, RecordsError, EncoderError, NotReady, Overloaded)
FILE_PROBLEMS = (CrossSite, MediaError, MediaTooLong, ProbeUnusable, SandboxError, *INDEX_PROBLEMS)


async def desk_of(request: Request) -> Desk:  # not to be sent to a thread and back, hence async
    """The desk of the application that serves a request."""
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(desk_of)]


async def receive(files: Sequence[UploadFile], desk: Desk, stack: ExitStack) -> Uploads:
    """Take the files of a request; they are deleted when the stack is left. Raises NoRoom."""
    uploads = await save(files, desk.limits.folder)
    stack.callback(uploads.delete)
    return uploads
