"""``store``: whether the index is well, and moving it to another place."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

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
    from collections.abc import Collection

    from deploy.settings import Settings
    from deploy.wiring import Installation
    from encoders.space import Modality, Space
    from search.inspection import Problem, SpaceInspection

# A line of progress is written this often while rows are copied, in seconds.
LINE_EVERY = 5.0


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    family = typer.Typer(help="Check the index, or move it to another place.", rich_markup_mode=None)
    family.command()(check)
    family.command()(move)
    app.add_typer(family, name="store")


def check(json: Json = False) -> None:
    """Say where the index is, whether it answers, and what is wrong with it; nothing is changed."""
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            _need_index(opened.settings)
            document = _checked(opened)
    code = WITH_FAILURES if document["problems"] else DONE
    answer(document, json, lambda: _show_check(document), code=code)


def _checked(opened: Installation) -> dict[str, Any]:
    from deploy.models import kept_digests
    from search.inspection import Inspector, inspect_holdings, inspect_size

    serving = _serving(opened.settings)
    can, connecting = _timed(lambda: opened.store.capabilities)
    held, answering = _timed(opened.store.holdings)
    records = opened.records
    inspector = Inspector(opened.store, records.ledger.all_findings(), records.people.samples())
    spaces: list[SpaceInspection] = []
    problems: list[Problem] = []
    for space, modalities in serving.items():
        inspected, found = inspector.space(space, modalities)
        spaces.append(inspected)
        problems += found
    kept = kept_digests(opened.settings)  # to go back to, or being filled
    found_kept = (space for space in (holding.to_space() for holding in held) if space and space.digest in kept)
    problems += inspect_holdings(held, {*serving, *found_kept}) + inspect_size(can, spaces)
    return {
        "kind": can.kind,
        "version": can.version,
        "tested": can.tested,
        "uri": opened.store.place,
        "seconds_to_connect": round(connecting, 3),
        "seconds_to_answer": round(answering, 3),
        "capabilities": asdict(can),
        "spaces": [asdict(space) for space in spaces],
        "problems": [asdict(problem) for problem in problems],
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


def _serving(settings: Settings) -> dict[Space, Collection[Modality]]:
    """The spaces of the encoders that serve, with what those encode; no network is loaded for it."""
    from deploy.models import serving_folder
    from encoders.encoder import packaged_encoders
    from encoders.folder import read_description

    shared = serving_folder(settings)
    folders = [*packaged_encoders().values(), *([shared] if shared else [])]
    descriptions = [read_description(folder) for folder in folders]
    return {description.make_space(): set(description.branches) for description in descriptions}


def _need_index(settings: Settings) -> None:
    """Raise NothingDone where an embedded index would have to be made first."""
    if settings.embedded and not Path(settings.milvus_uri).exists():
        raise NothingDone("no_store", f"{settings.milvus_uri}: there is no index yet; `visavox ingest` makes it")


def _show_check(document: dict[str, Any]) -> None:
    name = {"lite": "Milvus Lite", "server": "a Milvus server"}[document["kind"]]
    tested = "" if document["tested"] else " (not a version that Visavox is tested with)"
    console.print(f"{document['uri']}: {name}, version {document['version'] or 'unknown'}{tested}")
    console.print(
        f"connected in {document['seconds_to_connect']:.2f} s, answered in {document['seconds_to_answer']:.2f} s"
    )
    for space in document["spaces"]:
        console.print(f"{space['name']}: {space['rows']} rows, {space['expected']} by the records")
    for problem in document["problems"]:
        console.print(f"problem: {problem['message']}: {problem['remedy']}")
    if not document["problems"]:
        console.print("nothing is wrong")


def move(
    to: Annotated[str, typer.Option(help="http://host:port of a Milvus server, or a path that ends in .db.")],
    replaced: Annotated[
        bool, typer.Option("--replace", help="Erase rows there that this index does not have.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy every row to another index and compare the two; the old one stays as it is."""
    started = time.monotonic()
    with errors_translated():
        from deploy.wiring import Installation, installation
        from search.transfer import transfer

        with installation() as opened:
            settings = _target_settings(opened.settings, to)
            _need_index(opened.settings)
            opened.store.open()
            target = Installation(settings)
            try:
                spaces = transfer(opened.store, target.store, replace=replaced, on_rows=_progress())
                place, source = target.store.place, opened.store.place
            finally:
                target.close()
    document = {
        "source": source,
        "target": place,
        "spaces": [asdict(space) for space in spaces],
        "verified": not any(space.problems for space in spaces),
        "seconds": round(time.monotonic() - started, 3),
    }
    answer(document, json, lambda: _show_move(document), code=DONE if document["verified"] else WITH_FAILURES)


def _target_settings(settings: Settings, to: str) -> Settings:
    """The settings of an installation that differs in its index only. Raises UsageError."""
    target = to if "://" in to else str(Path(to).expanduser().absolute())
    if not target.endswith(".db") and (urlsplit(target).scheme not in ("http", "https") or not _server(target)):
        raise UsageError(f"--to {to!r} must be http(s)://host:port of a Milvus server, or a path that ends in .db")
    if _same_place(settings.milvus_uri, target):
        raise UsageError("--to names the index that is in use: give another one")
    return replace(settings, milvus_uri=target)


def _same_place(here: str, there: str) -> bool:
    if "://" in here and "://" in there:
        return _server(here) == _server(there) or bool(_addresses(here) & _addresses(there))
    return "://" not in here + there and Path(here).expanduser().resolve() == Path(there).resolve()


def _server(uri: str) -> tuple[str, int, str]:
    """(host, port, database) that a URI names."""
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--to does not name a port: {error}") from error
    return parts.hostname or "localhost", port or (443 if parts.scheme == "https" else 19530), parts.path.strip("/")


def _addresses(uri: str) -> set[tuple[str, int, str]]:
    """The same with every address that the host's name stands for; none if that is not known."""
    host, port, database = _server(uri)
    try:
        return {(str(found[4][0]), port, database) for found in socket.getaddrinfo(host, port)}
    except OSError:
        return set()


def _progress() -> Callable[[Space, int, int], None]:
    """Writes a line now and then, and one when a space is through."""
    last = started = time.monotonic()

    def tell(space: Space, seen: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if seen == total or now - last >= LINE_EVERY:
            last = now
            progress_console.print(f"{space.name}: {seen} of {total} rows, {now - started:.0f} s")

    return tell


def _show_move(document: dict[str, Any]) -> None:
    for space in document["spaces"]:
        console.print(
            f"{space['name']}: {space['rows']} rows, {space['copied']} of them copied now; "
            f"{space['agreement']:.1%} of the hits of a sample are the same"
        )
        for problem in space["problems"]:
            console.print(f"problem: {problem}")
    if document["verified"]:
        console.print(
            f"To switch, set VISAVOX_MILVUS_URI={document['target']} (with user and password if it asks for them) "
            "for every Visavox process, and start them again.\n"
            f"{document['source']} is as it was; remove it when the new one serves: `visavox forget` no longer "
            "reaches what is in it."
        )
