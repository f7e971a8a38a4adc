from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.media import MediaError
from ingest.track import Extraction, media_id
from search.intake import content_hash, read_steadily


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"first")
    os.utime(path, (0, 0))
    return path


def reading(meanwhile: Callable[[Path], object]) -> Callable[[Path], Extraction]:
    """A reader during whose work something happens to the file."""

    def extract(path: Path) -> Extraction:
        found = Extraction(media_id(path), "film", 1.0)
        meanwhile(path)
        return found

    return extract


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"first and more"),
        lambda path: path.write_bytes(b"other"),
        lambda path: (path.write_bytes(b"other"), os.utime(path, (0, 0))),
        lambda path: path.with_suffix(".new").write_bytes(b"other") and path.with_suffix(".new").replace(path),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_refused(film: Path, change: Callable[[Path], object]) -> None:
    with pytest.raises(MediaError, match="changed while it was read: try it again"):
        read_steadily(film, reading(change))


@pytest.mark.parametrize("touch", [os.utime, lambda path: path.chmod(0o600), lambda path: path.write_bytes(b"first")])
def test_a_file_of_the_same_content_is_not_a_changed_one(film: Path, touch: Callable[[Path], object]) -> None:
    assert read_steadily(film, reading(touch)).media == media_id(film)


def test_a_file_that_vanishes_says_so(film: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_steadily(film, reading(Path.unlink))
    with pytest.raises(MediaError, match="no such file"):
        content_hash(film)


def test_a_disk_that_fails_while_a_file_is_read_is_the_files_failure(film: Path) -> None:
    def fail(_path: Path) -> Extraction:
        raise OSError(5, "Input/output error")

    with pytest.raises(MediaError, match="Input/output error: check the disk"):
        read_steadily(film, fail)
