from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from encoders.space import Modality
from search.gallery import Gallery, Tail
from search.scores import Calibration
from tests.training.drawn_films import CALIBRATIONS, DIMENSION, looks
from training.film_people import FilmPerson
from training.filmed import Looks
from training.same_person import SamePerson, group_people, link_people

SURELY = math.log(9)
SAME = SamePerson(CALIBRATIONS[Modality.FACE], CALIBRATIONS[Modality.VOICE], 2.0)


def shown(whom: int, media: str, voice: int | None = None, **changed: object) -> FilmPerson:
    """Somebody of a film: their face, and the voice of somebody."""
    voices = None if voice is None else looks(voice, f"{media} voice")
    one = FilmPerson(f"{media} {whom}", looks(whom, f"{media} face"), voices, 0.9, media, (0, 1000))
    return replace(one, **changed)  # type: ignore[arg-type]


def linked(people: Sequence[FilmPerson], least: float) -> list[list[int]]:
    """Who possibly is one, each put together of themselves alone."""
    return link_people(people, SAME, least, [[one] for one in people])


def between(first: int, second: int, cosine: float, name: str) -> Looks:
    """A face between two people's, at a cosine to the first."""
    vector = np.zeros(DIMENSION)
    vector[first], vector[second] = cosine, math.sqrt(1 - cosine**2)
    return Looks(vector.astype(np.float32)[None], np.ones(1), (name,))


def test_one_person_in_two_films_is_one_and_two_people_are_two() -> None:
    people = [shown(1, "a", 1), shown(2, "b", 2), shown(1, "c", 1)]
    assert group_people(people, SAME, SURELY) == [[0, 2], [1]]


def test_two_faces_of_one_film_at_one_time_are_never_one() -> None:
    twins = [shown(1, "a", 1, name="left"), shown(1, "a", 1, name="right")]
    assert group_people(twins, SAME, SURELY) == [[0], [1]]
    later = [twins[0], replace(twins[1], span=(1000, 2000))]
    assert group_people(later, SAME, SURELY) == [[0, 1]]


def test_nobody_joins_two_who_were_seen_at_one_time() -> None:
    twins = [shown(1, "a", 1, name="left"), shown(1, "b", 1), shown(1, "a", 1, name="right")]
    assert max(len(group) for group in group_people(twins, SAME, SURELY)) == 2


def test_voices_decide_between_faces_that_are_nearly_alike() -> None:
    near = between(1, 2, 0.81, "near")  # log-odds of 0.5: too little by itself
    one, other = (replace(shown(1, "a", 1), faces=between(1, 2, 1.0, "a")), replace(shown(1, "b", 1), faces=near))
    assert group_people([one, other], SAME, SURELY) == [[0, 1]]
    assert group_people([one, replace(other, voices=None)], SAME, SURELY) == [[0], [1]]
    assert group_people([one, replace(other, voices=looks(4, "b"))], SAME, SURELY) == [[0], [1]]


def test_a_voice_alone_makes_nobody_one() -> None:
    people = [shown(1, "a", 1), replace(shown(2, "b", 1), faces=None)]
    assert group_people(people, SAME, -100.0) == [[0], [1]]


def test_who_is_enrolled_by_one_name_is_one_whatever_they_look_like() -> None:
    people = [shown(1, "", None, person="ann"), shown(2, "a", 2, person="ann"), shown(3, "b", 3, person="bob")]
    assert group_people(people, SAME, SURELY) == [[0, 1], [2]]


def test_two_who_are_enrolled_stay_two_though_they_look_alike() -> None:
    people = [shown(1, "", 1, person="ann"), shown(1, "", 1, name="other", person="bob"), shown(1, "a", 1)]
    groups = group_people(people, SAME, SURELY)
    assert {0, 1} not in [set(group) & {0, 1} for group in groups] and sorted(map(len, groups)) == [1, 2]


