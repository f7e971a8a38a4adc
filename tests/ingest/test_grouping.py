"""Average linkage on vectors one can draw."""

from __future__ import annotations

import numpy as np
import pytest

from ingest import grouping
from ingest.grouping import group_alike


def directions(*degrees: float) -> np.ndarray:
    turns = np.radians(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)


def test_near_vectors_are_joined_and_far_ones_are_not():
    assert group_alike(directions(0, 5, 90, 95), 0.9).tolist() == [0, 0, 1, 1]


def test_groups_are_numbered_in_order_of_first_member():
    assert group_alike(directions(90, 0, 91, 1), 0.9).tolist() == [0, 1, 0, 1]


def test_vectors_held_apart_are_never_in_one_group_not_even_through_a_third():
    apart = np.zeros((3, 3), dtype=bool)
    apart[0, 2] = apart[2, 0] = True
    labels = group_alike(directions(0, 1, 2), 0.5, apart)
    assert labels[0] != labels[2]
    assert labels[1] in (labels[0], labels[2])


def test_a_chain_of_near_neighbours_is_not_one_group():
    assert group_alike(directions(*range(0, 180, 10)), 0.8).max() > 0


def test_no_vectors_have_no_groups():
    assert group_alike(np.zeros((0, 4), dtype=np.float32), 0.5).tolist() == []


@pytest.mark.parametrize("block", [4, 7])
def test_many_vectors_grouped_by_blocks_give_the_same_groups(monkeypatch, block):
    random = np.random.default_rng(0)
    vectors = directions(*(random.choice([0, 60, 120], 40) + random.normal(0, 2, 40)))
    whole = group_alike(vectors, 0.9)
    monkeypatch.setattr(grouping, "LARGEST_BLOCK", block)
    assert group_alike(vectors, 0.9).tolist() == whole.tolist()


def test_the_mean_cosine_decides_as_a_naive_loop_finds_it():
    vectors = np.random.default_rng(1).normal(size=(25, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = [[place] for place in range(len(vectors))]
    while True:
        pairs = [
            (float(np.mean(vectors[one] @ vectors[other].T)), a, b)
            for a, one in enumerate(groups)
            for b, other in enumerate(groups)
            if a < b
        ]
        best, a, b = max(pairs)
        if best < 0.3:
            break
        groups[a] += groups.pop(b)
    labels = group_alike(vectors, 0.3)
    found = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
    assert found == {frozenset(group) for group in groups}


def test_of_more_groups_than_are_compared_the_largest_are_and_the_rest_stay(monkeypatch):
    monkeypatch.setattr(grouping, "LARGEST_BLOCK", 6)
    vectors = directions(0, 1, 2, 90, 91, 180, 2, 1, 0, 90, 181, 270)
    assert group_alike(vectors, 0.9).tolist() == [0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 3]
    monkeypatch.setattr(grouping, "MOST_GROUPS", 2)
    assert group_alike(vectors, 0.9).tolist() == [0, 0, 0, 1, 1, 2, 0, 0, 0, 3, 4, 5]
