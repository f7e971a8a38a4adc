from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from encoders.space import Modality
from training.population import splits
from training.population.people import Stream
from training.population.splits import PopulationSpec, TrainingSpec, entries_of


def test_the_instrument_has_200_unseen_people_with_five_samples_of_each_modality() -> None:
    test = PopulationSpec().test
    assert (test.count, test.samples, test.stream) == (200, 5, Stream.TEST)
    assert sum(person.sex == "female" for person in test.people()) == 100


def test_no_test_validation_or_training_person_is_another() -> None:
    population, training = PopulationSpec(), [TrainingSpec(seed=seed) for seed in (0, 1)]
    parts = [population.test, population.validation, *(spec.split for spec in training)]
    people = [person for part in parts for person in part.people()]
    for told in ("identity", "seed", "shared", "face", "voice"):
        assert len({getattr(person, told) for person in people}) == len(people) == 200 + 60 + 2 * 1250


def test_entries_are_numbered_from_one_in_the_folder_of_their_identity() -> None:
    person = PopulationSpec().test.people()[0]
    paths = [entry.path for entry in entries_of(person, Modality.VOICE, 2)]
    assert paths == [f"{person.identity}/voice_01.flac", f"{person.identity}/voice_02.flac"]
    assert next(entries_of(person, Modality.FACE, 1)).path == f"{person.identity}/face_01.jpg"


def test_the_digest_tells_specifications_and_versions_of_the_generator_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [PopulationSpec(), PopulationSpec(films=2), TrainingSpec(), TrainingSpec(seed=1)]
    digests = {spec.digest for spec in specs}
    monkeypatch.setattr(splits, "GENERATOR", "another version")
    digests |= {spec.digest for spec in specs}
    monkeypatch.setattr(splits, "NOISE", {Modality.FACE: 0.1, Modality.VOICE: 0.1})
    assert len(digests | {specs[0].digest}) == 9
    assert specs[0].digest == PopulationSpec().digest


def test_another_way_to_draw_is_another_version_and_another_film_is_not(tmp_path: Path) -> None:
    package = tmp_path / "population"
    shutil.copytree(Path(splits.__file__).parent, package)
    assert splits.version_of_drawing(package) == splits.GENERATOR
    for name, changes in (("films", False), ("people", True), ("hair", True), ("voices", True), ("samples", True)):
        before = splits.version_of_drawing(package)
        with (package / f"{name}.py").open("a") as source:
            source.write("# changed\n")
        assert (splits.version_of_drawing(package) != before) is changes, name


@pytest.mark.parametrize("wrong", [{"test_people": 3}, {"validation_people": 3}, {"test_samples": 0}, {"films": -1}])
def test_a_population_too_small_to_ask_about_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"needs 4 to 20000 people|at least"):
        PopulationSpec(**wrong)


@pytest.mark.parametrize("wrong", [{"people": 1}, {"samples": 100}, {"seed": -1}, {"seed": 2**32}])
def test_a_training_set_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        TrainingSpec(**wrong)
