"""Plans against every assignment there is, the term against a loop, and what the choice of samples is for."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from training.optimal_transport import SOLVERS, mutual_best, squared_distances, transport_loss, transport_plan


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cheapest(costs: Tensor) -> tuple[float, Tensor]:
    """By trying every assignment: its cost, and it as a plan."""
    count, table = len(costs), costs.tolist()
    best = min(permutations(range(count)), key=lambda one: sum(table[row][one[row]] for row in range(count)))
    plan = torch.zeros(count, count, dtype=costs.dtype)
    for row, column in enumerate(best):
        plan[row, column] = 1 / count
    return float((plan * costs).sum()), plan


@hypothesis_settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 6), seed=st.integers(0, 2**20))
def test_the_exact_plan_of_a_square_is_the_cheapest_assignment(count: int, seed: int) -> None:
    costs = drawn(count, count, seed=seed).square()
    torch.testing.assert_close(transport_plan(costs), cheapest(costs)[1])


@hypothesis_settings(max_examples=20, deadline=None)
@given(costs=st.lists(st.integers(0, 2), min_size=16, max_size=16))
def test_where_many_plans_are_cheapest_one_of_them_is_found(costs: list[int]) -> None:
    table = torch.tensor(costs, dtype=torch.float64).reshape(4, 4)
    plan = transport_plan(table)
    assert float((plan * table).sum()) == pytest.approx(cheapest(table)[0])
    torch.testing.assert_close(plan.sum(dim=1), torch.full((4,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 6), (7, 2)])
def test_all_rows_carry_alike_and_all_columns_get_alike(solver, shape) -> None:
    plan = transport_plan(drawn(*shape, seed=1).square().float(), solver)
    assert plan.dtype == torch.float32 and float(plan.min()) >= 0
    torch.testing.assert_close(plan.sum(dim=1), torch.full((shape[0],), 1 / shape[0]))
    torch.testing.assert_close(plan.sum(dim=0), torch.full((shape[1],), 1 / shape[1]))


def test_a_face_of_two_columns_mass_is_shared_among_the_two_nearest() -> None:
    plan = transport_plan(torch.tensor([[0.0, 1.0, 9.0, 9.0], [9.0, 9.0, 2.0, 0.0]]))
    torch.testing.assert_close(plan, torch.tensor([[0.25, 0.25, 0, 0], [0, 0, 0.25, 0.25]]))


def test_sinkhorns_plan_costs_more_and_nears_the_exact_one_as_its_entropy_counts_less() -> None:
    costs = drawn(6, 6, seed=2).square()
    spent = [float((costs * transport_plan(costs, "sinkhorn", share)).sum()) for share in (1.0, 0.1, 0.005)]
    assert spent[0] > spent[1] > spent[2] >= cheapest(costs)[0] - 1e-9
    assert spent[2] == pytest.approx(cheapest(costs)[0], rel=0.06)


@pytest.mark.parametrize("solver", SOLVERS)
def test_costs_of_nothing_and_costs_that_are_no_numbers_have_a_plan(solver) -> None:
    assert float(transport_plan(torch.zeros(3, 3), solver).sum()) == pytest.approx(1)
    assert transport_plan(torch.tensor([[1.0, math.nan], [0.0, math.inf]]), solver).isnan().all()


def test_squared_distances_keep_the_digits_of_near_and_far_away_points() -> None:
    one = torch.tensor([[10_000.0, 1.0]])
    assert squared_distances(one, one + torch.tensor([[0.0, 0.5]])).item() == 0.25


def slowly(faces: Tensor, voices: Tensor) -> Tensor:
    """Equations 5 to 7 sample by sample, over the cheapest assignment of all."""
    costs = [[sum((face[k] - voice[k]) ** 2 for k in range(len(face))) for voice in voices] for face in faces]
    plan = cheapest(torch.tensor([[float(one.detach()) for one in row] for row in costs]))[1]
    return sum(costs[a][b] * float(plan[a, b]) for a in range(len(faces)) for b in range(len(voices)))  # type: ignore[return-value]


@hypothesis_settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 5), seed=st.integers(0, 2**20))
def test_the_term_is_what_the_formulas_say_in_value_and_gradient(count: int, seed: int) -> None:
    answers = []
    for function in (slowly, transport_loss):
        inputs = [drawn(count, 3, seed=seed + place).requires_grad_() for place in (0, 1)]
        loss = function(*inputs)
        loss.backward()
        answers.append((loss.detach(), *(one.grad for one in inputs)))
    for naive, fast in zip(*answers, strict=True):
        torch.testing.assert_close(fast, naive)


def test_no_gradient_leads_through_the_plan() -> None:
    costs = drawn(4, 4).square().requires_grad_()
    for solver in SOLVERS:
        assert not transport_plan(costs, solver).requires_grad
    faces, voices = drawn(4, 3, seed=3).requires_grad_(), drawn(4, 3, seed=4)
    transport_loss(faces, voices, "sinkhorn").backward()
    plan = transport_plan(squared_distances(faces, voices), "sinkhorn")
    # with the plan held, the derivative of Σ γ·‖f − v‖² after f is 2·Σ γ·(f − v), and nothing else
    pulled = (2 * plan[:, :, None] * (faces.detach()[:, None] - voices[None])).sum(dim=1)
    torch.testing.assert_close(faces.grad, pulled)


def test_nobody_chosen_costs_nothing_and_pulls_nowhere() -> None:
    faces = drawn(3, 2).requires_grad_()
    loss = transport_loss(faces[:0], drawn(3, 2)[:0])
    loss.backward()
    assert loss.item() == 0 and not faces.grad.any()


def test_only_pairs_that_beat_their_row_and_their_column_are_chosen() -> None:
    similarities = torch.tensor(
        [
            [0.9, 0.1, 0.2, 0.2],
            [0.3, 0.5, 0.5, 0.1],  # a tie in its row
            [0.0, 0.1, 0.6, 0.7],  # beaten in its row
            [0.1, 0.2, 0.3, 0.6],  # best of its row, beaten in its column
        ]
    )
    chosen = mutual_best(similarities, torch.eye(4, dtype=torch.bool))
    assert chosen.tolist() == [True, False, False, False]


@hypothesis_settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 6), people=st.integers(1, 6), seed=st.integers(0, 2**20))
def test_the_choice_is_what_its_sentence_says(count: int, people: int, seed: int) -> None:
    similarities, owners = drawn(count, count, seed=seed), torch.arange(count) % people
    same = owners[:, None] == owners[None, :]
    for place, chosen in enumerate(mutual_best(similarities, same).tolist()):
        rivals = [other for other in range(count) if not same[place, other]]
        own = similarities[place, place]
        row, column = (
            [float(own) > float(one) for one in line[rivals]] for line in (similarities[place], similarities[:, place])
        )
        assert chosen == all(row + column)


def test_a_pair_without_rivals_is_chosen_and_one_that_is_no_number_is_not() -> None:
    assert mutual_best(torch.tensor([[-0.5]]), torch.ones(1, 1, dtype=torch.bool)).tolist() == [True]
    assert mutual_best(torch.full((2, 2), math.nan), torch.eye(2, dtype=torch.bool)).tolist() == [False, False]


def test_the_choice_keeps_people_apart_who_would_be_carried_to_each_other() -> None:
    # The faces of two people lie nearer to each other's voices than to their own; a third is where it should be.
    faces = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]], requires_grad=True)
    voices = torch.tensor([[5.0, 0.0], [-1.0, 0.0], [1.0, 9.0]])
    chosen = mutual_best(-squared_distances(faces, voices), torch.eye(3, dtype=torch.bool))
    assert chosen.tolist() == [False, False, True]
    transport_loss(faces, voices).backward()
    assert faces.grad[1, 0] < 0 < faces.grad[0, 0]  # each away from its own voice, to the other's
    faces.grad = None
    transport_loss(faces[chosen], voices[chosen]).backward()
    assert faces.grad[:2].abs().max() == 0 and faces.grad[2, 0] < 0


def test_chosen_vectors_of_unit_length_are_carried_each_to_its_own() -> None:
    faces = torch.nn.functional.normalize(drawn(40, 3, seed=5), dim=1)
    voices = torch.nn.functional.normalize(faces + 0.2 * drawn(40, 3, seed=6), dim=1)
    chosen = mutual_best(faces @ voices.T, torch.eye(40, dtype=torch.bool))
    count = int(chosen.sum())
    assert 1 < count < 40
    plan = transport_plan(squared_distances(faces[chosen], voices[chosen]))
    torch.testing.assert_close(plan, torch.eye(count, dtype=torch.float64) / count)
