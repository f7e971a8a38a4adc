"""``train``, from nothing to a measured model: of a few people only, but through every real part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import training as trainings
from deploy.cli import main
from deploy.cli.train import PEOPLE, SAMPLES
from deploy.models import list_models, serving_folder
from deploy.settings import load_settings
from deploy.training import Order, Outcome, measure, order_population, train_population
from deploy.wiring import Installation
from encoders.encoder import Encoder
from search.points import read_points
from search.protocols import read_protocol
from training.population.protocol import population_folder
from training.population.splits import PopulationSpec, TrainingSpec
from training.recipe import load_recipe

LEARNED, MEASURED = TrainingSpec(4, 1), PopulationSpec(4, 1, 4, 1, films=0)


def small_order(opened: Installation, **changed: object) -> Order:
    recipe = load_recipe("bi_quintuple")
    settings = replace(recipe.POPULATION, epochs=2, people_per_batch=4, samples_per_person=1, frames=60, hidden=8)
    order = order_population(opened, recipe, TrainingSpec(16), measured=MEASURED)
    return replace(order, **({"settings": settings, "learned": LEARNED} | changed))  # type: ignore[arg-type]


class Told(list[tuple[str, int, int, str]]):
    """What was told of the stages."""

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        self.append((stage, done, total, note))

    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for stage, _, _, _ in self))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("home")
    installation = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}))
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def outcome(opened: Installation, told: Told) -> Outcome:
    return train_population(opened, small_order(opened), told, workers=0)


def test_it_ends_in_an_encoder_folder_that_can_serve(opened: Installation, outcome: Outcome) -> None:
    encoder = Encoder.load(outcome.encoder)
    assert outcome.encoder.parent == opened.settings.home / "encoders" and not outcome.before
    assert encoder.domain == "invented people" and encoder.space.name == "shared"
    assert (
        encoder.trained_on.startswith("4 invented people, 4 photos and 4 utterances of them")
        and "seed 0" in encoder.trained_on
    )
    assert len(encoder.identities) == 4 and encoder.calibration is not None
    assert encoder.verify_golden() > 0.99999


def test_it_is_measured_on_people_it_never_saw(opened: Installation, outcome: Outcome) -> None:
    protocol = read_protocol(population_folder(opened.settings.home, MEASURED.digest))
    assert not protocol.test_people_among(Encoder.load(outcome.encoder).identities)
    found = outcome.report["retrieval"]["voice_to_face"]
    assert found["gallery"] == found["probes"] == 4 and 0 < found["map"] <= 1
    assert found["map"] == pytest.approx(found["map_exact"], rel=0.005)
    assert outcome.report["index"] == "MilvusStore"
    assert json.loads((outcome.encoder / "report.json").read_text()) == outcome.report


def test_nothing_is_switched_to_it(opened: Installation, outcome: Outcome) -> None:
    assert serving_folder(opened.settings) is None
    assert [model.serving for model in list_models(opened.settings) if model.folder == str(outcome.encoder)] == [False]


def test_every_stage_says_how_far_it_is(outcome: Outcome, told: Told) -> None:
    assert told.stages() == [
        "inventing people to measure on", "inventing people to learn from", "reading train samples",
        "reading validation samples", "training", "publishing", "measuring on unseen people",
        "searching and scoring",
    ]  # fmt: skip
    assert {total for stage, _, total, _ in told if stage == "reading train samples"} == {8}
    assert "validation mAP" in [note for stage, _, _, note in told if stage == "training"][-1]


def test_the_same_order_again_is_answered_at_once(opened: Installation, outcome: Outcome) -> None:
    silent = Told()
    again = train_population(opened, small_order(opened), silent)
    assert again.before and not silent
    assert (again.encoder, again.report) == (outcome.encoder, outcome.report)


def test_an_order_interrupted_before_its_report_is_only_measured(opened: Installation, outcome: Outcome) -> None:
    (outcome.encoder / "report.json").unlink()
    told = Told()
    again = train_population(opened, small_order(opened), told, workers=0)
    assert told.stages() == ["measuring on unseen people", "searching and scoring"] and not again.before
    assert (again.encoder, again.report) == (outcome.encoder, outcome.report)


def test_a_run_whose_folder_was_removed_is_published_again(opened: Installation, outcome: Outcome) -> None:
    outcome.encoder.rename(outcome.encoder.with_name("elsewhere"))
    told = Told()
    again = train_population(opened, small_order(opened), told, workers=0)
    assert "publishing" in told.stages() and "training" not in told.stages()
    assert again.encoder == outcome.encoder and again.report == outcome.report


@pytest.mark.parametrize("part", ["settings", "learned", "measured", "run"])
def test_whatever_decides_the_outcome_makes_another_order(opened: Installation, part: str) -> None:
    order = small_order(opened)
    changed = {
        "settings": replace(order.settings, margin=0.5),
        "learned": TrainingSpec(4, 1, seed=1),
        "measured": PopulationSpec(4, 1, 4, 2, films=0),
        "run": replace(order.run, seed=1),
    }
    assert replace(order, **{part: changed[part]}).key != order.key  # type: ignore[arg-type]
    assert small_order(opened).key == order.key


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bi_quadruple", "--population"], "choose one of: bi_pseudo_label, bi_quintuple"),
        (["bi_quintuple"], "--population"),
        (["bi_quintuple", "--population", "--people", "1"], "people"),
        (["bi_quintuple", "--population", "--people", "20001"], "2 to 20000 people"),
        (["bi_quintuple", "--population", "--samples", "100"], "1 to 99 samples"),
        (["bi_quintuple", "--population", "--epochs", "0"], "epochs"),
        (["bi_quintuple", "--corpus", "voxceleb"], "--corpus"),
    ],
)
def test_wrong_usage_says_what_there_is(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    code, out, _ = run(capsys, "train", *arguments, "--json")
    error = json.loads(out)["error"]
    assert code == 2 and error["type"] == "usage" and told in error["message"]
    assert not (tmp_path / "home").exists()


@pytest.fixture
def trained_before(opened: Installation, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """The small model stands for what the command's own order would become."""
    recipe = load_recipe("bi_quintuple")
    order = order_population(opened, recipe, TrainingSpec(), settings=replace(recipe.POPULATION, epochs=2))
    folder = opened.settings.home / "runs" / f"bi_quintuple-{order.key}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / trainings.PUBLISHED_FILE).write_text(json.dumps({"encoder": outcome.encoder.name}))
    monkeypatch.setenv("VISAVOX_HOME", str(opened.settings.home))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    return outcome


