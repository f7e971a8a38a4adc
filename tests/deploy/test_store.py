"""`visavox store`: what it says of an index, and moving an installation to a server and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import main
from deploy.settings import load_settings
from deploy.wiring import Installation
from search.milvus import MilvusStore
from search.store import named
from training.population.folder import MediaSize, write_demo_media


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """A command in this process; exit code and document."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return int(ended.value.code or 0), json.loads(out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an installation with one enrolled person."""
    folder = tmp_path_factory.mktemp("moving")
    one = write_demo_media(folder / "media", 5, MediaSize(people=3, strangers=0, films=0, clip_seconds=3.0)).people[0]
    opened = Installation(load_settings({"VISAVOX_HOME": str(folder / "home"), "VISAVOX_DEVICE": "cpu"}))
    opened.archive.enrol(one.person.name, [one.clips[0], *one.photos])
    opened.close()
    return folder / "home"


@pytest.fixture
def filled(enrolled: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """That installation, as the environment describes it; its index is let go of after each use."""
    monkeypatch.setenv("VISAVOX_HOME", str(enrolled))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    opened = Installation(load_settings())
    yield opened
    opened.close()


@pytest.mark.parametrize("command", [["check"], ["move", "--to", "other.db"]])
def test_without_an_index_there_is_nothing_to_do_and_none_is_made(
    capsys: pytest.CaptureFixture[str], home: Path, command: list[str]
) -> None:
    code, document = run(capsys, "store", *command)
    assert code == 3 and document["error"]["type"] == "no_store"
    assert not (home / "index").exists()


def test_a_server_that_is_down_is_told_in_time(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_MILVUS_URI", "http://127.0.0.1:1")
    code, document = run(capsys, "store", "check")
    assert code == 3 and document["error"]["type"] == "store_unavailable"


@pytest.mark.parametrize("to", ["ftp://host:1", "index.sqlite", "http://host:port", "HERE"])
def test_a_target_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str], home: Path, to: str) -> None:
    code, document = run(capsys, "store", "move", "--to", to.replace("HERE", str(home / "index" / "milvus.db")))
    assert code == 2 and document["error"]["type"] == "usage"


def test_the_same_server_under_another_name_is_the_same_target(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_MILVUS_URI", "http://127.0.0.1:19530")
    assert run(capsys, "store", "move", "--to", "http://user:secret@localhost")[0] == 2


def test_a_healthy_index_is_said_to_be_and_what_is_wrong_is_told(
    capsys: pytest.CaptureFixture[str], filled: Installation
) -> None:
    code, document = run(capsys, "store", "check")
    assert code == 0 and document["problems"] == [] and document["tested"] is True
    assert document["kind"] == "lite" and document["uri"] == filled.settings.milvus_uri
    spaces = document["spaces"]
    assert {one["name"] for one in spaces} == {"face_identity", "voice_identity"}
    assert all(one["rows"] == one["expected"] > 0 for one in spaces)
    face = filled.encoders["face_identity"].space
    first, second = list(filled.store.rows(face))[:2]
    filled.store.delete(face, [first.key])
    filled.store.upsert(face, [named(second, "")])
    filled.release()
    code, document = run(capsys, "store", "check")
    assert code == 1
    problems = document["problems"]
    assert {(one["kind"], one["count"]) for one in problems} == {
        ("missing_rows", 1),
        ("misnamed_rows", 1),
    }
    filled.archive.mend()
    filled.release()
    assert run(capsys, "store", "check")[0] == 0


def test_an_installation_moves_to_a_server_and_back(
    capsys: pytest.CaptureFixture[str],
    filled: Installation,
    milvus_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, before = run(capsys, "status")
    clear(milvus_server, filled)
    code, moved = run(capsys, "store", "move", "--to", milvus_server)
    assert code == 0 and moved["verified"] is True and moved["target"] == milvus_server
    assert all(one["agreement"] == 1.0 and one["copied"] == one["rows"] for one in moved["spaces"])
    monkeypatch.setenv("VISAVOX_MILVUS_URI", milvus_server)
    assert run(capsys, "status")[1] == before and run(capsys, "store", "check")[0] == 0
    code, back = run(capsys, "store", "move", "--to", str(tmp_path / "back.db"))
    assert code == 0 and back["source"] == milvus_server
    monkeypatch.setenv("VISAVOX_MILVUS_URI", str(tmp_path / "back.db"))
    assert run(capsys, "status")[1] == before
    clear(milvus_server, filled)


def clear(server: str, opened: Installation) -> None:
    """Remove what this or another test has left on a server that several share."""
    store = MilvusStore(server)
    for encoder in opened.encoders.values():
        store.drop(encoder.space)
    store.close()
