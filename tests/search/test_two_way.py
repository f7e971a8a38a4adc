"""Ranking both ways at once, beside the functions of one probe and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from search import metrics, two_way
from search.two_way import Ranked, Side, rank_both_ways


def sides(random: np.random.Generator, decimals: int | None = None) -> tuple[Side, Side]:
    """70 and 90 samples of up to 12 people and 20 videos; some people on one side only; rounded, they tie."""

    def side(count: int, people: int) -> Side:
        vectors = random.normal(size=(count, 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if decimals is not None:
            vectors = np.round(vectors, decimals) / 2
        return Side(vectors, random.integers(people, size=count), random.integers(-1, 20, size=count))

    return side(70, 12), side(90, 14)


def scores_of(first: Side, second: Side) -> NDArray[np.float64]:
    return np.round(first.vectors @ second.vectors.T, 12)


@pytest.fixture(params=[None, 0, 1], ids=["no ties", "many ties", "ties"])
def asked(request: pytest.FixtureRequest) -> tuple[Ranked, Ranked, Side, Side]:
    one, two = sides(np.random.default_rng(3), request.param)
    return (*rank_both_ways(one, two), one, two)


def test_average_precision_is_scikit_learn_s_in_both_directions(asked: tuple[Ranked, Ranked, Side, Side]) -> None:
    first, second, one, two = asked
    for ranked, probes, gallery in ((first, one, two), (second, two, one)):
        for row, line in enumerate(scores_of(probes, gallery)):
            right = gallery.person == probes.person[row]
            expected = average_precision_score(right, line) if right.any() else np.nan
            assert ranked.average_precision[row] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_right_answers_of_the_same_video_are_taken_out(asked: tuple[Ranked, Ranked, Side, Side]) -> None:
    first, second, one, two = asked
    for ranked, probes, gallery in ((first, one, two), (second, two, one)):
        for row, line in enumerate(scores_of(probes, gallery)):
            right = gallery.person == probes.person[row]
            kept = ~(right & (gallery.recording == probes.recording[row]) & (probes.recording[row] >= 0))
            expected = average_precision_score(right[kept], line[kept]) if right[kept].any() else np.nan
            assert ranked.other_videos[row] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_recall_and_reciprocal_rank_are_those_of_one_probe_at_a_time(asked: tuple[Ranked, Ranked, Side, Side]) -> None:
    first, _, one, two = asked
    right = one.person[:, None] == two.person[None, :]
    lines = [(line, mask) for line, mask in zip(scores_of(one, two), right, strict=True) if mask.any()]
    curve = first.recall(12)
    for k in (1, 2, 5, 12):
        assert curve[k - 1] == pytest.approx(np.mean([metrics.recall_at(line, mask, k) for line, mask in lines]))
    assert first.mean_reciprocal_rank() == pytest.approx(np.mean([metrics.reciprocal_rank(*one) for one in lines]))
    assert (np.diff(curve) >= 0).all()


def test_chunks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = sides(np.random.default_rng(5), 1)
    whole = rank_both_ways(one, two)
    monkeypatch.setattr(two_way, "_MOST_HELD", 90 * 16)
    monkeypatch.setattr(two_way, "_PRODUCT_ROWS", 7)
    for told, expected in zip(rank_both_ways(one, two), whole, strict=True):
        np.testing.assert_array_equal(told.average_precision, expected.average_precision)
        np.testing.assert_array_equal(told.before, expected.before)


def test_equal_vectors_tie_and_earn_the_share_of_right_answers() -> None:
    person = np.arange(40) % 8
    vector = np.random.default_rng(1).normal(size=192)
    side = Side(np.tile(vector / np.linalg.norm(vector), (40, 1)), person, np.full(40, -1))
    for ranked in rank_both_ways(side, side):
        np.testing.assert_allclose(ranked.average_precision, 5 / 40, rtol=1e-15)
        assert (ranked.tied == 40).all() and ranked.recall(1)[0] == pytest.approx(5 / 40)


def test_nobody_in_common_is_nothing_asked() -> None:
    one, two = sides(np.random.default_rng(2))
    first, second = rank_both_ways(one, Side(two.vectors, two.person + 100, two.recording))
    assert not first.asked.any() and np.isnan(second.average_precision).all()


def test_sides_that_cannot_be_compared_are_refused() -> None:
    one, two = sides(np.random.default_rng(2))
    with pytest.raises(ValueError, match="cannot be compared"):
        rank_both_ways(one, Side(two.vectors[:, :3], two.person, two.recording))
    with pytest.raises(ValueError, match="need as many people"):
        Side(two.vectors, two.person[:-1], two.recording)
