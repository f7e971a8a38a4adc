from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.archive import NO_SPAN
from tests.training.drawn_films import enrolled, face, film, portrait, turn
from training.film_people import FilmPerson, MiningSettings, enrolled_person, people_of_film
from training.filmed import Film, FilmedTurn


def found(one: Film, settings: MiningSettings | None = None) -> list[FilmPerson]:
    return people_of_film(one, lambda a, b: float(a @ b) > 0.8, settings)


def speaking(one: Film, settings: MiningSettings | None = None) -> dict[str, FilmPerson]:
    return {person.name[-1]: person for person in found(one, settings) if person.voices is not None}


def lasting(one: FilmedTurn, milliseconds: int) -> FilmedTurn:
    return replace(one, span=(one.span[0], one.span[0] + milliseconds))


def said(person: FilmPerson) -> list[str]:
    return list(person.voices.evidence) if person.voices else []


def test_the_face_that_speaks_and_the_voice_of_its_turns_are_one_person() -> None:
    (person,) = found(portrait(3, "a"))
    assert person.faces is not None and len(person.faces) == 2 and said(person) == ["a turn 0 0", "a turn 2000 0"]
    assert person.confidence == pytest.approx(1 - 0.05**2)


def test_a_mute_face_has_no_voice() -> None:
    both = film([face(1, 0), face(2, 1)], [turn(1, 0, 0, (0, 0.9, 0.05))])
    assert [(one.name, one.voices is None) for one in found(both)] == [
        ("film_a_face_0", False),
        ("film_a_face_1", True),
    ]


def test_a_pair_that_is_not_sure_enough_is_none() -> None:
    unsure = film([face(1, 0)], [turn(1, 0, 0, (0, 0.4, 0.6))])
    assert not speaking(unsure)
    assert found(unsure, MiningSettings(least_confidence=0.3))[0].voices is not None


def test_turns_of_one_speaker_support_each_other() -> None:
    alone = film([face(1, 0)], [turn(1, 0, 0, (0, 0.6, 0.4))])
    twice = film([face(1, 0)], [turn(1, 0, 0, (0, 0.6, 0.4)), turn(1, 0, 2000, (0, 0.6, 0.4))])
    assert (found(alone)[0].confidence, found(twice)[0].confidence) == (pytest.approx(0.6), pytest.approx(0.84))


def test_a_turn_of_the_speaker_off_screen_counts_less_and_one_whose_face_is_mute_not_at_all() -> None:
    turns = [turn(1, 0, 0, (0, 0.95, 0.05)), turn(1, 0, 2000, (None, 0.0, 1.0)), turn(1, 0, 4000, (0, 0.05, 0.95))]
    (person,) = speaking(film([face(1, 0)], turns)).values()
    assert said(person) == ["a turn 0 0", "a turn 2000 0"]
    assert person.voices is not None and person.voices.weights[1] < person.voices.weights[0]


def test_who_else_speaks_in_a_turn_takes_from_its_weight() -> None:
    turns = [turn(1, 0, 0, (0, 0.95, 0.05)), turn(1, 0, 2000, (0, 0.95, 0.05), overlapped=0.5)]
    (person,) = speaking(film([face(1, 0)], turns)).values()
    assert person.voices is not None and person.voices.weights[1] == pytest.approx(person.voices.weights[0] / 2)


def test_a_speaker_whom_two_faces_surely_speak_is_two_people() -> None:
    turns = [turn(1, 0, 0, (0, 0.95, 0.05)), turn(1, 0, 2000, (1, 0.95, 0.05)), turn(1, 0, 4000, (1, 0.3, 0.7))]
    two = speaking(film([face(1, 0), face(2, 1)], turns))
    assert {name: said(one) for name, one in two.items()} == {"0": ["a turn 0 0"], "1": ["a turn 2000 0"]}


def test_a_speaker_whom_two_faces_claim_is_less_sure_by_what_the_other_face_has() -> None:
    claimed = film([face(1, 0), face(2, 1)], [turn(1, 0, 0, (0, 0.7, 0.3)), turn(1, 0, 2000, (1, 0.6, 0.4))])
    two = speaking(claimed, MiningSettings(least_confidence=0.3))
    assert {name: one.confidence for name, one in two.items()} == {"0": pytest.approx(0.7 * 0.7 / (0.7 + 0.6))}


def test_the_face_that_speaks_longer_is_the_speaker_s() -> None:
    longer = lasting(turn(1, 0, 0, (0, 0.6, 0.4)), 9000)
    claimed = film([face(1, 0), face(2, 1)], [longer, *(turn(1, 0, start, (1, 0.7, 0.3)) for start in (9000, 11000))])
    assert set(speaking(claimed, MiningSettings(least_confidence=0.3))) == {"0"}


def test_a_speaker_sounds_as_in_the_longest_of_their_turns() -> None:
    seen = (0, 0.9, 0.1)
    own = [lasting(turn(1, 0, 0, seen), 9000), turn(2, 0, 9000, seen), turn(2, 0, 11000, seen)]
    (person,) = speaking(film([face(1, 0)], [*own, turn(1, 1, 13000, seen)])).values()
    assert said(person)[-1] == "a turn 13000 0"


def test_two_speakers_of_one_sound_whom_one_face_speaks_are_one_person() -> None:
    turns = [turn(1, 0, 0, (0, 0.9, 0.1)), turn(1, 1, 2000, (0, 0.9, 0.1))]
    assert len(said(speaking(film([face(1, 0)], turns))["0"])) == 2


