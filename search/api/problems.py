"""Errors as RFC 9457 problem documents: one table from class to status, and stable types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from encoders.encoder import EncoderError
from encoders.space import SpaceMismatch
from ingest.content import MediaError
from ingest.jobs import BoardFull, JobCancelled, UnknownJob
from ingest.ledger import RecordsError
from ingest.queues import BrokerUnavailable
from ingest.sandbox import SandboxError
from search.access import Forbidden, Unauthenticated
from search.api.conditional import RangeUnsatisfiable
from search.api.operations import request_id
from search.api.services import MediaTooLong, NotReady, Overloaded
from search.api.uploads import NoRoom, UploadTooLarge, told_by_label
from search.evidence import EvidenceMissing
from search.idempotency import IdempotencyMismatch, ReplyForgotten, RequestRunning
from search.people import NameRefused, NameTaken, PreconditionFailed, SamePerson, UnknownPerson
from search.probes import ProbeUnusable
from search.scores import NotCalibrated
from search.store import StoreError, StoreHeld, StoreUnavailable

MEDIA_TYPE = "application/problem+json"
TYPES = "urn:visavox:problem:"
RETRY_SECONDS = 5


class VectorUnusable(ValueError):
    """A vector of a search does not fit the space it names."""


class PathRefused(ValueError):
    """A path that arrived by HTTP lies outside of the folders that may be read from."""


class JobUnfinished(ValueError):
    """What was asked of a job can be done with finished ones only."""


class JobUnrepeatable(ValueError):
    """The job is of a kind whose files cannot be tried again one by one."""


class HostRefused(ValueError):
    """A request was sent to a host name that is not one of this service."""


class CrossSite(ValueError):
    """A page of another site asks for a change."""


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Args:
        name: the end of its type URI; "" for ``about:blank``, where the status says it all.
        status: of the answer.
        title: the same for all problems of the kind.
        example: what the detail of one may say.
        again: whether to try again later.
    """

    name: str
    status: int
    title: str
    example: str
    again: bool = False

    @property
    def type(self) -> str:
        """The URI of the kind."""
        return TYPES + self.name if self.name else "about:blank"


INTERNAL = Kind(
    "internal", 500, "The service failed", "this should not have happened; the service's log says more"
)  # fmt: skip
INVALID = Kind("invalid-request", 422, "The request is not valid", "body.name: Field required")
MALFORMED = Kind("", 400, "Bad Request", "There was an error parsing the body")
WRONG_BODY = Kind(
    "", 415, "Unsupported Media Type", "send multipart/form-data with a file, or application/json with a vector"
)  # fmt: skip

