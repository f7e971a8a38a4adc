from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.encoder import Encoder
from encoders.space import Modality, Space
from search.measurement import SeenInTraining
from search.report import as_table
from search.store import MemoryStore
from training.card import MEASURED, with_measurements
from training.held_out import measure_vectors
from training.label_agreement import agreement_of_labels
from training.vectors import Vectors

DIMENSION = 6


class Straight:
    """A head that leaves faces as they are and turns voices by what it is told."""

    def __init__(self, turned: float = 0.0) -> None:
        self.turned = turned

    def apply(self, features: np.ndarray, modality: Modality) -> np.ndarray:
        return features if modality is Modality.FACE else features + self.turned * np.roll(features, 1, axis=1)


def encoder(head: Any, identities: frozenset[str] = frozenset({"somebody"})) -> Encoder:
    description: Any = type("Described", (), {"domain": "drawn people", "trained_on": "drawings"})()
    space = Space("shared", DIMENSION, "7" * 64)
    return Encoder(space, Path("drawn"), description, None, {}, head, identities)


def people(noise: float = 0.3, sexes: str = "") -> Vectors:
    random = np.random.default_rng(3)
    owners = np.repeat(np.arange(DIMENSION), 4)
    drawn = [np.eye(DIMENSION)[owners] + noise * random.standard_normal((len(owners), DIMENSION)) for _ in range(2)]
    names = tuple(f"person {number}" for number in range(DIMENSION))
    faces, voices = (some.astype(np.float32) for some in drawn)
    return Vectors(names, tuple(sexes) or ("",) * DIMENSION, faces, owners, voices, owners, "d" * 64)


def test_a_head_that_knows_people_is_measured_far_above_chance_and_one_that_does_not_is_not() -> None:
    knows, lost = (measure_vectors(encoder(head), people(), "drawn") for head in (Straight(), Straight(-50.0)))
    for way in ("voice_to_face", "face_to_voice"):
        assert knows["retrieval"][way]["map"] > 0.7 > 0.4 > lost["retrieval"][way]["map"]
        assert knows["retrieval"][way]["probes"] == 24 and knows["retrieval"][way]["people"] == DIMENSION
    assert knows["verification"]["auc"] > 0.85 > 0.7 > lost["verification"]["auc"]
    assert knows["verification"]["ci95"][0] <= knows["verification"]["auc"] <= knows["verification"]["ci95"][1]
    assert set(knows["matching_1_to_n"]["voice_to_face"]["all"]) == {"2", "3", "4", "5", "6"}


def test_it_says_how_often_a_person_s_face_and_voice_fall_into_clusters_of_one_rank() -> None:
    held = people()
    points = {one: held.of(one) / np.linalg.norm(held.of(one), axis=1, keepdims=True) for one in Modality}
    whose = {
        Modality.FACE: [held.identities[number] for number in held.face_people],
        Modality.VOICE: [held.identities[number] for number in held.voice_people],
    }
    told = measure_vectors(encoder(Straight()), held, "drawn")["label_agreement"]
    assert told == agreement_of_labels(points, whose) and told["8"]["pairs"] == 4 * DIMENSION
    assert told != agreement_of_labels(points, whose | {Modality.VOICE: whose[Modality.VOICE][::-1]})
    assert told["32"]["agreement"] is None


def test_an_index_finds_what_exact_search_finds() -> None:
    report = measure_vectors(encoder(Straight()), people(), "drawn", MemoryStore())
    assert report["index"] == "MemoryStore"
    assert report["retrieval"]["voice_to_face"]["map"] == pytest.approx(
        report["retrieval"]["voice_to_face"]["map_exact"]
    )


@pytest.mark.parametrize("store", [None, MemoryStore])
def test_probes_ask_as_the_encoder_has_them_ask(store: Any) -> None:
    centred = replace(encoder(Straight()), probe_centres={Modality.FACE: np.full(DIMENSION, 0.3)})
    plain, moved = (
        measure_vectors(one, people(), "drawn", store and store()) for one in (encoder(Straight()), centred)
    )
    gained = moved["retrieval"]["face_to_voice"]["gained"]
    assert gained["map_before"] == plain["retrieval"]["face_to_voice"]["map_exact"]
    assert moved["retrieval"]["face_to_voice"]["map"] != plain["retrieval"]["face_to_voice"]["map"]
    assert moved["retrieval"]["voice_to_face"] == plain["retrieval"]["voice_to_face"]


def test_where_nobody_knows_the_sexes_nothing_is_said_of_them() -> None:
    unknown, known = (measure_vectors(encoder(Straight()), people(sexes=sexes), "drawn") for sexes in ("", "fmfmfm"))
    assert "same_sex" not in unknown["verification"] and unknown["verification"]["gender_oracle_auc"] is None
    assert known["verification"]["same_sex"]["auc"] > 0.8 and known["verification"]["gender_oracle_auc"] > 0.5
    assert set(unknown["retrieval"]["voice_to_face"]["baselines"]) == {"chance"}


def test_a_space_that_knows_only_sexes_tells_nobody_of_one_sex_apart() -> None:
    random, sexes = np.random.default_rng(5), "fm" * 12
    owners = np.repeat(np.arange(24), 10)
    drawn = [np.eye(DIMENSION)[owners % 2] + 0.2 * random.standard_normal((240, DIMENSION)) for _ in range(2)]
    faces, voices = (some.astype(np.float32) for some in drawn)
    names = tuple(f"person {number:02}" for number in range(24))
    report = measure_vectors(encoder(Straight()), Vectors(names, tuple(sexes), faces, owners, voices, owners), "drawn")
    told = report["verification"]
    assert told["same_sex"]["auc"] == pytest.approx(0.5, abs=0.08) and told["auc"] > 0.7


def test_the_report_is_shown_and_goes_into_a_model_card_as_any_other() -> None:
    report = measure_vectors(encoder(Straight()), people(), "held out of drawings")
    assert "Protocol held out of drawings" in as_table(report)
    assert "verification, all pairs, AUC" in with_measurements(f"{MEASURED}\nnothing\n", report)


def test_people_whom_it_was_trained_on_are_refused() -> None:
    with pytest.raises(SeenInTraining, match="person 2"):
        measure_vectors(encoder(Straight(), frozenset({"person 2"})), people(), "drawn")


def test_an_encoder_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="no head"):
        measure_vectors(replace(encoder(Straight()), head=None), people(), "drawn")


def test_the_same_people_are_asked_the_same_questions() -> None:
    first, second = (measure_vectors(encoder(Straight()), people(), "drawn") for _ in range(2))
    assert first == second
