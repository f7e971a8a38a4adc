from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from encoders.space import Modality, Space
from search.scores import Calibration
from tests.training.drawn_films import CALIBRATIONS, DIMENSION, enrolled, face, film, portrait, turn
from training.corpora import Split
from training.film_people import MiningSettings
from training.filmed import EnrolledSamples, Film, Looks
from training.mining import Mined, TooFewMined, mine, split_people, vectors_of_people

SPACES = {modality: Space(f"{modality}_identity", DIMENSION, "1" * 64) for modality in Modality}


def mined(films: Sequence[Film], people: Sequence[EnrolledSamples] = ()) -> Mined:
    return mine(films, people, CALIBRATIONS)


def crowd(people: int, films: int = 1, probability: float = 0.95) -> Mined:
    return mined(
        [portrait(person, f"{person} {number}", probability) for person in range(people) for number in range(films)]
    )


def test_somebody_in_two_films_is_one_person_with_the_samples_of_both() -> None:
    found = mined([portrait(1, "a"), portrait(2, "b"), portrait(1, "c")])
    assert [(one.name, one.films) for one in found.people] == [
        ("film_a_face_0", ("a", "c")), ("film_b_face_0", ("b",)),
    ]  # fmt: skip
    assert (len(found.people[0].faces), len(found.people[0].voices)) == (4, 4)
    assert (found.films, found.turns, found.pairs) == (3, 6, 3)


def test_a_face_that_is_mute_in_one_film_adds_to_who_speaks_in_another() -> None:
    found = mined([portrait(1, "a"), film([face(1, 0, media="b"), face(5, 1, media="b")], [], "b")])
    assert [(one.name, len(one.faces), one.films) for one in found.people] == [("film_a_face_0", 4, ("a", "b"))]


def test_somebody_is_as_sure_as_in_the_least_sure_of_their_films() -> None:
    (person,) = mined([portrait(1, "a"), portrait(1, "b", 0.5)]).people
    assert person.films == ("a", "b") and person.confidence == pytest.approx(1 - 0.5**2)


def test_whether_two_voices_are_one_is_said_by_the_calibration_of_voices() -> None:
    seen = (0, 0.95, 0.05)
    two_voices = film([face(1, 0)], [turn(1, 0, 0, seen), turn(1, 0, 2000, seen), turn(2, 1, 4000, seen)])
    (strict,), (lenient,) = (
        mine([two_voices], [], CALIBRATIONS | {Modality.VOICE: Calibration(threshold, 50.0)}).people
        for threshold in (0.8, -0.8)
    )
    assert (len(strict.voices), len(lenient.voices)) == (2, 3)


def test_the_enrolled_who_look_and_sound_alike_are_not_possibly_one() -> None:
    beside = mined([], [enrolled(1, "ann"), enrolled(1, "bob")]).beside
    assert beside == {name: {name} for name in ("enrolled_ann", "enrolled_bob")}


def test_the_enrolled_with_face_and_voice_are_learned_from_alone() -> None:
    found = mined([], [enrolled(1, "ann"), enrolled(2, "bob", voices=False)])
    assert [(one.name, one.enrolled, one.confidence) for one in found.people] == [("enrolled_ann", True, 1.0)]


def test_somebody_enrolled_by_face_gets_the_voice_of_the_films_they_are_in() -> None:
    found = mined([portrait(1, "a"), portrait(2, "b")], [enrolled(1, "ann", voices=False)])
    assert [(one.name, one.enrolled) for one in found.people] == [("enrolled_ann", True), ("film_b_face_0", False)]
    assert len(found.people[0].faces) == 4 and found.people[0].confidence == pytest.approx(0.9975)


def test_films_without_speech_or_faces_stop_nothing() -> None:
    silent, dark, empty = (
        film([face(3, 0, media="s")], [], "s"),
        film([], [turn(3, 0, 0, None)], "d"),
        film([], [], "e"),
    )
    found = mined([silent, portrait(1, "a"), dark, empty])
    assert [one.name for one in found.people] == ["film_a_face_0"] and found.films == 4


def test_the_order_of_films_and_people_changes_nothing() -> None:
    films = [portrait(person % 7, f"{person:02}") for person in range(12)]
    people = [enrolled(person, f"p{person}") for person in (8, 3)]
    forth, back = (mined(some, others) for some, others in ((films, people), (films[::-1], people[::-1])))
    digests = {vectors_of_people(one.people, SPACES).digest for one in (forth, back)}
    assert len(digests) == 1 and forth.beside == back.beside


