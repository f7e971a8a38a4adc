"""Rankings judged by the block, against the definitions of one probe and scikit-learn, ties throughout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from search import metrics, ranking

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 12))


@st.composite
def blocks(draw: st.DrawFn, *, absent: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few distinct values and their relevance; perhaps items that are in no gallery."""
    shape = draw(SHAPES)
    values = [0.0, 0.25, 0.5, 1.0] + ([-np.inf] if absent else [])
    kind = draw(st.sampled_from([np.float32, np.float64]))
    return draw(arrays(kind, shape, elements=st.sampled_from(values))), draw(arrays(bool, shape))


@given(blocks())
def test_average_precision_of_a_block_is_scikit_learn_s(block: tuple[np.ndarray, np.ndarray]) -> None:
    judged = ranking.judge(*block)
    for row, (scores, right) in enumerate(zip(*block, strict=True)):
        if right.any():
            assert judged.average_precision[row] == pytest.approx(average_precision_score(right, scores))


@settings(max_examples=200)
@given(blocks(absent=True))
def test_a_block_is_judged_as_its_probes_one_by_one(block: tuple[np.ndarray, np.ndarray]) -> None:
    judged = ranking.judge(*block)
    for row, (line, wanted) in enumerate(zip(*block, strict=True)):
        present = line != -np.inf
        scores, right = line[present], wanted[present]
        assert (judged.relevant[row], judged.gallery[row]) == (right.sum(), len(right))
        if not right.any():
            told = [
                judged.average_precision[row],
                judged.reciprocal_rank[row],
                *(judged.recall[k][row] for k in (1, 5)),
            ]
            assert np.isnan(told).all()
            continue
        assert judged.average_precision[row] == pytest.approx(metrics.average_precision(scores, right))
        assert judged.reciprocal_rank[row] == pytest.approx(metrics.reciprocal_rank(scores, right))
        for k in ranking.RECALL_AT:
            assert judged.recall[k][row] == pytest.approx(metrics.recall_at(scores, right, k))


def test_a_ranking_worked_out_by_hand() -> None:
    # 0.9 right | 0.7 wrong, right tied | 0.1 wrong: precision 1 at the first, 2/3 at the second
    judged = ranking.judge([[0.9, 0.7, 0.7, 0.1]], [[True, False, True, False]])
    assert judged.map == pytest.approx((1 + 2 / 3) / 2)
    assert (judged.reciprocal_rank[0], judged.recall[1][0]) == (1.0, 1.0)


def test_equal_vectors_tie_wherever_they_stand_in_the_gallery() -> None:
    random = np.random.default_rng(3)
    vector = random.normal(size=128).astype(np.float32)
    same = np.tile(vector / np.linalg.norm(vector), (1003, 1))
    (scores,) = ranking.similarity_blocks(same[:77], same)
    assert len(np.unique(scores)) == 1 and scores.dtype == np.float32


def test_blocks_that_do_not_add_up_to_the_probes_are_refused() -> None:
    with pytest.raises(ValueError, match="1 probes came for 2"):
        ranking.judge_blocks([np.zeros((1, 3))], ["a", "b"], ["a", "b", "c"])


@pytest.mark.parametrize("scores", [[[0.1, np.nan]], [[np.inf, 0.1]], [[]], [0.1, 0.2]])
def test_scores_that_cannot_be_ranked_are_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"finite|at least one item|2-d"):
        ranking.judge(scores, np.zeros(np.shape(scores), dtype=bool))


def test_judging_changes_nothing() -> None:
    scores, relevant = np.array([[0.3, 0.1, 0.2]]), np.array([[True, False, False]])
    ranking.judge(scores, relevant)
    assert scores.tolist() == [[0.3, 0.1, 0.2]] and relevant.tolist() == [[True, False, False]]


def test_ids_of_vectors_must_fit() -> None:
    with pytest.raises(ValueError, match="2 and 3 ids"):
        ranking.retrieval(np.eye(3), [1, 2], np.eye(3), [1, 2, 3])


@pytest.fixture
def population() -> tuple[np.ndarray, np.ndarray]:
    """90 unit vectors of 15 people, on a coarse grid so that scores tie."""
    random = np.random.default_rng(4)
    people = np.repeat(np.arange(15), 6)
    vectors = np.round(random.normal(size=(15, 6))[people] + random.normal(size=(90, 6)))
    vectors[np.linalg.norm(vectors, axis=1) == 0] = 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), people


@pytest.mark.parametrize("block", [1, 7, None])
def test_retrieval_by_blocks_is_the_full_matrix(population, block: int | None) -> None:
    vectors, people = population
    itself = np.eye(len(people), dtype=bool)
    small = vectors.astype(np.float32)
    got = ranking.retrieval(small, people, small, people, same_sample=itself, block=block)
    for row in range(len(people)):
        full = (small[row].astype(np.float64) @ small.T.astype(np.float64)).astype(np.float32)
        scores, right = np.delete(full, row), np.delete(people == people[row], row)
        assert got.average_precision[row] == pytest.approx(average_precision_score(right, scores))
    assert got.map == pytest.approx(np.mean(got.average_precision))
    assert set(got.gallery) == {89} and set(got.relevant) == {5}


def test_a_probe_without_an_answer_is_not_counted() -> None:
    vectors = np.eye(4)
    got = ranking.retrieval(vectors[:2], ["a", "stranger"], vectors, ["a", "b", "c", "a"])
    assert got.average_precision[0] == pytest.approx((1 + 2 / 4) / 2) and np.isnan(got.average_precision[1])
    assert got.map == got.average_precision[0]
    assert np.isnan(got.recall[5][1]) and got.recall[1][0] == 1.0
