"""``evaluate``: how well the encoders tell people apart, and how well voices and faces find each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.output import DONE, WITH_FAILURES, Json, NothingDone, UsageError, answer, console, errors_translated

if TYPE_CHECKING:
    from deploy.protocols import Asked
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
    protocol: Annotated[
        Path | None, typer.Option(help="Measure on the lists in this folder, with --media or --embeddings.")
    ] = None,
    media: Annotated[Path | None, typer.Option(help="With --protocol: the folder of the files it names.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="With --protocol: an .npz file that holds `path` and `vector`.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="With --population or --protocol: an encoder folder; by default the one that serves."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="With --population or --media: another encoder folder; with --embeddings: an .npz file."),
    ] = None,
    similarity: Annotated[str, typer.Option(help="With --protocol: cosine, euclidean or correlation.")] = "cosine",
    through: Annotated[
        str | None, typer.Option(help="With --protocol: `milvus` also asks the index, at the size of the gallery.")
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="With --protocol: whether people are resampled.")
    ] = True,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="With --protocol: measure also a model that knows test people.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="With --protocol: leave out trials whose samples are not there.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="With --population or --protocol: write the report with its pictures to this page."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="With --population or --protocol: write the report to this text.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write what was scored to this .npz file.")] = None,
    json: Json = False,
) -> None:
    """Measure retrieval, verification and matching, exact and through the index, against chance.

    With workers one of them does it, and `visavox jobs` keeps the report; a protocol is measured here.
    """
    if population + enrolled + (people is not None) + (protocol is not None) != 1:
        raise UsageError(
            "say whom to measure on: --population (invented people), --people DIR (one's own), --enrolled or "
            "--protocol DIR (published lists)"
        )
    if model is not None and not (population or protocol):
        raise UsageError("--model goes with --population or --protocol; the others measure the encoders that serve")
    if protocol is None and (media or embeddings or through or allow_seen or allow_missing):
        raise UsageError("--media, --embeddings, --through, --allow-seen and --allow-missing go with --protocol")
    if compare is not None and not (population or protocol):
        raise UsageError("--compare goes with --population or --protocol")
    if protocol is None and (similarity != "cosine" or not intervals):
        raise UsageError("--similarity and --no-intervals go with --protocol")
    if (html or markdown) and not (population or protocol):
        raise UsageError("--html and --markdown go with --population or --protocol")
    if export is not None and (export.suffix != ".npz" or export.is_dir()):
        raise UsageError(f"--export names a file that ends in .npz, not {export}")
    if people is not None and not people.is_dir():
        raise NothingDone("not_found", f"{people}: there is no such folder")
    for written in (export, html, markdown):
        place = written.absolute().parent if written is not None else None
        if place is not None and not (place.is_dir() and os.access(place, os.W_OK)):
            raise NothingDone("not_found", f"{written}: its folder is not there or cannot be written to")
        if written is not None and written.is_dir():
            raise UsageError(f"{written} is a folder: name a file")
    if protocol is not None:
        _must_fit(media, embeddings, compare, similarity, through)
        from deploy.protocols import Asked
        from deploy.report_files import ReportFiles
        from search.scores import Similarity

        asked_of_lists = Asked(
            protocol, media, embeddings, model, compare, Similarity(similarity), through is not None, intervals,
            allow_seen, allow_missing, export.absolute() if export is not None else None, ReportFiles(html, markdown),
        )  # fmt: skip
        _on_protocol(asked_of_lists, json)
        return
    with errors_translated():
        from deploy.wiring import installation
        from search.measurement import ENROLLED, PEOPLE, POPULATION, Measurement
        from search.report import as_table

        folder = str(people.absolute()) if people is not None else None
        asked = Measurement(
            POPULATION if population else PEOPLE if folder else ENROLLED, folder, model, _whole(export),
            html=_whole(html), markdown=_whole(markdown), compare=compare,
        )  # fmt: skip
        with installation() as opened:
            report = _by_workers(opened, asked) if opened.settings.broker_url else _here(opened, asked)
    unreadable = [one for one in report.get("unusable", ()) if not one.get("readable", True)]
    answer(report, json, lambda: console.print(as_table(report)), code=WITH_FAILURES if unreadable else DONE)


def _whole(path: Path | None) -> str | None:
    """A path as any process finds it."""
    return None if path is None else str(path.absolute())


def _must_fit(
    media: Path | None, embeddings: Path | None, compare: str | None, similarity: str, through: str | None
) -> None:
    """See that the options of ``--protocol`` go together. Raises UsageError."""
    if (media is None) == (embeddings is None):
        raise UsageError("--protocol needs either --media DIR (files to encode) or --embeddings FILE.npz (vectors)")
    if similarity not in ("cosine", "euclidean", "correlation"):
        raise UsageError(f"--similarity is cosine, euclidean or correlation, not {similarity!r}")
    if through not in (None, "milvus"):
        raise UsageError(f"--through is milvus, not {through!r}")
    if through is not None and similarity != "cosine":
        raise UsageError(f"--through asks an index of cosines: it does not go with --similarity {similarity}")
    if compare is not None and embeddings is not None and Path(compare).suffix != ".npz":
        raise UsageError(f"--compare with --embeddings names another .npz file, not {compare!r}")


def _on_protocol(asked: Asked, json: bool) -> None:
    """Measure on a protocol's lists in this process, and answer."""
    from deploy.cli.train import Stages
    from deploy.protocols import measure_protocol
    from search.list_folder import ProtocolError
    from search.measurement import NoModel, NothingToMeasure, PointsError, SeenInTraining
    from search.protocol_table import as_protocol_table

    kinds: dict[type[Exception], str] = {
        ProtocolError: "protocol", PointsError: "embeddings", SeenInTraining: "seen_in_training",
        NothingToMeasure: "nothing_to_measure", NoModel: "no_model",
    }  # fmt: skip
    heavy = asked.media is not None or asked.model is not None or asked.through_index
    try:
        with errors_translated() if heavy else _light_errors_translated(), Stages() as stages:
            report = measure_protocol(asked, stages.told)
    except tuple(kinds) as error:
        raise NothingDone(kinds[type(error)], str(error)) from error
    unreadable = [one for one in report["unusable"] if not one["readable"]]
    answer(report, json, lambda: console.print(as_protocol_table(report)), code=WITH_FAILURES if unreadable else DONE)


@contextmanager
def _light_errors_translated() -> Iterator[None]:
    """What can go wrong without networks, index and records, whose rooms are not loaded for their errors' sake."""
    from deploy.settings import SettingsError

    try:
        yield
    except SettingsError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise NothingDone("file_system", f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error


def _here(opened: Installation, asked: Measurement) -> dict[str, Any]:
    from deploy.cli.train import Stages, training_errors_translated
    from deploy.measuring import take
    from search.measurement import NoModel

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
