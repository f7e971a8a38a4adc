from __future__ import annotations

import numpy as np
import pytest

from training.population.people import FACE_LATENTS, VOICE_LATENTS, Reading, invent_people


def test_the_same_seed_invents_the_same_people_and_another_seed_others() -> None:
    assert invent_people(20, 4) == invent_people(20, 4)
    assert not set(invent_people(20, 4)) & set(invent_people(20, 5))


def test_asking_for_more_people_keeps_the_first_ones() -> None:
    assert invent_people(30, 4)[:10] == invent_people(10, 4)


def test_names_occur_once_and_read_as_given_name_and_surname() -> None:
    names = [person.name for person in invent_people(3000, 1)]
    assert len(set(names)) == 3000
    assert all(name.replace(" ", "").isalpha() and name.count(" ") == 1 for name in names)


def test_half_of_the_people_are_of_either_sex() -> None:
    assert [person.sex for person in invent_people(4, 2)] == ["female", "male", "female", "male"]


def test_private_latents_are_standard_normal_and_unrelated_between_face_and_voice() -> None:
    people = invent_people(400, 3)
    face, voice = (np.array([getattr(person, kind) for person in people]) for kind in ("face", "voice"))
    assert face.shape == (400, FACE_LATENTS) and voice.shape == (400, VOICE_LATENTS)
    assert abs(face.mean()) < 0.02 and abs(face.std() - 1) < 0.02
    assert abs(np.corrcoef(face[:, 0], voice[:, 0])[0, 1]) < 0.15


@pytest.mark.parametrize(("count", "seed"), [(-1, 0), (20_001, 0), (1, -1)])
def test_a_count_or_seed_out_of_range_is_refused(count: int, seed: int) -> None:
    with pytest.raises(ValueError, match="got"):
        invent_people(count, seed)


def test_a_reading_turns_normals_into_even_and_bounded_traits() -> None:
    normals = np.random.default_rng(0).standard_normal(4000).tolist()
    shares, options, sizes = Reading(normals), Reading(normals), Reading(normals)
    assert abs(np.mean([shares.uniform() for _ in normals]) - 0.5) < 0.02
    counts = np.bincount([options.choice((0, 1, 2, 3)) for _ in normals])
    assert counts.min() > 900
    assert max(abs(sizes.normal(0.0, 1.0)) for _ in normals) < 2.5