def test_nobody_is_on_two_sides_and_the_same_people_are_on_the_same_sides_again() -> None:
    sides = split_people(crowd(16, films=2))
    names = {side: {one.name for one in people} for side, people in sides.items()}
    assert not any(one & other for one, other in combinations(names.values(), 2))
    assert {side: len(one) for side, one in names.items()} == {Split.TRAIN: 8, Split.VALIDATION: 4, Split.TEST: 4}
    assert names == {side: {one.name for one in people} for side, people in split_people(crowd(16, films=2)).items()}


def chained(pairs: int, alone: int = 0) -> Mined:
    """A crowd of pairs who possibly are one person each, and of some who surely are nobody else."""
    found = crowd(pairs + alone)
    twins = {one.name: replace(one, name=f"{one.name} again") for one in found.people[:pairs]}
    beside = {one.name: frozenset({one.name}) for one in found.people}
    for name, twin in twins.items():
        beside |= dict.fromkeys((name, twin.name), frozenset({name, twin.name}))
    people = sorted((*found.people, *twins.values()), key=lambda one: one.name)
    return Mined(tuple(people), beside, found.films, found.turns, found.pairs)


def test_whoever_possibly_is_one_person_is_on_one_side() -> None:
    found = chained(16)
    sides = split_people(found)
    place = {one.name: side for side, people in sides.items() for one in people}
    for together in found.beside.values():
        assert len({place[name] for name in together if name in place}) == 1
    assert {side: len(people) for side, people in sides.items()} == {
        Split.TRAIN: 16, Split.VALIDATION: 4, Split.TEST: 4,
    }  # fmt: skip
    held = {one.name for side in (Split.VALIDATION, Split.TEST) for one in sides[side]}
    assert all(len(found.beside[name] & held) == 1 for name in held)  # the other one would be a wrong answer


def test_nobody_is_held_out_who_possibly_is_somebody_else_while_there_are_others() -> None:
    found = chained(5, alone=10)
    held = [one.name for side in (Split.TEST, Split.VALIDATION) for one in split_people(found)[side]]
    assert len(held) == 8 and all(len(found.beside[name]) == 1 for name in held)


def of_confidences(*groups: Sequence[float]) -> Mined:
    """Groups of people who possibly are one person each, as sure as said."""
    (drawn,) = crowd(1).people
    people = [
        [replace(drawn, name=f"{number:02} {place}", confidence=sure) for place, sure in enumerate(group)]
        for number, group in enumerate(groups)
    ]
    beside = {one.name: frozenset(other.name for other in group) for group in people for one in group}
    return Mined(tuple(one for group in people for one in group), beside, 1, 1, 1)


def test_a_fifth_of_those_who_surely_are_different_calibrates_and_a_fifth_is_measured_on() -> None:
    sides = split_people(of_confidences(*[(0.95,)] * 40))
    assert {side: len(people) for side, people in sides.items()} == {
        Split.TRAIN: 24, Split.VALIDATION: 8, Split.TEST: 8,
    }  # fmt: skip


def test_nobody_is_held_out_who_possibly_is_somebody_unsure() -> None:
    sides = split_people(of_confidences(*[(0.95, 0.4), (0.95, 0.95)] * 8))
    held = {one.name[:2] for side in (Split.TEST, Split.VALIDATION) for one in sides[side]}
    assert held == {f"{number:02}" for number in range(1, 16, 2)}


def test_of_those_who_possibly_are_one_the_surest_is_held_out() -> None:
    sides = split_people(of_confidences(*[(0.55, 0.95)] * 16), MiningSettings(measured=0.5))
    assert [one.confidence for side in (Split.TEST, Split.VALIDATION) for one in sides[side]] == [0.95] * 8


def test_people_who_possibly_are_one_do_not_make_enough() -> None:
    with pytest.raises(TooFewMined, match=r"^20 people .*, 10 of them surely different, 20 of them surely paired"):
        split_people(chained(10))


def test_vectors_say_who_possibly_is_one_person() -> None:
    found = chained(2, alone=2)
    vectors, apart = (vectors_of_people(found.people, SPACES, beside) for beside in (found.beside, None))
    assert vectors.kin is not None and vectors.kin.tolist() == [0, 0, 1, 1, 2, 3] and vectors.apart == 4
    assert apart.kin is None and apart.apart == 6 and apart.digest != vectors.digest


def test_people_who_are_nearly_one_are_known_to_be_possibly_one() -> None:
    films = [portrait(1, "a"), portrait(1, "b")]
    apart = mine(films, [], CALIBRATIONS, MiningSettings(same_person=1.0, possibly_same=0.1))
    assert [len(apart.beside[one.name]) for one in apart.people] == [2, 2]


def test_nobody_is_measured_on_whose_face_and_voice_are_not_surely_one() -> None:
    unsure = mined([portrait(person, f"{person:02}", 0.95 if person < 10 else 0.4) for person in range(14)])
    sides = split_people(unsure)
    assert all(one.confidence > 0.9 for side in (Split.TEST, Split.VALIDATION) for one in sides[side])
    assert any(one.confidence < 0.7 for one in sides[Split.TRAIN])


