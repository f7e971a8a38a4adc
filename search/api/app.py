"""The factory of the search API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.responses import Response as PlainResponse

from search.access import Forbidden, Keys, Unauthenticated
from search.api import evaluation_routes, evidence_routes, job_routes, people_routes, problems, routes
from search.api.gate import OPEN, KeyCheck
from search.api.hosts import LOOPBACK, HostCheck
from search.api.job_feeds import Feeds
from search.api.meters import Meters
from search.api.operations import Draining, Observed, Operation
from search.api.services import Desk, Limits, NotReady, Services
from search.api.uploads import BodyCap, sweep

DEFAULT_LIMITS = Limits()
STOPPING = "the service is stopping: ask another one, or again in a moment"
_METRICS_EXAMPLE = 'visavox_requests_total{method="POST",route="/v1/who",status="200"} 42.0\n'

operation_router = APIRouter(tags=["operation"])


def create_app(
    services: Services,
    limits: Limits = DEFAULT_LIMITS,
    allowed_hosts: Collection[str] = LOOPBACK,
    keys: Keys | None = None,
    operation: Operation | None = None,
) -> FastAPI:
    """The search API as an ASGI application.

    Without keys whoever reaches it may ask: serve it on loopback only. When it stops it closes the board of jobs;
    the other services belong to the caller.

    Args:
        services: what it answers with.
        limits: what a request may weigh.
        allowed_hosts: host names and addresses, without port, under which it answers, and whose pages may
            ask for changes. Any other would let a web page reach it by pointing its own name at loopback.
        keys: every route but ``/healthz`` asks for one of them; None: nobody needs a key.
        operation: what it counts and how it stops; its own if None.
    """
    operation = operation or Operation(Meters(product_version()))
    app = FastAPI(
        title="Visavox",
        summary="Who is speaking? Search across the gap between voice and face.",
        version=product_version(),
        lifespan=_lifespan,
        redoc_url=None,
        # every file of a request is cut off by the cap on the request; fields are small
        form_limits={"max_files": routes.MOST_FILES + 1, "max_fields": 100, "max_part_size": 2**16},
    )
    app.state.desk = Desk(services, limits)
    app.state.meters = operation.meters
    app.state.feeds = Feeds(services.work.pages, lambda: operation.drain.draining)
    # what is added last is asked first
    app.add_middleware(BodyCap, upload_bytes=limits.upload_bytes, json_bytes=limits.json_bytes)
    if keys is not None:
        app.add_middleware(KeyCheck, keys=keys, open_without_keys=operation.open_without_keys)
    app.add_middleware(HostCheck, allowed=allowed_hosts)
    app.add_middleware(Draining, drain=operation.drain, refusal=_stopping)
    app.add_middleware(Observed, meters=operation.meters, failed=_failed)
    for part in (routes, job_routes, evaluation_routes, evidence_routes, people_routes):
        app.include_router(part.router)
    app.include_router(operation_router)
    problems.install(app)
    if keys is not None:
        _describe_keys(app)
    return app


def product_version() -> str:
    """The version of Visavox that is installed; "0" in a checkout that is not."""
    try:
        return version("visavox")
    except PackageNotFoundError:
        return "0"


@operation_router.get(
    "/metrics", summary="What the service counts about itself, for Prometheus", response_class=Response,
    responses=problems.documented() | {
        200: {"description": "Prometheus' text format, or OpenMetrics' where accepted.", "content": {
            "text/plain": {"schema": {"type": "string"}, "example": _METRICS_EXAMPLE},
            "application/openmetrics-text": {"schema": {"type": "string"}, "example": _METRICS_EXAMPLE},
        }},
    },
)  # fmt: skip
async def metrics(request: Request) -> Response:
    """Requests, stages, and what the installation holds; where there are keys, for those of administrators."""
    meters: Meters = request.app.state.meters
    text, media_type = await meters.exposition(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    desk: Desk = app.state.desk
    await to_thread.run_sync(sweep, desk.limits.folder)
    yield
    await to_thread.run_sync(desk.services.board.close)


def _failed(error: Exception) -> PlainResponse:
    return problems.answer(error, None)


def _stopping() -> PlainResponse:
    return problems.answer(NotReady([STOPPING]), None)


def _describe_keys(app: FastAPI) -> None:
    """Say in the OpenAPI document that keys are needed, and what happens without."""
    plain = app.openapi
    refusals = problems.documented(Unauthenticated, Forbidden)

    def described() -> dict[str, Any]:
        document = plain()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer", "description": "`visavox keys create` makes one."}
        document["security"] = [{"key": []}]
        for path, operations in document["paths"].items():
            for one in operations.values():
                if path in OPEN:
                    one["security"] = []
                    continue
                for status in (401, 403):
                    if status in refusals:
                        one["responses"].setdefault(str(status), refusals[status])
        return document

    app.openapi = described  # type: ignore[method-assign]