KINDS: Mapping[type[BaseException], Kind] = {
    MediaError: Kind(
        "media-unreadable", 422, "The file cannot be read",
        "film.mp4: looks like text, not like a film, sound or photo: convert it",
    ),
    MediaTooLong: Kind(
        "media-too-long", 422, "The media are too long",
        "film.mp4: lasts 9000 s, and at most 7200 s are taken: ingest it",
    ),
    ProbeUnusable: Kind(
        "probe-unusable", 422, "The file shows no usable face and holds no usable speech",
        "sea.jpg: shows no usable face and holds no usable speech: choose another",
    ),
    NotCalibrated: Kind(
        "not-calibrated", 422, "This similarity has no calibration",
        "shared has no calibration for euclidean: use cosine",
    ),
    VectorUnusable: Kind(
        "vector-unusable", 422, "The vector does not fit its space", "face_identity has vectors of 128 numbers, not 3"
    ),
    SpaceMismatch: Kind(
        "space-mismatch", 409, "The vector is of another space",
        "no serving encoder has the space 0f343b0931126: GET /v1/spaces lists those that do",
    ),
    NameTaken: Kind("name-taken", 409, "The name is taken", "somebody is enrolled as 'Ada Lovelace' already"),
    NameRefused: Kind(
        "name-refused", 422, "Nobody can have that name",
        "a person's name has 1 to 200 characters, all of them printable",
    ),
    SamePerson: Kind(
        "same-person", 422, "Both are one person", "nobody can be merged into themselves: name two people"
    ),
    UnknownPerson: Kind(
        "unknown-person", 404, "Nobody of that name or id is enrolled", "nobody called 'Ada Lovelace' is enrolled"
    ),
    PreconditionFailed: Kind(
        "precondition-failed", 412, "The person was changed meanwhile",
        "this is version 4 of the person, not 3: read it again, then decide",
    ),
    IdempotencyMismatch: Kind(
        "idempotency-mismatch", 422, "The key was used for another request",
        "this Idempotency-Key was used for another request: choose a new one",
    ),
    RequestRunning: Kind(
        "in-progress", 409, "The request is being worked on",
        "the request with this Idempotency-Key is being worked on: ask again later", again=True,
    ),
    ReplyForgotten: Kind(
        "forgotten-since", 410, "This was done, and the person was forgotten since",
        "this was done before, and the person it was about was forgotten since",
    ),
    UnknownJob: Kind("unknown-job", 404, "No such job is known", "no job '0f3c' is known"),
    PathRefused: Kind(
        "path-refused", 422, "The path may not be read from over HTTP",
        "'/home/ada' lies in none of the folders of VISAVOX_MEDIA_ROOTS: add its folder there, or copy it into one",
    ),
    JobUnfinished: Kind(
        "job-unfinished", 409, "The job is not finished", "job 0f3c is not finished: cancel it first"
    ),
    JobUnrepeatable: Kind(
        "job-unrepeatable", 409, "The job has no files that could be tried again",
        "job 0f3c is of the kind evaluate: ask for it anew",
    ),
    BrokerUnavailable: Kind(
        "broker-unavailable", 503, "The broker of the workers does not answer",
        "the broker redis://127.0.0.1:6379/0 does not answer: start Redis there", again=True,
    ),
    EvidenceMissing: Kind("unknown-evidence", 404, "No such evidence is stored", "no evidence '0f3c' is stored"),
    RangeUnsatisfiable: Kind(
        "range-unsatisfiable", 416, "The range lies outside of the file",
        "the file has 4096 bytes, and none of them lies in the range that was asked for",
    ),
    Unauthenticated: Kind(
        "unauthenticated", 401, "A key is needed", "send a key as Authorization: Bearer …: `visavox keys` makes them"
    ),
    Forbidden: Kind("forbidden", 403, "The key does not allow this", "this needs a key of the role editor"),
    HostRefused: Kind(
        "host-refused", 421, "The service does not answer under this host name",
        "ask for 127.0.0.1, ::1, localhost, not for example.com",
    ),
    CrossSite: Kind(
        "cross-site", 403, "Pages of other sites may not ask for this",
        "only pages of 127.0.0.1, ::1, localhost may ask for changes, not https://example.com",
    ),
    UploadTooLarge: Kind(
        "too-large", 413, "The request is too large",
        "the request is larger than 536870912 bytes: send a shorter or smaller file",
    ),
    NoRoom: Kind(
        "no-room", 503, "There is no room for another upload", "too many uploads at a time: try again later", again=True
    ),
    SandboxError: Kind(
        "reader-unusable", 503, "Files cannot be read now",
        "the process that reads files does not start: the service's log says why", again=True,
    ),
    Overloaded: Kind(
        "overloaded", 503, "Too many requests are waiting",
        "200 requests are waiting already: ask again later", again=True,
    ),
    BoardFull: Kind(
        "busy", 503, "Too many jobs are waiting", "16 jobs are waiting already: try again later", again=True
    ),
    JobCancelled: Kind(
        "cancelled", 503, "The service stopped before the job ran", "the service stopped before the job ran", again=True
    ),
    NotReady: Kind("not-ready", 503, "The service is not ready", "the index does not answer", again=True),
    StoreHeld: Kind(
        "store-held", 503, "The index is open in another process", "the index is open in process 4711", again=True
    ),
    StoreUnavailable: Kind(
        "store-unavailable", 503, "The index does not answer", "the index does not answer within 5 s", again=True
    ),
    StoreError: Kind("store-failed", 503, "The index could not do what was asked", "the index refused 64 rows"),
    RecordsError: Kind(
        "records-unusable", 503, "The records cannot be used",
        "the records cannot be used: database or disk is full", again=True,
    ),
    EncoderError: Kind(
        "encoder-unusable", 503, "An encoder cannot be used", "the folder of the encoder lacks head.safetensors"
    ),
}  # fmt: skip


def kind_of(error: BaseException) -> Kind:
    """The kind of an error: that of its nearest class in the table, else ``internal``."""
    return next((KINDS[one] for one in type(error).__mro__ if one in KINDS), INTERNAL)


def document(error: BaseException, folder: Path | None) -> dict[str, Any]:
    """The problem document of an error.

    Args:
        error: of one that is not in the table nothing is told but that it happened.
        folder: where uploads lie, which the document does not tell.
    """
    kind = kind_of(error)
    if kind is INTERNAL:
        detail = "this should not have happened; the service's log says more"
    elif isinstance(error, HTTPException):
        detail = error.detail
    else:
        detail = told_by_label(str(error), folder)
    problem = _problem(kind, detail)
    return problem | ({"missing": error.missing} if isinstance(error, NotReady) else {})


