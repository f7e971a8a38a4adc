"""The metrics against scikit-learn and against definitions written out, with ties throughout."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from search import metrics

# Few distinct scores, so that ties are the rule.
SCORES = st.integers(0, 4).map(lambda value: value / 4)
LABELLED = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=30)
TWO_LINES = st.tuples(st.lists(SCORES, min_size=1, max_size=20), st.lists(SCORES, min_size=1, max_size=20))
SHORT = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=6)


def split(labelled: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in labelled]), np.array([right for _, right in labelled])


def rankings(scores: np.ndarray, right: np.ndarray) -> list[list[bool]]:
    """Relevance in every order that sorts the scores: what shuffled ties can give."""
    return [
        [bool(right[i]) for i in order]
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]


@given(LABELLED.filter(lambda labelled: any(right for _, right in labelled)))
def test_average_precision_is_scikit_learn_s(labelled: list[tuple[float, bool]]) -> None:
    scores, right = split(labelled)
    assert metrics.average_precision(scores, right) == pytest.approx(average_precision_score(right, scores))


@given(LABELLED.filter(lambda labelled: any(right for _, right in labelled)), st.randoms())
def test_average_precision_does_not_depend_on_the_order_of_the_input(labelled, random) -> None:
    shuffled = random.sample(labelled, len(labelled))
    assert metrics.average_precision(*split(labelled)) == pytest.approx(metrics.average_precision(*split(shuffled)))


@settings(max_examples=60)
@given(SHORT, st.integers(1, 7))
def test_recall_and_reciprocal_rank_are_expectations_over_shuffled_ties(labelled, k: int) -> None:
    scores, right = split(labelled)
    orders = rankings(scores, right)
    first = [order.index(True) + 1 if any(order) else np.inf for order in orders]
    assert metrics.recall_at(scores, right, k) == pytest.approx(np.mean([rank <= k for rank in first]))
    assert metrics.reciprocal_rank(scores, right) == pytest.approx(np.mean([1 / rank for rank in first]))


@given(TWO_LINES)
def test_auc_is_scikit_learn_s_and_counts_ties_half(lines: tuple[list[float], list[float]]) -> None:
    genuine, impostor = lines
    labels = [1] * len(genuine) + [0] * len(impostor)
    assert metrics.auc(genuine, impostor) == pytest.approx(roc_auc_score(labels, genuine + impostor))


@given(TWO_LINES)
def test_the_equal_error_rate_lies_on_scikit_learn_s_roc_curve(lines: tuple[list[float], list[float]]) -> None:
    genuine, impostor = lines
    accepts, trues, _ = roc_curve([1] * len(genuine) + [0] * len(impostor), genuine + impostor, drop_intermediate=False)
    rate = metrics.equal_error_rate(genuine, impostor)
    distances = [
        _distance((rate, 1 - rate), (accepts[i], trues[i]), (accepts[i + 1], trues[i + 1]))
        for i in range(len(accepts) - 1)
    ]
    assert min(distances) < 1e-9


def _distance(point, start, end) -> float:
    """From a point to a stretch of line."""
    point, start, end = (np.asarray(each, dtype=float) for each in (point, start, end))
    along = end - start
    share = np.clip((point - start) @ along / max(along @ along, 1e-30), 0, 1)
    return float(np.linalg.norm(point - start - share * along))


def test_constant_scores_get_what_chance_gets() -> None:
    same, right = np.full(20, 0.3), np.arange(20) < 4
    assert metrics.average_precision(same, right) == pytest.approx(4 / 20)
    assert metrics.recall_at(same, right, 1) == pytest.approx(4 / 20)
    assert metrics.auc(same[:5], same) == 0.5
    assert metrics.equal_error_rate(same[:5], same) == 0.5
    assert metrics.matching_accuracy(same[:5], np.full((5, 9), 0.3)) == pytest.approx(1 / 10)


def test_perfect_scores_are_perfect_and_reversed_ones_are_worst() -> None:
    high, low = np.array([0.8, 0.9]), np.array([0.1, 0.2, 0.3])
    assert metrics.average_precision(np.r_[high, low], [1, 1, 0, 0, 0]) == 1.0
    assert (metrics.auc(high, low), metrics.equal_error_rate(high, low)) == (1.0, 0.0)
    assert (metrics.auc(low, high), metrics.equal_error_rate(low, high)) == (0.0, 1.0)


@pytest.mark.parametrize(("relevant", "total"), [(1, 1), (1, 2), (1, 5), (2, 5), (5, 5), (3, 6)])
def test_chance_is_the_mean_over_all_orders(relevant: int, total: int) -> None:
    falling = np.arange(total, 0, -1)
    orders = set(permutations([True] * relevant + [False] * (total - relevant)))
    exact = np.mean([metrics.average_precision(falling, order) for order in orders])
    assert metrics.chance_average_precision(relevant, total) == pytest.approx(exact)


def test_mean_average_precision_leaves_out_masked_items_and_probes_without_answers() -> None:
    scores = np.array([[-np.inf, 0.2, 0.9], [0.5, 0.4, 0.3]])
    right = np.array([[True, True, False], [False, False, False]])
    assert metrics.mean_average_precision(scores, right) == pytest.approx(0.5)


def test_a_tie_for_first_place_counts_its_share() -> None:
    assert metrics.matching_accuracy([0.9, 0.5, 0.5], [[0.1, 0.2], [0.5, 0.2], [0.7, 0.5]]) == pytest.approx(0.5)


def test_prefixes_of_a_list_are_trials_of_their_own() -> None:
    others = [[0.1, 0.5, 0.9], [0.5, 0.5, 0.2], [0.4, np.nan, np.nan]]
    earned = metrics.matching_credits([0.5, 0.5, 0.3], others)
    assert np.array_equal(earned, [[1, 1 / 2, 0], [1 / 2, 1 / 3, 1 / 3], [0, np.nan, np.nan]], equal_nan=True)


@settings(max_examples=60)
@given(st.lists(st.tuples(SCORES, st.lists(SCORES, min_size=4, max_size=4)), min_size=1, max_size=8))
def test_a_prefix_is_scored_as_if_the_list_ended_there(trials: list[tuple[float, list[float]]]) -> None:
    right, others = np.array([one for one, _ in trials]), np.array([rest for _, rest in trials])
    earned = metrics.matching_credits(right, others)
    for width in (1, 2, 3, 4):
        scores = np.column_stack([right, others[:, :width]])
        best = scores == scores.max(axis=1, keepdims=True)
        assert earned[:, width - 1] == pytest.approx(best[:, 0] / best.sum(axis=1))


@pytest.mark.parametrize(("relevant", "total", "k"), [(1, 1, 1), (1, 4, 2), (2, 5, 3), (3, 6, 5), (2, 6, 10)])
def test_chance_of_recall_and_reciprocal_rank_is_the_mean_over_all_orders(relevant: int, total: int, k: int) -> None:
    orders = [order.index(True) + 1 for order in permutations([True] * relevant + [False] * (total - relevant))]
    assert metrics.chance_recall(relevant, total, k) == pytest.approx(np.mean([rank <= k for rank in orders]))
    assert metrics.chance_reciprocal_rank(relevant, total) == pytest.approx(np.mean([1 / rank for rank in orders]))


def test_open_set_rates_count_each_kind_of_error() -> None:
    known = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.1], [0.7, 0.7]])
    rates = metrics.open_set(known, [0, 1, 0, 1], [[0.6, 0.1], [0.2, 0.1]], threshold=0.5)
    assert rates == metrics.OpenSet(identified=(1 + 0.5) / 4, misidentified=(1 + 0.5) / 4, false_positive=0.5)


def test_inputs_are_never_changed() -> None:
    scores, right = np.array([0.1, 0.9, 0.5]), np.array([True, False, True])
    before = scores.copy(), right.copy()
    metrics.average_precision(scores, right)
    metrics.auc(scores, scores)
    metrics.equal_error_rate(scores, scores)
    metrics.matching_credits(scores, scores[:, None])
    assert (scores == before[0]).all() and (right == before[1]).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.average_precision([0.1, 0.2], [False, False]),
        lambda: metrics.average_precision([0.1, np.nan], [True, False]),
        lambda: metrics.average_precision([0.1], [True, False]),
        lambda: metrics.auc([], [0.1]),
        lambda: metrics.equal_error_rate([0.1], [np.inf]),
        lambda: metrics.chance_average_precision(0, 5),
        lambda: metrics.recall_at([0.1], [True], 0),
        lambda: metrics.matching_accuracy([0.1], [0.2]),
        lambda: metrics.matching_accuracy([0.1], [[0.2, np.nan]]),
        lambda: metrics.matching_credits([0.1], [[np.nan, 0.2]]),
        lambda: metrics.matching_credits([0.1], np.empty((1, 0))),
        lambda: metrics.mean_average_precision([[0.1]], [[False]]),
        lambda: metrics.open_set(np.empty((0, 2)), [], [[0.1, 0.2]], 0.5),
    ],
)
def test_what_cannot_be_measured_is_an_error_not_a_number(call) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()
