"""Which shared-space encoder serves: chosen, switched, gone wrong; on real encoders with random weights.

Only reading media is replaced: a file of these tests names what it shows, so that no detector is needed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import wiring
from deploy.cli import main
from deploy.models import list_models, read_choice, write_choice
from deploy.settings import load_settings
from deploy.wiring import Installation
from deploy.working import make_book, make_runner
from encoders.encoder import EncoderError, packaged_encoders
from encoders.folder import read_description, write_description
from encoders.golden import load_golden, save_golden
from encoders.space import Modality
from encoders.weights import sha256_of
from ingest.flow import ingest_job
from ingest.jobpage import JobPages
from ingest.queues import ALL_QUEUES
from ingest.runner import Runner
from search.embedded import Claim
from tests.deploy.drawings import Drawings, make_models, run, space_of
from tests.encoders.shared_encoder import DIMENSION, say_of_probes

IDENTITY = {"face_identity", "voice_identity"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the encoder folders ``first`` and ``second``."""
    return make_models(tmp_path_factory.mktemp("models"), "first", "second")


@pytest.fixture
def home(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with both encoders in it, in which nothing was chosen yet."""
    home = tmp_path / "home"
    shutil.copytree(made, home / "encoders")
    monkeypatch.setenv("VISAVOX_HOME", str(home))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    monkeypatch.delenv("VISAVOX_MODEL", raising=False)
    monkeypatch.setattr(wiring, "make_extractor", lambda *_: Drawings())
    return home


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_text("face 3 voice 5")
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints for people."""
    with pytest.raises(SystemExit):
        main(list(arguments))
    return capsys.readouterr().out


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    return {name: space["rows"] for name, space in run(capsys, "status")[1]["spaces"].items()}


def test_the_packaged_encoders_serve_and_those_of_the_home_can_be_chosen(home: Path, capsys: Any) -> None:
    code, told = run(capsys, "models")
    listed = {model["name"]: model["serving"] for model in told["models"] if model["space"] != "shared"}
    assert code == 0 and listed == dict.fromkeys(IDENTITY, True)
    first, second = (model for model in told["models"] if model["space"] == "shared")
    assert (first["folder"], first["people"], first["domain"]) == (str(home / "encoders/first"), 2, "invented people")
    assert first["digest"] == space_of(home / "encoders/first").digest != second["digest"]
    assert not first["serving"] and not second["serving"] and first["figures"] is first["problem"] is None


def test_the_figures_of_a_report_are_listed(home: Path, capsys: Any) -> None:
    report = {
        "retrieval": {"voice_to_face": {"map": 0.25, "chance": 0.01, "ceiling": 0.4, "people": 200}},
        "verification": {"auc": 0.9, "pairs": 5000},
    }
    (home / "encoders/first/report.json").write_text(json.dumps(report))
    (home / "encoders/second/report.json").write_text("[]")
    first, second = (model for model in run(capsys, "models")[1]["models"] if model["space"] == "shared")
    assert first["figures"] == {
        "voice_to_face": {"map": 0.25, "chance": 0.01, "ceiling": 0.4}, "verification": {"auc": 0.9},
    }  # fmt: skip
    assert second["figures"] is None
    assert "voice to face: map 0.250, chance 0.010, ceiling 0.400" in shown(capsys, "models")


def test_a_chosen_model_gets_its_rows_from_the_evidence_and_the_one_before_is_dropped(
    home: Path, film: Path, capsys: Any
) -> None:
    assert run(capsys, "enrol", "Ann", str(film))[0] == 0
    film.unlink()
    code, first = run(capsys, "models", "use", "first")
    assert (code, first["rows"], first["changed"], first["dropped"]) == (0, 2, 2, 0)
    assert rows(capsys) == {"face_identity": 1, "voice_identity": 1, "shared": 2}
    _, second = run(capsys, "models", "use", str(home / "encoders/second"))
    assert (second["rows"], second["changed"], second["dropped"]) == (2, 2, 1)
    assert second["digest"] == space_of(home / "encoders/second").digest
    assert [model["name"] for model in run(capsys, "models")[1]["models"] if model["serving"]][-1] == second["name"]
    opened = Installation(load_settings())
    assert opened.store.count(space_of(home / "encoders/first")) == 0
    opened.close()


def test_none_serves_again_when_told_so(home: Path, film: Path, capsys: Any) -> None:
    run(capsys, "enrol", "Ann", str(film))
    run(capsys, "models", "use", "first")
    code, told = run(capsys, "models", "use", "none")
    assert (code, told["folder"], told["rows"], told["dropped"]) == (0, None, 0, 1)
    assert rows(capsys) == {"face_identity": 1, "voice_identity": 1}


def test_the_environment_decides_before_the_choice_and_a_switch_by_it_is_cleaned_up(
    home: Path, film: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "enrol", "Ann", str(film))
    run(capsys, "models", "use", "first")
    elsewhere = home.parent / "elsewhere"
    shutil.move(home / "encoders/second", elsewhere)
    monkeypatch.setenv("VISAVOX_MODEL", str(elsewhere))
    assert [model["folder"] for model in run(capsys, "models")[1]["models"] if model["serving"]][-1] == str(elsewhere)
    run(capsys, "enrol", "Ann", str(film))  # mends, as ingest does
    opened = Installation(load_settings())
    assert opened.encoders["shared"].space == space_of(elsewhere)
    assert opened.store.count(space_of(elsewhere)) == 2
    assert opened.store.count(space_of(home / "encoders/first")) == 0
    opened.close()
    code, told = run(capsys, "models", "use", "first")
    assert code == 2 and "VISAVOX_MODEL" in told["error"]["message"]


def test_a_model_that_vanished_is_an_error_that_says_what_to_do(home: Path, capsys: Any) -> None:
    run(capsys, "models", "use", "first")
    shutil.rmtree(home / "encoders/first")
    code, told = run(capsys, "status")
    assert (code, told["error"]["type"]) == (3, "encoder")
    assert "encoders/first" in told["error"]["message"] and "visavox models use" in told["error"]["message"]
    code, told = run(capsys, "models")
    assert code == 0 and "cannot read encoder.json" in told["models"][-1]["problem"] and told["models"][-1]["serving"]
    assert run(capsys, "models", "use", "second")[0] == 0 and "shared" in rows(capsys)


def test_of_two_folders_of_one_space_the_list_tells_whose_probes_ask_without_their_mean(
    home: Path, capsys: Any
) -> None:
    centre = np.zeros(DIMENSION)
    centre[0] = 0.5
    say_of_probes(home / "encoders/second", {"face": {"centre": centre.tolist()}})
    told = {Path(one["folder"]).name: one["centred_probes"] for one in run(capsys, "models")[1]["models"]}
    assert told["first"] == [] and told["second"] == ["face"]
    lines = shown(capsys, "models").splitlines()
    assert lines[lines.index(f"    {home / 'encoders/second'}") + 1] == "    without their mean ask: faces"
    assert sum("without their mean" in line for line in lines) == 1
    say_of_probes(home / "encoders/second", {"face": {"centre": [0.5]}})
    (spoiled,) = (one for one in run(capsys, "models")[1]["models"] if Path(one["folder"]).name == "second")
    assert "probes.json" in spoiled["problem"]


def test_a_model_that_the_environment_misnames_is_told_as_such(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_MODEL", str(home / "nowhere"))
    code, told = run(capsys, "status")
    assert code == 3 and "VISAVOX_MODEL" in told["error"]["message"] and "nowhere" in told["error"]["message"]


def spoil_golden(folder: Path) -> None:
    """Golden vectors that the networks do not give, in files whose hashes are right."""
    path, description = folder / "golden.safetensors", read_description(folder)
    golden = {modality: load_golden(path, modality) for modality in Modality}
    samples = {modality: group for modality, (group, _) in golden.items()}
    save_golden(path, samples, {modality: np.roll(vectors, 1, axis=1) for modality, (_, vectors) in golden.items()})
    write_description(folder, replace(description, files={**description.files, path.name: sha256_of(path)}))


def spoil_weights(folder: Path) -> None:
    (folder / "head.safetensors").write_bytes(b"\0" * 100)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(spoil_golden, "golden samples"), (spoil_weights, "SHA-256"), (shutil.rmtree, "not an encoder folder")],
)
def test_a_folder_that_does_not_hold_what_it_says_is_not_chosen(
    home: Path, capsys: Any, spoil: Any, words: str
) -> None:
    write_choice(home, home / "encoders/first")
    spoil(home / "encoders/second")
    code, told = run(capsys, "models", "use", "second")
    assert code == 3 and words in told["error"]["message"]
    assert read_choice(home) == home / "encoders/first"


