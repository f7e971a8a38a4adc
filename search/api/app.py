"""The factory of the search API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from anyio import to_thread
from fastapi import FastAPI

from search.api import people_routes, problems, routes
from search.api.hosts import LOOPBACK, HostCheck
from search.api.services import Desk, Limits, Services
from search.api.uploads import BodyCap, sweep

DEFAULT_LIMITS = Limits()


def create_app(
    services: Services, limits: Limits = DEFAULT_LIMITS, allowed_hosts: Collection[str] = LOOPBACK
) -> FastAPI:
    """The search API as an ASGI application.

    It has no keys of its own: whoever serves it beyond loopback puts something in front that has. When it
    stops it closes the board of jobs; the other services belong to the caller.

    Args:
        services: what it answers with.
        limits: what a request may weigh.
        allowed_hosts: host names and addresses, without port, under which it answers, and whose pages may
            ask for changes. Any other would let a web page reach it by pointing its own name at loopback.
    """
    app = FastAPI(
        title="Visavox",
        summary="Who is speaking? Search across the gap between voice and face.",
        version=_version(),
        lifespan=_lifespan,
        redoc_url=None,
        # every file of a request is cut off by the cap on the request; fields are small
        form_limits={"max_files": routes.MOST_FILES + 1, "max_fields": 100, "max_part_size": 2**16},
    )
    app.state.desk = Desk(services, limits)
    app.add_middleware(BodyCap, upload_bytes=limits.upload_bytes, json_bytes=limits.json_bytes)
    app.add_middleware(HostCheck, allowed=allowed_hosts)  # added last, asked first
    app.include_router(routes.router)
    app.include_router(people_routes.router)
    problems.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    desk: Desk = app.state.desk
    await to_thread.run_sync(sweep, desk.limits.folder)
    yield
    await to_thread.run_sync(desk.services.board.close)


def _version() -> str:
    try:
        return version("visavox")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
