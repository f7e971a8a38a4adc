"""``evaluate``: how well the encoders tell people apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.output import DONE, WITH_FAILURES, Json, NothingDone, answer, console, errors_translated


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(evaluate)


def evaluate(
    people: Annotated[Path, typer.Option(help="A folder that holds one folder per person.")],
    export: Annotated[Path | None, typer.Option(help="Write what was scored to this .npz file.")] = None,
    json: Json = False,
) -> None:
    """Measure face→face and voice→voice retrieval and verification on people of one's own."""
    if not people.is_dir():
        raise NothingDone("not_found", f"{people}: there is no such folder")
    if export is not None and not (export.parent.is_dir() and os.access(export.parent, os.W_OK)):
        raise NothingDone("not_found", f"{export}: its folder is not there or cannot be written to")
    with errors_translated():
        from deploy.cli.files import walk_media
        from deploy.wiring import installation
        from search.evaluation import NothingToMeasure, collect, evaluate_people
        from search.report import as_table

        with installation() as opened:
            home = opened.settings.home
            folders = [folder for folder in sorted(people.iterdir()) if folder.is_dir()]
            files = {folder.name: walk_media([folder], home).media for folder in folders}
            samples = collect(opened.prober, files, on_sample=_progress)
            try:
                with opened.scratch_store() as store:
                    report = evaluate_people(samples, store, opened.encoders)
            except NothingToMeasure as error:
                raise NothingDone("nothing_to_measure", f"{people}: {error}") from error
        if export is not None:
            samples.export(export)

    code = WITH_FAILURES if any(not one.readable for one in samples.unusable) else DONE
    answer(report, json, lambda: console.print(as_table(report)), code=code)


def _progress(seen: int, total: int, unusable: int) -> None:
    from deploy.cli.output import progress_console

    if seen % 50 == 0 or seen == total:
        progress_console.print(f"{seen} of {total} files read, {unusable} unusable")