def test_an_encoder_of_one_modality_cannot_be_the_shared_one(home: Path, capsys: Any) -> None:
    code, told = run(capsys, "models", "use", str(packaged_encoders()["face_identity"]))
    assert code == 3 and "face in the space face_identity" in told["error"]["message"]
    assert read_choice(home) is None


def test_while_another_process_holds_the_index_nothing_is_chosen(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Installation.__init__.__kwdefaults__, "patience", 0.1)
    (home / "index").mkdir()
    claim = Claim(home / "index" / "milvus.db")
    code, told = run(capsys, "models", "use", "first")
    claim.release()
    assert (code, told["error"]["type"], read_choice(home)) == (3, "store_held", None)


def test_a_choice_moves_with_its_home(home: Path, tmp_path: Path) -> None:
    write_choice(home, home / "encoders/first")
    moved = home.rename(tmp_path / "moved")
    assert read_choice(moved) == moved / "encoders/first"
    write_choice(moved, tmp_path / "outside")
    assert read_choice(moved) == tmp_path / "outside"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"first"'])
def test_a_damaged_choice_says_what_to_do(home: Path, content: str) -> None:
    (home / "model.json").write_text(content)
    with pytest.raises(EncoderError, match=r"model\.json.*visavox models use"):
        list_models(load_settings())


