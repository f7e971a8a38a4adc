"""The diarisation error rate: by hand, and against every possible matching."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from search.diarisation import DiarisationError, diarisation_error

DIALOGUE = [(0.0, 10.0, "Ada"), (10.0, 20.0, "Ben")]


def parts(error: DiarisationError) -> tuple[float, float, float, float]:
    return tuple(round(one, 9) for one in (error.missed, error.false_alarm, error.confusion, error.total))


def test_the_truth_under_other_names_has_no_error():
    error = diarisation_error(DIALOGUE, [(0, 10, 7), (10, 20, 3)])
    assert parts(error) == (0, 0, 0, 20 - 4 * 0.25)
    assert error.rate == 0


def test_speech_that_is_not_answered_is_missed():
    assert parts(diarisation_error(DIALOGUE, [(0, 10, 1)], collar=0)) == (10, 0, 0, 20)


def test_an_answer_where_nobody_speaks_is_a_false_alarm():
    error = diarisation_error(DIALOGUE, [(0, 10, 1), (10, 25, 2)], collar=0)
    assert parts(error) == (0, 5, 0, 20)
    assert error.rate == 0.25


def test_two_people_under_one_label_confuse_the_lesser():
    assert parts(diarisation_error([(0, 12, "Ada"), (12, 20, "Ben")], [(0, 20, 1)], collar=0)) == (0, 0, 8, 20)


def test_one_person_under_two_labels_keeps_the_greater():
    assert parts(diarisation_error([(0, 20, "Ada")], [(0, 13, 1), (13, 20, 2)], collar=0)) == (0, 0, 7, 20)


def test_the_matching_that_shares_the_most_in_all_is_found_where_greed_does_not():
    # Greed takes Ada = 1 (6 s) and leaves Ben 2 s with 2; Ada = 2 and Ben = 1 share 5 + 5.
    reference = [(0, 11, "Ada"), (11, 18, "Ben")]
    answer = [(0, 6, 1), (6, 11, 2), (11, 16, 1), (16, 18, 2)]
    assert parts(diarisation_error(reference, answer, collar=0)) == (0, 0, 8, 18)


def test_each_of_two_who_speak_at_once_counts():
    reference = [(0, 10, "Ada"), (6, 10, "Ben")]
    assert parts(diarisation_error(reference, [(0, 10, 1)], collar=0)) == (4, 0, 0, 14)
    assert parts(diarisation_error(reference, [(0, 10, 1), (6, 10, 2)], collar=0)) == (0, 0, 0, 14)


def test_an_overlap_answered_by_a_wrong_second_voice_is_confusion():
    reference = [(0, 10, "Ada"), (6, 10, "Ben"), (10, 30, "Cleo")]
    answer = [(0, 10, 1), (6, 10, 3), (10, 30, 3)]
    assert parts(diarisation_error(reference, answer, collar=0)) == (0, 0, 4, 34)


def test_the_collar_forgives_what_is_near_a_border_of_the_truth():
    late = [(0.2, 10.2, 1), (10.2, 20.2, 2)]
    assert diarisation_error(DIALOGUE, late).rate == 0
    assert parts(diarisation_error(DIALOGUE, late, collar=0.1)) == (0.1, 0.1, 0.1, 19.6)


def test_the_collar_forgives_nothing_at_borders_of_the_answer():
    assert parts(diarisation_error([(0, 20, "Ada")], [(0, 5, 1), (5.2, 20, 1)])) == (0.2, 0, 0, 19.5)


def test_one_speakers_stretches_that_overlap_count_once():
    assert parts(diarisation_error([(0, 6, "Ada"), (4, 10, "Ada")], [(0, 10, 1), (2, 3, 1)], collar=0)) == (0, 0, 0, 10)


def test_without_speech_the_rate_is_zero_or_infinite():
    assert diarisation_error([], []).rate == 0
    assert diarisation_error([], [(0, 1, 1)]) == DiarisationError(0, 1, 0, 0)
    assert diarisation_error([], [(0, 1, 1)]).rate == math.inf


@pytest.mark.parametrize("stretch", [(2.0, 1.0, "Ada"), (0.0, math.inf, "Ada"), (math.nan, 1.0, "Ada")])
def test_a_stretch_that_is_none_is_refused(stretch):
    with pytest.raises(ValueError, match="start <= end"):
        diarisation_error([stretch], [])


def test_a_negative_collar_is_refused():
    with pytest.raises(ValueError, match="collar"):
        diarisation_error(DIALOGUE, DIALOGUE, collar=-0.1)


TENTHS = st.integers(0, 60)
STRETCHES = st.lists(
    st.tuples(TENTHS, st.integers(1, 20), st.integers(0, 3)).map(lambda one: (one[0], one[0] + one[1], one[2])),
    max_size=10,
)


def by_counting(reference, answer, collar):
    """The same in steps of a tenth, with every matching tried: the definition, read aloud."""
    frames = np.arange(-20, 120) + 0.5
    scored = [all(abs(frame - border) > collar for one in reference for border in one[:2]) for frame in frames]
    said = [[{who for s, e, who in side if s <= f < e} for f in frames] for side in (reference, answer)]
    pairs = [(truth, told) for truth, told, counts in zip(*said, scored, strict=True) if counts]
    missed = sum(max(0, len(truth) - len(told)) for truth, told in pairs)
    false = sum(max(0, len(told) - len(truth)) for truth, told in pairs)
    least = min(
        sum(min(len(truth), len(told)) - sum(mapping[one] in told for one in truth) for truth, told in pairs)
        for mapping in permutations(range(4))
    )
    return missed, false, least, sum(len(truth) for truth, _ in pairs)


@given(STRETCHES, STRETCHES, st.integers(0, 5))
def test_it_is_what_counting_moments_under_every_matching_gives(reference, answer, collar):
    error = diarisation_error(reference, answer, collar)
    assert parts(error) == pytest.approx(by_counting(reference, answer, collar), abs=1e-9)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12))
def test_the_matching_of_many_is_the_assignment_of_scipy(seed, people, labels):
    shared = np.random.default_rng(seed).integers(0, 6, (people, labels)).astype(float)
    # One second apart, so that nothing overlaps: person i is answered as j for shared[i, j] seconds.
    lengths = shared.ravel()
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    reference = [(s, s + n, f"p{k // labels}") for k, (s, n) in enumerate(zip(starts, lengths, strict=True))]
    answer = [(s, s + n, k % labels) for k, (s, n) in enumerate(zip(starts, lengths, strict=True))]
    best = shared[linear_sum_assignment(-shared)].sum()
    error = diarisation_error(reference, answer, collar=0)
    assert error.total - error.confusion == pytest.approx(best)
