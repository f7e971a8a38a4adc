"""Pictures of what training made of a few people."""

from __future__ import annotations

import numpy as np

from encoders.space import Modality
from search.report_pictures import before_and_after

RANDOM = np.random.default_rng(2)
PEOPLE = {Modality.VOICE: ["ann", "ben"] * 4, Modality.FACE: ["ann", "ben"]}
BEFORE = {Modality.VOICE: RANDOM.normal(size=(8, 6)), Modality.FACE: RANDOM.normal(size=(2, 9))}
AFTER = {Modality.VOICE: RANDOM.normal(size=(8, 4)), Modality.FACE: RANDOM.normal(size=(2, 4))}
STOOD = {Modality.VOICE: "untrained", Modality.FACE: "untrained"}


def test_a_modality_with_samples_enough_is_drawn_before_and_after_in_spaces_of_their_own() -> None:
    (voices,) = before_and_after(BEFORE, AFTER, PEOPLE, STOOD)
    assert voices.title == "The voices of 2 people before and after training (PCA)"
    swapped = before_and_after(AFTER, BEFORE, PEOPLE, STOOD)[0]
    assert voices.svg != swapped.svg and voices.svg == before_and_after(BEFORE, AFTER, PEOPLE, STOOD)[0].svg


def test_the_picture_says_what_the_network_was() -> None:
    other = before_and_after(BEFORE, AFTER, PEOPLE, dict.fromkeys(Modality, "as the identity stage left it"))
    assert other[0].svg != before_and_after(BEFORE, AFTER, PEOPLE, STOOD)[0].svg
