"""Centres of probes: whose mean they are, when they are kept, and what becomes of a published folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.encoder import Encoder
from encoders.space import Modality
from search import metrics
from search.ranking import judge
from search.scores import NotCalibrated, Purpose, Similarity, calibration_for
from tests.training.small_run import RUN, small_people
from tests.training.test_publish import ORIGIN
from training import centring
from training.calibration import People, calibrate_asking
from training.centring import LEAST_PEOPLE, find_centres
from training.loop import Trained, TrainingData, finished_task, train
from training.publish import publish
from training.recipes import visavox
from training.recipes.visavox import POPULATION, Settings
from training.validation import embed_prepared
from training.vectors import Vectors

FACE, VOICE = Modality.FACE, Modality.VOICE


class AsTheyAre(torch.nn.Module):
    """A task whose points are the vectors themselves; it remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[Modality, list[np.ndarray]] = {modality: [] for modality in Modality}

    def embed(self, modality: Modality, inputs: torch.Tensor, lengths: Any = None) -> torch.Tensor:
        self.shown[modality].append(inputs.numpy())
        return inputs


def around_a_hub(names: str, people: int = 30, samples: int = 2, common: float = 0.8) -> Vectors:
    """Everybody's own direction; faces share another one, which is also that of the first person's voices."""
    own, owners = np.eye(people + 1), np.repeat(np.arange(people), samples)
    random = np.random.default_rng([people, samples])
    shared = {FACE: np.full(people, common), VOICE: np.where(np.arange(people) == 0, 0.95, 0.0)}
    vectors = {}
    for modality, share in shared.items():
        one = np.sqrt(1 - share**2)[owners, None] * own[owners] + share[owners, None] * own[-1]
        one += random.normal(0, 0.01, one.shape)
        vectors[modality] = (3 * one).astype(np.float32)
    return Vectors(
        tuple(f"{names}{number:03d}" for number in range(people)), ("",) * people,
        vectors[FACE], owners, vectors[VOICE], owners,
    )  # fmt: skip


def held_out(vectors: Vectors) -> People:
    return People({one: vectors.of(one) for one in Modality}, {FACE: vectors.face_people, VOICE: vectors.voice_people})


def precision(vectors: Vectors, centre: np.ndarray | float = 0.0) -> float:
    faces, voices = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (vectors.faces, vectors.voices))
    scores = (faces - centre) @ voices.T
    return judge(scores, vectors.face_people[:, None] == vectors.voice_people[None]).map


def test_a_centre_is_the_mean_of_a_sample_of_everybody_and_kept_where_others_gain_by_it() -> None:
    data = TrainingData(around_a_hub("a"), around_a_hub("b"))
    task: Any = AsTheyAre()
    found = find_centres(task, data, [FACE], held_out(data.validation))
    (shown,) = task.shown[FACE]
    np.testing.assert_array_equal(shown, data.training.faces[::2])  # type: ignore[union-attr]
    assert not task.shown[VOICE]
    expected = (shown / np.linalg.norm(shown, axis=1, keepdims=True)).mean(axis=0)
    assert set(found) == {FACE} and found[FACE].people == 30
    np.testing.assert_allclose(found[FACE].vector, expected, atol=1e-6)
    before, after = precision(data.validation), precision(data.validation, expected)  # type: ignore[arg-type]
    assert before < 0.6 and after == pytest.approx(1.0)
    assert (found[FACE].map_before, found[FACE].map_without) == (pytest.approx(before), pytest.approx(after))
    told = json.loads(json.dumps(found[FACE].to_json()))
    assert told["validation"] == {"map_before": found[FACE].map_before, "map": found[FACE].map_without}
    assert told["centre"] == found[FACE].vector.tolist() and told["people"] == 30


def test_nothing_is_tried_that_was_not_asked_for_and_nothing_kept_that_gains_nothing() -> None:
    data = TrainingData(around_a_hub("a"), around_a_hub("b"))
    task: Any = AsTheyAre()
    assert find_centres(task, data, [], held_out(data.validation)) == {} and not any(task.shown.values())
    # voices find every face of their person first as it is
    assert set(find_centres(task, data, [FACE, VOICE], held_out(data.validation))) == {FACE}


def test_a_mean_of_few_people_would_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    few, enough = (around_a_hub("a", people) for people in (LEAST_PEOPLE - 1, LEAST_PEOPLE))
    task: Any = AsTheyAre()
    for training, kept in ((few, set()), (enough, {FACE})):
        data = TrainingData(training, around_a_hub("b", len(training.identities)))
        assert set(find_centres(task, data, [FACE], held_out(data.validation))) == kept


def test_of_many_people_some_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centring, "MOST_PEOPLE", 25)
    data = TrainingData(around_a_hub("a", 49), around_a_hub("b", 49))
    task: Any = AsTheyAre()
    found = find_centres(task, data, [FACE], held_out(data.validation))
    np.testing.assert_array_equal(np.concatenate(task.shown[FACE]), data.training.faces[::4])  # type: ignore[union-attr]
    assert found[FACE].people == 25