def _problem(kind: Kind, detail: str) -> dict[str, Any]:
    return {"type": kind.type, "title": kind.title, "status": kind.status, "detail": detail}


def install(app: FastAPI) -> None:
    """Make an application answer every error with a problem document."""
    for known in KINDS:
        if issubclass(known, Exception):
            app.add_exception_handler(known, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _known)


def uploads_folder(request: Request) -> Path | None:
    """Where the application keeps uploads while they are read."""
    folder: Path | None = request.app.state.desk.limits.folder
    return folder


def answer(error: Exception, folder: Path | None) -> JSONResponse:
    """An error as a response, with the headers that belong to it."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if kind_of(error).again else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeUnsatisfiable):
        headers["Content-Range"] = f"bytes */{error.length}"
    return _response(document(error, folder), headers)


def _known(request: Request, error: Exception) -> JSONResponse:
    return answer(error, uploads_folder(request))


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What of a request is wrong, without repeating it."""
    del request
    found = error.errors() if isinstance(error, RequestValidationError) else []
    errors = [{"where": ".".join(str(part) for part in one["loc"]), "message": str(one["msg"])} for one in found]
    detail = "; ".join(f"{one['where']}: {one['message']}" for one in errors)
    return _response(_problem(INVALID, detail) | {"errors": errors}, {})


def _refused(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own refusals: no such path, method not allowed, not a form."""
    if not isinstance(error, HTTPException):
        return _known(request, error)
    title = HTTPStatus(error.status_code).phrase
    problem = {"type": "about:blank", "title": title, "status": error.status_code, "detail": str(error.detail)}
    return _response(problem, error.headers or {})


def _response(problem: Mapping[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    identity = request_id.get()
    told = dict(problem) if identity is None else {**problem, "request_id": identity}
    return JSONResponse(told, status_code=int(problem["status"]), media_type=MEDIA_TYPE, headers=dict(headers))


_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "missing": {"type": "array", "items": {"type": "string"}},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "message"],
                "properties": {"where": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_HEADERS = {
    401: {"WWW-Authenticate": "The scheme of keys: Bearer."},
    409: {"Retry-After": "Seconds, where waiting helps."},
    416: {"Content-Range": "`bytes */` and the length of the file."},
    503: {"Retry-After": "Seconds, where waiting helps."},
}
# What any request may meet, and what any request with a body.
_ALWAYS = (INVALID, KINDS[HostRefused], INTERNAL)
_WITH_KEYS = (KINDS[Unauthenticated], KINDS[Forbidden], KINDS[RecordsError])
_WITH_BODY = (MALFORMED, KINDS[UploadTooLarge], KINDS[NoRoom])


def documented(
    *errors: type[BaseException] | Kind, body: bool = False, keys: bool = True
) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the problems a route may answer with, by status, an example of each kind.

    Args:
        errors: those of the route itself; what any request may meet comes by itself.
        body: whether requests have a body.
        keys: whether the route asks for a key where the service has keys.
    """
    own = [one if isinstance(one, Kind) else KINDS[one] for one in errors]
    kinds = [*_ALWAYS, *(_WITH_KEYS if keys else ()), *(_WITH_BODY if body else ()), *own]
    answers: dict[int | str, dict[str, Any]] = {}
    for status in sorted({kind.status for kind in kinds}):
        mine = [one for one in dict.fromkeys(kinds) if one.status == status]
        examples = {one.name or "malformed": {"value": _problem(one, one.example)} for one in mine}
        answers[status] = {
            "description": "; ".join(dict.fromkeys(one.title for one in mine)),
            "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": examples}},
            "headers": headers_of(_HEADERS.get(status, {})),
        }
    return answers


def answered(
    example: object,
    status: int = 200,
    description: str = "Done",
    headers: Mapping[str, str] | None = None,
    links: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: an answer of a route that is no problem.

    Args:
        example: of its JSON: a dataclass of the route's answer, or plain values.
        status: of the answer.
        description: when it is given.
        headers: what its own headers say, by name.
        links: where one can go on from it: parameters by name, each with the place of its value in the answer, by
            the id of the operation.
    """
    onward = {name: {"operationId": name, "parameters": dict(given)} for name, given in (links or {}).items()}
    shown = asdict(example) if is_dataclass(example) and not isinstance(example, type) else example
    content = {"application/json": {"example": shown}}
    answer = {"description": description, "content": content, "headers": headers_of(headers or {}), "links": onward}
    return {status: answer}


def headers_of(told: Mapping[str, str]) -> dict[str, Any]:
    """For OpenAPI: headers with what they say."""
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in told.items()}