def test_media_are_not_read_again_for_another_model(home: Path, film: Path) -> None:
    states = []
    for model in ("first", "second", None):
        write_choice(home, home / "encoders" / model if model else None)
        opened = Installation(load_settings())
        opened.archive.mend()
        states.append(opened.archive.ingest_file(film, "default").state)
        opened.close()
    assert states == ["done", "unchanged", "unchanged"]


def read_by(runner: Runner, film: Path) -> str:
    """How a file stands after a worker's child has read it."""
    book = make_book()
    job = book.open_job(ingest_job([film], "default"))
    while runner.run_one(ALL_QUEUES, "a child"):
        pass
    return JobPages(book.database).files(job)[0].state


def test_a_worker_goes_on_with_the_model_chosen_since_its_last_file(home: Path, film: Path) -> None:
    write_choice(home, home / "encoders/first")
    runner = make_runner()
    assert read_by(runner, film) == "done"
    write_choice(home, home / "encoders/second")
    other = film.with_name("other.mp4")
    other.write_text("face 4")
    assert read_by(runner, other) == "done"
    opened = Installation(load_settings())
    counts = [opened.store.count(space_of(home / "encoders" / name)) for name in ("first", "second")]
    opened.close()
    assert counts == [0, 3]


def test_an_installation_knows_that_its_shared_index_is_empty(home: Path, film: Path) -> None:
    opened = Installation(load_settings())
    opened.archive.enrol("Ann", [film])
    assert not opened.lacks_shared_rows
    write_choice(home, home / "encoders/first")
    opened.close()
    again = Installation(load_settings())
    assert again.lacks_shared_rows
    again.archive.mend()
    assert not again.lacks_shared_rows
    again.close()


def test_leads_are_shown_as_leads(home: Path, film: Path, tmp_path: Path, capsys: Any) -> None:
    run(capsys, "models", "use", "first")
    ask, photo = tmp_path / "voice.wav", tmp_path / "face.jpg"
    ask.write_text("voice 9")
    photo.write_text("face 7")
    for command in ("verify", "match"):
        assert "note: hits in the shared space are leads" in shown(capsys, command, str(ask), str(photo))
    run(capsys, "enrol", "Ann", str(film))
    code, told = run(capsys, "find", str(ask), "--want", "face")
    (hit,) = told["hits"]
    assert (code, hit["space"], hit["person"]) == (0, "shared", "Ann") and 0 < hit["probability"] < 1
    assert "leads, never a name" in told["note"] and "nothing: its weights are random" in told["note"]
    assert "lead: Ann?" in shown(capsys, "find", str(ask), "--want", "face")


@pytest.mark.parametrize("arguments", [["models", "unheard-of"], ["models", "use"]])
def test_wrong_usage_is_one_json_document_and_exit_code_2(capsys: Any, arguments: list[str]) -> None:
    code, told = run(capsys, *arguments)
    assert code == 2 and told["error"]["type"] == "usage"
