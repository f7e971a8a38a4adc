"""Jobs: read files into an archive, see how that goes, stop it, go on with it, try again what failed.

The work itself is done by workers, or by a thread of the server where there are none. Long questions
(``POST /v1/who``) are jobs too: they are answered under the same address, and are otherwise left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field

from ingest.flow import INGEST, first_step, walking_job
from ingest.jobpage import MOST_FILES, FileStanding, JobPage
from ingest.jobs import JobState, UnknownJob
from ingest.ledger import RecordsError
from ingest.queues import BrokerUnavailable
from ingest.tasks import ItemState
from ingest.walk import lies_within
from search.api import examples, problems
from search.api.desks import AtDesk
from search.api.job_feeds import MEDIA_TYPE, Feeds
from search.api.once import REPLAYED, Done, IdempotencyKey, digest_of, once
from search.api.people_routes import ONCE_PROBLEMS
from search.api.problems import CrossSite, JobUnfinished, JobUnrepeatable, PathRefused, answered, documented
from search.api.services import Desk, Overloaded
from search.idempotency import Claim

router = APIRouter(tags=["jobs"])
NamedPath = Annotated[str, Field(min_length=1, max_length=4096)]

MOST_PATHS = 1000
MOST_JOBS = 100
LARGEST_NUMBER = 2**53
_BOOKED = re.compile("[0-9a-f]{32}")
LINKS = {name: {"identity": "$response.body#/job"} for name in ("job", "job_files", "cancel_job", "forget_job")}

AnyJob = Annotated[str, Path(description="As the 202 named it.", max_length=200, examples=[examples.JOB])]
States = Annotated[
    list[ItemState], Query(description="Repeatable: only files that stand so; all by default.", examples=[["failed"]])
]

# before OpenAPI 3.2 the schema of a stream of events is that of each
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["page", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


@dataclass(frozen=True)
class JobAnswer:
    """A long question: its id, how it stands, and its answer or the problem that ended it."""

    job: str
    state: JobState
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class Ingest(BaseModel):
    """What is to be read, and how urgent it is."""

    paths: list[NamedPath] = Field(
        min_length=1, max_length=MOST_PATHS, examples=[[examples.FOLDER]],
        description="Files and folders as the server and the workers see them, with their whole path.",
    )  # fmt: skip
    archive: str = Field(
        default="default", min_length=1, max_length=200, examples=["default"],
        pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        description="Name of the archive they belong to.",
    )  # fmt: skip
    priority: int = Field(default=0, ge=-100, le=100, examples=[0], description="Higher comes first.")


@dataclass(frozen=True)
class JobList:
    """Jobs, the newest first."""

    jobs: list[JobPage]


@dataclass(frozen=True)
class JobFiles:
    """Some files of a job in order of number, and ``after`` of the next page: None after the last."""

    files: list[FileStanding]
    next: int | None = None


@dataclass(frozen=True)
class Retried:
    """How many files are tried again."""

    again: int


@dataclass(frozen=True)
class Forgotten:
    """A job that is not known any more."""

    forgotten: str


async def _feeds_of(request: Request) -> Feeds:
    feeds: Feeds = request.app.state.feeds
    return feeds


@router.post(
    "/v1/ingests", summary="Read files and folders into an archive", operation_id="ingest",
    status_code=202, response_model=JobPage,
    responses=documented(PathRefused, BrokerUnavailable, CrossSite, RecordsError, *ONCE_PROBLEMS, body=True)
    | answered(
        replace(examples.INGEST, state="queued", started=None, files=0, counts=dict.fromkeys(map(str, ItemState), 0),
                seconds_of_media=0.0, rate=0.0, real_time=0.0, remaining=None, first_errors=[], result=None),
        202, "Taken: a job, at Location",
        {"Location": "The job.", "Retry-After": "Seconds.",
         REPLAYED: "`true` where this was done before, and the answer is that of then."}, LINKS,
    ),
)  # fmt: skip
async def ingest(desk: AtDesk, request: Request, body: Ingest, key: IdempotencyKey = None) -> Response:
    """The job that finds and reads them.

    Paths must lie in the folders of ``VISAVOX_MEDIA_ROOTS``, links followed. That is looked at when this is asked, for
    every file that is found, and again right before a file is hashed and before it is read: whoever may change links
    in those folders could still change one while a file is being read. A file whose links lead out is not read, and
    the job says so.
    """
    del key  # documented and checked; read where it is needed
    work = desk.services.work

    def take() -> JobPage:
        places = inside(body.paths, work.roots)
        job = walking_job(places, body.archive, priority=body.priority, within=work.roots)
        return work.pages.page(work.hands.submit(job))

    async def enter(_claim: Claim | None) -> Done:
        page = await desk.look(take)
        return Done(page, 202, {"Location": f"/v1/jobs/{page.job}", "Retry-After": "1"})

    return await once(desk, request, digest_of({"body": body.model_dump_json()}), enter)


def inside(paths: Sequence[str], roots: Sequence[FilePath]) -> list[FilePath]:
    """The paths, if all of them lie in a root. Raises PathRefused; whether one exists is not told."""
    if not roots:
        raise PathRefused(
            "nothing may be read from by a path that arrives over HTTP: start the service with VISAVOX_MEDIA_ROOTS, "
            "the folders that may, separated by colons"
        )
    for path in paths:
        if not os.path.isabs(path) or not lies_within(path, roots):
            raise PathRefused(
                f"{path!r} lies in none of the folders of VISAVOX_MEDIA_ROOTS: give its whole path, add its folder "
                "there, or copy it into one"
            )
    return [FilePath(path) for path in paths]


@router.get(
    "/v1/jobs", summary="The jobs asked for last", operation_id="jobs", response_model=JobList,
    responses=documented(RecordsError)
    | answered(JobList([examples.INGEST]), links={"job": {"identity": "$response.body#/jobs/0/job"}}),
)  # fmt: skip
async def jobs(
    desk: AtDesk,
    unfinished: Annotated[bool, Query(description="Only those that are not finished.", examples=[True])] = False,
    limit: Annotated[int, Query(ge=1, le=MOST_JOBS, description="Most jobs.", examples=[20])] = 20,
) -> JobList:
    """The newest first. Long questions are not among them."""
    return JobList(await desk.look(lambda: desk.services.work.pages.recent(limit, unfinished=unfinished)))


@router.get(
    "/v1/jobs/{identity}/files", summary="The files of a job, one by one", operation_id="job_files",
    response_model=JobFiles,
    responses=documented(UnknownJob, RecordsError)
    | answered(JobFiles([examples.FAILED_FILE, examples.DONE_FILE], examples.DONE_FILE.number)),
)  # fmt: skip
async def job_files(
    desk: AtDesk,
    identity: AnyJob,
    state: States = [],  # noqa: B006 - FastAPI's way to say that there may be none
    after: Annotated[int, Query(ge=0, le=LARGEST_NUMBER, description="`next` of the page before.", examples=[0])] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_FILES, description="Most files of a page.", examples=[100])] = 100,
) -> JobFiles:
    """In order of number, in pages: what changes meanwhile moves no file from one page to another."""
    pages, known = desk.services.work.pages, _booked(identity)
    # one more than is shown tells whether there are more
    found = await desk.look(lambda: pages.files(known, states=state, after=after, limit=min(limit + 1, MOST_FILES)))
    more = len(found) > limit or len(found) == MOST_FILES
    return JobFiles(found[:limit], found[:limit][-1].number if more else None)


@router.get(
    "/v1/jobs/{identity}/events", summary="What happens with a job, while it happens", operation_id="job_events",
    response_class=Response,
    responses=documented(UnknownJob, RecordsError, Overloaded) | {
        200: {"description": "Server-sent events: `page` whenever the job stands differently, `end` at its end.",
              "content": {MEDIA_TYPE: {
                  "schema": _EVENT,
                  "example": f'event: page\ndata: {{"job": "{examples.JOB}", "state": "done", "files": 40}}\n\n'
                  f'event: end\ndata: {{"job": "{examples.JOB}", "state": "done"}}\n\n',
              }}},
    },
)  # fmt: skip
async def job_events(
    identity: AnyJob,
    feeds: Annotated[Feeds, Depends(_feeds_of)],
    last: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Not needed: the present comes first.", examples=["1"])
    ] = None,
) -> Response:
    """A stream: event ``page`` with the JSON of the job, at first and at most twice a second; ``end``, then it closes.

    A line of comment comes every 15 seconds without news. A stream that closes without ``end`` was closed because the
    service stops, or because ten minutes are over: connect again.
    """
    del last  # browsers send it when they connect again
    return await feeds.listen(_booked(identity))


def _change(name: str, summary: str, told: str, act: Callable[[Desk, str], None]) -> Callable[[Desk, str], Any]:
    """A route that changes a job and answers how it stands then."""

    async def changed(desk: AtDesk, identity: AnyJob) -> JobPage:
        known = _booked(identity)
        await desk.look(lambda: act(desk, known))
        return await _page(desk, known)

    changed.__doc__ = told
    return router.post(
        f"/v1/jobs/{{identity}}/{name}", summary=summary, operation_id=f"{name}_job", response_model=JobPage,
        responses=documented(UnknownJob, CrossSite, RecordsError) | answered(examples.INGEST, description="Done"),
    )(changed)  # fmt: skip


def _resume(desk: Desk, job: str) -> None:
    desk.services.work.book.resume(job)
    desk.services.work.hands.wake()


cancel = _change(
    "cancel", "Do nothing more of a job",
    "What is being read is abandoned within one piece of at most ten minutes. A finished job stays as it is.",
    lambda desk, job: desk.services.work.book.cancel(job),
)  # fmt: skip
pause = _change(
    "pause", "Begin nothing more of a job", "What is being read is read to its end.",
    lambda desk, job: desk.services.work.book.pause(job),
)  # fmt: skip
resume = _change("resume", "Go on with a paused job", "Where it was.", _resume)


@router.post(
    "/v1/jobs/{identity}/retry", summary="Try the failed files of a job again", operation_id="retry_job",
    response_model=Retried,
    responses=documented(UnknownJob, JobUnrepeatable, CrossSite, RecordsError) | answered(Retried(3)),
)  # fmt: skip
async def retry(desk: AtDesk, identity: AnyJob) -> Retried:
    """Those that failed or were cancelled, and no other; the job goes on until they are through."""
    work, known = desk.services.work, _booked(identity)

    def again() -> int:
        page = work.pages.page(known)
        if page.kind != INGEST:
            raise JobUnrepeatable(f"job {known} is of the kind {page.kind}: ask for it anew")
        number = work.book.retry(known, first_step(page.asked))
        work.hands.wake()
        return number

    return Retried(await desk.look(again))


@router.get(
    "/v1/jobs/{identity}", summary="How a job stands", operation_id="job", response_model=JobAnswer | JobPage,
    responses=documented(UnknownJob, RecordsError) | answered(examples.INGEST),
)  # fmt: skip
async def job(desk: AtDesk, request: Request, identity: AnyJob) -> JobAnswer | JobPage:
    """Of files that are read: counts by state, rate, remaining time, first errors.

    Of a long question ``result`` is what it answers at once for shorter media; ``error`` a problem document.
    """
    try:
        found = desk.services.board.get(identity)
    except UnknownJob:
        return await _page(desk, identity)
    folder = problems.uploads_folder(request)
    error = problems.document(found.failure, folder) if found.failure is not None else None
    return JobAnswer(found.id, found.state, found.result, error)


@router.delete(
    "/v1/jobs/{identity}", summary="Forget a finished job", operation_id="forget_job", response_model=Forgotten,
    responses=documented(UnknownJob, JobUnfinished, CrossSite, RecordsError) | answered(Forgotten(examples.JOB)),
)  # fmt: skip
async def forget(desk: AtDesk, identity: AnyJob) -> Forgotten:
    """What it read stays; how it went is not known any more."""
    known = _booked(identity)

    def remove() -> None:
        try:
            desk.services.work.book.forget(known)
        except ValueError as error:
            raise JobUnfinished(str(error)) from error

    await desk.look(remove)
    return Forgotten(known)


async def _page(desk: Desk, identity: str) -> JobPage:
    known = _booked(identity)
    return await desk.look(lambda: desk.services.work.pages.page(known))


def _booked(identity: str) -> str:
    """An id that may be in the book. Raises UnknownJob: anything else is in no database."""
    if not _BOOKED.fullmatch(identity):
        raise UnknownJob(f"no job {identity!r} is known")
    return identity
