from __future__ import annotations

import numpy as np
import pytest

from training.population.people import FACE_LATENTS, VOICE_LATENTS, Reading, Stream, invent_people


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


def test_shared_latents_are_standard_normal_without_bounds_and_independent() -> None:
    shared = np.array([person.shared.as_array() for person in invent_people(4000, 3, Stream.TRAINING)])[:, 1:]
    assert np.allclose(shared.mean(0), 0, atol=0.06) and np.allclose(shared.std(0), 1, atol=0.04)
    assert np.abs(shared).max() > 3.2
    assert np.abs(np.corrcoef(shared.T) - np.eye(5)).max() < 0.06


def test_no_person_of_one_stream_is_in_another_whatever_the_seeds() -> None:
    streams = [Stream.TEST, Stream.VALIDATION, Stream.TRAINING]
    seeds = [{one.seed for seed in range(3) for one in invent_people(300, seed, stream)} for stream in streams]
    assert not (seeds[0] & seeds[1] or seeds[0] & seeds[2] or seeds[1] & seeds[2])
    latents = {invent_people(1, 7, stream)[0].shared for stream in Stream}
    assert len(latents) == 4


def test_identities_occur_once_and_are_name_and_eight_digits() -> None:
    people = invent_people(3000, 0, Stream.TRAINING)
    assert len({person.identity for person in people}) == len({person.seed for person in people}) == 3000
    name, _, digits = people[0].identity.rpartition("_")
    assert name == people[0].name.replace(" ", "_") and digits == f"{people[0].seed:08x}" and len(digits) == 8


def test_a_seed_that_is_taken_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.population.people._STREAM_BITS", 4)  # 16 seeds for 16 people
    assert sorted(person.seed for person in invent_people(16, 0, Stream.TEST)) == list(range(16, 32))


@pytest.mark.parametrize(("count", "seed"), [(-1, 0), (20_001, 0), (1, -1), (1, 2**32)])
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
