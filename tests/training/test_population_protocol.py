from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from encoders.face import load_face_detector
from encoders.space import Modality
from ingest.media import probe
from ingest.samples import read_face, read_voice
from search.protocols import read_protocol
from training.corpora import Split, read_manifest
from training.population.protocol import DOMAIN, is_complete, population_folder, write_protocol, write_training
from training.population.samples import draw_latents, draw_photo, draw_utterance
from training.population.splits import PopulationSpec, TrainingSpec

SPEC = PopulationSpec(test_people=6, test_samples=2, validation_people=4, validation_samples=2, films=1)
TRAINING = TrainingSpec(people=4, samples=2, seed=3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    return write_protocol(home, SPEC, processes=2)


@pytest.fixture(scope="module")
def training(home: Path) -> Path:
    return write_training(home, TRAINING, processes=1)


def _bytes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_evaluator_reads_test_and_validation_people_as_protocols_of_their_own(folder: Path) -> None:
    test, validation = read_protocol(folder), read_protocol(folder / "validation")
    assert len(test.identities) == 6 and test.validation == validation.identities and len(test.validation) == 4
    assert (test.domain, test.digest) == (DOMAIN, SPEC.digest) and validation.digest != test.digest
    assert sorted(test.sex[one] for one in test.identities) == ["f"] * 3 + ["m"] * 3
    for protocol in (test, validation):
        paths = [path for modality in Modality for path in protocol.samples(modality).paths]
        assert len(paths) == 4 * len(protocol.identities)
        assert all((protocol.media / path).stat().st_size > 1_000 for path in paths)


def test_the_trainer_reads_training_and_validation_people(folder: Path, training: Path) -> None:
    test = read_protocol(folder).identities
    learned = read_manifest(training, Split.TRAIN, test=test)
    chosen_on = read_manifest(folder, Split.VALIDATION, test=test)
    assert (learned.domain, len(learned.samples), learned.missing) == (DOMAIN, 16, ())
    assert len(chosen_on.samples) == 16 and not set(learned.identities) & {*chosen_on.identities, *test}
    assert sorted(learned.sexes.values()) == ["f", "f", "m", "m"]


def test_the_media_are_the_samples_that_were_drawn(folder: Path) -> None:
    person = SPEC.test.people()[1]
    sound = read_voice(folder / "media" / person.identity / "voice_02.flac")
    assert np.abs(sound - draw_utterance(person, 2).render()).max() <= 0.51 / 32768
    crop = read_face(folder / "media" / person.identity / "face_01.jpg", load_face_detector())
    assert crop.pixels.std() > 10 and draw_photo(person, 1).render().shape == (160, 160, 3)


def test_the_truth_tells_every_samples_own_latents_exactly(folder: Path) -> None:
    with (folder / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    people = {person.identity: person for split in (SPEC.test, SPEC.validation) for person in split.people()}
    assert {row["path"] for row in rows} == {
        str(path.relative_to(folder / "media")) for path in (folder / "media").rglob("*.*") if path.is_file()
    }
    for row in rows:
        number = int(Path(row["path"]).stem[-2:])
        shown = draw_latents(people[row["identity"]], Modality(row["modality"]), number)
        told = [float(row[name]) for name in ("sex", "age", "size", "weight", "warmth", "energy")]
        assert told == shown.as_array().tolist()


@pytest.mark.parametrize("part", [".", "validation"])
def test_the_stored_vectors_give_the_stored_ceiling(folder: Path, part: str) -> None:
    protocol = read_protocol(folder / part)
    told = json.loads((folder / part / "ceiling.json").read_text())
    assert protocol.ceiling is not None
    vectors, lists = protocol.ceiling, protocol.matching[Modality.VOICE, "U"]
    scores = [
        [vectors[asked] @ vectors[path] for path in line]
        for asked, line in zip(lists.probes, lists.candidates, strict=True)
    ]
    accuracy = np.mean([line[0] == max(line) for line in scores])
    assert told["matching_1_to_n"]["voice_to_face"]["all"][str(len(scores[0]))]["accuracy"] == accuracy


def test_a_film_of_test_people_lies_beside_its_truth(folder: Path) -> None:
    told = json.loads((folder / "films" / "film_1.json").read_text())
    identities = read_protocol(folder).identities
    assert told["people"] == list(told["identities"]) and set(told["identities"].values()) <= identities
    assert probe(folder / "films" / "film_1.mp4").duration == pytest.approx(told["duration"], abs=0.2)


def test_a_complete_folder_is_returned_at_once_and_left_alone(home: Path, folder: Path) -> None:
    before, calls = _bytes(folder), []
    assert write_protocol(home, SPEC, progress=lambda done, total: calls.append((done, total))) == folder
    assert not calls and _bytes(folder) == before and is_complete(folder)


def test_what_is_missing_is_made_again_with_the_same_bytes_by_another_number_of_processes(
    home: Path, folder: Path
) -> None:
    """As after a kill: no marker, a person gone, a half-written one, a list cut off."""
    before, told = _bytes(folder), []
    (folder / "protocol.json").unlink()
    first = SPEC.test.people()[0].identity
    (folder / "media" / first / "voice_02.flac").unlink()
    (folder / "media" / first).rename(folder / "media" / f".{first}.1.part")
    (folder / "truth.csv").write_text("path")
    assert not is_complete(folder)
    write_protocol(home, SPEC, progress=lambda done, total: told.append((done, total)), processes=1)
    assert told == [(10, 11), (11, 11)]
    assert _bytes(folder) == before


def test_a_failure_leaves_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("training.population.production.write_flac", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_training(tmp_path, TRAINING, processes=1)
    assert not is_complete(population_folder(tmp_path, TRAINING.digest))


@pytest.mark.parametrize(
    "changed", [TrainingSpec(4, 2, 4), TrainingSpec(4, 3, 3), TrainingSpec(5, 2, 3), PopulationSpec()]
)
def test_every_specification_has_a_folder_of_its_own(
    training: Path, home: Path, changed: TrainingSpec | PopulationSpec
) -> None:
    assert population_folder(home, changed.digest) != training == population_folder(home, TRAINING.digest)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_whole_population_has_the_same_bytes_twice(tmp_path: Path) -> None:
    one, two = (write_protocol(tmp_path / str(count), PopulationSpec(), processes=count) for count in (2, 3))
    assert _bytes(one) == _bytes(two)
    assert 0.93 < json.loads((one / "ceiling.json").read_text())["verification"]["auc"] < 0.98
