"""Enrolled people: enter, list, rename, forget, and add samples."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, File, Response, UploadFile
from pydantic import BaseModel, Field

from ingest.ledger import RecordsError
from search.answers import EnrolAnswer, ForgetAnswer, PeopleAnswer, PersonSummary, Refusal
from search.api.forms import FormRoute
from search.api.problems import CrossSite, documented
from search.api.routes import INDEX_PROBLEMS, MOST_FILES, AtDesk, receive
from search.api.services import Desk, MediaTooLong
from search.api.uploads import UploadTooLarge, told_by_label
from search.people import NameTaken, UnknownPerson

router = APIRouter(prefix="/v1/people", tags=["people"], route_class=FormRoute)


class PersonName(BaseModel):
    """What people are known by; no control characters, not only blanks."""

    name: str = Field(
        min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        examples=["Ada Lovelace"],
    )  # fmt: skip


@router.get("", summary="Everyone enrolled", response_model=PeopleAnswer, responses=documented(RecordsError))
async def everyone(desk: AtDesk) -> PeopleAnswer:
    """By name, with the number of their face and voice samples."""
    return await desk.look(desk.services.archive.people)


@router.post(
    "", summary="Enter a person, without samples yet", status_code=201, response_model=PersonSummary,
    responses=documented(NameTaken, CrossSite, RecordsError),
)  # fmt: skip
async def create(desk: AtDesk, body: PersonName, response: Response) -> PersonSummary:
    """The person, at Location."""
    person = await desk.look(lambda: desk.services.people.create(body.name))
    response.headers["Location"] = f"/v1/people/{person.id}"
    return await _summary(desk, person.id)


@router.get(
    "/{person}", summary="One person, by id or name", response_model=PersonSummary,
    responses=documented(UnknownPerson, RecordsError),
)  # fmt: skip
async def one(desk: AtDesk, person: str) -> PersonSummary:
    """With the number of their face and voice samples."""
    return await _summary(desk, person)


@router.patch(
    "/{person}", summary="Give a person another name", response_model=PersonSummary,
    responses=documented(UnknownPerson, NameTaken, CrossSite, RecordsError),
)  # fmt: skip
async def rename(desk: AtDesk, person: str, body: PersonName) -> PersonSummary:
    """Samples stay as they are."""
    renamed = await desk.look(lambda: desk.services.people.rename(person, body.name))
    return await _summary(desk, renamed.id)


@router.delete(
    "/{person}", summary="Forget a person everywhere", response_model=ForgetAnswer,
    responses=documented(UnknownPerson, CrossSite, *INDEX_PROBLEMS),
)  # fmt: skip
async def forget(desk: AtDesk, person: str) -> ForgetAnswer:
    """Samples, rows and evidence are removed; what is left is counts."""
    found = await desk.look(lambda: desk.services.people.find(person))
    return await desk.ask(lambda: desk.services.archive.forget(found.id))


@router.post(
    "/{person}/samples", summary="Enrol files of a person", response_model=EnrolAnswer,
    responses=documented(UnknownPerson, CrossSite, MediaTooLong, UploadTooLarge, *INDEX_PROBLEMS),
)  # fmt: skip
async def enrol(
    desk: AtDesk,
    person: str,
    file: Annotated[list[UploadFile], File(min_length=1, max_length=MOST_FILES, description="Repeatable.")],
) -> EnrolAnswer:
    """What was added and what was refused, under the last part of each file name."""
    found = await desk.look(lambda: desk.services.people.find(person))
    with ExitStack() as stack:
        uploads = await receive(file, desk, stack)
        await desk.measure(uploads.paths, skip_unreadable=True)  # those are refused one by one, in the answer
        answer = await desk.ask(lambda: desk.services.archive.enrol_known(found.id, uploads.paths))
    names, folder = uploads.labels(), desk.limits.folder
    return EnrolAnswer(
        name=answer.name,
        added=[names[path] for path in answer.added],
        refused=[Refusal(names[bad.path], told_by_label(bad.reason, folder)) for bad in answer.refused],
        warnings=[told_by_label(warning, folder) for warning in answer.warnings],
    )


async def _summary(desk: Desk, person: str) -> PersonSummary:
    """Somebody with counts. Raises UnknownPerson."""
    found = await desk.look(lambda: desk.services.people.find(person))
    listed = await desk.look(desk.services.archive.people)
    for summary in listed.people:
        if summary.id == found.id:
            return summary
    raise UnknownPerson(f"{person!r} was forgotten a moment ago")