def test_the_surest_pair_is_put_together_before_one_that_is_listed_earlier() -> None:
    left, right = (
        replace(shown(1, "a"), name=name, faces=between(1, 2, cosine, name))
        for name, cosine in (("l", 0.9), ("r", 1.0))
    )
    assert group_people([left, shown(1, "b"), right], SAME, SURELY) == [[0], [1, 2]]


def test_a_chain_of_likenesses_is_not_one_person() -> None:
    chain = [replace(shown(0, f"{step}"), faces=between(1, 2, math.cos(0.6 * step), f"{step}")) for step in range(4)]
    least = SAME.face.log_odds(math.cos(0.65))
    assert len(group_people(chain, SAME, least)) > 1


def test_a_chain_of_possible_likenesses_leaves_no_pair_in_two_groups() -> None:
    chain = [replace(shown(0, f"{step}"), faces=between(1, 2, math.cos(0.6 * step), f"{step}")) for step in range(3)]
    least = SAME.face.log_odds(math.cos(0.65))
    assert len(group_people(chain, SAME, least)) == 2
    assert linked([*chain, shown(5, "far")], least) == [[0, 1, 2], [3]]
    assert linked([replace(one, person=one.name) for one in chain], least) == [[0], [1], [2]]


def test_two_of_whom_any_parts_surely_are_two_are_not_linked_however_alike() -> None:
    twin = shown(0, "a", name="a twin")
    first, second = [shown(0, "a"), shown(0, "b")], [shown(0, "c"), twin]
    whole = [first[0], second[0]]
    assert link_people(whole, SAME, SURELY, [first[1:], second]) == [[0, 1]]
    assert link_people(whole, SAME, SURELY, [first, second]) == [[0], [1]]


def test_where_people_of_one_film_are_much_alike_more_is_asked_for() -> None:
    tail = Gallery(0.01, Tail(0.2, 0.3, 0.05, 0.0), likeness=0.0)
    calibration = Calibration(0.5, 50.0, gallery=tail)
    films = [shown(2 * film + side, f"{film}", None, name=f"{film} {side}") for film in range(4) for side in (0, 1)]
    alike = [
        replace(one, faces=between(0, 1 + place % 2, 0.99 if place % 2 else 0.9, one.name))
        for place, one in enumerate(films)
    ]
    far, near = (SamePerson.among(people, calibration, calibration, 2.0).face.threshold for people in (films, alike))
    assert near > far + 0.1


def test_the_more_people_there_are_the_more_is_asked_for() -> None:
    calibration = Calibration(0.5, 50.0, gallery=Gallery(0.01, Tail(0.2, 0.3, 0.05, 0.0)))
    for count, among in ((0, 2), (3, 3), (12, 12)):
        people = [shown(number, f"{number}", number) for number in range(count)]
        same = SamePerson.among(people, calibration, calibration, 2.0)
        assert {same.face.threshold, same.voice.threshold} == {calibration.among(among).threshold}


def test_how_alike_faces_are_does_not_raise_what_is_asked_of_voices() -> None:
    calibration = Calibration(0.5, 50.0, gallery=Gallery(0.01, Tail(0.2, 0.3, 0.05, 0.0), likeness=0.0))
    people = [
        replace(shown(0, f"{number // 2}"), name=f"{number}", faces=between(0, side, 0.9, "face"), voices=heard)
        for number in range(8)
        for side, heard in [(1, between(3, 4, 1.0, "voice")) if number % 2 else (2, between(4, 3, 1.0, "voice"))]
    ]
    same = SamePerson.among(people, calibration, calibration, 2.0)
    assert same.face.threshold == pytest.approx(calibration.among(8, math.atanh(0.9**2)).threshold)
    assert same.voice.threshold == pytest.approx(calibration.among(8, 0.0).threshold)


def test_the_order_of_people_changes_no_group() -> None:
    people = [shown(person, f"{film}", person) for film in range(3) for person in range(5)]
    names = {frozenset(people[place].name for place in group) for group in group_people(people, SAME, SURELY)}
    back = people[::-1]
    assert names == {frozenset(back[place].name for place in group) for group in group_people(back, SAME, SURELY)}
