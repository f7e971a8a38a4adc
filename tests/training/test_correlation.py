"""Canonical correlation with shrinkage: against its textbook form, its limits, and what it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders.space import Modality
from training import correlation
from training.correlation import correlate
from training.vectors import Vectors

F, V = Modality.FACE, Modality.VOICE


def planted(people: int, widths: tuple[int, int], samples: int = 1, seed: int = 0, noise: float = 1.0) -> Vectors:
    """People with two numbers each, which faces and voices show in directions of their own, among noise.

    The directions are those of seed 0, whatever the people's seed.
    """
    fixed, random = np.random.default_rng(0), np.random.default_rng(seed + 1)
    shown = [fixed.standard_normal((2, width)) for width in widths]
    latent = random.standard_normal((people, 2)) * (2.0, 1.0)
    owners = np.repeat(np.arange(people), samples)
    faces, voices = (
        (latent[owners] @ one + noise * random.standard_normal((len(owners), one.shape[1]))).astype(np.float32)
        for one in shown
    )
    names = tuple(f"{number:04d}" for number in range(people))
    return Vectors(names, ("",) * people, faces, owners, voices, owners)


def _certainties(vectors: Vectors, weights) -> np.ndarray:
    return correlation._look(F, vectors.faces, vectors.face_people, weights).certainty


def auc_of_pairs(vectors: Vectors, found) -> float:
    """Of the cosines of every face with every voice."""
    faces, voices = (
        one / np.linalg.norm(one, axis=1, keepdims=True) for one in (found[m](vectors.of(m)) for m in (F, V))
    )
    same = vectors.face_people[:, None] == vectors.voice_people[None, :]
    return float(roc_auc_score(same.ravel(), (faces @ voices.T).ravel()))


def test_with_hardly_any_shrinkage_the_correlations_are_the_canonical_ones() -> None:
    vectors = planted(400, (6, 5))
    found = correlate(vectors, 1e-9, 99)
    x, y = (vectors.of(one) - vectors.of(one).mean(axis=0, dtype=np.float64) for one in (F, V))
    # the eigenvalues of Cxx⁻¹ Cxy Cyy⁻¹ Cyx are their squares (Hotelling, 1936)
    product = np.linalg.solve(x.T @ x, x.T @ y) @ np.linalg.solve(y.T @ y, y.T @ x)
    expected = np.sort(np.sqrt(np.linalg.eigvals(product).real.clip(0)))[::-1][:5]
    u, v = found[F](vectors.faces), found[V](vectors.voices)
    assert u.shape == v.shape == (400, 5)
    ours = [np.corrcoef(u[:, place], v[:, place])[0, 1] for place in range(5)]
    np.testing.assert_allclose(ours, expected, atol=2e-4)
    np.testing.assert_allclose(np.corrcoef(u.T), np.eye(5), atol=2e-3)  # of one modality: unrelated
    # each as long as its correlation is strong
    spread = u.std(axis=0)
    np.testing.assert_allclose(spread / spread[0], expected / expected[0], atol=2e-3)


def test_with_all_shrinkage_the_directions_are_those_of_partial_least_squares() -> None:
    vectors = planted(50, (7, 4), samples=3)
    found = correlate(vectors, 1.0, 99)
    means = []
    for modality in (F, V):
        samples = vectors.of(modality).astype(np.float64)
        standard = (samples - samples.mean(axis=0)) / samples.std(axis=0)
        means.append(np.stack([standard[vectors.face_people == person].mean(axis=0) for person in range(50)]))
    left, strength, right = np.linalg.svd(means[0].T @ means[1], full_matrices=False)
    for modality, axes in ((F, left.T), (V, right)):
        rows = found[modality].rows
        expected = axes * (strength / strength[0])[:, None]
        np.testing.assert_allclose(np.abs(rows / np.linalg.norm(rows[0])), np.abs(expected), atol=1e-4)


def test_few_people_in_many_dimensions_need_shrinkage_and_then_tell_of_unseen_people() -> None:
    learned, unseen = planted(40, (300, 200), samples=2, noise=6.0), planted(60, (300, 200), seed=5, noise=6.0)
    little, much = (auc_of_pairs(unseen, correlate(learned, shrinkage, 256)) for shrinkage in (0.01, 0.9))
    # not what is perfect on who was learned from
    assert auc_of_pairs(learned, correlate(learned, 0.01, 256)) > 0.99
    assert much > 0.75 and much > little + 0.05


@pytest.mark.parametrize("unsure", ["face_weights", "voice_weights"])
def test_what_is_unsure_counts_less(unsure: str) -> None:
    true, other = planted(60, (30, 20), noise=2.0), planted(60, (30, 20), seed=7, noise=2.0)
    wrong = np.r_[np.zeros(60), np.ones(60)].astype(bool)  # these voices are of somebody else
    mixed = Vectors(
        tuple(f"{number:04d}" for number in range(120)), ("",) * 120,
        np.concatenate([true.faces, other.faces]), np.arange(120),
        np.concatenate([true.voices, other.voices[::-1]]), np.arange(120),
    )  # fmt: skip
    weights = np.where(wrong, 0.05, 1.0).astype(np.float32)
    sure = dict.fromkeys(("face_weights", "voice_weights"), np.ones(120, dtype=np.float32))
    told = replace(mixed, **(sure | {unsure: weights}))
    unseen = planted(80, (30, 20), seed=9, noise=2.0)
    plain, weighted, best = (auc_of_pairs(unseen, correlate(one, 0.9, 9)) for one in (mixed, told, true))
    assert weighted > plain + 0.03 and abs(weighted - best) < 0.02


def test_a_sample_without_weight_does_not_move_its_person() -> None:
    vectors = planted(30, (6, 5), samples=2)
    weights = np.tile([1.0, 0.0], 30).astype(np.float32)
    told = replace(vectors, face_weights=weights)
    moved = replace(told, faces=vectors.faces.copy())
    moved.faces[1], moved.faces[3] = vectors.faces[3], vectors.faces[1]  # both weigh nothing; the covariance stays
    one, other = correlate(told, 0.5, 5), correlate(moved, 0.5, 5)
    np.testing.assert_allclose(np.abs(one[F].rows), np.abs(other[F].rows), rtol=1e-6, atol=1e-9)


def test_a_further_sample_that_nobody_is_sure_of_takes_nothing_from_its_person() -> None:
    vectors, ten = planted(30, (6, 5), samples=2), np.arange(30) < 10
    one_sure = np.where(ten[:, None], [1.0, 0.0], 1.0).ravel().astype(np.float32)
    np.testing.assert_allclose(_certainties(vectors, one_sure), 1)
    all_doubtful = np.where(ten[:, None], [0.1, 0.1], 1.0).ravel().astype(np.float32)
    np.testing.assert_allclose(_certainties(vectors, all_doubtful), np.where(ten, 0.1, 1.0), rtol=1e-6)


def test_samples_are_looked_at_in_blocks_and_it_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = planted(30, (6, 5), samples=3)
    whole = correlate(vectors, 0.5, 5)
    monkeypatch.setattr(correlation, "BLOCK", 7)
    parts = correlate(vectors, 0.5, 5)
    for modality in (F, V):
        np.testing.assert_allclose(np.abs(parts[modality].rows), np.abs(whole[modality].rows), rtol=1e-9, atol=1e-12)


def test_what_it_makes_has_a_length_of_1_and_no_more_directions_than_there_can_be() -> None:
    vectors = planted(9, (30, 20), samples=2)
    vectors.faces[:, 3] = 0.25  # some components of some networks never vary
    for most, expected in ((99, 8), (5, 5)):
        found = correlate(vectors, 0.9, most)
        for modality in (F, V):
            made = found[modality](vectors.of(modality))
            assert made.shape == (18, expected) and np.isfinite(made).all()
            assert np.square(made).sum(axis=1).mean() == pytest.approx(1.0)


@pytest.mark.parametrize(("shrinkage", "most"), [(0.0, 5), (1.1, 5), (0.5, 0)])
def test_impossible_numbers_are_refused(shrinkage: float, most: int) -> None:
    with pytest.raises(ValueError, match=r"shrinkage is in \(0, 1\]"):
        correlate(planted(9, (4, 3)), shrinkage, most)


def test_people_of_whom_nothing_is_known_teach_nothing() -> None:
    vectors = planted(9, (4, 3))
    with pytest.raises(ValueError, match="has both a face and a voice that anything is sure of"):
        correlate(replace(vectors, voice_weights=np.zeros(9, dtype=np.float32)), 0.5, 3)
    broken = replace(vectors, faces=np.where(np.eye(9, 4) == 1, np.nan, vectors.faces).astype(np.float32))
    with pytest.raises(ValueError, match="vectors of faces hold values that are not finite: extract them again"):
        correlate(broken, 0.5, 3)
    alike = replace(vectors, faces=np.ones_like(vectors.faces))
    with pytest.raises(ValueError, match="do not vary together: look whether"):
        correlate(alike, 0.5, 3)
