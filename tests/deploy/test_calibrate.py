from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deploy.calibrate import PEOPLE_LIST, people_of, split
from encoders.encoder import Encoder, packaged_encoders
from encoders.space import Modality
from search.scores import Purpose, Similarity, calibration_for


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
