"""Enrolled people: enter, list, rename, merge, forget, and add samples.

What changes somebody can be made to depend on their version (``If-Match``); what adds somebody or something can be
sent again with the same ``Idempotency-Key``, and is done once.
"""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, File, Path, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from ingest.ledger import RecordsError
from ingest.sandbox import SandboxError
from search.answers import EnrolAnswer, ForgetAnswer, Refusal
from search.api import examples
from search.api.conditional import IfMatch, IfNoneMatch, expected_version, is_known, tag_of
from search.api.desks import INDEX_PROBLEMS, MOST_FILES, AtDesk, receive
from search.api.forms import FormRoute
from search.api.once import REPLAYED, Done, IdempotencyKey, digest_of, digest_of_files, once
from search.api.problems import CrossSite, answered, documented, headers_of
from search.api.services import Desk, MediaTooLong
from search.api.uploads import told_by_label
from search.idempotency import Claim, IdempotencyMismatch, ReplyForgotten, RequestRunning
from search.people import NameRefused, NameTaken, PersonEntry, PreconditionFailed, SamePerson, UnknownPerson

router = APIRouter(prefix="/v1/people", tags=["people"], route_class=FormRoute)

MOST_LISTED = 1000
LONGEST_CURSOR = 2000
ONCE_PROBLEMS = (IdempotencyMismatch, RequestRunning, ReplyForgotten)

_TAG = {"ETag": "The version of the person, for `If-Match`."}
_LINKS = {
    name: {"person": "$response.body#/id"}
    for name in ("person", "rename_person", "merge_person", "forget_person", "enrol_samples")
}
_REPLAY = {REPLAYED: "`true` where this was done before, and the answer is that of then."}
_UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The person is as the caller knows them.", "headers": headers_of(_TAG)}
}

AnyPerson = Annotated[
    str, Path(description="Id or name.", min_length=1, max_length=200, examples=[examples.PERSON, "Ada Lovelace"])
]
PageSize = Annotated[int, Query(ge=1, le=MOST_LISTED, description="Most people of a page.", examples=[50])]
Cursor = Annotated[
    str | None, Query(max_length=LONGEST_CURSOR, description="`next` of the page before.", examples=[examples.CURSOR])
]


class PersonName(BaseModel):
    """What people are known by: printable characters, not only blanks, and not ``unknown``."""

    name: str = Field(
        min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        examples=["Ada Lovelace"],
    )  # fmt: skip


class MergeInto(BaseModel):
    """Who gets the samples."""

    into: str = Field(min_length=1, max_length=200, description="Id or name.", examples=[examples.OTHER_PERSON])


@dataclass(frozen=True)
class PeopleList:
    """Some of those enrolled, by name, and where the next ones begin: None after the last."""

    people: list[PersonEntry]
    next: str | None = None


@router.get(
    "", summary="Everyone enrolled", operation_id="people", response_model=PeopleList,
    responses=documented(RecordsError) | answered(PeopleList([examples.SUMMARY], examples.CURSOR)),
)  # fmt: skip
async def everyone(
    desk: AtDesk,
    limit: PageSize = MOST_LISTED,
    after: Cursor = None,
) -> PeopleList:
    """By name, with the number of their face and voice samples.

    In pages: whoever is entered or forgotten meanwhile moves nobody from one page to another.
    """
    last = None if after is None else _from_cursor(after)
    page = await desk.look(lambda: desk.services.people.page(limit, last))
    return PeopleList(page.people, _to_cursor(page.people[-1]) if page.more else None)


@router.post(
    "", summary="Enter a person, without samples yet", operation_id="create_person",
    status_code=201, response_model=PersonEntry,
    responses=documented(NameTaken, NameRefused, CrossSite, RecordsError, *ONCE_PROBLEMS, body=True)
    | answered(
        replace(examples.SUMMARY, faces=0, voices=0, version=1), 201, "Entered",
        {"Location": "Where the person is."} | _TAG | _REPLAY, _LINKS,
    ),
)  # fmt: skip
async def create(desk: AtDesk, request: Request, body: PersonName, key: IdempotencyKey = None) -> Response:
    """The person, at Location."""
    del key  # documented and checked; read where it is needed

    async def enter(claim: Claim | None) -> Done:
        people = desk.services.people
        person = await desk.look(lambda: people.describe(people.create(body.name, claim).id))
        headers = {"Location": f"/v1/people/{person.id}", "ETag": tag_of(person.id, person.version)}
        return Done(person, 201, headers)

    return await once(desk, request, digest_of({"name": body.name}), enter)


@router.get(
    "/{person}", summary="One person", operation_id="person",
    response_model=PersonEntry,
    responses=documented(UnknownPerson, RecordsError) | answered(examples.SUMMARY, headers=_TAG) | _UNCHANGED,
)  # fmt: skip
async def one(desk: AtDesk, person: AnyPerson, known: IfNoneMatch = None) -> Response:
    """By id or name, with the number of their face and voice samples."""
    found = await desk.look(lambda: desk.services.people.describe(person))
    tag = tag_of(found.id, found.version)
    return Response(status_code=304, headers={"ETag": tag}) if is_known(known, tag) else _described(found)


