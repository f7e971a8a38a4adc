"""Pictures of what training made of a few people."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.space import Modality
from search.report_pictures import before_and_after

RANDOM = np.random.default_rng(2)
PEOPLE = {Modality.VOICE: ["ann", "ben"] * 4, Modality.FACE: ["ann", "ben"]}
BEFORE = {Modality.VOICE: RANDOM.normal(size=(8, 6)), Modality.FACE: RANDOM.normal(size=(2, 9))}
AFTER = {Modality.VOICE: RANDOM.normal(size=(8, 4)), Modality.FACE: RANDOM.normal(size=(2, 4))}
STOOD = {Modality.VOICE: "untrained", Modality.FACE: "untrained"}


def test_a_modality_with_samples_enough_is_drawn_before_and_after_in_spaces_of_their_own() -> None:
    voices, together = before_and_after(BEFORE, AFTER, PEOPLE, STOOD)
    assert together.title == "Faces and voices together of 2 people before and after training (t-SNE)"
    assert voices.title == "The voices of 2 people before and after training (PCA)"
    swapped = before_and_after(AFTER, BEFORE, PEOPLE, STOOD)[0]
    assert voices.svg != swapped.svg and voices.svg == before_and_after(BEFORE, AFTER, PEOPLE, STOOD)[0].svg


def test_faces_and_voices_are_laid_out_together_where_they_lie() -> None:
    random = np.random.default_rng(0)
    centres = {"ann": random.normal(size=8), "ben": random.normal(size=8)}
    people = {one: ["ann", "ben"] * 8 for one in Modality}
    after = {one: np.stack([centres[name] + 0.1 * random.normal(size=8) for name in people[one]]) for one in Modality}
    before = {Modality.FACE: random.normal(size=(16, 5)), Modality.VOICE: random.normal(size=(16, 7))}
    seen = {}

    def told(maps, title) -> str:
        seen[title] = maps
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.plots.maps_picture", told)
        before_and_after(before, after, people, STOOD)
    was, serves = seen["Faces and voices together of 2 people before and after training (t-SNE)"].values()
    assert was.modalities == serves.modalities == tuple([Modality.FACE] * 16 + [Modality.VOICE] * 16)
    for drawn, of_what in ((was, was.modalities), (serves, serves.people)):  # modalities apart before, people after
        alike = np.array(of_what)[:, None] == np.array(of_what)
        distances = np.linalg.norm(drawn.places[:, None] - drawn.places[None], axis=2)
        nearest = (distances + 1e9 * np.eye(32)).argmin(axis=1)
        assert alike[np.arange(32), nearest].mean() > 0.9


def test_the_picture_says_what_the_network_was() -> None:
    other = before_and_after(BEFORE, AFTER, PEOPLE, dict.fromkeys(Modality, "as the identity stage left it"))
    assert other[0].svg != before_and_after(BEFORE, AFTER, PEOPLE, STOOD)[0].svg
