"""Questions: who, search, verify, match; and the spaces that belong to them.

Every answer is the JSON of the command of the same name. Uploads are read as what they are: neither a
part's declared type nor its file name chooses anything.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from encoders.space import Embedding, Modality, SpaceMismatch
from ingest.jobs import BoardFull
from search.answers import FindAnswer, MatchAnswer, VerifyAnswer, WhoAnswer
from search.api import examples
from search.api.desks import FILE_PROBLEMS, MOST_FILES, AtDesk, desk_of, receive
from search.api.forms import FormRoute
from search.api.job_routes import JobAnswer
from search.api.problems import WRONG_BODY, VectorUnusable, answered, documented
from search.api.services import Desk, NotReady
from search.api.uploads import is_multipart
from search.scores import NotCalibrated, Similarity
from search.store import Filter

__all__ = ["MOST_FILES", "desk_of", "router"]

router = APIRouter(route_class=FormRoute)
Model = TypeVar("Model", bound=BaseModel)

MOST_HITS = 1000
MOST_EXCLUDED = 100
MediaHash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
LONGEST_VECTOR = 8192

_FOUND = TypeAdapter(FindAnswer)

OneFile = Annotated[UploadFile, File(description="A film, a sound or a photo, of any common format.")]
Kind = Annotated[Similarity, Form(description="How vectors are compared.")]


@dataclass(frozen=True)
class SpaceAnswer:
    """A space that can be searched, and what its encoder encodes."""

    name: str
    digest: str
    dimension: int
    modalities: list[str]


@dataclass(frozen=True)
class SpacesAnswer:
    """Every space that can be searched."""

    spaces: list[SpaceAnswer]


class Wanted(BaseModel):
    """How many hits a search wants, and which rows may be among them."""

    model_config = ConfigDict(extra="ignore")
    top: int = Field(default=10, ge=1, le=MOST_HITS)
    enrolled: bool | None = Field(
        default=None, description="true: only samples of enrolled people; false: only tracks that bear no name."
    )
    exclude_media: list[MediaHash] = Field(
        default=[], max_length=MOST_EXCLUDED, description="Leave out what was found in these media (content hashes)."
    )

    @property
    def where(self) -> Filter:
        """The filter of the index."""
        return Filter(enrolled=self.enrolled, exclude_media=tuple(dict.fromkeys(self.exclude_media)))


class FileSearch(Wanted):
    """The fields beside the file of a search by file."""

    want: Modality


class VectorSearch(Wanted):
    """A search by vector: which space it is of, what it was made from, and what is wanted."""

    space_digest: str = Field(pattern="^[0-9a-f]{64}$")
    modality: Modality
    vector: list[float] = Field(min_length=1, max_length=LONGEST_VECTOR)
    want: Modality | None = Field(default=None, description="What to find; the vector's own modality if missing.")


@dataclass(frozen=True)
class Health:
    """How the service stands, in a word."""

    status: str


def _form(**parts: object) -> dict[str, Any]:
    """OpenAPI of an example of a form, which FastAPI cannot say by itself."""
    return {"requestBody": {"content": {"multipart/form-data": {"example": parts}}}}


@router.post(
    "/v1/who",
    operation_id="who",
    summary="Who speaks when in a file",
    tags=["questions"],
    response_model=WhoAnswer,
    responses=documented(*FILE_PROBLEMS, BoardFull, body=True)
    | answered(examples.WHO)
    | {
        202: {"model": JobAnswer}
        | answered(
            JobAnswer(examples.JOB, examples.QUEUED), 202, "More than 60 s of media: a job, at Location",
            {"Location": "The job.", "Retry-After": "Seconds."}, {"job": {"identity": "$response.body#/job"}},
        )[202]
    },
    openapi_extra=_form(file=examples.FILE),
)  # fmt: skip
async def who(desk: AtDesk, file: OneFile) -> WhoAnswer | Response:
    """Every speech turn with the people who may be speaking, best first, and the answer or ``unknown``."""
    with ExitStack() as stack:
        uploads = await receive([file], desk, stack)
        (path,) = uploads.paths
        if await desk.measure([path]) <= desk.limits.at_once:
            return await desk.ask(lambda: desk.services.engine.who(path))
        job = desk.later(lambda engine: asdict(engine.who(path)), uploads.delete)
        stack.pop_all()  # from here on the job deletes the file
    return JSONResponse(
        asdict(JobAnswer(job.id, job.state)), 202, {"Location": f"/v1/jobs/{job.id}", "Retry-After": "1"}
    )


def _search_body() -> dict[str, Any]:
    """OpenAPI of a body that is either of two, which FastAPI cannot say by itself."""
    form = TypeAdapter(FileSearch).json_schema()
    form["properties"]["file"] = {"type": "string", "format": "binary"}
    form["required"] = ["file", *form["required"]]
    for schema in (form, vector := TypeAdapter(VectorSearch).json_schema()):
        definitions = schema.pop("$defs", {})
        for one in schema["properties"].values():
            for holder in (one, *one.get("anyOf", [])):
                if "$ref" in holder:
                    holder.update(definitions[holder.pop("$ref").rsplit("/", 1)[-1]])
    by_vector = {"space_digest": examples.SPACE, "modality": "face", "vector": [0.6, 0.0, 0.8], "want": "voice"}
    content = {
        "multipart/form-data": {"schema": form, "example": {"file": examples.FILE, "want": "voice", "top": 10}},
        "application/json": {"schema": vector, "example": by_vector},
    }
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/v1/search",
    operation_id="search",
    summary="Find faces or voices of whom a file shows, or near a vector",
    tags=["questions"],
    response_model=FindAnswer,
    responses=documented(*FILE_PROBLEMS, SpaceMismatch, VectorUnusable, WRONG_BODY, body=True)
    | answered(examples.FIND, links={"evidence": {"identity": "$response.body#/hits/0/evidence"}}),
    openapi_extra=_search_body(),
)
async def search(desk: AtDesk, request: Request) -> FindAnswer | Response:
    """Hits, best first, over enrolled samples and archive tracks.

    The other modality is reached through people enrolled with both (``bridge``) and, where a shared-space
    encoder serves, in the ``shared`` space: those hits are leads, as the note says. Vectors of the shared space
    may be of either modality and want either.
    """
    if not is_multipart(request.headers):
        if "json" not in request.headers.get("content-type", "").lower():
            raise HTTPException(415, "send multipart/form-data with a file, or application/json with a vector")
        asked = _valid(VectorSearch, await request.body())
        # written as it is: what FastAPI would check it against is its own class
        return Response(_FOUND.dump_json(await _search_vector(desk, asked)), media_type="application/json")
    async with request.form(max_files=MOST_FILES) as form:
        file = form.get("file")
        given: dict[str, Any] = {name: form[name] for name in ("want", "top", "enrolled") if name in form}
        fields = _valid(FileSearch, given | {"exclude_media": form.getlist("exclude_media")})
        # the form's own parser makes Starlette's class, of which FastAPI's is a child
        if file is None or isinstance(file, str):
            raise RequestValidationError([{"loc": ("body", "file"), "msg": "a file is required"}])
        with ExitStack() as stack:
            uploads = await receive([file], desk, stack)  # type: ignore[list-item]
            await desk.measure(uploads.paths)
            path, asked_for = uploads.paths[0], (fields.want, fields.top, fields.where)
            return await desk.ask(lambda: desk.services.engine.find(path, *asked_for))


async def _search_vector(desk: Desk, asked: VectorSearch) -> FindAnswer:
    encoder = desk.serving(asked.space_digest)
    if asked.modality not in encoder.modalities:
        raise VectorUnusable(f"{encoder.space.name} has no vectors of modality {asked.modality}")
    try:
        probe = Embedding.of(encoder.space, asked.modality, np.array(asked.vector, dtype=np.float64))
    except ValueError as error:
        raise VectorUnusable(str(error)) from error
    want = asked.want or asked.modality
    return await desk.ask(lambda: desk.services.engine.find_vector(probe, want, asked.top, asked.where))


def _valid(model: type[Model], given: bytes | dict[str, Any]) -> Model:
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        found = [{"loc": ("body", *one["loc"]), "msg": one["msg"]} for one in error.errors()]
        raise RequestValidationError(found) from error


@router.post(
    "/v1/verify",
    operation_id="verify",
    summary="Whether two files show one person",
    tags=["questions"],
    response_model=VerifyAnswer,
    responses=documented(*FILE_PROBLEMS, NotCalibrated, body=True) | answered(examples.VERIFY),
    openapi_extra=_form(file=[examples.FILE, examples.FILE], similarity="cosine"),
)
async def verify(
    desk: AtDesk,
    file: Annotated[list[UploadFile], File(min_length=2, max_length=2, description="Two parts named `file`.")],
    similarity: Kind = Similarity.COSINE,
) -> VerifyAnswer:
    """Any two of face and voice, by the operating threshold of their space; a note says if it is but a lead."""
    with ExitStack() as stack:
        uploads = await receive(file, desk, stack)
        await desk.measure(uploads.paths)
        one, other = uploads.paths
        return await desk.ask(lambda: desk.services.engine.verify(one, other, similarity))


@router.post(
    "/v1/match",
    operation_id="match",
    summary="Which of several files shows the person of the probe",
    tags=["questions"],
    response_model=MatchAnswer,
    responses=documented(*FILE_PROBLEMS, NotCalibrated, body=True) | answered(examples.MATCH),
    openapi_extra=_form(probe=examples.FILE, candidate=[examples.FILE, examples.FILE], similarity="cosine"),
)
async def match(
    desk: AtDesk,
    probe: Annotated[UploadFile, File(description="Whom to look for.")],
    candidate: Annotated[list[UploadFile], File(min_length=1, max_length=MOST_FILES, description="Repeatable.")],
    similarity: Kind = Similarity.COSINE,
) -> MatchAnswer:
    """Candidates in the order sent, under the last part of their file names, or their numbers without one."""
    with ExitStack() as stack:
        asked, offered = await receive([probe], desk, stack), await receive(candidate, desk, stack)
        await desk.measure([*asked.paths, *offered.paths])
        answer = await desk.ask(lambda: desk.services.engine.match(asked.paths[0], offered.paths, similarity))
    names = offered.labels()
    shown = [replace(one, path=names[one.path]) for one in answer.candidates]
    return replace(answer, candidates=shown, answer=names[answer.answer])


@router.get(
    "/v1/spaces", summary="Spaces that can be searched", operation_id="spaces",
    tags=["index"], response_model=SpacesAnswer,
    responses=documented()
    | answered(SpacesAnswer([SpaceAnswer("face_identity", examples.SPACE, 128, ["face"])])),
)  # fmt: skip
async def spaces(desk: AtDesk) -> SpacesAnswer:
    """Name, digest, dimension and modalities of each: what a search by vector needs."""
    return SpacesAnswer(
        [
            SpaceAnswer(one.space.name, one.space.digest, one.space.dimension, sorted(str(m) for m in one.modalities))
            for one in desk.services.encoders
        ]
    )


@router.get(
    "/healthz", summary="Whether the process lives", operation_id="healthz",
    tags=["operation"], response_model=Health,
    responses=documented(keys=False) | answered(Health("alive")),
)  # fmt: skip
async def healthz() -> Health:
    """Always 200."""
    return Health("alive")


@router.get(
    "/readyz", summary="Whether questions can be answered", operation_id="readyz",
    tags=["operation"], response_model=Health,
    responses=documented(NotReady) | answered(Health("ready")),
)  # fmt: skip
async def readyz(desk: AtDesk) -> Health:
    """200 once the index answers and the encoders are loaded; else 503 with what is missing."""
    missing = await desk.missing()
    if missing:
        raise NotReady(missing)
    return Health("ready")
