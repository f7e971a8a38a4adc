from __future__ import annotations

import math

import numpy as np
import pytest

from encoders.space import Embedding, Modality, Space, SpaceMismatch
from search.gallery import Gallery, Tail
from search.scores import (
    Calibration,
    NotCalibrated,
    Purpose,
    Similarity,
    calibration_for,
    equal_error_threshold,
    fit_calibration,
    pooled,
    similarity,
    similarity_matrix,
)

SPACE = Space("tiny", 3, "a" * 64)


def point(*values: float, space: Space = SPACE) -> Embedding:
    return Embedding.of(space, Modality.VOICE, np.array(values))


def test_a_score_at_the_threshold_is_an_even_bet() -> None:
    assert Calibration(0.7, 20.0).probability(0.7) == 0.5


def test_probability_grows_with_the_score() -> None:
    calibration = Calibration(0.7, 20.0)
    assert calibration.probability(0.6) < 0.5 < calibration.probability(0.8)


def test_log_odds_stay_finite() -> None:
    assert Calibration(0.7, 1e9).log_odds(1.0) == pytest.approx(math.log(1e5))


def test_a_calibration_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="positive slope"):
        Calibration(0.7, 0.0)


def test_a_missing_calibration_is_named() -> None:
    with pytest.raises(NotCalibrated, match="tiny has no cosine calibration to verify by face-voice"):
        calibration_for({}, (Modality.VOICE, Modality.FACE), Purpose.VERIFY, Similarity.COSINE, space="tiny")


def test_fitting_recovers_the_slope_of_two_gaussians() -> None:
    # equal-variance Gaussians have log-odds linear in the score, with slope (difference of means) / variance
    random = np.random.default_rng(3)
    genuine, impostor = random.normal(0.8, 0.1, 20_000), random.normal(0.5, 0.1, 20_000)
    assert fit_calibration(genuine, impostor, 0.7).slope == pytest.approx(0.3 / 0.01, rel=0.05)


def test_fitting_separable_scores_stays_finite() -> None:
    slope = fit_calibration(np.array([0.9, 0.95]), np.array([0.1, 0.2]), 0.5).slope
    assert 0 < slope < 1e4


@pytest.mark.parametrize("kind", list(Similarity))
def test_every_similarity_prefers_the_nearer_vector(kind: Similarity) -> None:
    probe, near, far = point(1, 2, 3), point(1.1, 2, 3), point(3, 2, -1)
    assert similarity(probe, near, kind) > similarity(probe, far, kind)


def test_euclidean_is_the_negative_distance() -> None:
    assert similarity(point(1, 0, 0), point(0, 1, 0), Similarity.EUCLIDEAN) == pytest.approx(-math.sqrt(2))


def test_correlation_is_pearsons() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 8))
    unit = [v / np.linalg.norm(v) for v in (a, b)]
    matrix = similarity_matrix(unit[0][None], unit[1][None], Similarity.CORRELATION)
    assert matrix[0, 0] == pytest.approx(np.corrcoef(a, b)[0, 1])


def test_vectors_of_two_spaces_are_never_compared() -> None:
    with pytest.raises(SpaceMismatch):
        similarity(point(1, 0, 0), point(1, 0, 0, space=Space("tiny", 3, "b" * 64)))


def test_pooling_weighs_samples() -> None:
    centre = pooled([point(1, 0, 0), point(0, 1, 0)], [3.0, 1.0])
    assert centre.vector[:2] == pytest.approx(np.array([3, 1]) / math.sqrt(10), abs=1e-6)


@pytest.mark.parametrize(
    ("genuine", "impostor", "threshold"),
    [
        ([0.9, 0.8], [0.1, 0.2], 0.5),  # anything between does as well: the middle
        ([0.9, 0.8, 0.3], [0.1, 0.2, 0.5], 0.45),  # one of three each, anywhere from 0.2 to 0.8
        ([0.6, 0.8, 0.9, 1.0], [0.2, 0.3, 0.4, 0.7], 0.625),  # at worst one of four, from 0.4 to 0.8
        ([0.7, 0.7], [0.7], 0.7),  # no score tells anything
    ],
)
def test_the_threshold_makes_both_errors_equally_rare(
    genuine: list[float], impostor: list[float], threshold: float
) -> None:
    assert equal_error_threshold(np.array(genuine), np.array(impostor)) == pytest.approx(threshold)


GALLERY = Gallery(0.01, Tail(0.2, 0.7, 0.09, -0.04), likeness=0.6)


def test_among_more_people_a_score_is_worth_less() -> None:
    alone = Calibration(0.7, 20.0, gallery=GALLERY)
    assert [alone.among(size).threshold for size in (1, 50)] == [GALLERY.threshold(1), GALLERY.threshold(50)]
    assert alone.among(1).log_odds(0.8) > alone.among(50).log_odds(0.8) > alone.among(50, 0.9).log_odds(0.8)
    assert alone.threshold == 0.7


def test_numbers_from_before_galleries_were_looked_at_hold_for_every_size() -> None:
    old = {"voice-voice": {"identify": {"cosine": {"threshold": 0.7, "slope": 20.0}}}}
    read = calibration_for(old, (Modality.VOICE,) * 2, Purpose.IDENTIFY, Similarity.COSINE, space="tiny")
    assert read.gallery is None and read.among(1000, 2.0) == read


def test_a_stored_gallery_is_read_back() -> None:
    stored = {"voice-voice": {"identify": {"cosine": {"threshold": 0.7, "slope": 20.0, "gallery": GALLERY.to_json()}}}}
    read = calibration_for(stored, (Modality.VOICE,) * 2, Purpose.IDENTIFY, Similarity.COSINE, space="tiny")
    assert read.gallery == GALLERY