def test_the_command_prints_one_document(capsys: pytest.CaptureFixture[str], trained_before: Outcome) -> None:
    code, out, told = run(capsys, "train", "bi_quintuple", "--population", "--epochs", "2", "--json")
    document = json.loads(out)
    assert code == 0 and set(document) == {"encoder", "report", "seconds"}
    assert document["encoder"] == str(trained_before.encoder) and document["report"] == trained_before.report
    assert "published before" in told


def test_the_command_tells_people_how_to_let_it_serve(
    capsys: pytest.CaptureFixture[str], trained_before: Outcome
) -> None:
    code, out, _ = run(capsys, "train", "bi_quintuple", "--population", "--epochs", "2")
    assert code == 0 and f"visavox models use {trained_before.encoder.name}" in out
    assert "A voice looks for the faces of its person" in out


def test_a_model_that_serves_already_needs_no_advice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained_before: Outcome
) -> None:
    monkeypatch.setenv("VISAVOX_MODEL", str(trained_before.encoder))
    code, out, _ = run(capsys, "train", "bi_quintuple", "--population", "--epochs", "2")
    assert code == 0 and f"published: {trained_before.encoder}" in out and "models use" not in out


def test_the_command_learns_from_as_many_people_as_the_population_offers() -> None:
    assert TrainingSpec() == TrainingSpec(PEOPLE, SAMPLES)


def test_measuring_the_published_folder_gives_its_report_again_and_points_that_can_be_kept(
    opened: Installation, outcome: Outcome, tmp_path: Path
) -> None:
    encoder = Encoder.load(outcome.encoder)
    report, points = measure(opened, encoder, population_folder(opened.settings.home, MEASURED.digest), Told())
    assert report == outcome.report
    points.export(tmp_path / "points.npz")
    again = read_points(tmp_path / "points.npz")
    assert again.space == encoder.space and again.paths == points.paths


def test_few_people_are_enough_to_begin_with(opened: Installation) -> None:
    order = order_population(opened, load_recipe("bi_quintuple"), TrainingSpec(20, 4))
    assert (
        order.settings.people_per_batch < 20 and order.settings.epochs == load_recipe("bi_quintuple").POPULATION.epochs
    )


def test_a_measurement_survives_a_serving_model_that_has_vanished(tmp_path: Path) -> None:
    environment = {"VISAVOX_HOME": str(tmp_path), "VISAVOX_MODEL": str(tmp_path / "gone"), "VISAVOX_DEVICE": "cpu"}
    with Installation(load_settings(environment)).scratch_store() as store:
        assert store.drop_others("shared") == 0
