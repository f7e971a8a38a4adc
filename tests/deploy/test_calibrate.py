from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deploy.calibrate import LEVELS, MORE_VOICES, OPERATING_LEVEL, PEOPLE_LIST, by_gallery_elsewhere, people_of, split
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
    for purpose in (Purpose.VERIFY, Purpose.IDENTIFY):
        for kind in Similarity:
            assert calibration_for(encoder.calibration, (modality, modality), purpose, kind, space="x").slope > 0


@pytest.mark.parametrize("modality", list(Modality))
def test_shipped_thresholds_rise_with_the_gallery_and_hold_on_people_who_did_not_set_them(modality: Modality) -> None:
    encoder = Encoder.load(packaged_encoders()[f"{modality}_identity"])
    stored = encoder.calibration
    shipped = calibration_for(stored, (modality,) * 2, Purpose.IDENTIFY, Similarity.COSINE, space="x")
    assert shipped.gallery is not None and shipped.gallery.level == OPERATING_LEVEL and shipped.gallery.likeness
    rows = (stored or {})[f"{modality}-{modality}"]["identify"]["cosine"]["gallery"]["measured"]
    assert {row["level"] for row in rows} == set(LEVELS)
    for row in rows:
        if row["level"] == OPERATING_LEVEL:
            assert shipped.among(row["people"]).threshold == pytest.approx(row["threshold"], abs=1e-3)
        if row["strangers_named"] is not None:
            assert row["strangers_named"] <= 2 * row["level"]
            # naming ten times fewer strangers costs some of those who are known
            assert row["missed"] <= (0.2 if row["level"] == OPERATING_LEVEL else 0.3)


def test_the_law_holds_on_many_more_people(shared_media: Path) -> None:
    told = by_gallery_elsewhere(shared_media.parent / MORE_VOICES)
    rows = [row for row in told["measured"] if row["strangers_named"] is not None]
    assert told["people"] == 632 and max(row["people"] for row in rows) == 315
    assert all(row["strangers_named_ci95"][0] <= row["level"] for row in rows)
    thresholds = [row["threshold"] for row in rows if row["level"] == OPERATING_LEVEL]
    assert thresholds == sorted(set(thresholds))
