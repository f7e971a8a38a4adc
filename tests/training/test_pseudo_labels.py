"""Clusters and prototypes against scikit-learn, against loops, and against what can be seen by eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from training.pseudo_labels import (
    PrototypeMemory,
    PseudoLabels,
    geometric_median,
    k_means,
    k_means_starts,
    label_agreement,
    medoid,
    pair_labels,
    rank_clusters,
    scale_columns,
)


def points(count: int, dimension: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, dimension)))


def spread(middle: Tensor, around: Tensor) -> float:
    """Sum of Euclidean distances, in a loop."""
    return sum(float((point - middle).square().sum().sqrt()) for point in around)


def test_every_column_goes_from_minus_one_to_one_in_a_straight_line() -> None:
    vectors = points(7, 3, 0)
    scaled = scale_columns(vectors)
    for column in range(3):
        values = vectors[:, column].tolist()
        expected = [-1 + (value - min(values)) * 2 / (max(values) - min(values)) for value in values]
        assert scaled[:, column].tolist() == pytest.approx(expected)


def test_a_column_of_one_value_becomes_zeros() -> None:
    scaled = scale_columns(torch.tensor([[4.0, 1.0], [4.0, 3.0]]))
    assert scaled.tolist() == [[0.0, -1.0], [0.0, 1.0]]


def test_a_single_sample_becomes_zeros() -> None:
    assert scale_columns(torch.tensor([[4.0, -1.0]])).tolist() == [[0.0, 0.0]]


def test_scaling_passes_the_gradient_by_its_factor_alone() -> None:
    vectors = torch.tensor([[1.0, 7.0], [5.0, 7.0], [2.0, 7.0]], requires_grad=True)
    scale_columns(vectors).sum().backward()
    assert vectors.grad is not None and vectors.grad.tolist() == [[0.5, 0.0]] * 3


@hypothesis_settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 12), dimension=st.integers(1, 5), seed=st.integers(0, 2**20))
def test_no_step_from_the_geometric_median_lessens_the_distances(count: int, dimension: int, seed: int) -> None:
    around = points(count, dimension, seed)
    middle = geometric_median(around)
    least = spread(middle, around)
    assert least <= min(spread(point, around) for point in around) + 1e-9
    for size in (1e-1, 1e-3, 1e-5):
        for step in torch.nn.functional.normalize(points(8, dimension, seed + 1), dim=1) * size:
            assert least <= spread(middle + step, around) + 1e-10


def test_where_the_geometric_median_is_a_point_it_is_found_exactly() -> None:
    around = torch.cat([points(9, 4, 3), torch.full((12, 4), 5.0, dtype=torch.float64)])
    assert torch.equal(geometric_median(around), around[-1])


def test_the_geometric_median_of_a_wide_triangle_is_its_blunt_corner() -> None:
    around = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # 143 degrees, above 120
    assert geometric_median(around).tolist() == [0.0, 1.0]


def test_the_geometric_median_of_a_square_is_its_middle() -> None:
    around = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(geometric_median(around), torch.ones(2, dtype=torch.float64), atol=1e-9, rtol=0)


def test_equal_points_are_their_own_median() -> None:
    assert geometric_median(torch.ones(5, 3, dtype=torch.float64)).tolist() == [1.0, 1.0, 1.0]


def test_the_medoid_is_the_best_of_the_points() -> None:
    around = points(11, 3, 5)
    assert torch.equal(medoid(around), min(around, key=lambda point: spread(point, around)))


def test_prototypes_are_steadied_by_the_mean_of_the_earlier_ones() -> None:
    memory, earlier = PrototypeMemory(4), []
    for prototype in points(6, 4, 6).float().double():
        steadied = memory(prototype)
        expected = prototype if not earlier else 0.9 * prototype + 0.1 * torch.stack(earlier).mean(dim=0)
        torch.testing.assert_close(steadied, expected, atol=1e-6, rtol=0)
        earlier.append(steadied)


def test_a_memory_that_is_read_back_goes_on_with_the_same_numbers() -> None:
    one, other = PrototypeMemory(4), PrototypeMemory(4)
    first, second, third = points(3, 4, 7)
    one(first), one(second)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(third), other(third))
    assert torch.equal(one.mean, other.mean) and int(other.count) == 3


def test_evaluation_leaves_the_memory_as_it_is() -> None:
    memory = PrototypeMemory(4)
    memory(points(1, 4, 8)[0])
    before = memory.mean.clone()
    memory.eval()(points(1, 4, 9)[0])
    assert torch.equal(memory.mean, before) and int(memory.count) == 1


def oracle(samples: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    model = KMeans(len(starts), init=starts.numpy(), n_init=1, tol=0.0, max_iter=1000, algorithm="lloyd")
    model.fit(samples.numpy())
    return torch.from_numpy(model.labels_).long(), torch.from_numpy(model.cluster_centers_)


@pytest.mark.parametrize(("count", "clusters"), [(40, 3), (128, 8), (128, 32), (128, 64), (9, 9)])
def test_k_means_is_scikit_learns_from_the_same_start(count: int, clusters: int) -> None:
    samples = points(count, 6, count + clusters)
    starts = samples[torch.from_numpy(np.random.default_rng(1).permutation(count)[:clusters])]
    found, (labels, centres) = k_means(samples, starts), oracle(samples, starts)
    assert torch.equal(found.labels, labels)
    torch.testing.assert_close(found.centres, centres, atol=1e-12, rtol=1e-12)


def test_empty_clusters_begin_again_as_scikit_learns_do() -> None:
    samples = points(30, 2, 11)
    starts = torch.cat([samples[:3], torch.full((2, 2), 50.0, dtype=torch.float64) * torch.tensor([[1], [2]])])
    found, (labels, centres) = k_means(samples, starts), oracle(samples, starts)
    assert torch.equal(found.labels, labels) and len(found.labels.unique()) == 5
    torch.testing.assert_close(found.centres, centres, atol=1e-12, rtol=1e-12)


def test_each_point_is_nearest_to_the_mean_of_its_own_cluster() -> None:
    samples = points(60, 4, 12)
    found = k_means(samples, samples[k_means_starts(samples, 7)])
    means = torch.stack([samples[found.labels == label].mean(dim=0) for label in range(7)])
    torch.testing.assert_close(found.centres, means)
    assert torch.equal(torch.cdist(samples, means).argmin(dim=1), found.labels)


def test_fewer_different_points_than_clusters_leave_clusters_empty() -> None:
    samples = points(2, 3, 13).repeat(4, 1)
    found = k_means(samples, samples[k_means_starts(samples, 5)])
    assert len(found.labels.unique()) == 2 and torch.isfinite(found.centres).all()
    torch.testing.assert_close(found.centres[found.labels], samples)


def test_more_clusters_than_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="4 samples cannot make 5 clusters: enlarge the batch, or ask for fewer"):
        k_means(points(4, 2, 0), points(5, 2, 0))


def test_starts_are_different_samples_drawn_by_torchs_generator() -> None:
    samples = points(20, 3, 14)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(k_means_starts(samples, 20).tolist())
    assert sorted(drawn[0]) == list(range(20))
    assert drawn[0] == drawn[1] != drawn[2]


def test_starts_are_drawn_by_their_squared_distance() -> None:
    samples = torch.tensor([[0.0], [0.0], [0.0], [1.0], [3.0]], dtype=torch.float64)
    torch.manual_seed(3)
    seconds = [pair[1] for pair in (k_means_starts(samples, 2).tolist() for _ in range(2500)) if pair[0] < 3]
    assert set(seconds) == {3, 4}
    assert seconds.count(4) / len(seconds) == pytest.approx(0.9, abs=0.025)  # 3² of 1² + 3²


def test_the_cluster_nearest_to_the_prototype_is_the_first() -> None:
    centres = torch.tensor([[4.0, 0.0], [1.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
    ranked = rank_clusters(PseudoLabels(torch.tensor([0, 0, 1, 2]), centres), torch.zeros(2, dtype=torch.float64))
    assert ranked.labels.tolist() == [2, 2, 0, 1]
    assert ranked.centres.tolist() == [[1.0, 0.0], [0.0, -2.0], [4.0, 0.0]]


@pytest.mark.parametrize("paired", [True, False])
def test_labels_of_pairs_are_k_means_ranked_in_each_modality(paired: bool) -> None:
    faces, voices, prototypes = points(20, 3, 15), points(20, 3, 16), (points(1, 3, 17)[0], points(1, 3, 18)[0])
    torch.manual_seed(5)
    found = pair_labels(faces, voices, prototypes, 4, paired)
    torch.manual_seed(5)
    both = k_means_starts(torch.cat([faces, voices], dim=1), 4) if paired else None
    starts = [k_means_starts(one, 4) if both is None else both for one in (faces, voices)]
    for ours, one, start, prototype in zip(found, (faces, voices), starts, prototypes, strict=True):
        expected = rank_clusters(k_means(one, one[start]), prototype)
        assert torch.equal(ours.labels, expected.labels) and torch.equal(ours.centres, expected.centres)


def test_agreement_is_the_share_of_pairs_of_one_label() -> None:
    assert label_agreement(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, 2, 1])).item() == 0.5
