import math

import pytest
import torch

from training.fusion import GatedFusion, orthogonal_loss


def drawn(rows=7, columns=5, seed=0, people=3):
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, columns, generator=random, dtype=torch.float64)
    return vectors, torch.randint(people, (rows,), generator=random)


def loop_orthogonal(vectors, people, form):
    """Equation 10, pair by pair."""
    within, between, mates, strangers = 0.0, 0.0, 0, 0
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            cosine = (one * other).sum() / one.square().sum().sqrt() / other.square().sum().sqrt()
            if people[i] != people[j]:
                between, strangers = between + cosine, strangers + 1
            elif i != j or form == "sum":
                within, mates = within + cosine, mates + 1
    if form == "mean":
        within, between = within / max(1, mates), between / max(1, strangers)
    return 1.0 - within + abs(between)


def gradient(loss, vectors):
    return torch.autograd.grad(loss, vectors)[0]


@pytest.mark.parametrize("form", ["sum", "sum_without_diagonal", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_the_orthogonal_loss_is_the_printed_one_in_value_and_gradient(form, seed):
    vectors, people = drawn(seed=seed)
    vectors.requires_grad_()
    ours, naive = orthogonal_loss(vectors, people, form)["orthogonal"], loop_orthogonal(vectors, people, form)
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(gradient(ours, vectors), gradient(naive, vectors))


@pytest.mark.parametrize("form", ["sum_without_diagonal", "mean"])
def test_who_is_alone_in_a_batch_has_nobody_to_be_like(form):
    found = orthogonal_loss(torch.eye(3), torch.arange(3), form)
    assert {name: value.item() for name, value in found.items()} == {"orthogonal": 1.0, "within": 0.0, "between": 0.0}


def test_as_printed_the_sum_holds_every_vector_with_itself():
    assert orthogonal_loss(torch.eye(3), torch.arange(3))["orthogonal"].item() == 1.0 - 3.0


def descended(form_of_loss, vectors, steps=120):
    vectors = vectors.clone().requires_grad_()
    optimiser = torch.optim.SGD([vectors], lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        form_of_loss(vectors).backward()
        optimiser.step()
    return torch.nn.functional.normalize(vectors.detach(), dim=1)


def test_mates_become_one_direction_and_strangers_stand_at_right_angles():
    people = torch.tensor([0, 0, 1, 1])
    near = torch.tensor([[1.0, 0.2, 0.1], [1.0, -0.6, 0.0], [0.9, 0.3, 0.5], [1.0, 0.1, -0.4]])
    directions = descended(lambda vectors: orthogonal_loss(vectors, people, "mean")["orthogonal"], near)
    cosines = directions @ directions.T
    assert cosines[0, 1] > 0.99 and cosines[2, 3] > 0.99 and cosines[:2, 2:].abs().max() < 0.15


def test_without_the_sum_over_mates_they_need_not_be_alike_and_without_the_other_all_become_one():
    people = torch.tensor([0, 0, 1, 1])
    near = torch.tensor([[1.0, 0.2, 0.1], [1.0, -0.6, 0.0], [0.9, 0.3, 0.5], [1.0, 0.1, -0.4]])

    def of_strangers(vectors):  # mates that never meet have no sum
        return orthogonal_loss(vectors, torch.arange(4), "mean")["orthogonal"]

    apart = descended(of_strangers, near)
    assert (apart[0] @ apart[1]) < 0.9
    together = descended(lambda vectors: orthogonal_loss(vectors, people * 0, "mean")["orthogonal"], near)
    assert (together @ together.T).min() > 0.99


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="choose one of: sum, sum_without_diagonal, mean"):
        orthogonal_loss(torch.eye(2), torch.arange(2), "median")


@pytest.mark.parametrize("scalar", [False, True])
def test_the_gate_is_that_of_the_equations_in_value_and_gradient(scalar):
    fusion = GatedFusion(7, 3, scalar=scalar).double()
    face, voice, u, v = (drawn(4, width, seed)[0].requires_grad_() for seed, width in enumerate((4, 3, 3, 3)))
    rows = []
    for i in range(4):
        both = torch.cat([voice[i], face[i]])
        alphas = [
            1 / (1 + torch.exp(-(gate.weight @ both + gate.bias))) for gate in (fusion.face_gate, fusion.voice_gate)
        ]
        k = alphas[0].exp() / (alphas[0].exp() + alphas[1].exp())
        rows.append(
            torch.stack([k[c * (not scalar)] * u[i, c] + (1 - k[c * (not scalar)]) * v[i, c] for c in range(3)])
        )
    naive, ours = torch.stack(rows), fusion((u, v), fusion.share(face, voice))
    torch.testing.assert_close(ours, naive)
    given = [face, voice, u, v, *fusion.parameters()]
    for one, other in zip(*(torch.autograd.grad(x.square().sum(), given) for x in (ours, naive)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_gate_per_element_has_as_many_shares_as_there_are_components_and_a_scalar_one_has_one():
    face, voice = drawn(4, 4)[0].float(), drawn(4, 3)[0].float()
    shares = GatedFusion(7, 5).share(face, voice), GatedFusion(7, 5, scalar=True).share(face, voice)
    assert shares[0].shape == (4, 5) and shares[1].shape == (4, 1)
    least, most = 1 / (1 + math.e), math.e / (1 + math.e)
    assert all(least < one.min() and one.max() < most for one in shares)


def test_the_gate_learns_which_of_the_two_is_noise():
    random = torch.Generator().manual_seed(0)
    people = torch.arange(200) % 4
    said = torch.eye(4)[people] + 0.1 * torch.randn(200, 4, generator=random)
    noise = torch.randn(200, 4, generator=random)
    flag = (torch.arange(200) % 2).float()[:, None]  # which of the two tells who it is
    face, voice = torch.cat([flag, 1 - flag], dim=1), flag * 0
    u, v = flag * said + (1 - flag) * noise, flag * noise + (1 - flag) * said
    torch.manual_seed(0)
    fusion = GatedFusion(3, 4)
    optimiser = torch.optim.Adam(fusion.parameters(), lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(5 * fusion((u, v), fusion.share(face, voice)), people).backward()
        optimiser.step()
    share = fusion.share(face, voice).detach()
    assert share[flag[:, 0] == 1].mean() > 0.6 and share[flag[:, 0] == 0].mean() < 0.4
