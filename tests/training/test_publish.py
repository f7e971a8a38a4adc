from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from encoders.backbones.small_face import chips_to_input, prepare_chip
from encoders.backbones.small_voice import prepare_mel
from encoders.encoder import Embedding, Encoder, packaged_encoders
from encoders.folder import IDENTITIES_FILE
from encoders.heads import SharedSpaceHead
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from encoders.weights import sha256_of
from search.scores import Calibration, Purpose, Similarity, calibration_for
from tests.training.small_run import SETTINGS, small_data, small_given, small_people, small_train
from training import publish as publishing
from training.loop import Trained, finished_task, read_best
from training.publish import Origin, PublishError, publish, read_report, record_report
from training.reading import Preparation
from training.recipes import bi_quintuple
from training.runs import RunHeld, held

ORIGIN = Origin(
    domain="invented people",
    trained_on="10 invented people, 3 photos and as many utterances of each",
    validated_on="6 other invented people",
    preparation=Preparation(),
    golden={Modality.FACE: [drawn_face(1)], Modality.VOICE: [drawn_voice(1, 0.7)]},
)
REPORT: dict[str, Any] = {
    "retrieval": {"voice_to_face": {"map": 0.1234, "ci95": [0.1, 0.15], "chance": 0.011, "ceiling": 0.4321}},
    "verification": {"auc": 0.87, "ci95": [0.8, 0.9], "ceiling_auc": 0.96, "same_sex": {"auc": 0.7}},
    "matching_1_to_n": {"face_to_voice": {"all": {str(n): {"accuracy": 1 / n, "chance": 1 / n} for n in (2, 5, 10)}}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return small_train(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    return published(trained, tmp_path_factory.mktemp("home") / "encoders")


def published(trained: Trained, encoders: Path, origin: Origin = ORIGIN) -> Path:
    return publish(bi_quintuple, SETTINGS, small_data(), trained, origin, encoders)


def test_two_processes_cannot_publish_one_run_at_once(trained: Trained, tmp_path: Path) -> None:
    with held(trained.folder), pytest.raises(RunHeld, match="another process"):
        published(trained, tmp_path / "encoders")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / folder.name


def test_the_folder_is_named_by_recipe_and_space(folder: Path) -> None:
    encoder = Encoder.load(folder)
    assert folder.name == f"bi_quintuple-{encoder.space.digest[:12]}"
    assert encoder.space.name == "shared" and encoder.modalities == set(Modality)
    assert encoder.domain == "invented people" and encoder.trained_on == ORIGIN.trained_on
    assert encoder.identities == set(small_data().training.identities)
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == [folder.name]


def test_serving_gives_the_vectors_of_training(folder: Path, trained: Trained) -> None:
    encoder, task = Encoder.load(folder), bi_quintuple.build(SETTINGS, small_given(), 99).eval()
    task.load_state_dict(read_best(trained.folder))
    faces = [drawn_face(number) for number in range(2, 6)]
    voices = [drawn_voice(number, 0.5 + number / 3) for number in range(2, 6)]
    with torch.inference_mode():
        for face in faces:
            chip = torch.from_numpy(prepare_chip(face, ORIGIN.preparation.face))
            assert_same(encoder, Modality.FACE, face, task.embed(Modality.FACE, chips_to_input(chip[None]))[0])
        for voice in voices:
            mel = prepare_mel(voice, ORIGIN.preparation.voice)
            assert_same(encoder, Modality.VOICE, voice, task.embed(Modality.VOICE, mel[None])[0])


def assert_same(encoder: Encoder, modality: Modality, sample: Any, expected: torch.Tensor) -> None:
    point = encoder.encode(modality, [sample])[0]
    assert isinstance(point, Embedding)
    unit: NDArray[np.float64] = torch.nn.functional.normalize(expected.double(), dim=0).numpy()
    assert float(point.vector @ unit) >= 0.99999


def test_golden_vectors_come_out_again(folder: Path) -> None:
    assert Encoder.load(folder).verify_golden() > 0.99999


def test_what_training_alone_needed_stays_behind(folder: Path) -> None:
    names = {name for path in folder.glob("*.safetensors") for name in load_file(path)}
    assert names and not {name for name in names if "classifier" in name}


def test_whoever_taught_the_networks_that_it_began_with_is_known_to_it_too(
    folder: Path, trained: Trained, tmp_path: Path
) -> None:
    begun = replace(
        trained, run=replace(trained.run, initial_face=folder, initial_voice=packaged_encoders()["voice_identity"])
    )
    data = replace(small_data(), training=small_people("others"))
    other = Encoder.load(publish(bi_quintuple, SETTINGS, data, begun, ORIGIN, tmp_path))
    assert other.identities == {*data.training.identities, *small_data().training.identities}
    assert other.trained_on == f"{ORIGIN.trained_on}; networks of {folder.name}; networks of voice_identity"
    card = " ".join((other.folder / "MODEL_CARD.md").read_text().split())
    assert (
        f"Its network of faces is or began as that of `{folder.name}`, trained on {ORIGIN.trained_on}. Whoever" in card
    )
    assert (
        "of voices is or began as that of `voice_identity`" in card and "is not listed: people it is measured" in card
    )


def test_a_folder_that_knew_too_few_is_published_anew(folder: Path, trained: Trained, tmp_path: Path) -> None:
    place = shutil.copytree(folder, tmp_path / folder.name)
    (place / "report.json").write_text("{}")
    begun = replace(trained, run=replace(trained.run, initial_face=folder))
    data = replace(small_data(), training=small_people("trained", samples=1))
    assert publish(bi_quintuple, SETTINGS, data, begun, ORIGIN, tmp_path) == place  # it knows all of them already
    assert (place / "report.json").exists()
    begun = replace(trained, run=replace(trained.run, initial_face=other_people(tmp_path / "other", folder)))
    assert publish(bi_quintuple, SETTINGS, data, begun, ORIGIN, tmp_path) == place
    assert "Nobody_Else" in Encoder.load(place).identities and not (place / "report.json").exists()
    assert [path.name for path in (tmp_path / ".partial").iterdir()] == []


def other_people(place: Path, folder: Path) -> Path:
    """A copy of an encoder folder that knows somebody else."""
    shutil.copytree(folder, place)
    (place / IDENTITIES_FILE).write_text("Nobody_Else\n")
    description = json.loads((place / "encoder.json").read_text())
    description["files"][IDENTITIES_FILE] = sha256_of(place / IDENTITIES_FILE)
    (place / "encoder.json").write_text(json.dumps(description))
    return place


def test_publishing_twice_gives_the_same_folder(folder: Path, trained: Trained) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert published(trained, folder.parent) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_failure_leaves_no_half_folder(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no vector"):
        published(
            trained, tmp_path, replace(ORIGIN, golden={**ORIGIN.golden, Modality.VOICE: [np.zeros(9, np.float32)]})
        )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_it_is_calibrated_across_the_modalities_on_validation_people(folder: Path) -> None:
    encoder = Encoder.load(folder)
    for purpose in (Purpose.VERIFY, Purpose.IDENTIFY):
        for kind in Similarity:
            pair = (Modality.VOICE, Modality.FACE)
            fitted = calibration_for(encoder.calibration, pair, purpose, kind, space="shared")
            assert isinstance(fitted, Calibration)
    assert fitted.provenance["domain"] == "invented people"
    assert fitted.provenance["space_digest"] == encoder.space.digest
    assert fitted.provenance["set_on"] == {"people": 6, "faces": 18, "voices": 18}


def test_the_card_says_whom_it_is_for_and_that_nothing_follows_for_real_people(folder: Path, trained: Trained) -> None:
    card = " ".join((folder / "MODEL_CARD.md").read_text().split())
    assert "invented people only" in card and "Nothing may be concluded from it about real people" in card
    assert "10 invented people, 3 photos" in card and '"margin": 0.6' in card and "`bi_quintuple`" in card
    assert f"{trained.validated.voice_to_face:.3f}" in card and f"epoch {trained.best_epoch} of 3" in card
    assert "Not measured on test people yet." in card


def test_a_report_is_kept_and_its_figures_come_into_the_card(copied: Path) -> None:
    assert read_report(copied) is None
    record_report(copied, REPORT)
    assert read_report(copied) == json.loads((copied / "report.json").read_text()) == REPORT
    card = (copied / "MODEL_CARD.md").read_text()
    assert "Not measured" not in card
    assert "| voice to face, mAP | 0.123 | 0.100 to 0.150 | 0.011 | 0.432 |" in card
    assert "| verification, all pairs, AUC | 0.870 | 0.800 to 0.900 | 0.500 | 0.960 |" in card
    assert "| verification, pairs of one sex, AUC | 0.700 | – | 0.500 | – |" in card
    assert "right one of 10, all | 0.100" in card
    assert card.index("## Validation") < card.index("## Measured") < card.index("## What it may")


def test_a_second_report_takes_the_place_of_the_first(copied: Path) -> None:
    record_report(copied, REPORT)
    once = (copied / "MODEL_CARD.md").read_text()
    record_report(copied, REPORT)
    assert (copied / "MODEL_CARD.md").read_text() == once
    assert Encoder.load(copied).identities


def test_a_report_without_figures_is_refused(copied: Path) -> None:
    with pytest.raises(PublishError, match="at least one of retrieval"):
        record_report(copied, {"model": "x"})
    assert read_report(copied) is None


def test_a_head_that_serving_does_not_know_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Foreign(SharedSpaceHead):
        pass

    def foreign(*arguments: Any) -> Any:
        task = finished_task(*arguments)
        task.head.__class__ = Foreign
        return task

    monkeypatch.setattr(publishing, "finished_task", foreign)
    with pytest.raises(PublishError, match="knows no head Foreign"):
        published(trained, tmp_path)
