"""``reencode`` on the embedded index: filled, measured, switched, gone back from; killed at any moment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import reencoding, wiring
from deploy.choice import Choice, ModelLocks, read_choices, write_choices
from deploy.models import write_choice
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.folder import read_description, write_description
from search.comparison import NOBODY_WITH_BOTH, compare_models
from search.people import learned_identity
from tests.deploy.drawings import CALIBRATION, Drawings, make_models, run, space_of
from tests.encoders.shared_encoder import make_shared_encoder, say_of_probes

QUICK = ("quiet", "after:upsert:1", "before:choose:2")
FULL = (
    "before:choose:1", "after:choose:1", "before:create:1", "after:create:1", "before:upsert:1", "after:upsert:2",
    "before:upsert:3", "after:upsert:4", "after:choose:2", "after:drop:1",
)  # fmt: skip
PEOPLE = {"Ann": "face 3 voice 5", "Bob": "face 4 voice 6", "Cid": "face 5 voice 7"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three encoder folders."""
    return make_models(tmp_path_factory.mktemp("models"), "first", "second", "third")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Path:
    """A home in which the first model serves, three people are enrolled and one track has no name."""
    folder = tmp_path_factory.mktemp("filled")
    home = folder / "home"
    shutil.copytree(made, home / "encoders")
    write_choice(home, home / "encoders/first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "make_extractor", lambda *_: Drawings())
        opened = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}))
        for name, shown in {**PEOPLE, "film": "face 8 voice 9"}.items():
            (folder / name).write_text(shown)
            if name in PEOPLE:
                opened.archive.enrol(name, [folder / name])
            else:
                opened.archive.ingest_file(folder / name, "default")
        opened.close()
    return home


