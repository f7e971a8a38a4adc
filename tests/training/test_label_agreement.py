"""How often faces and voices of unseen people get one label, on points whose answer one knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoders.space import Modality
from training.label_agreement import BATCH, MOST_BATCHES, _batches, _of_others, _paired, agreement_of_labels

Points = dict[Modality, NDArray[np.float64]]


def drawn(people: int, samples: int, apart: float) -> tuple[Points, dict[Modality, list[str]]]:
    """Points around a place that a person's faces and voices share, but for ``apart`` of noise."""
    random = np.random.default_rng(3)
    places, names = random.normal(size=(people, 6)), [f"p{row // samples:03d}" for row in range(people * samples)]
    around = {one: np.repeat(places, samples, axis=0) + apart * random.normal(size=(len(names), 6)) for one in Modality}
    return around, dict.fromkeys(Modality, names)


def test_where_faces_and_voices_are_one_point_all_labels_agree_and_others_voices_do_not() -> None:
    told = agreement_of_labels(*drawn(140, 1, apart=0.0))
    assert set(told) == {"8", "32", "64"} and all(one["agreement"] == 1.0 for one in told.values())
    assert all(one["chance"] is not None and one["chance"] < 0.35 for one in told.values())


def test_voices_that_mirror_the_faces_agree_with_them_as_much_as_the_faces_themselves() -> None:
    points, people = drawn(140, 1, apart=0.0)
    mirrored = points | {Modality.VOICE: -points[Modality.FACE]}
    assert agreement_of_labels(mirrored, people) == agreement_of_labels(points, people)


def test_the_less_faces_tell_of_voices_the_nearer_to_chance() -> None:
    near, far = (agreement_of_labels(*drawn(140, 1, apart=apart))["8"] for apart in (0.02, 30.0))
    assert near["agreement"] is not None and near["agreement"] > 0.6
    assert far["agreement"] == pytest.approx(far["chance"], abs=0.1)


def test_it_is_the_same_twice_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(1)
    first = agreement_of_labels(*drawn(130, 1, apart=0.5), clusters=(8,))
    after = torch.rand(())
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(()))
    assert first == agreement_of_labels(*drawn(130, 1, apart=0.5), clusters=(8,))
    assert first != agreement_of_labels(*drawn(130, 1, apart=0.5), clusters=(8,), seed=1)


def test_fewer_pairs_than_clusters_have_no_agreement() -> None:
    told = agreement_of_labels(*drawn(5, 2, apart=0.1))
    assert told["8"]["agreement"] is not None and told["8"]["pairs"] == 10
    assert told["32"] == {"agreement": None, "chance": None, "pairs": 0, "batch": BATCH}


def test_pairs_are_of_one_person_and_nobody_comes_twice_before_everybody_came_once() -> None:
    people = {Modality.FACE: ["b", "a", "b", "c"], Modality.VOICE: ["a", "b", "b", "d", "b"]}
    faces, voices = _paired(people, seed=0)
    assert sorted(zip(faces.tolist(), voices.tolist(), strict=True)) == [(0, 1), (1, 0), (2, 2)]
    assert {people[Modality.FACE][row] for row in faces[:2]} == {"a", "b"}


@pytest.mark.parametrize("people", ["abcd" * 3, "aabbcc", "aaabbbccc", "abcb", "aaabbc"])
def test_chance_gives_nobody_their_own_voice(people: str) -> None:
    rows = np.random.default_rng(1).permutation(len(people))
    given = _of_others(rows, people)
    assert sorted(given.tolist()) == sorted(rows.tolist())
    assert all(people[own] != people[other] for own, other in zip(rows, given, strict=True))


@pytest.mark.parametrize(("pairs", "expected"), [(0, [0]), (100, [100]), (300, [BATCH] * 2), (5000, [BATCH] * 16)])
def test_batches_are_full_and_not_too_many(pairs: int, expected: list[int]) -> None:
    rows = np.arange(pairs)
    assert [len(faces) for faces, _ in _batches((rows, rows))] == expected and MOST_BATCHES == 16


def test_nobody_has_no_agreement() -> None:
    nothing = {one: np.zeros((0, 4)) for one in Modality}
    assert agreement_of_labels(nothing, dict.fromkeys(Modality, ()))["8"]["agreement"] is None
