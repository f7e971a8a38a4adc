"""Each loss against a loop written straight from the paper's formula, in value and in gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from training.pseudo_label_losses import (
    LearnedAssociation,
    Reduction,
    ScoreScale,
    association_loss,
    association_score,
    bi_pseudo_label_loss,
    distribution_loss,
    hard_association,
    identity_loss,
    label_distribution,
)
from training.pseudo_labels import PseudoLabels, k_means, scale_columns

FACE_LABELS, VOICE_LABELS = torch.tensor([0, 1, 2, 1, 0, 2]), torch.tensor([0, 2, 2, 1, 1, 0])


def vectors(seed: int, rows: int = 6, width: int = 4) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)))


def same(
    ours: Callable[..., Tensor], slowly: Callable[..., Tensor], *inputs: Tensor, module: torch.nn.Module | None = None
) -> None:
    """Value, gradient to every input, and gradient to every parameter of a module."""
    answers = []
    for function in (ours, slowly):
        leaves = [one.clone().requires_grad_() for one in inputs]
        leaves_and_weights = leaves + ([] if module is None else list(module.parameters()))
        value = function(*leaves)
        answers.append((value.detach(), *torch.autograd.grad(value, leaves_and_weights, allow_unused=True)))
    for fast, slow in zip(*answers, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-12, rtol=1e-9)


def linear(layer: torch.nn.Module, row: Tensor) -> list[Tensor]:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return [sum(weight[i, j] * row[j] for j in range(len(row))) + bias[i] for i in range(len(bias))]


def cross_entropy_of(scores: list[Tensor], label: int) -> Tensor:
    return -torch.log(scores[label].exp() / sum(score.exp() for score in scores))


def test_the_score_is_the_double_sum_of_algorithm_1() -> None:
    def slowly(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        return sum(
            a[n, i] * torch.exp(sum(x[i, j] * b[n, j] for j in range(4))) for n in range(6) for i in range(4)
        ) * torch.ones((), dtype=torch.float64)

    same(lambda a, b, x: association_score(a, b, x).sum(), slowly, vectors(0), vectors(1), vectors(2, 4))


def test_its_gradient_is_the_one_that_algorithm_1_derives() -> None:
    (a,), (b,), x = vectors(3, 1), vectors(4, 1), vectors(5, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(association_score(a[None], b[None], x).sum(), x)
    torch.testing.assert_close(gradient, torch.outer(a * torch.exp(x.detach() @ b), b))


@pytest.mark.parametrize("scale", ["bounded", "mean", "sum"])
def test_the_learned_association_loss_is_what_the_formulas_say(scale: ScoreScale) -> None:
    torch.manual_seed(0)
    module = LearnedAssociation(4, 3, scale).double()
    torch.nn.init.normal_(module.face_labels), torch.nn.init.normal_(module.voice_labels)

    def slowly(faces: Tensor, voices: Tensor) -> Tensor:
        losses = []
        for face, voice, face_label, voice_label in zip(faces, voices, FACE_LABELS, VOICE_LABELS, strict=True):
            a = torch.stack(linear(module.face, face)) * module.face_labels[face_label]
            b = torch.stack(linear(module.voice, voice)) * module.voice_labels[voice_label]
            inner = [torch.exp(sum(module.interaction[i, j] * b[j] for j in range(4))) for i in range(4)]
            score = sum(one * other for one, other in zip(a, inner, strict=True))
            scaled = {"sum": score, "mean": score / 4, "bounded": 1 / (1 + torch.exp(-score / 4))}[scale]
            losses.append(torch.exp(-scaled))
        return torch.stack(losses).mean()

    same(
        lambda faces, voices: association_loss(module(faces, FACE_LABELS, voices, VOICE_LABELS)),
        slowly,
        vectors(6),
        vectors(7),
        module=module,
    )


def test_a_bounded_score_stays_finite_however_far_its_numbers_run() -> None:
    module = LearnedAssociation(4, 3)
    torch.nn.init.constant_(module.interaction, 1e3)
    faces = vectors(6).float().requires_grad_()
    association_loss(module(faces, FACE_LABELS, vectors(7).float(), VOICE_LABELS)).backward()
    assert faces.grad is not None and torch.isfinite(faces.grad).all()
    assert torch.isfinite(module.interaction.grad).all()


def test_the_hard_score_is_one_where_labels_are_the_same_and_teaches_nothing() -> None:
    scores = hard_association(FACE_LABELS, VOICE_LABELS)
    assert scores.tolist() == [1, 0, 1, 1, 0, 0] and not scores.requires_grad
    assert association_loss(scores).item() == pytest.approx((3 * np.exp(-1) + 3) / 6)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_each_modality_is_taught_the_labels_of_the_other(reduction: Reduction) -> None:
    torch.manual_seed(1)
    classifier = torch.nn.Linear(4, 3).double()

    def slowly(faces: Tensor, voices: Tensor) -> Tensor:
        losses = [
            cross_entropy_of(linear(classifier, face), int(voice_label))
            + cross_entropy_of(linear(classifier, voice), int(face_label))
            for face, voice, face_label, voice_label in zip(faces, voices, FACE_LABELS, VOICE_LABELS, strict=True)
        ]
        return sum(losses) / (6 if reduction == "mean" else 1)

    same(
        lambda faces, voices: bi_pseudo_label_loss(classifier, faces, FACE_LABELS, voices, VOICE_LABELS, reduction),
        slowly,
        vectors(8),
        vectors(9),
        module=classifier,
    )


def divided(seed: int, clusters: int = 3, rows: int = 12) -> tuple[Tensor, PseudoLabels]:
    features = vectors(seed, rows)
    scaled = scale_columns(features)
    return features, k_means(scaled, scaled[:clusters])


def softmaxed(values: list[Tensor]) -> list[Tensor]:
    return [value.exp() / sum(other.exp() for other in values) for value in values]


def distance(one: list[Tensor], other: Tensor) -> Tensor:
    squares = sum((here - there) ** 2 for here, there in zip(one, other, strict=True))
    return torch.sqrt(squares) if float(squares.detach()) > 0 else squares  # at 0 the gradient is taken to be 0


def slow_shares(features: Tensor, found: PseudoLabels, reduction: Reduction) -> list[Tensor]:
    """Numbers of labels in the value, numbers of soft labels in the gradient."""
    least, most = features.detach().min(dim=0).values, features.detach().max(dim=0).values
    totals = [torch.zeros((), dtype=torch.float64) for _ in found.centres]
    for row, label in zip(features, found.labels.tolist(), strict=True):
        scaled = [2 * (row[j] - least[j]) / (most[j] - least[j]) - 1 for j in range(len(row))]
        away = [distance(scaled, centre) for centre in found.centres]
        soft = softmaxed([-one / 0.7 for one in away])
        totals = [
            total + (1.0 if place == label else 0.0) + soft[place] - soft[place].detach()
            for place, total in enumerate(totals)
        ]
    return softmaxed([total / (len(features) if reduction == "mean" else 1) for total in totals])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_distribution_loss_is_half_of_both_divergences_of_the_labels_softmax(reduction: Reduction) -> None:
    (faces, face_labels), (voices, voice_labels) = divided(10), divided(11)

    def ours(faces: Tensor, voices: Tensor) -> Tensor:
        return distribution_loss(
            label_distribution(faces, face_labels, 0.7, reduction),
            label_distribution(voices, voice_labels, 0.7, reduction),
        )

    def slowly(faces: Tensor, voices: Tensor) -> Tensor:
        p, q = slow_shares(faces, face_labels, reduction), slow_shares(voices, voice_labels, reduction)
        one = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
        return 0.5 * (one + sum(b * torch.log(b / a) for a, b in zip(p, q, strict=True)))

    assert float(ours(faces, voices)) > 0
    same(ours, slowly, faces, voices)


def test_the_distribution_loss_is_zero_only_where_labels_are_as_frequent_in_both() -> None:
    def loss(face_labels: list[int], voice_labels: list[int]) -> float:
        found = (PseudoLabels(torch.tensor(some), vectors(1, 3)) for some in (face_labels, voice_labels))
        return float(distribution_loss(*(label_distribution(vectors(0), one, 1.0, "mean") for one in found)))

    assert loss([0, 0, 0, 1, 1, 2], [2, 1, 0, 1, 0, 0]) == pytest.approx(0, abs=1e-15)
    assert loss([0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 2, 2]) > 1e-3


def test_faces_and_voices_have_the_same_part_in_the_distribution_loss() -> None:
    p, q = torch.log_softmax(vectors(2)[0], dim=0), torch.log_softmax(vectors(3)[0], dim=0)
    torch.testing.assert_close(distribution_loss(p, q), distribution_loss(q, p))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_identity_loss_is_what_equation_9_says(reduction: Reduction) -> None:
    torch.manual_seed(2)
    people, sexes = torch.nn.Linear(4, 3).double(), torch.nn.Linear(4, 2).double()
    weights = [*people.parameters(), *sexes.parameters()]
    features, person, sex = vectors(3, 4).requires_grad_(), torch.tensor([0, 2, 1, 1]), torch.tensor([0, -1, 1, -1])

    parts = identity_loss(people, sexes, features, person, sex, reduction)
    by_person = sum(cross_entropy_of(linear(people, row), int(one)) for row, one in zip(features, person, strict=True))
    by_sex = sum(
        cross_entropy_of(linear(sexes, row), int(one)) for row, one in zip(features, sex, strict=True) if one >= 0
    )
    expected = by_person + by_sex if reduction == "sum" else by_person / 4 + by_sex / 2
    torch.testing.assert_close(parts["person"] + parts["sex"], expected)
    for fast, slow in zip(
        torch.autograd.grad(parts["person"] + parts["sex"], [features, *weights]),
        torch.autograd.grad(expected, [features, *weights]),
        strict=True,
    ):
        torch.testing.assert_close(fast, slow)