@router.patch(
    "/{person}", summary="Give a person another name", operation_id="rename_person",
    response_model=PersonEntry,
    responses=documented(
        UnknownPerson, NameTaken, NameRefused, PreconditionFailed, CrossSite, RecordsError, body=True
    ) | answered(examples.SUMMARY, headers=_TAG),
)  # fmt: skip
async def rename(desk: AtDesk, person: AnyPerson, body: PersonName, unless_changed: IfMatch = None) -> Response:
    """Samples stay as they are."""
    people = desk.services.people

    def change() -> PersonEntry:
        found = people.find(person)
        return people.describe(people.rename(found.id, body.name, expected_version(unless_changed, found)).id)

    return _described(await desk.look(change))


@router.post(
    "/{person}/merge", summary="Give all samples of a person to another", operation_id="merge_person",
    response_model=PersonEntry,
    responses=documented(
        UnknownPerson, SamePerson, PreconditionFailed, CrossSite, *INDEX_PROBLEMS, body=True
    ) | answered(examples.SUMMARY, description="Who has the samples now", headers=_TAG),
)  # fmt: skip
async def merge(desk: AtDesk, person: AnyPerson, body: MergeInto, unless_changed: IfMatch = None) -> Response:
    """The first one goes, with their name; the second one has the samples of both.

    ``If-Match`` is about the first. One that was interrupted is finished when it is asked for again, by id.
    """

    def change() -> PersonEntry:
        people = desk.services.people
        version = None if unless_changed is None else expected_version(unless_changed, people.find(person))
        return people.describe(desk.services.archive.merge(person, body.into, version).id)

    return _described(await desk.write(change))


@router.delete(
    "/{person}", summary="Forget a person everywhere", operation_id="forget_person", response_model=ForgetAnswer,
    responses=documented(UnknownPerson, PreconditionFailed, CrossSite, *INDEX_PROBLEMS) | answered(examples.FORGET),
)  # fmt: skip
async def forget(desk: AtDesk, person: AnyPerson, unless_changed: IfMatch = None) -> ForgetAnswer:
    """Samples, rows and evidence are removed; what is left is counts."""

    def change() -> ForgetAnswer:
        found = desk.services.people.find(person)
        return desk.services.archive.forget(found.id, expected_version(unless_changed, found))

    return await desk.write(change)


@router.post(
    "/{person}/samples", summary="Enrol files of a person", operation_id="enrol_samples", response_model=EnrolAnswer,
    responses=documented(
        UnknownPerson, PreconditionFailed, CrossSite, MediaTooLong, SandboxError, *INDEX_PROBLEMS, *ONCE_PROBLEMS,
        body=True,
    ) | answered(examples.ENROL, headers=_REPLAY),
    openapi_extra={"requestBody": {"content": {"multipart/form-data": {"example": {"file": [examples.FILE]}}}}},
)  # fmt: skip
async def enrol(
    desk: AtDesk,
    request: Request,
    person: AnyPerson,
    file: Annotated[list[UploadFile], File(min_length=1, max_length=MOST_FILES, description="Repeatable.")],
    key: IdempotencyKey = None,
    unless_changed: IfMatch = None,
) -> Response:
    """What was added and what was refused, under the last part of each file name."""
    content = await digest_of_files(desk, file) if key else b""

    async def add(claim: Claim | None) -> Done:
        people = desk.services.people
        found = await desk.look(lambda: people.find(person))
        version = expected_version(unless_changed, found)
        if claim is not None:
            await desk.look(lambda: people.replies.bind(claim, found.id))
        return Done(await _enrol(desk, file, found.id, version))

    return await once(desk, request, content, add)


async def _enrol(desk: Desk, files: list[UploadFile], person: str, version: int | None) -> EnrolAnswer:
    with ExitStack() as stack:
        uploads = await receive(files, desk, stack)
        await desk.measure(uploads.paths, skip_unreadable=True)  # those are refused one by one, in the answer

        def change() -> EnrolAnswer:
            desk.services.people.check_version(person, version)
            return desk.services.archive.enrol_known(person, uploads.paths)

        answer = await desk.write(change)
    names, folder = uploads.labels(), desk.limits.folder
    return EnrolAnswer(
        name=answer.name,
        added=[names[path] for path in answer.added],
        refused=[Refusal(names[bad.path], told_by_label(bad.reason, folder)) for bad in answer.refused],
        warnings=[told_by_label(warning, folder) for warning in answer.warnings],
    )


def _described(person: PersonEntry) -> Response:
    return JSONResponse(asdict(person), headers={"ETag": tag_of(person.id, person.version)})


def _to_cursor(last: PersonEntry) -> str:
    place = json.dumps([last.name, last.id], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(place.encode()).decode()


def _from_cursor(cursor: str) -> tuple[str, str]:
    try:
        name, identity = json.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode())
        if not (isinstance(name, str) and name.isprintable() and isinstance(identity, str) and identity.isalnum()):
            raise ValueError("these are no name and id")
    except (ValueError, TypeError, RecursionError) as error:
        told = {"loc": ("query", "after"), "msg": "this is not the `next` of a page: begin without it"}
        raise RequestValidationError([told]) from error
    return name, identity
