from __future__ import annotations

import os
from pathlib import Path

from ingest.walk import walk_media


def test_a_name_that_cannot_be_written_down_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "good.wav").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).write_bytes(b"x")
    walk = walk_media([tmp_path])
    assert [path.name for path in walk.media] == ["good.wav"] and len(walk.unnameable) == 1


def test_what_visavox_keeps_is_never_taken_for_media(tmp_path: Path) -> None:
    home, other, third = (tmp_path / name for name in ("visavox-data", "older-home", "home-on-postgresql"))
    folders = (home / "evidence", other / "evidence", third / "evidence", third / "writers", tmp_path / "films")
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"x")
    (other / "records.sqlite").touch()
    assert walk_media([tmp_path], home).media == [tmp_path / "films" / "a.png"]
