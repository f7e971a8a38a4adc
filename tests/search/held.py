"""What an installation holds, read past its own code: its records as they lie, and the files beside them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sql

# Everything but moments, and ids and versions of people, who are known here by their names.
QUESTIONS = {
    "media": "SELECT id, state, kind, seconds, faces, voices, settings, warnings FROM media",
    "files": "SELECT path, media, archive, state, reason, attempts FROM files",
    "tracks": "SELECT media, modality, evidence, start_ms, end_ms, track, quality FROM tracks",
    "people": "SELECT name, leaving FROM people",
    "samples": "SELECT people.name, media, modality, evidence, start_ms, end_ms, track, quality "
    "FROM samples LEFT JOIN people ON people.id = person",
    "announced": "SELECT writer, subject FROM announced",
}


def held(home: Path, server: sql.Engine | None = None) -> dict[str, list[Any]]:
    """Records by table (of SQLite in the home, or of a server), and the names of files of evidence and locks."""
    if server is not None:
        with server.connect() as asked:
            rows = {name: asked.execute(sql.text(question)).all() for name, question in QUESTIONS.items()}
        said = {name: sorted(map(tuple, found), key=repr) for name, found in rows.items()}
    else:
        with contextlib.closing(sqlite3.connect(home / "records.sqlite")) as database:
            said = {name: sorted(database.execute(question), key=repr) for name, question in QUESTIONS.items()}
    said["files"] = [(Path(path).name, *rest) for path, *rest in said["files"]]
    kept = [path for folder in ("evidence", "writers") for path in (home / folder).rglob("*")]
    return said | {"on disk": sorted(path.name for path in kept if path.is_file())}


def assert_nothing_is_left_over(said: dict[str, list[Any]]) -> None:
    """Whatever is on disk has a record, and the other way round; nobody is entered without a sample, or leaving."""
    recorded = {line[2] for line in said["tracks"]} | {line[3] for line in said["samples"]}
    assert {name.partition(".")[0] for name in said["on disk"]} == recorded
    assert set(said["people"]) == {(line[0], 0) for line in said["samples"]} and not said["announced"]
