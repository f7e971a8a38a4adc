"""``enrol``, ``people``, ``forget``: who is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.output import (
    DONE,
    WITH_FAILURES,
    Json,
    NothingDone,
    UsageError,
    answer,
    console,
    errors_translated,
    progress_console,
)

if TYPE_CHECKING:
    from deploy.wiring import Installation
    from search.answers import EnrolAnswer


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(enrol)
    app.command()(people)
    app.command()(forget)


def enrol(
    name: Annotated[str, typer.Argument(help="The name that answers will give.")],
    files: Annotated[list[Path], typer.Argument(help="Photos, sound or film of this person.")],
    json: Json = False,
) -> None:
    """Make a person known by samples of their face and voice."""
    _check(name)
    if all(_is_absent(path) for path in files):
        raise NothingDone("not_found", f"{files[0]}: there is no such file")
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            if opened.settings.broker_url:
                outcome = _by_workers(opened, name, files)
            else:
                opened.archive.mend()
                outcome = opened.archive.enrol(name, files)

    def show() -> None:
        console.print(f"{outcome.name}: {len(outcome.added)} of {len(files)} files enrolled")
        for warning in outcome.warnings:
            console.print(f"note: {warning}")
        for refusal in outcome.refused:
            console.print(f"refused: {refusal.path}: {refusal.reason}")

    answer(outcome, json, show, code=WITH_FAILURES if outcome.refused else DONE)


def _by_workers(opened: Installation, name: str, files: list[Path]) -> EnrolAnswer:
    """Have a worker enrol; it must see the files under the same paths."""
    from deploy.working import Refused, enrol_by_workers, queue_of

    try:
        return enrol_by_workers(queue_of(opened, notice=progress_console.print), name, files)
    except Refused as error:
        raise NothingDone(error.kind, str(error)) from error


def _is_absent(path: Path) -> bool:
    """Whether there is no such file; of one that is out of reach, reading it says why."""
    try:
        path.stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return False


def _check(name: str) -> None:
    from search.people import check_name

    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def people(json: Json = False) -> None:
    """List everyone enrolled."""
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            everyone = opened.records.people.summary()

    def show() -> None:
        for person in everyone.people:
            console.print(f"{person.name}: {person.faces} faces, {person.voices} voices")
        if not everyone.people:
            console.print("nobody is enrolled: visavox enrol NAME FILE…")

    answer(everyone, json, show)


def forget(name: Annotated[str, typer.Argument(help="Whom to forget.")], json: Json = False) -> None:
    """Remove a person: samples, rows and evidence."""
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            gone = opened.archive.forget(name)

    def show() -> None:
        console.print(
            f"{gone.name} forgotten: {gone.samples} samples, {gone.rows} rows and {gone.evidence} pieces of evidence",
        )
        for model in gone.learned_by:
            console.print(f"{model} learned from them, among others: train it anew to have nothing left")

    answer(gone, json, show)
