from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from deploy.calibrate import PEOPLE_LIST, Trials, equal_error_threshold, operating_threshold, people_of, split
from encoders.encoder import Encoder, packaged_encoders
from encoders.space import Modality
from search.scores import Purpose, Similarity, calibration_for


def trials(own: list[float], strangers: list[float]) -> Trials:
    return Trials(np.array(own), np.array(strangers), np.array(strangers), np.ones(len(own), bool))


def test_the_operating_threshold_lies_between_the_known_and_the_strangers() -> None:
    assert operating_threshold(trials([0.9, 0.95], [0.5, 0.7])) == pytest.approx(0.8)


def test_the_operating_threshold_misses_as_many_known_as_it_names_strangers() -> None:
    threshold = operating_threshold(trials([0.6, 0.8, 0.9, 1.0], [0.2, 0.3, 0.4, 0.7]))
    assert 0.6 < threshold < 0.8


def test_the_equal_error_threshold_separates_what_can_be_separated() -> None:
    assert equal_error_threshold(np.array([0.8, 0.9]), np.array([0.1, 0.4])) == pytest.approx(0.6)


def test_the_split_takes_every_second_person_of_each_source() -> None:
    assert split(["a/x/3", "a/x/1", "a/x/2", "b/y/1"]) == ["a/x/1", "a/x/3", "b/y/1"]


def test_the_list_of_people_is_the_split_of_the_media(shared_media: Path) -> None:
    assert PEOPLE_LIST.read_text().split() == split(people_of(shared_media))


@pytest.mark.parametrize("modality", list(Modality))
def test_shipped_numbers_belong_to_the_shipped_encoder_and_list(modality: Modality) -> None:
    encoder = Encoder.load(packaged_encoders()[f"{modality}_identity"])
    provenance = json.loads((encoder.folder / "calibration.json").read_text())["provenance"]
    assert provenance["space_digest"] == encoder.space.digest
    assert provenance["people_list_sha256"] == hashlib.sha256(PEOPLE_LIST.read_bytes()).hexdigest()
    for purpose in Purpose:
        for kind in Similarity:
            assert calibration_for(encoder.calibration, (modality, modality), purpose, kind, space="x").slope > 0
