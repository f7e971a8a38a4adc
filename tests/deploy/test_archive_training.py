"""``train`` on one's own archive: from what ingest left in records and index to a measured model, without a film."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy import archive_training
from deploy.archive_training import ArchiveOrder, NoArchive, _Gathered, _origin, mine_archive, train_archive
from deploy.cli import main
from deploy.models import check_model
from deploy.settings import load_settings
from deploy.training import Outcome
from deploy.wiring import Installation
from encoders.encoder import Encoder
from encoders.space import Modality
from search.people import learned_identity
from tests.deploy.drawn_archive import draw_archive, draw_enrolled
from training.corpora import Split
from training.held_out import measure_vectors
from training.loop import RunSettings, Trained, TrainingData, TrainingError, train
from training.mining import TooFewMined, split_people
from training.recipe import Recipe
from training.recipes import bi_quintuple
from training.vectors import Vectors

SETTINGS = replace(bi_quintuple.Settings(), epochs=2)


def quiet(*_: object) -> None:
    """Nobody listens."""


def order(archive: str | None = "mine", *, enrolled: bool = False) -> ArchiveOrder:
    return ArchiveOrder(bi_quintuple, SETTINGS, archive, enrolled, RunSettings())


def open_home(home: Path) -> Installation:
    return Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Sixteen people, each in two films of the archive "mine"; three enrolled, one of whom is in the films."""
    installation = open_home(tmp_path_factory.mktemp("home"))
    draw_archive(installation, "mine", 16)
    for name, person in (("Ann Archer", 3), ("Bob", 40), ("Cid", 41)):
        draw_enrolled(installation, name, person)
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def outcome(opened: Installation) -> Outcome:
    return train_archive(opened, order(enrolled=True), quiet)


def test_it_ends_in_a_folder_of_the_archive_s_domain_that_can_serve(opened: Installation, outcome: Outcome) -> None:
    encoder = check_model(outcome.encoder, "cpu")
    assert encoder.domain == opened.domains.archive("mine")
    learned = [one for one in encoder.identities if one.startswith("enrolled_")]
    ids = {opened.records.people.find(name).id for name in ("Bob", "Cid")}
    besides = sum(one.removeprefix("enrolled_") in ids for one in learned)
    also = f", {besides} of whom are enrolled and in no film" if besides else ""
    assert encoder.trained_on.startswith(f"10 people of {encoder.domain}{also}; 60 looks at faces and ")
    assert " (mined out of 32 media by who is seen to speak); " in encoder.trained_on
    assert encoder.calibration is not None
    assert encoder.calibration["provenance"]["domain"] == encoder.domain
    assert encoder.calibration["provenance"]["set_on"]["people"] == 4


def test_it_is_measured_on_people_held_out_with_an_interval(outcome: Outcome) -> None:
    found = outcome.report["retrieval"]["voice_to_face"]
    assert found["people"] == 4 and 0 < found["map"] <= 1 and found["ceiling"] is None
    low, high = outcome.report["verification"]["ci95"]
    assert 0 <= low <= outcome.report["verification"]["auc"] <= high <= 1
    assert outcome.report["index"] == "MilvusStore"
    assert outcome.report["mined"] | {"sides": None} == {
        "archive": "mine", "films": 32, "turns": 64, "pairs": 32, "people": 18,
        "possibly_one": 0, "enrolled": 3, "sides": None,
    }  # fmt: skip
    assert json.loads((outcome.encoder / "report.json").read_text()) == outcome.report


def test_its_networks_are_those_of_the_identity_encoders_and_its_samples_nobody_s(
    opened: Installation, outcome: Outcome
) -> None:
    described = json.loads((outcome.encoder / "encoder.json").read_text())
    assert {name: one["weights"]["package"] for name, one in described["branches"].items()} == {
        "face": "face_recognition_models", "voice": "resemblyzer",
    }  # fmt: skip
    golden = [Encoder.load(folder) for folder in (outcome.encoder, opened.encoders["face_identity"].folder)]
    crops = [one._load_golden(Modality.FACE)[0][0] for one in golden]
    assert np.array_equal(crops[0].pixels, crops[1].pixels)  # type: ignore[union-attr]


def test_the_same_order_again_is_answered_at_once(opened: Installation, outcome: Outcome) -> None:
    again = train_archive(opened, order(enrolled=True), quiet)
    assert again.before and (again.encoder, again.report) == (outcome.encoder, outcome.report)


def test_one_side_of_the_people_is_learned_from_one_chosen_by_and_one_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = open_home(tmp_path)
    draw_archive(alone, "mine", 17)
    used = dict[Split, tuple[str, ...]]()

    def learn(recipe: Recipe, settings: object, data: TrainingData, *more: Any) -> Trained:
        used[Split.TRAIN], used[Split.VALIDATION] = data.training.identities, data.validation.identities
        return train(recipe, settings, data, *more)

    def measure(encoder: Encoder, vectors: Vectors, *more: Any) -> dict[str, Any]:
        used[Split.TEST] = vectors.identities
        return measure_vectors(encoder, vectors, *more)

    monkeypatch.setattr(archive_training, "train", learn)
    monkeypatch.setattr(archive_training, "measure_vectors", measure)
    train_archive(alone, order(), quiet)
    sides = split_people(mine_archive(alone, "mine", False, quiet))
    alone.close()
    assert used == {side: tuple(sorted(one.name for one in people)) for side, people in sides.items()}


