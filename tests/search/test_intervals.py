"""Intervals against the same draws made the long way, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from search import intervals, metrics

TRIAL = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4).map(lambda value: value / 4))


def both_kinds(trials: list[tuple[int, int, float]]) -> bool:
    same = {first == second for first, second, _ in trials}
    return same == {True, False}


@settings(max_examples=60, deadline=None)
@given(st.lists(TRIAL, min_size=2, max_size=25).filter(both_kinds))
def test_a_draw_is_the_figure_of_pairs_repeated_as_often_as_their_people_meet(trials) -> None:
    first, second, scores = (np.array(column) for column in zip(*trials, strict=True))
    drawn = intervals.verification_draws(scores, intervals.Pairs(first, second), draws=20, seed=4)
    people, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, other = place[: len(first)], place[len(first) :]
    for draw, weights in enumerate(intervals.resampled_people(len(people), draws=20, seed=4)):
        times = np.where(one == other, weights[one], weights[one] * weights[other])
        labels, repeated = np.repeat(one == other, times), np.repeat(scores, times)
        if labels.all() or not labels.any():
            assert np.isnan([drawn.auc[draw], drawn.eer[draw]]).all()
            continue
        assert drawn.auc[draw] == pytest.approx(roc_auc_score(labels, repeated))
        expected = metrics.equal_error_rate(repeated[labels], repeated[~labels])
        assert drawn.eer[draw] == pytest.approx(expected, abs=1e-9)


def test_a_draw_takes_as_many_people_as_there_are_and_depends_on_the_seed_only() -> None:
    weights = intervals.resampled_people(7, draws=50, seed=1)
    assert set(weights.sum(axis=1)) == {7} and weights.min() == 0 and weights.max() > 1
    assert np.array_equal(weights, intervals.resampled_people(7, draws=50, seed=1))
    assert not np.array_equal(weights, intervals.resampled_people(7, draws=50, seed=2))


def pairs_of(people: int, random: np.random.Generator) -> intervals.Pairs:
    """20 genuine and 20 impostor pairs of each person."""
    first = np.repeat(np.arange(people), 40)
    second = np.where(np.arange(len(first)) % 40 < 20, first, (first + random.integers(1, people, len(first))) % people)
    return intervals.Pairs(first, second)


def test_the_interval_of_an_auc_is_wider_when_people_differ() -> None:
    random = np.random.default_rng(0)
    pairs = pairs_of(15, random)
    noise = random.normal(size=len(pairs.first))
    alike = noise + pairs.genuine
    unlike = noise + pairs.genuine * (random.normal(size=15) * 3)[pairs.first]
    widths = [
        interval.high - interval.low
        for interval in (intervals.percentiles(intervals.verification_draws(one, pairs).auc) for one in (alike, unlike))
    ]
    assert widths[1] > 3 * widths[0]


def test_two_models_compared_on_the_same_draws_differ_more_surely_than_their_intervals_say() -> None:
    random = np.random.default_rng(1)
    pairs = pairs_of(15, random)
    worse = random.normal(size=len(pairs.first)) + pairs.genuine * (1 + random.normal(size=15))[pairs.first]
    better = worse + 0.2 * pairs.genuine
    area, rate = intervals.paired_verification_difference(better, worse, pairs)
    alone = intervals.percentiles(intervals.verification_draws(worse, pairs).auc)
    assert area.interval.low > 0 > rate.interval.high
    assert area.interval.low <= area.difference <= area.interval.high < alone.high - alone.low


def test_a_model_does_not_differ_from_itself() -> None:
    pairs = pairs_of(5, np.random.default_rng(2))
    scores = np.linspace(0, 1, len(pairs.first))
    nothing = intervals.Difference(0.0, intervals.Interval(0.0, 0.0))
    assert intervals.paired_verification_difference(scores, scores, pairs, draws=20) == (nothing, nothing)
    assert intervals.paired_difference(scores, scores, pairs.first, draws=20) == nothing


def test_a_paired_difference_is_judged_on_the_probes_that_both_answered() -> None:
    told = intervals.paired_difference([0.5, 0.9, np.nan], [0.25, 0.65, 0.1], ["a", "b", "c"], draws=20)
    assert told.difference == pytest.approx(0.25)
    assert told.interval.low == pytest.approx(0.25) and told.interval.high == pytest.approx(0.25)


@pytest.mark.parametrize(
    "call",
    [
        lambda: intervals.bootstrap_interval([np.nan], ["a"]),
        lambda: intervals.bootstrap_interval([0.1, 0.2], ["a"]),
        lambda: intervals.Pairs(np.array([1, 2]), np.array([1, 2])),
        lambda: intervals.Pairs(np.array([1, 2]), np.array([2])),
        lambda: intervals.verification_draws([0.1, np.nan], intervals.Pairs(np.array([1, 2]), np.array([1, 1]))),
        lambda: intervals.percentiles(np.array([np.nan])),
    ],
)
def test_what_has_no_interval_is_an_error(call) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()


def test_resampling_people_gives_a_wider_interval_than_resampling_samples() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 25)
    values = random.normal(size=20)[people] + 0.1 * random.normal(size=500)
    wide = intervals.bootstrap_interval(values, people, seed=1)
    narrow = intervals.bootstrap_interval(values, np.arange(500), seed=1)
    assert wide.low < values.mean() < wide.high
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert wide == intervals.bootstrap_interval(values, people, seed=1)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    people = np.repeat(np.arange(40), 3)
    hits = 0
    for trial in range(120):
        one = intervals.bootstrap_interval(random.normal(size=40)[people], people, draws=200, seed=trial)
        hits += one.low <= 0 <= one.high
    assert 0.86 <= hits / 120 <= 1.0
