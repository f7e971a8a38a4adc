"""``evaluate``: how well the encoders tell people apart, and how well voices and faces find each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.output import DONE, WITH_FAILURES, Json, NothingDone, UsageError, answer, console, errors_translated

if TYPE_CHECKING:
    from deploy.wiring import Installation
    from search.measurement import Measurement


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(evaluate)


def evaluate(
    population: Annotated[
        bool, typer.Option("--population", help="Measure the shared space on invented people nobody was trained on.")
    ] = False,
    people: Annotated[
        Path | None, typer.Option(help="Measure the identity encoders on a folder that holds one folder per person.")
    ] = None,
    enrolled: Annotated[
        bool, typer.Option("--enrolled", help="Measure the encoders on the people who are enrolled.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="With --population: an encoder folder; by default the one that serves.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write what was scored to this .npz file.")] = None,
    json: Json = False,
) -> None:
    """Measure retrieval, verification and matching, exact and through the index, against chance.

    With workers one of them does it, and `visavox jobs` keeps the report.
    """
    if population + enrolled + (people is not None) != 1:
        raise UsageError(
            "say whom to measure on: --population (invented people), --people DIR (one's own) or --enrolled"
        )
    if model is not None and not population:
        raise UsageError("--model goes with --population; the others measure the encoders that serve")
    if export is not None and (export.suffix != ".npz" or export.is_dir()):
        raise UsageError(f"--export names a file that ends in .npz, not {export}")
    if people is not None and not people.is_dir():
        raise NothingDone("not_found", f"{people}: there is no such folder")
    if export is not None and not (export.absolute().parent.is_dir() and os.access(export.absolute().parent, os.W_OK)):
        raise NothingDone("not_found", f"{export}: its folder is not there or cannot be written to")
    with errors_translated():
        from deploy.wiring import installation
        from search.measurement import ENROLLED, PEOPLE, POPULATION, Measurement
        from search.report import as_table

        folder = str(people.absolute()) if people is not None else None
        asked = Measurement(
            POPULATION if population else PEOPLE if folder else ENROLLED, folder, model,
            str(export.absolute()) if export is not None else None,
        )  # fmt: skip
        with installation() as opened:
            report = _by_workers(opened, asked) if opened.settings.broker_url else _here(opened, asked)
    unreadable = [one for one in report.get("unusable", ()) if not one.get("readable", True)]
    answer(report, json, lambda: console.print(as_table(report)), code=WITH_FAILURES if unreadable else DONE)


def _here(opened: Installation, asked: Measurement) -> dict[str, Any]:
    from deploy.cli.train import Stages, training_errors_translated
    from deploy.measuring import NoModel, take

    kind = "evaluation" if asked.on == "population" else "nothing_to_measure"
    try:
        with training_errors_translated(kind), Stages() as stages:
            return take(opened, asked, stages.told)
    except NoModel as error:
        raise NothingDone("no_model", str(error)) from error


def _by_workers(opened: Installation, asked: Measurement) -> dict[str, Any]:
    from deploy.cli.output import progress_console
    from deploy.working import Refused, outcome_of, queue_of
    from search.measurement import evaluation_job

    queue = queue_of(opened, notice=progress_console.print)
    try:
        return outcome_of(queue, queue.submit(evaluation_job(asked)))
    except Refused as error:
        raise NothingDone(error.kind, str(error)) from error