def test_two_speakers_of_another_sound_whom_one_face_speaks_make_it_unsure_which_is_its_own() -> None:
    alone = [turn(1, 0, 0, (0, 0.95, 0.05)), turn(1, 0, 2000, (0, 0.95, 0.05))]
    (person,) = speaking(film([face(1, 0)], [*alone, turn(2, 1, 4000, (0, 0.9, 0.1))])).values()
    assert said(person) == ["a turn 0 0", "a turn 2000 0"]
    assert person.confidence < 0.7 < found(film([face(1, 0)], alone))[0].confidence


def named(one: FilmedTurn, person: str) -> FilmedTurn:
    return replace(one, person=person)


def test_a_face_has_the_name_of_the_turns_that_it_speaks_unless_that_is_somebody_else_s() -> None:
    turns = [named(turn(1, 0, 0, (0, 0.95, 0.05)), "ann"), turn(1, 0, 2000, (0, 0.95, 0.05))]
    (person,) = found(film([face(1, 0)], turns))
    assert person.person == "ann" and person.voices is not None
    # Bob's face does not speak as Ann, nor does a face beside Ann's own; Ann may well be another track later
    (bob,) = found(film([face(1, 0, enrolled="bob")], turns))
    assert (bob.person, bob.voices, bob.confidence) == ("bob", None, 0.0)
    other, ann = found(film([face(1, 0), face(2, 1, enrolled="ann")], turns))
    assert (other.person, other.voices, ann.person, ann.voices) == ("", None, "ann", None)
    later = found(film([face(1, 0), face(2, 1, (9000, 12000), enrolled="ann")], turns))
    assert [(one.person, one.voices is None) for one in later] == [("ann", False), ("ann", True)]
    for beside in ("bob", "ann"):  # a face that is Ann's is so whoever else is called Ann
        own = found(film([face(1, 0, enrolled="ann"), face(2, 1, enrolled=beside)], turns))
        assert [(one.person, one.voices is None) for one in own] == [("ann", False), (beside, True)]


def test_only_turns_that_the_face_is_seen_to_speak_name_it() -> None:
    own = [turn(1, 0, 0, (0, 0.95, 0.05)), turn(1, 0, 2000, (0, 0.95, 0.05))]
    others = {
        "another face's": turn(1, 0, 4000, (1, 0.79, 0.2)),  # not sure enough to be two people
        "off screen": turn(1, 0, 4000, (None, 0.0, 1.0)),
    }
    for one in others.values():
        faces = [face(1, 0), face(2, 1)]
        for enrolled_as in ("", "ann"):
            shown = film([replace(faces[0], person=enrolled_as), faces[1]], [*own, named(one, "bob")])
            (person,) = speaking(shown, MiningSettings(least_confidence=0.3)).values()
            assert (person.person, said(person)) == (enrolled_as, ["a turn 0 0", "a turn 2000 0"])
    away = film([face(1, 0, enrolled="ann")], [*own, named(others["off screen"], "ann")])
    assert len(said(speaking(away)["0"])) == 3


def test_turns_of_two_who_are_enrolled_are_no_one_s() -> None:
    seen = (0, 0.95, 0.05)
    (person,) = found(film([face(1, 0)], [named(turn(1, 0, 0, seen), "ann"), named(turn(1, 0, 2000, seen), "bob")]))
    assert (person.person, person.voices) == ("", None)


def test_turns_that_are_not_surely_the_person_s_are_doubtful() -> None:
    turns = [turn(1, 0, 0, (0, 0.95, 0.05)), turn(1, 0, 2000, (0, 0.6, 0.4)), turn(1, 0, 4000, (0, 0.95, 0.05), 0.3)]
    (person,) = found(film([face(1, 0)], turns))
    assert len(said(person)) == 3 and person.doubtful == {"a turn 2000 0", "a turn 4000 0"}
    (lenient,) = found(film([face(1, 0)], turns), MiningSettings(measured=0.5))
    assert lenient.doubtful == frozenset()


def test_quality_and_confidence_weigh_the_faces() -> None:
    (person,) = found(portrait(3, "a", 0.7))
    assert person.faces is not None and np.allclose(person.faces.weights, 1 - 0.3**2)


def test_a_film_without_speech_has_mute_faces_only() -> None:
    assert [one.voices for one in found(film([face(1, 0)], []))] == [None]
    assert found(film([], [turn(1, 0, 0, None)])) == []


def test_what_was_never_judged_gives_no_pair() -> None:
    assert not speaking(film([face(1, 0)], [turn(1, 0, 0, None)]))


def test_faces_at_one_time_and_people_of_other_names_are_two() -> None:
    first, second, later = found(film([face(1, 0), face(2, 1), face(1, 2, (9000, 12000))], []))
    assert first.excludes(second) and not first.excludes(later) and not first.excludes(first)
    sister, brother, elsewhere = (
        found(film([face(number, number, NO_SPAN, media=media)], [], media))[0]
        for number, media in ((1, "photo"), (2, "photo"), (1, "another"))
    )
    assert sister.excludes(brother) and not sister.excludes(elsewhere) and not sister.excludes(sister)
    ann, bob = (enrolled_person(enrolled(1, name)) for name in ("ann", "bob"))
    assert ann.excludes(bob) and not ann.excludes(first)


@pytest.mark.parametrize("wrong", [{"least_confidence": 1.1}, {"possibly_same": 0.95}, {"most_voice_log_odds": -1.0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        MiningSettings(**wrong)