def test_people_who_possibly_are_one_are_learned_from_as_such(
    opened: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mined = mine_archive(opened, "mine", True, quiet)
    pair = frozenset(one.name for one in split_people(mined)[Split.TRAIN][:2])
    linked, learned = replace(mined, beside={**mined.beside, **dict.fromkeys(pair, pair)}), list[Vectors]()

    def stop(recipe: object, settings: object, data: TrainingData, *_: object) -> None:
        learned.append(data.training)
        raise TrainingError("enough is known")

    monkeypatch.setattr(archive_training, "mine_archive", lambda *_: linked)
    monkeypatch.setattr(archive_training, "train", stop)
    with pytest.raises(TrainingError, match="enough"):
        train_archive(opened, order(enrolled=True), quiet)
    kin = dict(zip(learned[0].identities, learned[0].kin.tolist(), strict=True))
    assert len({kin[name] for name in pair}) == 1 and learned[0].apart == len(kin) - 1


def test_the_enrolled_add_labels_and_people(opened: Installation) -> None:
    mined = mine_archive(opened, "mine", True, quiet)
    people = {one.name: one for one in mined.people}
    ids = {name: opened.records.people.find(name).id for name in ("Ann Archer", "Bob", "Cid")}
    assert len(people) == 18 and {name for name in people if name.startswith("enrolled")} == {
        f"enrolled_{identity}" for identity in ids.values()
    }
    assert len(people[f"enrolled_{ids['Ann Archer']}"].films) == 2


def test_the_installation_knows_which_model_learned_from_whom(opened: Installation, outcome: Outcome) -> None:
    ids = [opened.records.people.find(name).id for name in ("Ann Archer", "Bob", "Cid")]
    identities = [learned_identity(person) for person in ids]
    learned = [one for one in identities if one in Encoder.load(outcome.encoder).identities]
    assert 0 < len(learned) < len(ids)  # some are learned from, some held out
    assert [one for one in identities if opened.learned_from(one) == (outcome.encoder.name,)] == learned


def test_no_name_gets_into_what_is_written(opened: Installation, outcome: Outcome) -> None:
    written = [path.read_bytes() for path in outcome.encoder.rglob("*") if path.is_file()]
    written += [path.read_bytes() for path in (opened.settings.home / "runs").rglob("*") if path.is_file()]
    assert written and not any(b"Ann Archer" in content for content in written)


def test_too_few_people_and_an_archive_that_is_not_there_say_so(opened: Installation) -> None:
    with pytest.raises(TooFewMined, match="3 people"):
        train_archive(opened, order(None, enrolled=True), quiet)
    with pytest.raises(NoArchive, match=r"'yours': archives are mine"):
        train_archive(opened, order("yours"), quiet)


def test_somebody_forgotten_is_mined_no_more_nor_what_nobody_judged_and_is_gone(tmp_path: Path) -> None:
    with_them = open_home(tmp_path)
    draw_archive(with_them, "mine", 3, films=2, judged=False)
    draw_archive(with_them, "mine", 2, films=1)
    draw_enrolled(with_them, "Bob", 40)
    assert len(mine_archive(with_them, "mine", True, quiet).people) == 3
    with_them.archive.forget("Bob")
    assert len(mine_archive(with_them, "mine", True, quiet).people) == 2
    with_them.close()


@pytest.mark.parametrize(
    ("archive", "unfilmed", "said"),
    [
        ("mine", 0, ("3 people of D; 2 looks", "(mined out of 7 media by who is seen to speak)")),
        ("mine", 2, ("3 people of D, 2 of whom are enrolled and in no film; 2 looks", "(mined out of 7 media by")),
        (None, 3, ("3 people of D; 2 looks", "(enrolled)")),
    ],
)
def test_the_folder_says_whom_it_was_made_from(archive: str | None, unfilmed: int, said: tuple[str, str]) -> None:
    one: Any = SimpleNamespace(identities=("a", "b", "c"), faces=(1, 2), voices=(1, 2, 3))
    sides = dict.fromkeys(Split, one)
    origin = _origin(_Gathered(sides, dict.fromkeys(Split, unfilmed), "D", {"archive": archive, "films": 7}))
    assert origin.trained_on.startswith(said[0]) and said[1] in origin.trained_on
    assert origin.validated_on == origin.trained_on.partition(" (")[0].replace("3 people", "3 other people")


def test_whoever_trains_by_a_method_that_weighs_nothing_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    for method, told in (("bi_quintuple", True), ("visavox", False)):
        with pytest.raises(SystemExit):
            main(["train", method, "--archive", "yours", "--json"])
        said = " ".join(capsys.readouterr().err.split())
        assert (f"{method} counts every face and turn of the films alike" in said) is told


def test_an_order_for_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="an archive, the enrolled, or both"):
        order(None)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--archive", "yours"], 3, "nothing is in an archive"),
        (["--enrolled"], 3, "at least 12 are needed"),
        (["--archive", "mine", "--population"], 2, "say whom to learn from"),
    ],
)
def test_the_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    with pytest.raises(SystemExit) as ended:
        main(["train", "bi_quintuple", *arguments, "--json"])
    assert ended.value.code == code
    assert said in json.loads(capsys.readouterr().out)["error"]["message"]
