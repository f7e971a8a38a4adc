"""The corrections that the benchmark compares are those that their papers define."""

from __future__ import annotations

import math

import numpy as np
import pytest

from encoders.probe_centres import without_centre
from tests.benchmarks.hubness import (
    CORRECTIONS,
    Array,
    by_moments,
    inverted_softmax,
    local_scaling,
    uncorrected,
    without_mean,
)

Three = tuple[Array, Array, Array]


@pytest.fixture
def sides() -> Three:
    """Probes, gallery and others of the probes' modality, of unit length."""
    random = np.random.default_rng(2)
    some = [random.normal(size=(count, 6)) + 0.3 for count in (5, 7, 40)]
    probes, gallery, others = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in some)
    return probes, gallery, others


def test_local_scaling_is_its_sum_written_out(sides: Three) -> None:
    probes, gallery, others = sides
    told = local_scaling(3, *sides)
    for row, probe in enumerate(probes):
        near_probe = sorted(float(probe @ one) for one in gallery)[-3:]
        for column, candidate in enumerate(gallery):
            near_candidate = sorted(float(candidate @ one) for one in others)[-3:]
            expected = 2 * float(probe @ candidate) - sum(near_probe) / 3 - sum(near_candidate) / 3
            assert told[row, column] == pytest.approx(expected)


def test_the_inverted_softmax_gives_each_candidate_one_whole_to_share(sides: Three) -> None:
    probes, gallery, _ = sides
    shares = np.exp(inverted_softmax(5.0, probes, gallery, probes))
    assert shares.sum(axis=0) == pytest.approx(np.ones(len(gallery)))
    cosine = float(probes[1] @ gallery[2])
    total = sum(math.exp(5.0 * float(one @ gallery[2])) for one in probes)
    assert shares[1, 2] == pytest.approx(math.exp(5.0 * cosine) / total)


def test_the_whole_mean_taken_from_candidates_orders_them_as_probes_without_it_do(sides: Three) -> None:
    probes, gallery, others = sides
    ours = without_centre(probes, others.mean(axis=0)) @ gallery.T
    np.testing.assert_array_equal(np.argsort(without_mean(1.0, *sides), axis=1), np.argsort(ours, axis=1))
    assert not np.array_equal(np.argsort(ours, axis=1), np.argsort(uncorrected(*sides), axis=1))
    half = (probes - others.mean(axis=0) / 2) @ gallery.T
    np.testing.assert_allclose(without_mean(0.5, *sides), half, atol=1e-12)


def test_two_moments_are_the_logarithm_of_the_mean_where_others_are_spread_normally() -> None:
    random = np.random.default_rng(3)
    probes, gallery = random.normal(size=(2, 3)), random.normal(size=(4, 3)) / 2
    others = random.normal(size=(200_000, 3)) * (0.5, 0.3, 0.2) + (0.2, 0.0, -0.1)
    exact = inverted_softmax(2.0, probes, gallery, others) / 2.0 + math.log(len(others)) / 2.0
    np.testing.assert_allclose(by_moments(2.0, probes, gallery, others), exact, atol=5e-3)
    assert np.abs(without_mean(1.0, probes, gallery, others) - exact).max() > 0.03


def test_every_correction_puts_a_hub_behind() -> None:
    """One candidate is what all probes share, and nearer to each of them than the candidate of its own."""
    people = 60
    own, besides, shared = np.split(np.eye(2 * people + 1), [people, 2 * people])
    probes = 0.8 * own + 0.6 * shared
    gallery = np.concatenate([0.5 * own + math.sqrt(0.75) * besides, shared])
    assert (uncorrected(probes, gallery, probes).argmax(axis=1) == people).all()
    for name, numbers in CORRECTIONS.items():
        for number, correction in numbers.items():
            found = correction(probes, gallery, probes).argmax(axis=1)
            assert found.tolist() == list(range(people)), (name, number)
