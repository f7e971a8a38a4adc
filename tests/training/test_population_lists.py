from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from encoders.space import Modality
from search.metrics import auc
from training.population.lists import CANDIDATES, KINDS, PAIRS, SAME_SEX, TRIALS, Lists, draw_lists, write_lists
from training.population.splits import PopulationSpec

SPEC = PopulationSpec(test_people=6, test_samples=2, validation_people=4, validation_samples=2)
QUESTIONS = [(modality, kind) for modality in Modality for kind in KINDS]


@pytest.fixture(scope="module")
def lists() -> Lists:
    return draw_lists(PopulationSpec().test)


@pytest.mark.parametrize("kind", KINDS)
def test_verification_has_ten_thousand_different_pairs_half_of_them_genuine(lists: Lists, kind: str) -> None:
    pairs = lists.verification[kind]
    assert len({(pair.voice.path, pair.face.path) for pair in pairs}) == len(pairs) == PAIRS == 10_000
    assert sum(pair.genuine for pair in pairs) == 5_000
    assert all(pair.voice.modality is Modality.VOICE and pair.face.modality is Modality.FACE for pair in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_stand_in_random_order(lists: Lists, kind: str) -> None:
    labels = np.array([pair.genuine for pair in lists.verification[kind]])
    assert abs(int((labels[1:] == labels[:-1]).sum()) - 5_000) < 250
    assert abs(int(labels[:5_000].sum()) - 2_500) < 150


def test_same_sex_pairs_are_of_one_sex_and_random_ones_of_either(lists: Lists) -> None:
    same = {kind: [p.voice.person.sex == p.face.person.sex for p in lists.verification[kind]] for kind in KINDS}
    assert all(same[SAME_SEX])
    assert 0.72 < np.mean(same["U"]) < 0.78  # all genuine ones, and half of the others


@pytest.mark.parametrize("kind", KINDS)
def test_how_often_a_sample_occurs_betrays_nothing(lists: Lists, kind: str) -> None:
    pairs = lists.verification[kind]
    for modality in ("voice", "face"):
        count = Counter((getattr(pair, modality).path, pair.genuine) for pair in pairs)
        assert set(count.values()) == {5} and len(count) == 2_000


@pytest.mark.parametrize(("modality", "kind"), QUESTIONS)
def test_a_trial_has_the_right_one_first_and_nine_different_other_people(
    lists: Lists, modality: Modality, kind: str
) -> None:
    trials = lists.matching[modality, kind]
    assert len(trials) == TRIALS == 2_000
    for trial in trials:
        people = [entry.identity for entry in trial.candidates]
        assert people[0] == trial.probe.identity and len(set(people)) == CANDIDATES == 10
        assert trial.probe.modality is modality
        assert {entry.modality for entry in trial.candidates} == {modality.other}
        assert kind != SAME_SEX or {entry.person.sex for entry in trial.candidates} == {trial.probe.person.sex}


@pytest.mark.parametrize(("modality", "kind"), QUESTIONS)
def test_every_sample_asks_twice_with_another_right_answer(lists: Lists, modality: Modality, kind: str) -> None:
    trials = lists.matching[modality, kind]
    assert set(Counter(trial.probe.path for trial in trials).values()) == {2}
    assert len({(trial.probe.path, trial.candidates[0].path) for trial in trials}) == 2_000


def test_people_are_wrong_answers_about_equally_often(lists: Lists) -> None:
    wrong = [one.identity for trial in lists.matching[Modality.VOICE, "U"] for one in trial.candidates[1:]]
    assert len(set(wrong)) == 200 and max(Counter(wrong).values()) < 1.5 * len(wrong) / 200


def test_everything_is_retrieved(lists: Lists) -> None:
    assert len({entry.path for entry in (*lists.voices, *lists.faces)}) == 2_000
    assert {entry.modality for entry in lists.voices} == {Modality.VOICE}


def test_a_scorer_of_frequencies_or_of_nothing_is_at_chance(lists: Lists) -> None:
    pairs = lists.verification["U"]
    names = sorted({pair.voice.path for pair in pairs})
    score = dict(zip(names, np.random.default_rng(0).random(len(names)), strict=True))
    genuine, impostor = ([score[p.voice.path] for p in pairs if p.genuine is label] for label in (True, False))
    assert auc(genuine, impostor) == pytest.approx(0.5, abs=1e-12)


def test_the_same_split_gives_the_same_lists_and_another_split_others() -> None:
    assert draw_lists(SPEC.test) == draw_lists(SPEC.test)
    assert draw_lists(SPEC.test).verification != draw_lists(SPEC.validation).verification


def test_a_small_population_has_shorter_lists_and_fewer_candidates() -> None:
    small = draw_lists(SPEC.test)
    assert [len(small.verification[kind]) for kind in KINDS] == [2 * 6 * 2 * 2] * 2
    counts = {kind: {len(trial.candidates) for trial in small.matching[Modality.FACE, kind]} for kind in KINDS}
    assert counts == {"U": {6}, "G": {3}}


def test_the_files_have_the_published_formats(tmp_path: Path) -> None:
    small = draw_lists(SPEC.test)
    write_lists(tmp_path, small)
    header, first, *_ = (tmp_path / "veriflist/veriflist_test_random_unseenunheard.txt").read_text().splitlines()
    assert header == "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"
    row, voice_id, face_id, label, voice, face = first.split(",")
    pair = small.verification["U"][0]
    assert (row, label, voice, face) == ("1", str(int(pair.genuine)), pair.voice.path, pair.face.path)
    assert (voice_id == face_id) is pair.genuine and {voice_id, face_id} <= set("123456")
    trial = small.matching[Modality.FACE, "G"][0]
    line = (tmp_path / "matching/matching_f2v_G.csv").read_text().splitlines()[0]
    assert line == " ".join([trial.probe.path, *(entry.path for entry in trial.candidates)])
    retrieval = (tmp_path / "retrieval/jpg_all.csv").read_text().splitlines()
    assert retrieval[0] == "person\tjpg" and len(retrieval) == 13
    assert retrieval[1] == f"{small.faces[0].identity}\t{small.faces[0].path}"
