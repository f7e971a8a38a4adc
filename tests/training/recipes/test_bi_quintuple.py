"""The task, its settings and its schedule; its losses are tested in tests/training/test_losses.py."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from encoders.space import Modality
from tests.training.small_run import small_given
from training.recipe import Batch
from training.recipes.bi_quintuple import (
    HEAD_LAYERS,
    POPULATION,
    BiQuintupleTask,
    Settings,
    build,
    learning_rate,
    optimiser,
)


def value(scalar: Tensor) -> float:
    return float(scalar.detach())


def invented_batch(people: int = 4, samples: int = 2, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    owners = torch.arange(people).repeat_interleave(samples)
    faces = torch.randn(len(owners), 3, 64, 64, generator=random)
    return Batch(faces, owners, torch.randn(len(owners), 48, 40, generator=random), None, owners)


def test_a_task_is_determined_by_its_seed_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (build(POPULATION, small_given(5), seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_the_total_is_the_sum_of_both_losses_or_the_one_that_is_wanted() -> None:
    batch = invented_batch()
    both = build(POPULATION, small_given(4), 0).losses(batch)
    torch.testing.assert_close(both["total"], both["bi_quintuple"] + both["identity"])
    only = build(replace(POPULATION, identity_loss=False), small_given(4), 0).losses(batch)
    torch.testing.assert_close(only["total"], only["bi_quintuple"])
    only = build(replace(POPULATION, bi_quintuple_loss=False), small_given(4), 0).losses(batch)
    torch.testing.assert_close(only["total"], only["identity"])


def test_the_classifier_sees_what_the_head_gives_before_it_is_normalised() -> None:
    task, batch = build(POPULATION, small_given(4), 0).eval(), invented_batch()
    seen = []
    task.classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    task.losses(batch)
    torch.testing.assert_close(seen[0], task.embed(Modality.FACE, batch.faces))
    torch.testing.assert_close(seen[1], task.embed(Modality.VOICE, batch.voices))


def test_every_parameter_learns_from_a_batch() -> None:
    task = build(POPULATION, small_given(4), 0)
    torch.nn.init.constant_(task.head.shared[0].eta, 0.1)  # at 0 nothing reaches the inner layers
    task.losses(invented_batch())["total"].backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in task.parameters())


def test_a_few_steps_learn_a_batch_by_heart() -> None:
    settings, batch = replace(POPULATION, learning_rate=0.05), invented_batch()
    task = build(settings, small_given(4), 0)
    steps = optimiser(task, settings)
    losses = []
    for _ in range(15):
        terms = task.losses(batch)
        steps.zero_grad()
        terms["total"].backward()
        steps.step()
        losses.append(terms["total"].item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_optimiser_is_the_published_one() -> None:
    published = Settings(learning_rate=0.02, weight_decay=5e-4)
    (group,) = optimiser(BiQuintupleTask(replace(published, embedding=128), small_given(4)), published).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.9, 5e-4)


@pytest.mark.parametrize("curve", ["cosine", "exponential"])
def test_the_learning_rate_rises_to_its_largest_and_then_falls_to_its_last(curve) -> None:
    settings = Settings(learning_rate=0.1, final_learning_rate=1e-4, curve=curve, warm_up=0.1)
    rates = [learning_rate(settings, progress / 100) for progress in range(101)]
    assert rates[0] == 0
    assert rates[10] == max(rates) == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(1e-4)


def test_a_constant_rate_stays_the_largest_after_its_rise() -> None:
    settings = Settings(learning_rate=0.1, final_learning_rate=1e-4, curve="constant", warm_up=0.2)
    rates = [learning_rate(settings, progress / 10) for progress in range(11)]
    assert rates == pytest.approx([0, 0.05] + [0.1] * 9)


def test_the_exponential_curve_is_straight_on_a_logarithmic_scale() -> None:
    published = Settings(learning_rate=1e-3, final_learning_rate=1e-8, curve="exponential", warm_up=0)
    assert learning_rate(published, 0) == pytest.approx(1e-3)
    assert learning_rate(published, 0.2) == pytest.approx(1e-4)
    assert learning_rate(published, 1) == pytest.approx(1e-8)


def test_progress_outside_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        learning_rate(Settings(), 1.5)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "epochs and steps, got 0"),
        ({"steps_per_epoch": 0}, "epochs and steps, got 20 and 0"),
        ({"people_per_batch": 1}, "at least 2 people"),
        ({"samples_per_person": 0}, "96 with 0"),
        ({"margin": -0.1}, r"margin at least 0, .* -0\.1"),
        ({"final_learning_rate": 1.0}, r"falls from learning_rate \(0\.15\) to final_learning_rate \(1\.0\)"),
        ({"final_learning_rate": 0.0}, "both above 0"),
        ({"curve": "square"}, "cosine, exponential, constant, .* square"),
        ({"warm_up": 1.0}, r"warm_up in \[0, 1\)"),
        ({"momentum": 1.0}, r"momentum is in \[0, 1\)"),
        ({"identity_loss": False, "bi_quintuple_loss": False}, "nothing to train by"),
        ({"mirror": 1.5}, r"mirror is in \[0, 1\]"),
        ({"frames": 0}, "at least 1 frame"),
    ],
)
def test_impossible_settings_are_refused(wrong, told) -> None:
    with pytest.raises(ValueError, match=told):
        replace(POPULATION, **wrong)


@pytest.mark.parametrize(
    ("people", "batch", "mining"),
    [(1250, 96, 4), (106, 96, 4), (105, 76, 4), (20, 12, 4), (6, 4, 4), (4, 3, None), (2, 2, None)],
)
def test_few_people_fill_smaller_batches_with_some_to_spare(people: int, batch: int, mining: int | None) -> None:
    fitted = POPULATION.fitting(people)
    assert (fitted.people_per_batch, fitted.people_per_mining) == (batch, mining)


def test_one_person_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="at least 2 people, got 1"):
        build(POPULATION, small_given(1), 0)


def test_groups_that_do_not_divide_the_people_are_refused() -> None:
    with pytest.raises(ValueError, match="people_per_mining divides people_per_batch"):
        Settings(people_per_batch=16, people_per_mining=5)


def test_a_task_mines_among_the_people_that_its_settings_say() -> None:
    batch = invented_batch(people=4, samples=2)
    whole, grouped = (
        build(
            replace(POPULATION, people_per_batch=4, samples_per_person=2, people_per_mining=size),
            small_given(4),
            seed=1,
        )
        .eval()
        .losses(batch)
        for size in (None, 2)
    )
    assert 0 < value(grouped["cth_face"]) < value(whole["cth_face"])
    assert value(grouped["identity"]) == value(whole["identity"])


def test_the_defaults_are_the_papers() -> None:
    paper = Settings()
    assert (paper.epochs, paper.people_per_batch, paper.samples_per_person, paper.people_per_mining) == (
        50,
        16,
        4,
        None,
    )
    assert (paper.margin, paper.momentum, paper.weight_decay) == (0.6, 0.9, 5e-4)
    assert (paper.face_backbone, paper.voice_backbone, paper.embedding) == ("inception_resnet_v1", "dimnet_voice", 256)
    assert (paper.learning_rate, paper.final_learning_rate, paper.head) == (1e-3, 1e-8, "weighted_residual")
    assert (learning_rate(paper, 0.0), learning_rate(paper, 1.0)) == (pytest.approx(1e-3), pytest.approx(1e-8))
    assert isinstance(optimiser(build(POPULATION, small_given(4), 0), paper), torch.optim.SGD)


@pytest.mark.parametrize("head", HEAD_LAYERS)
def test_each_head_that_the_paper_compares_learns(head) -> None:
    settings, batch = replace(POPULATION, head=head, learning_rate=0.05), invented_batch()
    task = build(settings, small_given(4), 0)
    steps, first = optimiser(task, settings), value(task.losses(batch)["total"])
    for _ in range(5):
        steps.zero_grad()
        task.losses(batch)["total"].backward()
        steps.step()
    assert value(task.losses(batch)["total"]) < first
    fixed = [name for name, _ in task.head.named_buffers() if name.endswith("eta")]
    assert bool(fixed) == (head == "residual")
