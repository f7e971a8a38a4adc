"""Errors as RFC 9457 problem documents: one table from class to status, and stable types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from search.api.services import MediaTooLong, NotReady
from search.api.uploads import UploadTooLarge, told_by_label
from search.evidence import EvidenceMissing
from search.people import NameTaken, UnknownPerson
from search.probes import ProbeUnusable
from search.scores import NotCalibrated
from search.store import StoreError, StoreHeld, StoreUnavailable

MEDIA_TYPE = "application/problem+json"
TYPES = "urn:visavox:problem:"
RETRY_SECONDS = 5


class VectorUnusable(ValueError):
    """A vector of a search does not fit the space it names."""


class HostRefused(ValueError):
    """A request was sent to a host name that is not one of this service."""


class CrossSite(ValueError):
    """A page of another site asks for a change."""


@dataclass(frozen=True)
class Kind:
    """A kind of problem: the end of its type URI, its status, its title, and whether to try again."""

    name: str
    status: int
    title: str
    again: bool = False


INTERNAL = Kind("internal", 500, "The service failed")
INVALID = Kind("invalid-request", 422, "The request is not valid")

KINDS: Mapping[type[BaseException], Kind] = {
    MediaError: Kind("media-unreadable", 422, "The file cannot be read"),
    MediaTooLong: Kind("media-too-long", 422, "The media are too long"),
    ProbeUnusable: Kind("probe-unusable", 422, "The file shows no usable face and holds no usable speech"),
    NotCalibrated: Kind("not-calibrated", 422, "This similarity has no calibration"),
    VectorUnusable: Kind("vector-unusable", 422, "The vector does not fit its space"),
    SpaceMismatch: Kind("space-mismatch", 409, "The vector is of another space"),
    NameTaken: Kind("name-taken", 409, "The name is taken"),
    UnknownPerson: Kind("unknown-person", 404, "Nobody of that name or id is enrolled"),
    UnknownJob: Kind("unknown-job", 404, "No such job is known"),
    EvidenceMissing: Kind("unknown-evidence", 404, "No such evidence is stored"),
    HostRefused: Kind("host-refused", 421, "The service does not answer under this host name"),
    CrossSite: Kind("cross-site", 403, "Pages of other sites may not ask for this"),
    UploadTooLarge: Kind("too-large", 413, "The request is too large"),
    BoardFull: Kind("busy", 503, "Too many jobs are waiting", again=True),
    JobCancelled: Kind("cancelled", 503, "The service stopped before the job ran", again=True),
    NotReady: Kind("not-ready", 503, "The service is not ready", again=True),
    StoreHeld: Kind("store-held", 503, "The index is open in another process", again=True),
    StoreUnavailable: Kind("store-unavailable", 503, "The index does not answer", again=True),
    StoreError: Kind("store-failed", 503, "The index could not do what was asked"),
    RecordsError: Kind("records-unusable", 503, "The records cannot be used", again=True),
    EncoderError: Kind("encoder-unusable", 503, "An encoder cannot be used"),
}


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
    problem: dict[str, Any] = {
        "type": TYPES + kind.name,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
    }
    return problem | ({"missing": error.missing} if isinstance(error, NotReady) else {})


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
    """An error as a response."""
    again = {"Retry-After": str(RETRY_SECONDS)} if kind_of(error).again else {}
    return _response(document(error, folder), again)


def _known(request: Request, error: Exception) -> JSONResponse:
    return answer(error, uploads_folder(request))


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What of a request is wrong, without repeating it."""
    del request
    found = error.errors() if isinstance(error, RequestValidationError) else []
    errors = [{"where": ".".join(str(part) for part in one["loc"]), "message": str(one["msg"])} for one in found]
    detail = "; ".join(f"{one['where']}: {one['message']}" for one in errors)
    problem = {"type": TYPES + INVALID.name, "title": INVALID.title, "status": INVALID.status, "detail": detail}
    return _response(problem | {"errors": errors}, {})


def _refused(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own refusals: no such path, method not allowed, not a form."""
    if not isinstance(error, HTTPException):
        return _known(request, error)
    title = HTTPStatus(error.status_code).phrase
    problem = {"type": "about:blank", "title": title, "status": error.status_code, "detail": str(error.detail)}
    return _response(problem, error.headers or {})


def _response(problem: Mapping[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse(problem, status_code=int(problem["status"]), media_type=MEDIA_TYPE, headers=dict(headers))


_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


def documented(*errors: type[BaseException]) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the problems a route may answer with, by status; what any request may meet included."""
    kinds = [INVALID, KINDS[HostRefused], *(KINDS[error] for error in errors), INTERNAL]
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        mine = [one for one in kinds if one.status == kind.status]
        examples = {
            one.name: {"value": {"type": TYPES + one.name, "title": one.title, "status": one.status, "detail": "…"}}
            for one in mine
        }
        answers[kind.status] = {
            "description": "; ".join(dict.fromkeys(one.title for one in mine)),
            "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": examples}},
        }
    return answers