@pytest.fixture
def home(tmp_path: Path, filled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test."""
    home = tmp_path / "home"
    shutil.copytree(filled, home)
    monkeypatch.setenv("VISAVOX_HOME", str(home))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    monkeypatch.delenv("VISAVOX_MODEL", raising=False)
    monkeypatch.setattr(wiring, "make_extractor", lambda *_: Drawings())
    return home


def counts(home: Path) -> list[int]:
    """Rows of the three models."""
    opened = Installation(load_settings())
    held = [opened.store.count(space_of(home / "encoders" / name)) for name in ("first", "second", "third")]
    opened.close()
    return held


def chosen(home: Path) -> list[str | None]:
    choice = read_choices(home)
    return [folder.name if folder else None for folder in (choice.serving, choice.previous, choice.filling)]


def test_the_same_vectors_asked_in_another_way_are_measured_as_they_will_be_asked(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "encoders/first", home / "encoders/centred")
    centre = np.linspace(-0.02, 0.03, space_of(home / "encoders/first").dimension)
    say_of_probes(home / "encoders/centred", {"face": {"centre": centre.tolist()}})
    asked = []

    def watched(*arguments: Any, probe_centres: Any) -> dict[str, Any]:
        asked.append(
            {model: {one: told.tolist() for one, told in some.items()} for model, some in probe_centres.items()}
        )
        return compare_models(*arguments, probe_centres=probe_centres)

    monkeypatch.setattr(reencoding, "compare_models", watched)
    code, told = run(capsys, "reencode", "--model", "centred")
    assert (code, told["written"], told["switched"]) == (0, 0, True) and chosen(home) == ["centred", "first", None]
    assert told["digest"] == space_of(home / "encoders/first").digest and counts(home)[0] == 8
    run(capsys, "reencode", "--rollback")
    assert chosen(home)[0] == "first" and counts(home)[0] == 8
    run(capsys, "models", "use", "centred")
    run(capsys, "reencode", "--model", "second")
    assert asked == [{"new": {"face": centre.tolist()}, "old": {}}, {"new": {}, "old": {"face": centre.tolist()}}]


def test_another_model_is_filled_measured_and_switched_to_and_the_one_before_is_kept(home: Path, capsys: Any) -> None:
    code, told = run(capsys, "reencode", "--model", "second")
    assert (code, told["rows"], told["written"], told["switched"]) == (0, 8, 8, True)
    assert told["digest"] == space_of(home / "encoders/second").digest and told["model"] == "shared_test"
    assert 0 <= told["switch_seconds"] < told["seconds"] and told["folder"] == str(home / "encoders/second")
    figures = told["map"]
    assert (figures["probes"], figures["people"], figures["with_tracks"]["tracks"]) == (6, 3, 2)
    assert 0 < figures["old"] <= 1 and 0 < figures["new"] <= 1 and figures["note"] is None
    assert chosen(home) == ["second", "first", None] and counts(home) == [8, 8, 0]
    listed = {Path(model["folder"]).name: model for model in run(capsys, "models")[1]["models"]}
    assert [(listed[name]["serving"], listed[name]["kept"]) for name in ("first", "second", "third")] == [
        (False, True), (True, False), (False, False),
    ]  # fmt: skip
    assert run(capsys, "store", "check")[1]["problems"] == []


def test_going_back_is_one_command_and_so_is_going_on_again(home: Path, capsys: Any) -> None:
    run(capsys, "reencode", "--model", "second")
    code, told = run(capsys, "reencode", "--rollback")
    assert (code, told["written"], told["switched"], told["map"]) == (0, 0, True, None)
    assert told["digest"] == space_of(home / "encoders/first").digest and chosen(home) == ["first", "second", None]
    assert told["switch_seconds"] < 1
    assert run(capsys, "reencode", "--rollback")[1]["rows"] == 8 and chosen(home) == ["second", "first", None]


def test_what_was_written_since_is_there_after_going_back(home: Path, capsys: Any, tmp_path: Path) -> None:
    run(capsys, "reencode", "--model", "second")
    late = tmp_path / "late"
    late.write_text("face 20 voice 21")
    run(capsys, "enrol", "Dor", str(late))
    run(capsys, "forget", "Ann")
    assert counts(home) == [6, 8, 0]
    _, told = run(capsys, "reencode", "--rollback")
    assert (told["written"], told["rows"]) == (2, 8) and counts(home) == [8, 8, 0]


def test_whoever_is_forgotten_is_told_which_models_learned_from_them(home: Path, capsys: Any) -> None:
    opened = Installation(load_settings())
    ann = learned_identity(opened.records.people.find("Ann").id)
    opened.close()
    make_shared_encoder(home / "encoders/mine", 7, [ann], calibration=CALIBRATION)
    (home / "encoders/broken").mkdir()
    assert run(capsys, "forget", "Ann")[1]["learned_by"] == ["mine"]
    assert run(capsys, "forget", "Bob")[1]["learned_by"] == []


def test_a_model_that_was_chosen_from_elsewhere_is_told_too(home: Path, tmp_path: Path, capsys: Any) -> None:
    opened = Installation(load_settings())
    ann = learned_identity(opened.records.people.find("Ann").id)
    opened.close()
    mine = tmp_path / "elsewhere/mine"
    make_shared_encoder(mine, 7, [ann], calibration=CALIBRATION)
    write_description(mine, replace(read_description(mine), space="shared"))
    write_choice(home, mine)
    assert run(capsys, "forget", "Ann")[1]["learned_by"] == ["mine"]


def test_who_is_forgotten_is_in_no_collection_any_more(home: Path, capsys: Any) -> None:
    run(capsys, "reencode", "--model", "second")
    run(capsys, "reencode", "--model", "third", "--no-switch")
    assert counts(home) == [8, 8, 8]
    _, told = run(capsys, "forget", "Ann")
    assert told["rows"] == 2 + 3 * 2 and counts(home) == [6, 6, 6]


def test_a_model_can_be_prepared_and_switched_to_later(home: Path, capsys: Any) -> None:
    code, told = run(capsys, "reencode", "--model", "second", "--no-switch")
    assert (code, told["switched"], told["switch_seconds"], told["written"]) == (0, False, None, 8)
    assert chosen(home) == ["first", None, "second"]
    assert run(capsys, "status")[1]["spaces"]["shared"]["rows"] == 8 and counts(home) == [8, 8, 0]
    _, told = run(capsys, "reencode", "--model", "second")
    assert (told["written"], told["switched"]) == (0, True) and chosen(home) == ["second", "first", None]


def test_the_one_before_goes_with_the_next_change_or_when_told_so(home: Path, capsys: Any) -> None:
    run(capsys, "reencode", "--model", "second")
    _, told = run(capsys, "reencode", "--model", "third")
    assert told["dropped"] == 1 and counts(home) == [0, 8, 8] and chosen(home) == ["third", "second", None]
    code, told = run(capsys, "reencode", "--discard-previous")
    assert (code, told) == (0, {"dropped": 1}) and counts(home) == [0, 0, 8]
    code, told = run(capsys, "reencode", "--rollback")
    assert (code, told["error"]["type"]) == (3, "no_model_kept") and chosen(home) == ["third", None, None]


def test_going_back_to_a_folder_that_is_gone_changes_nothing(home: Path, capsys: Any) -> None:
    run(capsys, "reencode", "--model", "second")
    shutil.rmtree(home / "encoders/first")
    code, told = run(capsys, "reencode", "--rollback")
    assert (code, told["error"]["type"]) == (3, "no_model_kept") and chosen(home)[0] == "second"


def test_the_model_that_serves_is_only_mended(home: Path, capsys: Any) -> None:
    opened = Installation(load_settings())
    space = space_of(home / "encoders/first")
    opened.store.delete(space, sorted(opened.store.keys(space))[:3])
    opened.close()
    _, told = run(capsys, "reencode", "--model", "first")
    assert (told["written"], told["rows"], told["dropped"]) == (3, 8, 0) and chosen(home) == ["first", None, None]


def test_the_first_model_has_nothing_before_it(home: Path, capsys: Any) -> None:
    write_choice(home, None)
    _, told = run(capsys, "reencode", "--model", "second")
    assert told["map"]["old"] is None and told["map"]["new"] > 0 and chosen(home) == ["second", None, None]


def test_without_anybody_enrolled_it_says_that_nothing_was_measured(home: Path, capsys: Any) -> None:
    for name in PEOPLE:
        run(capsys, "forget", name)
    _, told = run(capsys, "reencode", "--model", "second")
    assert told["map"]["note"] == NOBODY_WITH_BOTH and told["switched"] and told["rows"] == 2


def test_a_damaged_model_is_refused_before_anything_changes(home: Path, capsys: Any) -> None:
    (home / "encoders/second/head.safetensors").write_bytes(b"\0" * 100)
    code, told = run(capsys, "reencode", "--model", "second")
    assert code == 3 and "SHA-256" in told["error"]["message"]
    assert chosen(home) == ["first", None, None] and counts(home) == [8, 0, 0]


def test_a_second_change_at_the_same_time_is_refused(home: Path, capsys: Any) -> None:
    with ModelLocks(home).exchanging():
        code, told = run(capsys, "reencode", "--model", "second")
    assert (code, told["error"]["type"]) == (3, "reencoding_runs") and chosen(home) == ["first", None, None]


def test_the_environment_decides_so_that_a_model_can_only_be_prepared(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_MODEL", str(home / "encoders/first"))
    assert run(capsys, "reencode", "--model", "second")[0] == 2 and run(capsys, "reencode", "--rollback")[0] == 2
    assert run(capsys, "reencode", "--model", "second", "--no-switch")[1]["written"] == 8
    opened = Installation(load_settings())
    opened.archive.mend()
    opened.close()
    assert counts(home) == [8, 8, 0]


@pytest.mark.parametrize(
    "arguments", ["", "--model second --rollback", "--rollback --no-switch", "--rollback --discard-previous"]
)
def test_wrong_usage_is_told(capsys: Any, arguments: str) -> None:
    code, told = run(capsys, "reencode", *arguments.split())
    assert (code, told["error"]["type"]) == (2, "usage")


def test_an_abandoned_filling_goes_when_another_model_is_brought_in(home: Path, capsys: Any) -> None:
    run(capsys, "reencode", "--model", "second", "--no-switch")
    run(capsys, "reencode", "--model", "third")
    assert counts(home) == [8, 0, 8] and chosen(home) == ["third", "first", None]


def test_choosing_a_model_goes_over_to_it_only_when_it_has_its_rows(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.milvus.MilvusStore.upsert", stopped)
    assert run(capsys, "models", "use", "second")[0] == 130
    monkeypatch.undo()
    monkeypatch.setenv("VISAVOX_HOME", str(home))
    assert chosen(home) == ["first", None, "second"] and counts(home) == [8, 0, 0]


def killed(home: Path, *moments: str) -> dict[str, Any]:
    """What was there after a kill at each moment and after another run."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.deploy.killed_reencode", str(home), *moments],
        env=os.environ, stdout=subprocess.PIPE, text=True, check=True, timeout=600,
    )  # fmt: skip
    return dict(json.loads(told.stdout))


def assert_same_as_undisturbed(states: dict[str, Any]) -> None:
    quiet = states.pop("quiet")["after"]
    assert [quiet[role] for role in ("serving", "previous", "filling")] == ["second", "first", None]
    assert len(quiet["second"]) == len(quiet["first"]) == 8 and len(quiet["spaces"]) == 2
    for moment, state in states.items():
        assert state["killed"], moment
        between = state["between"]
        assert between["first"] == quiet["first"], moment  # what served is whole at any moment
        assert between["serving"] == "first" or between["second"] == quiet["second"], moment
        assert state["after"] == quiet, moment


def test_killed_and_run_again_it_ends_as_undisturbed(home: Path) -> None:
    assert_same_as_undisturbed(killed(home, *QUICK))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_at_any_moment_and_run_again_it_ends_as_undisturbed(home: Path) -> None:
    assert_same_as_undisturbed(killed(home, "quiet", *FULL))


def test_a_choice_made_by_hand_is_brought_in_by_whoever_writes_next(home: Path) -> None:
    write_choices(home, Choice(home / "encoders/second", home / "encoders/first"))
    opened = Installation(load_settings())
    opened.archive.mend()
    opened.close()
    assert counts(home) == [8, 8, 0]
