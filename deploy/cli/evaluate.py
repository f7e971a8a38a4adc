"""``evaluate``: how well the encoders tell people apart, and how well voices and faces find each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.output import DONE, WITH_FAILURES, Json, NothingDone, UsageError, answer, console, errors_translated

if TYPE_CHECKING:
    from deploy.wiring import Installation


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
    model: Annotated[
        str | None, typer.Option(help="With --population: an encoder folder; by default the one that serves.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write what was scored to this .npz file.")] = None,
    json: Json = False,
) -> None:
    """Measure retrieval, verification and matching, exact and through the index, against chance."""
    if population == (people is not None):
        raise UsageError("say whom to measure on: --population (invented people) or --people DIR (one's own)")
    if model is not None and not population:
        raise UsageError("--model goes with --population; --people measures the identity encoders")
    if export is not None and (export.suffix != ".npz" or export.is_dir()):
        raise UsageError(f"--export names a file that ends in .npz, not {export}")
    if people is not None and not people.is_dir():
        raise NothingDone("not_found", f"{people}: there is no such folder")
    if export is not None and not (export.parent.is_dir() and os.access(export.parent, os.W_OK)):
        raise NothingDone("not_found", f"{export}: its folder is not there or cannot be written to")
    with errors_translated():
        from deploy.wiring import installation
        from search.report import as_table

        with installation() as opened:
            if people is not None:
                report, code = _on_people(opened, people, export)
            else:
                report, code = _on_population(opened, model, export)
    answer(report, json, lambda: console.print(as_table(report)), code=code)


def _on_people(opened: Installation, people: Path, export: Path | None) -> tuple[dict[str, Any], int]:
    from ingest.walk import walk_media
    from search.evaluation import NothingToMeasure, collect, evaluate_people

    folders = [folder for folder in sorted(people.iterdir()) if folder.is_dir()]
    files = {folder.name: walk_media([folder], opened.settings.home).media for folder in folders}
    samples = collect(opened.prober, files, on_sample=_progress)
    try:
        with opened.scratch_store() as store:
            report = evaluate_people(samples, store, opened.encoders)
    except NothingToMeasure as error:
        raise NothingDone("nothing_to_measure", f"{people}: {error}") from error
    if export is not None:
        samples.export(export)
    return report, WITH_FAILURES if any(not one.readable for one in samples.unusable) else DONE


def _on_population(opened: Installation, model: str | None, export: Path | None) -> tuple[dict[str, Any], int]:
    from deploy.cli.train import Stages, training_errors_translated
    from deploy.models import check_model, find_folder, serving_folder
    from deploy.training import invite_measured, measure

    settings = opened.settings
    folder = find_folder(model, settings.home) if model is not None else serving_folder(settings)
    if folder is None:
        raise NothingDone(
            "no_model",
            "no shared-space encoder serves: train one with `visavox train bi_quintuple --population`, choose it with "
            "`visavox models use`, or name one with --model",
        )
    encoder = check_model(folder, settings.device)
    with training_errors_translated("evaluation"), Stages() as stages:
        report, points = measure(opened, encoder, invite_measured(opened, stages.told), stages.told)
    if export is not None:
        points.export(export)
    return report, DONE


def _progress(seen: int, total: int, unusable: int) -> None:
    from deploy.cli.output import progress_console

    if seen % 50 == 0 or seen == total:
        progress_console.print(f"{seen} of {total} files read, {unusable} unusable")
