"""``features``: frozen features of a corpus, extracted once for every recipe that learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)

# As long as this many are named on a screen; with --json all are.
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(features)


def features(
    corpus: Annotated[str, typer.Option(help="Its layout: voxceleb1, voxceleb1-d, mav-celeb, folder, csv, protocol.")],
    root: Annotated[Path, typer.Option(help="Where it lies.")],
    faces: Annotated[Path | None, typer.Option(help="Where its faces lie, if elsewhere, such as VGGFace.")] = None,
    lists: Annotated[Path | None, typer.Option(help="Where its published lists lie, if elsewhere.")] = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "all",
    encoder: Annotated[
        list[str] | None, typer.Option(help="An encoder folder; may be given twice. The identity encoders.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the features; one in the home.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; 0: this one. As many as processors.")] = None,
    allow_missing: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of listed files and people that may be absent. 0.05")
    ] = None,
    json: Json = False,
) -> None:
    """Extract frozen features of a corpus, once, for the recipes that learn from them.

    An interrupted or killed call is gone on with by the same call.
    """
    with errors_translated():
        from deploy.cli.train import Stages
        from deploy.features import SPLITS, FeaturesOrder, extract_features
        from deploy.settings import load_settings
        from training.corpora import CORPORA, MOST_MISSING, CorpusError, Source, layouts_told
        from training.features import FeaturesError
        from training.processes import PreparationError

        if corpus not in CORPORA:
            raise UsageError(f"there is no corpus {corpus!r}; there are {layouts_told()}")
        if split not in SPLITS:
            raise UsageError(f"--split is {', '.join(SPLITS)}, not {split!r}")
        share = MOST_MISSING if allow_missing is None else allow_missing
        try:
            source = Source(root, faces, lists, most_missing=share, least_people=1)
            order = FeaturesOrder(corpus, source, split, encoder or (), output, workers)
            with Stages() as stages:
                document = extract_features(load_settings(), order, stages.told)
        except (CorpusError, FeaturesError, PreparationError) as error:
            raise NothingDone(_kind(error), str(error)) from error

    def show() -> None:
        told = f"{document['faces']} faces and {document['voices']} voices of {document['people']} people"
        console.print(f"{told}: {document['features']}")
        for note in document["notes"]:
            console.print(note)
        failures = [f"{one['path']}: {one['reason']}" for one in document["unusable"]]
        for sentence in [*document["missing"], *failures][:_SHOWN]:
            console.print(f"left out: {sentence}")
        if (more := len(document["missing"]) + len(failures) - _SHOWN) > 0:
            console.print(f"and {more} more: see unusable.csv there, or --json")

    failed = document["unusable"] or document["missing"]
    answer(document, json, show, code=WITH_FAILURES if failed else DONE)


def _kind(error: Exception) -> str:
    return {"CorpusError": "corpus", "NobodyForSplit": "corpus", "FeaturesError": "features"}.get(
        type(error).__name__, "preparation"
    )
