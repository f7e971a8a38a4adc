"""The command line, a file per command family; heavy rooms are imported when a command needs them."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from deploy.cli import ask, enrol, evaluate, features, files, jobs, keys, models, operate, reencode, store, train
from deploy.cli.output import NOTHING_DONE, WRONG_USAGE, NothingDone, UsageError, report_error
from deploy.settings import calm_libraries

INTERRUPTED = 130

app = typer.Typer(
    name="visavox",
    help="Who is speaking? Search across the gap between voice and face.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for family in (files, jobs, enrol, ask, evaluate, train, features, models, reencode, store, keys, operate):
    family.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 done with failures, 2 wrong usage, 3 nothing could be done."""
    calm_libraries()
    os.umask(0o077)  # what an installation keeps is biometric: nobody else on this machine reads it
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    as_json = "--json" in given
    try:
        code = app(args=given, standalone_mode=False) or 0
        if code == INTERRUPTED:
            report_error("interrupted", "stopped; run the same command again to go on", INTERRUPTED, as_json)
    except typer.TyperException as error:
        code = report_error("usage", f"{_sentence(error)} (see `visavox --help`)", WRONG_USAGE, as_json)
    except UsageError as error:
        code = report_error("usage", str(error), WRONG_USAGE, as_json)
    except NothingDone as error:
        code = report_error(str(error.args[0]), str(error.args[-1]), NOTHING_DONE, as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = report_error("interrupted", "stopped; run the same command again to go on", INTERRUPTED, as_json)
    except Exception as error:  # noqa: BLE001 - the process's edge: even a defect keeps the promise of one document
        traceback.print_exc()
        code = report_error("internal", f"a defect in Visavox: {type(error).__name__}", NOTHING_DONE, as_json)
    sys.exit(code)


def _sentence(error: typer.TyperException) -> str:
    """What typer's own errors say to people; those of usage build their sentence when asked."""
    formatted = getattr(error, "format_message", None)
    return str(formatted() if callable(formatted) else error)
