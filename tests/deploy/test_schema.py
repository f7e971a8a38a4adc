"""What the OpenAPI document promises, held against what a server answers to requests that are made from it."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sql
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest.background import BackgroundQueue
from ingest.book import JOBS, TASKS, Book
from ingest.flow import Ways, ingest_work, walking_job
from ingest.jobs import JobBoard
from ingest.ledger import open_database
from ingest.parts import Parts
from ingest.runner import Runner
from ingest.shards import plan
from ingest.track import Span
from search.api import examples
from search.api.app import create_app
from search.api.services import Limits, Services, Work
from search.intake import Recogniser
from tests.search.small_world import ColoursAndTones, World, face, turn

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


class Answered:
    """Middleware that keeps which route answered with which status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.seen: set[tuple[str, str, int]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", scope["path"])
                self.seen.add((scope["method"], route, message["status"]))
            await send(message)

        await self.app(scope, receive, watched)


@contextmanager
def application(folder: Path) -> Iterator[FastAPI]:
    """An application with an archive, two people, a file that it can read and a finished job: those of the examples."""
    world = World(folder, shared=ColoursAndTones())
    red, low = face((200, 10, 10), span=Span(0, 2)), turn(1, 0, 2)
    world.archive.ingest_file(world.file("film.mp4", [red], [low]), "default")
    world.archive.enrol("Ada Lovelace", [world.file("ada.mp4", [face((10, 200, 10), span=Span(0, 2))], [turn(4)])])
    world.archive.enrol("Bob", [world.file("bob.wav", [], [turn(6)])])
    world.found[hashlib.sha256(examples.FILE.encode()).hexdigest()] = ([red], [low])
    book = Book(open_database(f"sqlite:///{folder / 'records.sqlite'}"))
    tasks = ingest_work(
        Ways(
            Recogniser(world.records.ledger, "settings"), plan, lambda: lambda path, _progress: world.extract(path),
            lambda: None, lambda: world.archive, Parts(folder / "parts"), folder,
        )
    )  # fmt: skip
    hands = BackgroundQueue(book, lambda stopping: Runner(book, tasks, (), stopping=stopping))
    work = Work(book, hands, (Path(examples.FOLDER).parent,))
    services = Services(
        world.engine, world.archive, world.records.people, list(world.encoders.values()), JobBoard(), work,
        evidence=world.records.evidence.file, ready=list, seconds=lambda _path: 5.0,
    )  # fmt: skip
    job = book.open_job(walking_job([folder / "film.mp4", world.broken("broken.mp4")], "default"))
    with book.database.begin() as connection:
        for table, column in ((JOBS, JOBS.c.id), (TASKS, TASKS.c.job)):
            connection.execute(sql.update(table).where(column == job).values({column.name: examples.JOB}))
    hands.start()
    while work.pages.page(examples.JOB).finished is None:
        time.sleep(0.01)
    try:
        yield create_app(services, Limits(folder=folder / "uploads"))
    finally:
        hands.close()


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address of a real server of an application."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


def schemathesis(document: str, folder: Path, phases: str, most: int, *options: str) -> str:
    """What schemathesis tells of a server whose document has an address; fails where it found something.

    Args:
        document: address of the OpenAPI document.
        folder: to run in, so that it keeps nothing anywhere else.
        phases: of its run.
        most: requests of a route and phase.
        options: further ones of its command.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", document, "--phases", phases, "-n", str(most)]
    command += ["--generation-deterministic", "--no-color", "--checks", CHECKS, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stdout[-8000:] + done.stderr[-2000:])
    return done.stdout


@pytest.mark.long
def test_a_server_answers_as_its_document_says(tmp_path: Path) -> None:
    with application(tmp_path) as plain, serving(app := Answered(plain)) as address:
        told = schemathesis(f"{address}/openapi.json", tmp_path, "examples,fuzzing,stateful", 6)
    assert "28 selected / 28 total" in told
    # it went inside, too: the examples are answered, and what one answer names is asked for
    inside = {("POST", f"/v1/{question}", 200) for question in ("who", "search", "verify", "match")}
    inside |= {("POST", "/v1/people", 201), ("DELETE", "/v1/people/{person}", 200)}
    inside |= {("POST", "/v1/ingests", 202), ("DELETE", "/v1/jobs/{identity}", 200)}
    inside |= {("GET", f"/v1/jobs/{{identity}}{what}", 200) for what in ("", "/files", "/events")}
    inside |= {("POST", f"/v1/jobs/{{identity}}/{what}", 200) for what in ("cancel", "pause", "resume", "retry")}
    assert inside <= app.seen


@pytest.mark.long
def test_a_server_answers_as_its_document_says_to_thousands_of_requests(tmp_path: Path) -> None:
    with application(tmp_path) as app, serving(app) as address:
        schemathesis(f"{address}/openapi.json", tmp_path, "examples,coverage,fuzzing,stateful", 100, "--no-shrink")


@pytest.mark.long
def test_a_document_that_promises_something_else_is_noticed(tmp_path: Path) -> None:
    these = ("--include-path-regex", "jobs|spaces", "--continue-on-failure")
    with application(tmp_path) as app:
        for answer in ("404", "422"):
            del app.openapi()["paths"]["/v1/jobs/{identity}"]["get"]["responses"][answer]
        app.openapi()["components"]["schemas"]["SpaceAnswer"]["properties"]["dimension"] = {"type": "string"}
        with serving(app) as address, pytest.raises(AssertionError) as noticed:
            schemathesis(f"{address}/openapi.json", tmp_path, "fuzzing", 3, *these)
    told = str(noticed.value)
    assert "Undocumented status code" in told and "Response violates schema" in told