def half_sure(person: int, others: float) -> Film:
    """A film in which somebody surely speaks one turn, and two more with another probability."""
    turns = [turn(person, 0, 2000 * place, (0, sure, 1 - sure), media=f"{person:02}")
             for place, sure in enumerate((0.95, others, others))]  # fmt: skip
    return film([face(person, 0, media=f"{person:02}")], turns, f"{person:02}")


def test_whoever_is_measured_on_is_so_by_what_surely_is_their_voice() -> None:
    sides = split_people(mined([half_sure(person, 0.5) for person in range(14)]))
    for side, people in sides.items():
        for one in people:
            kept = list(one.voices.evidence)
            assert kept == [
                f"{one.name[5:7]} turn {start} 0" for start in ((0, 2000, 4000) if side is Split.TRAIN else (0,))
            ]
            assert len(one.faces) == 2
    assert {side: len(one) for side, one in sides.items()} == {Split.TRAIN: 6, Split.VALIDATION: 4, Split.TEST: 4}


def test_somebody_of_whom_no_turn_is_sure_is_not_measured_on() -> None:
    films = [half_sure(person, 0.95) for person in range(12)]
    vague = film(
        [face(12, 0, media="12")], [turn(12, 0, 2000 * place, (0, 0.65, 0.35), media="12") for place in range(3)], "12"
    )
    found = mined([*films, vague])
    unclear = next(one for one in found.people if one.films == ("12",))
    assert unclear.confidence > 0.95 and unclear.clear is None and len(unclear.voices) == 3
    for number in range(12, 40):  # whatever the order of names gives
        renamed = replace(unclear, name=f"film_{number}_face_0")
        others = tuple(one for one in found.people if one is not unclear)
        beside = {one.name: frozenset({one.name}) for one in (*others, renamed)}
        sides = split_people(replace(found, people=(*others, renamed), beside=beside))
        assert renamed.name in {one.name for one in sides[Split.TRAIN]}


def test_what_somebody_is_enrolled_with_is_surely_theirs() -> None:
    ann = enrolled(1, "ann")
    doubtful = turn(1, 0, 2000, (0, 0.5, 0.5))
    known = replace(ann, voices=Looks.joined([doubtful.sound, *([ann.voices] if ann.voices else [])]))
    one_film = film([face(1, 0)], [turn(1, 0, 0, (0, 0.95, 0.05)), doubtful, turn(1, 0, 4000, (0, 0.5, 0.5))])
    (person,) = mined([one_film], [known]).people
    assert person.clear is not None and person.confidence == 1.0
    assert set(person.voices.evidence) - set(person.clear.evidence) == {"a turn 4000 0"}


def test_two_who_are_seen_at_one_time_are_not_possibly_one_however_alike() -> None:
    twins = film([face(1, 0), face(1, 1)], [
        turn(person, speaker, 2000 * speaker, (speaker, 0.95, 0.05)) for speaker, person in enumerate((1, 2))
    ])  # fmt: skip
    found = mined([twins, portrait(3, "b")])
    assert [len(found.beside[one.name]) for one in found.people] == [1, 1, 1]
    apart = [replace(one, faces=(one.faces[number],)) for number, one in enumerate((twins, replace(twins, media="b")))]
    later = mine(apart, [], CALIBRATIONS, MiningSettings(same_person=1.0))
    assert [len(later.beside[one.name]) for one in later.people] == [2, 2]


@pytest.mark.parametrize(("people", "probability"), [(11, 0.95), (16, 0.4)])
def test_too_few_people_is_one_sentence(people: int, probability: float) -> None:
    with pytest.raises(
        TooFewMined,
        match=rf"^{people} people .* in {people} films .* {people} of them surely diff.* at least 12 .*ingest films",
    ):
        split_people(crowd(people, probability=probability))


def test_vectors_are_of_everybody_in_order_with_weights() -> None:
    people = crowd(5).people
    vectors = vectors_of_people(people[::-1], SPACES)
    assert vectors.identities == tuple(one.name for one in people) and vectors.sexes == ("",) * 5
    assert vectors.faces.shape == (10, DIMENSION) and vectors.voice_people.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert vectors.voice_weights is not None and np.allclose(vectors.voice_weights, 0.95)
    assert np.allclose(vectors.voices[2:4], people[1].voices.vectors)


def test_a_changed_weight_is_other_data() -> None:
    one, other = (vectors_of_people(crowd(5, probability=sure).people, SPACES).digest for sure in (0.95, 0.96))
    assert one != other
