from __future__ import annotations

from pathlib import Path

import pytest

from deploy.settings import FACE_DETECTORS, SettingsError, environment_of_readers, load_settings
from encoders.face import DETECTORS


def test_everything_lives_in_the_home_by_default(tmp_path: Path) -> None:
    settings = load_settings({"VISAVOX_HOME": str(tmp_path)})
    assert settings.embedded and settings.milvus_uri.startswith(str(tmp_path))
    assert settings.database_url == f"sqlite:///{tmp_path}/records.sqlite" and settings.broker_url is None


def test_the_default_home_is_beside_you(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).home == tmp_path / "visavox-data"


def test_a_server_is_not_embedded() -> None:
    assert not load_settings({"VISAVOX_MILVUS_URI": "http://127.0.0.1:19530"}).embedded


def test_an_unknown_setting_is_named(caplog: pytest.LogCaptureFixture) -> None:
    load_settings({"VISAVOX_HOEM": "x"})
    assert "VISAVOX_HOEM" in caplog.text and "VISAVOX_HOME" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("VISAVOX_DEVICE", "gpu"), ("VISAVOX_BROKER_URL", "amqp://x"), ("VISAVOX_FACE_DETECTOR", "haar")],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings({name: value})


@pytest.mark.parametrize(
    "given", [{"WORLD_SIZE": "many"}, {"WORLD_SIZE": "0"}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "2"}]
)
def test_a_launcher_that_says_nonsense_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="WORLD_SIZE and RANK are set by a launcher"):
        load_settings(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"WORLD_SIZE": "2", "RANK": "1"}, (2, 1)),
        ({"RANK": "gold"}, (1, 0)),
        ({"WORLD_SIZE": "1", "RANK": "3"}, (1, 0)),
    ],
)
def test_a_place_counts_only_among_several_processes(given: dict[str, str], told: tuple[int, int]) -> None:
    settings = load_settings(given)
    assert (settings.processes, settings.place) == told


def test_the_detectors_that_can_be_chosen_are_those_of_the_table() -> None:
    assert set(FACE_DETECTORS) == {row.name for row in DETECTORS}
    assert environment_of_readers(load_settings({"VISAVOX_FACE_DETECTOR": "mtcnn"}))["VISAVOX_FACE_DETECTOR"] == "mtcnn"


def test_passwords_are_not_shown() -> None:
    settings = load_settings(
        {"VISAVOX_DATABASE_URL": "postgresql://ann:secret@db/x", "VISAVOX_BROKER_URL": "redis://:pw@r/0"}
    )
    assert "secret" not in repr(settings) and ":pw@" not in repr(settings)
    for url in ("postgresql://ann:se/cr@et@db/x", "postgresql://ann@db/x?sslmode=require&password=et"):
        assert "et@" not in (told := repr(load_settings({"VISAVOX_DATABASE_URL": url}))) and "=et" not in told


def test_media_roots_are_absolute(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    settings = load_settings({"VISAVOX_MEDIA_ROOTS": f"{tmp_path}/a/../a:{tmp_path}"})
    assert settings.media_roots == (tmp_path / "a", tmp_path)


@pytest.mark.parametrize("uri", ["/tmp/foo", "http://localhost:abc", "ftp://host", "http://h/x.db"])
def test_a_milvus_uri_is_a_server_or_a_file_ending_in_db(uri: str) -> None:
    with pytest.raises(SettingsError, match="VISAVOX_MILVUS_URI"):
        load_settings({"VISAVOX_MILVUS_URI": uri})


def test_a_model_is_an_absolute_folder_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"VISAVOX_MODEL": "encoders/mine"}).model == tmp_path / "encoders" / "mine"
    assert load_settings({"VISAVOX_MODEL": ""}).model is None


def test_weights_may_come_from_a_mirror_or_not_from_the_network_at_all() -> None:
    assert not load_settings({}).offline and load_settings({}).hub_url == "https://huggingface.co"
    given = load_settings({"VISAVOX_OFFLINE": "1", "VISAVOX_HUB_URL": "https://mirror.example"})
    assert given.offline and given.hub_url == "https://mirror.example"
    assert not load_settings({"VISAVOX_OFFLINE": "no"}).offline


@pytest.mark.parametrize(("name", "value"), [("VISAVOX_OFFLINE", "perhaps"), ("VISAVOX_HUB_URL", "mirror")])
def test_an_impossible_way_to_fetch_weights_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings({name: value})
