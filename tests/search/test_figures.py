from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import auc, roc_curve

from encoders.space import Modality
from search import metrics
from search.figures import (
    MOST_POINTS,
    Curve,
    chosen_people,
    det,
    error_rates,
    map_embeddings,
    roc,
    score_histogram,
    thinned,
)

RANDOM = np.random.default_rng(5)
SCORES = np.round(np.concatenate([RANDOM.normal(1, 1, 300), RANDOM.normal(0, 1, 500)]), 1)  # with ties
SAME = np.arange(800) < 300


def test_error_rates_are_those_of_scikit_learn_with_ties() -> None:
    false_acceptance, false_rejection = error_rates(SCORES, SAME)
    expected = roc_curve(SAME, SCORES, drop_intermediate=False)
    assert np.allclose(false_acceptance, expected[0], atol=1e-12)
    assert np.allclose(1 - false_rejection, expected[1], atol=1e-12)


def test_the_area_under_the_whole_curve_is_the_auc() -> None:
    false_acceptance, false_rejection = error_rates(SCORES, SAME)
    assert auc(false_acceptance, 1 - false_rejection) == pytest.approx(metrics.auc(SCORES[SAME], SCORES[~SAME]))


def test_a_thinned_curve_keeps_its_ends_and_hardly_changes() -> None:
    steps = np.sort(RANDOM.random(50_000))
    curve = Curve(steps, np.sqrt(steps))
    thin = thinned(curve)
    assert len(thin.x) <= MOST_POINTS and (thin.x[0], thin.x[-1]) == (steps[0], steps[-1])
    assert np.interp(0.3, thin.x, thin.y) == pytest.approx(np.sqrt(0.3), abs=1e-4)
    assert auc(*[getattr(roc(SCORES, SAME), axis) for axis in "xy"]) == pytest.approx(
        metrics.auc(SCORES[SAME], SCORES[~SAME]), abs=2e-3
    )


def test_a_det_curve_crosses_equal_errors_at_the_equal_error_rate() -> None:
    curve = det(SCORES, SAME)
    crossing = np.interp(0.0, curve.x - curve.y, curve.x)
    assert crossing == pytest.approx(metrics.equal_error_rate(SCORES[SAME], SCORES[~SAME]), abs=0.01)
    assert curve.x.min() > 0 and curve.y.min() > 0


def test_a_list_without_errors_still_has_a_det_point() -> None:
    curve = det([2.0, 2.0, 0.0], [True, True, False])
    assert curve.x.tolist() == [0.5] and curve.y.tolist() == [0.25]


def test_a_histogram_holds_every_pair_once() -> None:
    histogram = score_histogram(SCORES, SAME, bins=7)
    counts = [np.histogram(SCORES[kind], histogram.edges)[0] for kind in (SAME, ~SAME)]
    assert np.allclose(histogram.same * 300, counts[0]) and np.allclose(histogram.different * 500, counts[1])
    assert counts[0].sum() == 300 and counts[1].sum() == 500


def test_a_histogram_of_equal_scores_has_one_full_bin() -> None:
    histogram = score_histogram([1.0, 1.0], [True, False])
    assert histogram.same.max() == histogram.different.max() == 1.0


@pytest.fixture
def groups() -> tuple[dict[Modality, NDArray[np.float64]], dict[Modality, list[str]]]:
    """Four people far from each other, whose faces and voices lie together."""
    centres = np.eye(4, 8) * 10
    people = {modality: [f"p{index % 4}" for index in range(40)] for modality in Modality}
    vectors = {modality: np.tile(centres, (10, 1)) + RANDOM.normal(0, 0.1, (40, 8)) for modality in Modality}
    return vectors, people


@pytest.mark.parametrize("method", ["PCA", "t-SNE"])
def test_a_map_keeps_who_belongs_together(groups, method: str) -> None:  # type: ignore[no-untyped-def]
    drawn = map_embeddings(*groups, ["p0", "p1", "p2"], method=method)
    assert len(drawn.people) == 60 and set(drawn.modalities) == set(Modality)
    apart = np.linalg.norm(drawn.places[:, None] - drawn.places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert [drawn.people[near] for near in apart.argmin(axis=1)] == list(drawn.people)


def test_a_map_is_the_same_twice_and_pca_keeps_variance(groups) -> None:  # type: ignore[no-untyped-def]
    vectors, people = groups
    first, again = (map_embeddings(vectors, people, ["p0", "p1"], each=5) for _ in range(2))
    assert np.array_equal(first.places, again.places) and len(first.people) == 20
    first_five = [[index for index in range(40) if index % 4 == person][:5] for person in (0, 1)]
    rows = np.concatenate([vectors[modality][mine] for modality in Modality for mine in first_five])
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    assert np.allclose(first.places.std(axis=0) * np.sqrt(20), values[:2])


def test_a_map_may_be_of_one_modality(groups) -> None:  # type: ignore[no-untyped-def]
    vectors, people = groups
    drawn = map_embeddings({Modality.VOICE: vectors[Modality.VOICE]}, people, ["p0", "p1"])
    assert set(drawn.modalities) == {Modality.VOICE} and len(drawn.people) == 20


def test_people_of_a_map_have_both_modalities_and_are_drawn_by_the_seed() -> None:
    people = {Modality.FACE: ["a", "b", "c", "d"], Modality.VOICE: ["b", "c", "d", "e"]}
    assert set(chosen_people(people, 9)) == {"b", "c", "d"}
    assert chosen_people(people, 2, seed=1) == chosen_people(people, 2, seed=1)


NOBODY = ({one: np.zeros((1, 3)) for one in Modality}, {one: ["a"] for one in Modality})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: error_rates([1.0], [True]), "pairs of two people"),
        (lambda: error_rates([np.nan, 1.0], [True, False]), "finite"),
        (lambda: error_rates([1.0, 2.0, 3.0], [True, False]), "labels"),
        (lambda: Curve(np.zeros(2), np.zeros(3)), "as many x as y"),
        (lambda: map_embeddings(*NOBODY, ["a"]), "at least"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(call, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=says):
        call()
