"""Where logs go: one line of JSON for each event on standard error, or plain lines for people at a terminal."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from search.api.operations import traceback_of, with_request_id

LOGGER = "visavox"


class LogFormat(StrEnum):
    """How logs are written: ``auto`` is text on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


def start_logging(form: LogFormat, stream: TextIO | None = None) -> LogFormat:
    """Send every log of this process to one stream; what other libraries log, from warnings on.

    Args:
        form: how lines are written.
        stream: where to; standard error if None.

    Returns:
        The format chosen, never ``auto``.
    """
    stream = stream or sys.stderr
    if form is LogFormat.AUTO:
        form = LogFormat.TEXT if stream.isatty() else LogFormat.JSON
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[*_processors(), _renderer(form, stream)],
        )
    )
    for other in list(logging.root.manager.loggerDict.values()):
        if isinstance(other, logging.Logger):  # some libraries write to standard error by themselves
            other.handlers.clear()
            other.propagate = True
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    logging.captureWarnings(True)
    return form


def log() -> structlog.stdlib.BoundLogger:
    """The logger of what concerns the whole process, such as that it stops."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(LOGGER),
        processors=[ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def _processors() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _level_and_logger,
        ProcessorFormatter.remove_processors_meta,
        with_request_id,
        _where_it_arose,
        _first_things_first,
    ]


def _first_things_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    first = [name for name in ("time", "level", "event") if name in event]
    return {name: event[name] for name in [*first, *(name for name in event if name not in first)]}


def _level_and_logger(_logger: object, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["level"] = record.levelname.lower()
    if not record.name.startswith(LOGGER):
        event["logger"] = record.name
    return event


def _where_it_arose(_logger: object, _method: str, event: EventDict) -> EventDict:
    """An exception as a traceback without values: sentences of errors quote names and files."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else given if isinstance(given, BaseException) else sys.exc_info()[1]
    if given and error is not None:
        event["traceback"] = traceback_of(error)
    return event


def _renderer(form: LogFormat, stream: TextIO) -> Processor:
    if form is LogFormat.JSON:
        return structlog.processors.JSONRenderer()
    plain = structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="time")

    def below(logger: object, method: str, event: EventDict) -> str:
        """Multi-line tracebacks come below their line."""
        if "traceback" in event:
            event["exception"] = event.pop("traceback")
        return plain(logger, method, event)

    return below
