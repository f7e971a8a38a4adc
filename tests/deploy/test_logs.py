"""What a line of log looks like, whoever wrote it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from deploy.logs import LogFormat, log, start_logging
from search.api.operations import request_id


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for name in ("uvicorn", "uvicorn.error"):  # a server that another test has run may have silenced them
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).propagate = True
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_lines_and_those_of_libraries_are_json_of_one_form() -> None:
    stream = io.StringIO()
    assert start_logging(LogFormat.AUTO, stream) is LogFormat.JSON
    log().info("stopping", running=2)
    logging.getLogger("uvicorn.error").warning("odd: %s", 7)
    logging.getLogger("uvicorn.error").info("chatter")
    ours, theirs = lines(stream)
    assert (ours["event"], ours["level"], ours["running"]) == ("stopping", "info", 2)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("odd: 7", "warning", "uvicorn.error")
    assert next(iter(ours)) == "time" and ours["time"].endswith("Z")


def test_a_line_says_during_which_request_it_was_written() -> None:
    start_logging(LogFormat.JSON, stream := io.StringIO())
    token = request_id.set("mine")
    logging.getLogger("any.library").error("late")
    request_id.reset(token)
    assert lines(stream)[0]["request_id"] == "mine"


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.TEXT])
def test_an_exception_is_told_by_where_it_arose_not_by_what_it_says(form: LogFormat) -> None:
    start_logging(form, stream := io.StringIO())

    def about(person: str) -> None:
        raise ValueError(person)

    try:
        about("Ada Lovelace")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it failed")
    told = stream.getvalue()
    assert "it failed" in told and "in about" in told and "ValueError" in told
    assert told.count("Ada Lovelace") == told.count('about("Ada Lovelace")') + told.count('about(\\"Ada Lovelace\\")')


def test_a_library_that_writes_by_itself_does_so_no_longer() -> None:
    library = logging.getLogger("a.library")
    library.addHandler(logging.StreamHandler(own := io.StringIO()))
    library.propagate = False
    start_logging(LogFormat.JSON, stream := io.StringIO())
    library.warning("odd")
    assert own.getvalue() == "" and lines(stream)[0]["event"] == "odd"


def test_for_people_lines_are_no_json() -> None:
    assert start_logging(LogFormat.TEXT, stream := io.StringIO()) is LogFormat.TEXT
    log().info("stopping", running=2)
    assert "stopping" in stream.getvalue() and not stream.getvalue().startswith("{")
