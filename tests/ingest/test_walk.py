from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.walk import OUTSIDE, lies_within, walk_media


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


def test_links_that_lead_out_of_the_roots_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "films", outside):
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(b"x")
    (root / "out.wav").symlink_to(outside / "a.wav")
    (root / "in.wav").symlink_to(root / "films" / "a.wav")
    (root / "folder").symlink_to(outside)
    (root / "out.txt").symlink_to(outside / "a.wav")
    walk = walk_media([root, root / "folder", outside, root / ".." / "outside"], within=[root])
    assert walk.media == [root / "in.wav", root / "films" / "a.wav"] and walk.ignored == 1
    assert walk.problems().keys() == {str(root / "out.wav"), str(root / "folder"), str(outside), f"{root}/../outside"}
    assert set(walk.problems().values()) == {OUTSIDE} and len(walk_media([root]).media) == 3


def test_a_root_that_is_a_link_itself_has_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert lies_within(tmp_path / "root" / "a.wav", [tmp_path / "root"])
    assert lies_within(tmp_path / "disk" / "a.wav", [tmp_path / "root"])
    assert not lies_within(tmp_path / "rooted" / "a.wav", [tmp_path / "root"])


@pytest.mark.parametrize("path", ["/a\0b", "/" + "x" * 5000, "/\udcff"])
def test_a_path_that_no_file_system_takes_lies_nowhere_near(path: str, tmp_path: Path) -> None:
    assert not lies_within(path, [tmp_path])