def test_where_all_point_the_same_way_nothing_is_taken() -> None:
    data = TrainingData(around_a_hub("a", common=0.99), around_a_hub("b", common=0.99))
    task: Any = AsTheyAre()
    assert find_centres(task, data, [FACE], held_out(data.validation)) == {}


def test_scores_without_the_centre_have_a_calibration_of_their_own() -> None:
    points, centre = held_out(around_a_hub("a")), np.append(np.zeros(30), 0.8)
    numbers = calibrate_asking(points, {FACE: centre})
    assert set(numbers) == {"face-to-voice"}
    found = calibration_for(numbers, (FACE, VOICE), Purpose.FIND, Similarity.COSINE, space="shared")
    unit = {one: points.vectors[one] / np.linalg.norm(points.vectors[one], axis=1, keepdims=True) for one in Modality}
    moved = unit[FACE] - centre
    scores = moved / np.linalg.norm(moved, axis=1, keepdims=True) @ unit[VOICE].T
    same = points.people[FACE][:, None] == points.people[VOICE][None]
    missed, accepted = np.mean(scores[same] < found.threshold), np.mean(scores[~same] >= found.threshold)
    assert abs(missed - accepted) < 0.05
    told = numbers["face-to-voice"]["find"]["cosine"]["set"]
    assert told["auc"] == pytest.approx(metrics.auc(scores[same], scores[~same]))
    plain = unit[FACE] @ unit[VOICE].T
    assert told["auc"] > metrics.auc(plain[same], plain[~same]) + 1e-3
    assert (told["genuine_pairs"], told["impostor_pairs"]) == (same.sum(), (~same).sum())
    with pytest.raises(NotCalibrated, match="to find by voice-to-face"):
        calibration_for(numbers, (VOICE, FACE), Purpose.FIND, Similarity.COSINE, space="shared")


@pytest.fixture(scope="module")
def people() -> TrainingData:
    return TrainingData(small_people("trained", people=24), small_people("validated", people=6))


SMALL = replace(POPULATION, epochs=1, steps_per_epoch=2, people_per_batch=6, hidden=8, average=0.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, people: TrainingData) -> Trained:
    return train(visavox, SMALL, people, tmp_path_factory.mktemp("run"), RUN)


def published(settings: Settings, people: TrainingData, trained: Trained, encoders: Path, gains: bool) -> Encoder:
    """The folder, where validation people gain by centres or do not, whatever these small ones would."""
    with pytest.MonkeyPatch.context() as patch:
        figures = iter([0.25, 0.5 if gains else 0.25] * 2)
        patch.setattr(centring, "_precision", lambda *_: next(figures))
        return Encoder.load(publish(visavox, settings, people, trained, ORIGIN, encoders))


def test_what_is_published_asks_as_it_was_found_to_be_better(
    people: TrainingData, trained: Trained, tmp_path: Path
) -> None:
    centred = published(SMALL, people, trained, tmp_path, gains=True)
    plain = published(SMALL, people, trained, tmp_path, gains=False)
    unasked = published(replace(SMALL, centred=()), people, trained, tmp_path, gains=True)
    assert set(centred.probe_centres) == {FACE} and plain.probe_centres == {} and unasked.folder == plain.folder
    # the same vectors, asked in another way, are another folder beside the first
    assert centred.space == plain.space and centred.folder != plain.folder and centred.folder.exists()
    assert plain.folder.name == f"visavox-{plain.space.digest[:12]}"
    again = published(SMALL, people, trained, tmp_path, gains=True)
    assert again.folder == centred.folder and len(list(tmp_path.glob("visavox-*"))) == 2
    for encoder, found in ((centred, True), (plain, False)):
        card = " ".join((encoder.folder / "MODEL_CARD.md").read_text().split())
        sentence = "A face asks for the other modality without the mean of 24 faces of training people (`probes.json`)"
        assert (sentence in card) == found and ("mAP 0.500 and not 0.250" in card) == found
        stored = encoder.calibration
        assert ("face-to-voice" in (stored or {})) == found
        calibration_for(stored, (VOICE, FACE), Purpose.VERIFY, Similarity.COSINE, space="shared")
    task = finished_task(visavox, SMALL, people, trained)
    faces = embed_prepared(task, people.training)[FACE]
    unit = faces / np.linalg.norm(faces, axis=1, keepdims=True)
    first = np.unique(people.training.face_people, return_index=True)[1]
    np.testing.assert_allclose(centred.probe_centres[FACE], unit[first].mean(axis=0), atol=1e-5)


def test_a_modality_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="of a face or a voice, got nose"):
        Settings(centred=("nose",))  # type: ignore[arg-type]
    assert Settings().centred == POPULATION.centred == ("face",)
