from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from search.gallery import SHAPE_KEPT, Asked, Gallery, NoTail, Tail, by_size, likeness, measured

RANDOM = np.random.default_rng(5)
TAIL = Tail(0.2, 0.7, 0.09, -0.04)


def drawn(share: float, start: float, scale: float, count: int) -> NDArray[np.float64]:
    """Cosines whose Fisher's z has an exponential tail: a share of them lies that far above ``start``."""
    tail = start + np.random.default_rng(1).exponential(scale, round(count * share))
    heights = np.concatenate([np.linspace(0.0, start, count - len(tail)), tail])
    return np.asarray(np.tanh(heights), np.float64)


def people(count: int, samples: int, noise: float = 1.0) -> Asked:
    """Everybody has a direction; each sample adds noise."""
    random = np.random.default_rng(2)
    owners = np.repeat(np.arange(count), samples)
    return Asked.of(random.normal(size=(count, 16))[owners] + noise * random.normal(size=(len(owners), 16)), owners)


def test_a_fitted_tail_is_the_one_that_scores_were_drawn_from() -> None:
    fitted = Tail.fit(drawn(0.2, 0.7, 0.09, 50_000))
    assert fitted.start == pytest.approx(0.7, abs=0.01) and fitted.scale == pytest.approx(0.09, rel=0.05)
    for probability in (0.1, 0.01, 0.001):
        expected = math.tanh(0.7 + 0.09 * math.log(0.2 / probability))
        assert fitted.score(probability) == pytest.approx(expected, abs=0.01)


def test_half_of_the_shape_is_kept() -> None:
    uniform = np.tanh(np.linspace(0.0, 1.0, 10_001))  # of shape -1: the tail ends at 1
    assert Tail.fit(uniform).shape == pytest.approx(-1.0 * SHAPE_KEPT, abs=0.01)


def test_a_score_that_is_not_rare_is_the_start_of_the_tail() -> None:
    assert TAIL.score(0.5) == TAIL.score(0.2) == pytest.approx(math.tanh(0.7))


@pytest.mark.parametrize("scores", [np.ones(500), np.zeros(0), np.linspace(0, 1, 20)])
def test_too_few_different_scores_have_no_tail(scores: NDArray[np.float64]) -> None:
    with pytest.raises(NoTail):
        Tail.fit(scores)


@pytest.mark.parametrize("numbers", [(0.0, 0.7, 0.1, 0.0), (0.2, math.nan, 0.1, 0.0), (0.2, 0.7, 0.0, 0.0)])
def test_numbers_that_are_no_tail_are_refused(numbers: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="a tail needs"):
        Tail(*numbers)


def test_a_threshold_holds_its_level_whatever_the_size_of_the_gallery() -> None:
    random, gallery = np.random.default_rng(3), Gallery(0.05, Tail(0.2, 0.7, 0.09, 0.0))
    for size in (1, 5, 50, 500):
        excesses = 0.7 + random.exponential(0.09, (4000, size)) - np.where(random.random((4000, size)) < 0.8, 9, 0)
        strangers = np.tanh(excesses.max(axis=1))
        assert np.mean(strangers >= gallery.threshold(size)) == pytest.approx(0.05, abs=0.012)


def test_the_threshold_rises_with_the_gallery_and_stays_below_one() -> None:
    thresholds = [Gallery(0.01, TAIL).threshold(size) for size in (1, 2, 10, 100, 10_000, 10_000_000)]
    assert thresholds == sorted(set(thresholds)) and thresholds[-1] < 1


def test_a_gallery_of_people_who_are_more_alike_needs_a_higher_threshold_and_never_a_lower_one() -> None:
    gallery = Gallery(0.01, TAIL, likeness=0.6)
    plain = gallery.threshold(10)
    assert gallery.threshold(10, 0.8) > gallery.threshold(10, 0.7) > plain
    assert gallery.threshold(10, 0.5) == gallery.threshold(10, None) == Gallery(0.01, TAIL).threshold(10, 0.8) == plain


def test_two_people_show_their_likeness_less_surely_than_many() -> None:
    gallery = Gallery(0.01, TAIL, likeness=0.6)

    def raised(size: int) -> float:
        return math.atanh(gallery.threshold(size, 0.8)) - math.atanh(gallery.threshold(size))

    assert [raised(size) for size in (1, 2, 100)] == pytest.approx([0.0, 0.1, 0.198])


def test_a_gallery_survives_being_stored() -> None:
    for gallery in (Gallery(0.01, TAIL), Gallery(0.2, TAIL, 0.626)):
        assert Gallery.from_json(gallery.to_json()) == gallery


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="share of strangers"):
        Gallery(level, TAIL)


def test_likeness_is_the_mean_over_pairs() -> None:
    points = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    assert likeness(points) == pytest.approx((0.0 + 2 * math.atanh(math.sqrt(0.5))) / 3)
    assert likeness(points[:1]) is None


def test_a_sample_is_asked_of_its_own_person_without_it() -> None:
    asked = Asked.of(np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), np.array(["a", "a", "b"]))
    assert asked.own[:2] == pytest.approx([0.0, 0.0]) and math.isnan(asked.own[2])
    assert asked.others[:, 0] == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 1.0])


def test_the_expected_errors_are_those_of_all_galleries_tried() -> None:
    asked, gallery = people(8, 3, noise=1.5), Gallery(0.3, Tail(0.2, 0.4, 0.2, 0.0))
    told = measured(asked, gallery, 3)
    named, missed = [], []
    for _ in range(4000):
        row = int(RANDOM.integers(len(asked.own)))
        three = RANDOM.permutation(asked.others.shape[1])[:3]
        named.append(asked.others[row, three].max() >= told["threshold"])
        missed.append(asked.own[row] < max(told["threshold"], asked.others[row, three[:2]].max()))
    assert told["strangers_named"] == pytest.approx(np.mean(named), abs=0.03)
    assert told["missed"] == pytest.approx(np.mean(missed), abs=0.03)
    low, high = told["missed_ci95"]
    assert low <= told["missed"] <= high and low < high


def test_beyond_the_people_who_are_there_strangers_are_not_counted() -> None:
    rows = by_size(people(6, 3), TAIL, (0.01, 0.001), (1, 100))
    assert [(row["level"], row["people"]) for row in rows] == [
        (0.01, 1), (0.01, 5), (0.01, 100), (0.001, 1), (0.001, 5), (0.001, 100)
    ]  # fmt: skip
    assert [row["strangers_named"] is None for row in rows] == [False, False, True] * 2
    assert rows[0]["missed"] <= rows[1]["missed"] <= rows[2]["missed"]
