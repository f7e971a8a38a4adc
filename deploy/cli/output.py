"""What every command shares: one JSON document or a table, exit codes, errors in one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer
from rich.console import Console

DONE, WITH_FAILURES, WRONG_USAGE, NOTHING_DONE = 0, 1, 2, 3

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on standard output.")]

# people read this; a terminal's width must not cut names or paths
# and their text is never markup
console = Console(soft_wrap=True, markup=False, highlight=False)
progress_console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


class UsageError(Exception):
    """The command cannot be meant as it was given: exit code 2."""


class NothingDone(Exception):
    """Nothing could be done: exit code 3."""


def answer(value: Any, as_json: bool, show: Callable[[], None], *, code: int = DONE) -> None:  # noqa: ANN401
    """Print an answer as one JSON document, or by ``show`` for people, and end with an exit code.

    Args:
        value: a dataclass or a JSON-ready mapping.
        as_json: whether ``--json`` was given.
        show: prints the same for people.
        code: exit code.
    """
    if as_json:
        document = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        sys.stdout.write(_encoded(document) + "\n")
    else:
        show()
    if code != DONE:
        raise typer.Exit(code)


def _encoded(document: object) -> str:
    """JSON that any terminal's encoding can carry, also with names that are in none."""
    return json.dumps(document)


def report_error(kind: str, message: str, code: int, as_json: bool) -> int:
    """Print an error as a JSON document on standard output, or as a sentence on standard error."""
    if as_json:
        sys.stdout.write(_encoded({"error": {"type": kind, "message": message}}) + "\n")
    else:
        progress_console.print(f"visavox: {message}", markup=False, highlight=False)
    return code


@contextmanager
def errors_translated() -> Iterator[None]:
    """Turn the rooms' errors into NothingDone with their sentence; the class's name is the error's type.

    The rooms are imported here and not above: wrong usage must be answered at once, without loading them.
    """
    from deploy.settings import SettingsError
    from encoders.encoder import EncoderError
    from encoders.space import SpaceMismatch
    from encoders.weights import WeightsError
    from ingest.jobs import UnknownJob
    from ingest.ledger import RecordsError
    from ingest.media import MediaError
    from ingest.worker import BrokerUnavailable
    from search.evidence import EvidenceMissing
    from search.people import NameTaken, UnknownPerson
    from search.probes import ProbeUnusable
    from search.scores import NotCalibrated
    from search.store import StoreError

    try:
        yield
    except SettingsError as error:
        raise UsageError(str(error)) from error
    except (
        BrokerUnavailable, EncoderError, EvidenceMissing, MediaError, NameTaken, NotCalibrated, ProbeUnusable,
        RecordsError, SpaceMismatch, StoreError, UnknownJob, UnknownPerson, WeightsError,
    ) as error:  # fmt: skip
        raise NothingDone(_kind(error), str(error)) from error
    except OSError as error:
        raise NothingDone("file_system", f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error


def _kind(error: Exception) -> str:
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
