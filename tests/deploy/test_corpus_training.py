"""``train --corpus``: from files on the disk to a measured model, through every real part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.cli import main
from deploy.cli.output import UsageError
from deploy.cli.train import _begun_with, _configured
from deploy.corpus_training import CorpusOrder, order_corpus, train_corpus
from deploy.settings import load_settings
from deploy.training import Order, Outcome
from deploy.wiring import Installation
from encoders.encoder import Encoder, packaged_encoders
from encoders.space import Modality
from search.points import SeenInTraining, refuse_seen
from search.protocols import read_protocol
from tests.deploy.drawings import run
from tests.encoders.shared_encoder import make_shared_encoder
from tests.training.feature_corpus import tone
from training.corpora import CorpusError, Source, Split, read_corpus
from training.population.faces import draw_view, render_face
from training.population.folder import write_photo, write_wav
from training.population.people import invent_people
from training.recipe import load_recipe, recipes

SPLITS = ("train", "validation", "test")


def write_people(root: Path, sexes: bool = True) -> Path:
    """Four people for each split, with a photo and a sound each."""
    rows = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    for number, person in enumerate(invent_people(12, 0)):
        name, random = f"Person_{number:02d}", np.random.default_rng(person.seed)
        folder = root / SPLITS[number // 4] / name / "video"
        folder.mkdir(parents=True)
        write_photo(folder / "face.png", render_face(person, draw_view(random), 160, seed=1))
        write_wav(folder / "voice.wav", tone(150 + 20 * number))
        rows.append(f"{name}\t{name}\t{'fm'[number % 2]}\tinvented\tdev")
    if sexes:
        (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    installation = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}))
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "mine")


def small_order(opened: Installation, root: Path) -> CorpusOrder:
    recipe = load_recipe("bi_quintuple")
    settings = replace(recipe.POPULATION, epochs=1, people_per_batch=4, samples_per_person=1, frames=40, hidden=8)
    return replace(order_corpus(opened, recipe, "folder", Source(root), recipe.POPULATION), settings=settings)


@pytest.fixture(scope="module")
def outcome(opened, root) -> Outcome:
    return train_corpus(opened, small_order(opened, root), lambda *_: None, workers=0)


@pytest.mark.long
def test_it_ends_in_a_measured_encoder_folder_of_the_corpus_s_domain(opened, outcome) -> None:
    encoder = Encoder.load(outcome.encoder)
    assert encoder.domain == "mine" and encoder.trained_on.startswith("4 people of mine, 4 photos and 4 utterances")
    assert encoder.identities == {f"Person_{number:02d}" for number in range(4)}
    retrieval = outcome.report["retrieval"]["voice_to_face"]
    assert 3 <= retrieval["probes"] <= 4 and outcome.unmeasured == ""  # a photo may show too little of its face


@pytest.mark.long
def test_the_same_order_again_is_answered_at_once(opened, root, outcome) -> None:
    again = train_corpus(opened, small_order(opened, root), lambda *_: None, workers=0)
    assert again.before and again.encoder == outcome.encoder


@pytest.mark.long
def test_the_model_is_not_measured_on_whom_it_was_trained_on(opened, root, outcome) -> None:
    (trials,) = (opened.settings.home / "trials").iterdir()
    protocol = read_protocol(trials)
    refuse_seen(protocol, Encoder.load(outcome.encoder).identities)
    with pytest.raises(SeenInTraining):
        refuse_seen(protocol, read_corpus("folder", Source(root), Split.TEST).identities)


@pytest.mark.long
def test_without_sexes_it_trains_and_says_why_it_is_not_measured(opened, root, tmp_path, outcome) -> None:
    bare = tmp_path / "mine"
    bare.mkdir()
    for split in SPLITS:
        (bare / split).symlink_to(root / split)
    unmeasured = train_corpus(opened, small_order(opened, bare), lambda *_: None, workers=0)
    assert unmeasured.report == {} and "nobody says whether Person_08 is f or m" in unmeasured.unmeasured
    assert Encoder.load(unmeasured.encoder).modalities == set(Modality)


def test_a_test_person_who_is_in_training_stops_it(opened, root, tmp_path) -> None:
    (tmp_path / "train").symlink_to(root / "train")
    (tmp_path / "validation").symlink_to(root / "validation")
    (tmp_path / "test").symlink_to(root / "train")
    with pytest.raises(CorpusError, match="Person_00 is in test and in train"):
        small_order(opened, tmp_path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), "say whom to learn from: --population"),
        (("--population", "--corpus", "csv", "--root", "."), "say whom to learn from"),
        (("--corpus", "csv"), "--corpus and --root go together"),
        (("--population", "--root", "."), "--corpus and --root go together"),
        (("--population", "--faces", "."), "go with them"),
        (("--corpus", "voxceleb9", "--root", "."), "no corpus 'voxceleb9'"),
        (("--corpus", "csv", "--root", ".", "--samples", "2"), "--samples goes with --population"),
        (("--features", ".", "--people", "9"), "--people with --population or --corpus"),
        (("--features", ".", "--initial", "voice_identity"), "--initial goes with --population or --corpus"),
        (("--population", "--initial", "nobodys"), "nobodys is not an encoder folder"),
        (("--population", "--initial", "mine", "--allow-seen"), "--allow-seen goes with --corpus and --initial"),
        (("--corpus", "csv", "--root", ".", "--allow-seen"), "--allow-seen goes with --corpus and --initial"),
        (("--population", "--ablation", "two heads"), "bi_quintuple has no ablation 'two heads'; choose of: 'one"),
        (
            ("--population", "--initial", str(packaged_encoders()["voice_identity"])),
            "holds ge2e: what learns by these settings",
        ),
    ],
)
def test_wrong_usage_exits_2(capsys, tmp_path, monkeypatch, more, told) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    code, document = run(capsys, "train", "bi_quintuple", *more)
    assert code == 2 and told in document["error"]["message"]


def test_fewer_people_are_some_of_them_and_a_seed_is_the_run_s(opened, root, tmp_path, monkeypatch) -> None:
    recipe = load_recipe("bi_quintuple")
    whole, some, few = (
        order_corpus(opened, recipe, "folder", Source(root), recipe.POPULATION, people=people)
        for people in (None, 3, 2)
    )
    assert len(whole.training.identities) == 4 and (whole.validation, whole.test) == (few.validation, few.test)
    assert set(few.training.identities) < set(some.training.identities) < set(whole.training.identities)
    assert len({whole.key, some.key, few.key}) == 3
    with pytest.raises(CorpusError, match="4 people of split TRAIN, fewer than the 5"):
        order_corpus(opened, recipe, "folder", Source(root), recipe.POPULATION, people=5)
    asked = []
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    monkeypatch.setattr(
        "deploy.corpus_training.train_corpus",
        lambda _opened, order, _told: asked.append(order) or Outcome(root, {}, 0, False),
    )
    for more in ((), ("--seed", "3", "--people", "2")):
        with pytest.raises(SystemExit):
            main(["train", "bi_quintuple", "--corpus", "folder", "--root", str(root), *more])
    assert [(order.run.seed, len(order.training.identities)) for order in asked] == [(0, 4), (3, 2)]


def test_a_corpus_that_is_not_there_exits_3(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    code, document = run(capsys, "train", "bi_quintuple", "--corpus", "csv", "--root", str(tmp_path / "nowhere"))
    assert code == 3 and document["error"]["type"] == "training" and "is not there" in document["error"]["message"]


def test_networks_that_stay_as_they_are_have_to_be_given_before_anything_is_read(
    capsys, root, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    code, document = run(capsys, "train", "visavox", "--corpus", "folder", "--root", str(root))
    assert code == 2 and "need folders with all their weights" in document["error"]["message"]
    assert not (tmp_path / "prepared").exists()


def test_networks_that_know_whom_the_result_is_judged_by_are_refused_before_anything_is_read(
    capsys, root, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    monkeypatch.setattr("deploy.corpus_training.train_corpus", lambda *_: Outcome(root, {}, 0, False))
    for known, code in (("Person_05", 3), ("Person_09", 3), ("Person_01", 0)):  # of validation, of test, of training
        make_shared_encoder(tmp_path / "encoders" / known, identities=[known])
        asked = ("--corpus", "folder", "--root", str(root), "--preset", "population", "--initial", known)
        ended, document = run(capsys, "train", "bi_quintuple", *asked)
        assert ended == code
        if code:
            told = document["error"]["message"]
            assert f"{known} was trained on 1 of the people" in told and f"such as {known}: begin with networks" in told
            assert told.endswith("or say --allow-seen, and the result counts as knowing them")
            ended, _ = run(capsys, "train", "bi_quintuple", *asked, "--allow-seen")
            assert ended == 0


@pytest.mark.parametrize("called", ["Person_09", "id10009"])
def test_what_knows_test_people_by_either_name_is_not_measured_on_them_by_the_way(
    opened, root, tmp_path, monkeypatch, called
) -> None:
    begun = make_shared_encoder(tmp_path / "encoders" / "begun", identities=["Person_01", called]).folder
    monkeypatch.setattr(
        "deploy.corpus_training.read_protocol",
        lambda folder: replace(read_protocol(folder), also_called={"id10009": "Person_09"}),
    )
    order = small_order(opened, root)
    monkeypatch.setattr("deploy.corpus_training._learn", lambda *_: begun)
    measured = "deploy.corpus_training.measure"
    monkeypatch.setattr(measured, lambda *_: pytest.fail("it was measured"))
    outcome = train_corpus(opened, replace(order, settings=replace(order.settings, hidden=9)), lambda *_: None)
    assert outcome.encoder == begun and outcome.report == {}
    assert "know 1 of the test people, so nothing was measured here: visavox evaluate --allow" in outcome.unmeasured


def test_a_misspelt_network_is_wrong_usage_with_weights_to_begin_with_too(capsys, root, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    make_shared_encoder(tmp_path / "encoders" / "mine")
    (tmp_path / "run.yaml").write_text("face_backbone: nonsense\n")
    asked = ("--corpus", "folder", "--root", str(root), "--config", str(tmp_path / "run.yaml"), "--initial", "mine")
    code, document = run(capsys, "train", "bi_quintuple", *asked)
    assert code == 2 and "nonsense" in document["error"]["message"]


def test_of_a_method_of_one_network_only_that_of_faces_begins_with_weights(tmp_path) -> None:
    both = make_shared_encoder(tmp_path / "encoders" / "both").folder
    settings = SimpleNamespace(face_backbone="small_face", voice_backbone="small_voice")
    begun = {name: _begun_with(load_recipe(name), ["both"], tmp_path, settings) for name in recipes()}
    assert begun.pop("single_stream") == {"initial_face": both}
    assert len(begun) == 5 and all(one == {"initial_face": both, "initial_voice": both} for one in begun.values())
    settings.face_backbone = "small_picture"
    with pytest.raises(UsageError, match=r"holds small_.*: what learns by these settings is small_picture$"):
        _begun_with(load_recipe("single_stream"), ["both"], tmp_path, settings)


def test_a_row_of_the_ablations_is_trained_by_its_name_over_file_and_preset(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("margin: 0.3\nhidden: 7\n")
    told = _configured(load_recipe("bi_quintuple"), tmp_path / "run.yaml", "paper", "margin 0.2", 5).settings
    assert (told.margin, told.hidden, told.epochs) == (0.2, 7, 5)


@pytest.mark.parametrize("whom", [("--features", "nowhere"), ("--archive", "mine")])
def test_a_row_of_networks_is_wrong_usage_on_frozen_vectors(capsys, tmp_path, monkeypatch, whom) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    code, document = run(capsys, "train", "single_stream", *whom, "--ablation", "lambda 0.1")
    assert code == 2 and "'lambda 0.1' is of networks that learn" in document["error"]["message"]
    code, document = run(capsys, "train", "single_stream", *whom, "--ablation", "scalar gate")
    assert code == 3


@pytest.mark.parametrize("invented", [False, True])
@pytest.mark.parametrize(
    ("method", "stage"),
    [("prior_transport", "identity"), ("joint_embedding", "identity"), ("bi_pseudo_label", "pretraining")],
)
def test_networks_that_are_given_are_not_taught_and_that_is_told(
    capsys, root, tmp_path, monkeypatch, invented, method, stage
) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    ordered: list[object] = []

    def keep(_opened: Installation, order: CorpusOrder | Order, *_: object) -> Outcome:
        ordered.append(getattr(order.settings, stage))
        return Outcome(root, {}, 0, False)

    monkeypatch.setattr("deploy.training.train_population" if invented else "deploy.corpus_training.train_corpus", keep)
    make_shared_encoder(tmp_path / "encoders" / "mine")
    whom = ("--population",) if invented else ("--corpus", "folder", "--root", str(root), "--preset", "population")
    for further in ((), ("--initial", "mine")):
        with pytest.raises(SystemExit):
            main(["train", method, *whom, *further])
        said = " ".join(capsys.readouterr().err.split())
        assert (ordered[-1] is None) == bool(further) == ("are not taught to tell people apart first" in said)


def test_who_begins_with_random_numbers_is_told(capsys, root, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    monkeypatch.setattr("deploy.corpus_training.train_corpus", lambda *_: Outcome(root, {}, 0, False))
    make_shared_encoder(tmp_path / "encoders" / "both")
    asked = ("train", "bi_quintuple", "--corpus", "folder", "--root", str(root), "--preset", "population")
    for more, said in (((), True), (("--initial", "both"), False)):
        with pytest.raises(SystemExit):
            main([*asked, *more])
        told = " ".join(capsys.readouterr().err.split())
        assert ("networks of faces and voices begin with random numbers" in told) is said
