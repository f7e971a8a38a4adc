"""An installation whose records lie on PostgreSQL: every command gives what it gives on SQLite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import main
from training.population.folder import InventedMedia, MediaSize, write_demo_media

# What depends on the clock or on chance, or names the place.
_ITS_OWN = {"seconds", "id", "created", "enrolled", "job"}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """A command in this process; exit code and document."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def comparable(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: comparable(value) for name, value in document.items() if name not in _ITS_OWN}
    return [comparable(one) for one in document] if isinstance(document, list | tuple) else document


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> InventedMedia:
    folder = tmp_path_factory.mktemp("media")
    made = write_demo_media(folder, 3, MediaSize(people=3, strangers=0, films=1, film_seconds=3.0, clip_seconds=3.0))
    (made.films[0].path.parent / "broken\udce9.mp4").write_bytes(b"\0" * 4096)
    return made


def story(capsys: pytest.CaptureFixture[str], media: InventedMedia) -> list[Any]:
    """What the commands of a life with two people answer."""
    ann = [str(media.people[0].clips[0]), str(media.people[0].photos[0])]
    films = str(media.films[0].path.parent)
    commands = (
        ("ingest", films), ("enrol", "Ann", *ann), ("ingest", films), ("people",), ("status",), ("forget", "Ann"),
        ("status",),
    )  # fmt: skip
    return [comparable(run(capsys, *command)) for command in commands]


@pytest.mark.long
def test_every_command_answers_on_postgresql_as_on_sqlite(
    tmp_path: Path, postgres_url: str, media: InventedMedia,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "laptop"))
    on_sqlite = story(capsys, media)
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "server"))
    monkeypatch.setenv("VISAVOX_DATABASE_URL", postgres_url)
    on_postgresql = story(capsys, media)
    assert on_sqlite == on_postgresql
    assert not list((tmp_path / "server").glob("records*"))


def test_a_database_that_is_away_is_one_document_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISAVOX_DATABASE_URL", f"postgresql://ann:sesame@/records?host={tmp_path}")
    code, document = run(capsys, "people")
    assert code == 3 and document["error"]["type"] == "records_away"
    assert "sesame" not in json.dumps(document)
