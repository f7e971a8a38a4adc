"""The losses against loops written straight from the paper's formulas, values and gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from encoders.space import Modality
from tests.training.small_run import small_given
from training.recipe import Batch
from training.recipes.bi_quintuple import (
    HEAD_LAYERS,
    POPULATION,
    TRIPLET_FORMS,
    BiQuintupleTask,
    Settings,
    bi_quintuple,
    build,
    identity_loss,
    learning_rate,
    optimiser,
)


def value(scalar: Tensor) -> float:
    return float(scalar.detach())


def distance(one: Tensor, other: Tensor) -> Tensor:
    squares = sum((one[place] - other[place]) ** 2 for place in range(len(one)))
    return torch.sqrt(squares) if value(squares) > 0 else squares  # at 0 the gradient is taken to be 0


def slowly(
    faces: Tensor, face_people: list[int], voices: Tensor, voice_people: list[int], margin: float
) -> dict[str, Tensor]:
    """Equations 6 to 17, one sample at a time."""
    samples = [("face", vector / vector.norm(), person) for vector, person in zip(faces, face_people, strict=True)]
    samples += [("voice", vector / vector.norm(), person) for vector, person in zip(voices, voice_people, strict=True)]
    hinges: dict[str, list[Tensor]] = {
        f"{loss}_{anchor}": [] for loss in ("cth", "mth") for anchor in ("face", "voice")
    }
    counts = dict.fromkeys(TRIPLET_FORMS, 0)
    for place, (modality, anchor, person) in enumerate(samples):
        for loss in ("cth", "mth"):
            others = [
                (other_modality, distance(anchor, other), other_person)
                for other_place, (other_modality, other, other_person) in enumerate(samples)
                if other_place != place and (loss == "mth" or other_modality != modality)
            ]
            others.sort(key=lambda one: one[0] != modality)  # the anchor's modality first: ties go to the first
            positives = [one for one in others if one[2] == person]
            negatives = [one for one in others if one[2] != person]
            if not positives or not negatives:
                continue
            farthest = max(positives, key=lambda one: value(one[1]))
            nearest = min(negatives, key=lambda one: value(one[1]))
            excess = farthest[1] - nearest[1] + margin
            hinges[f"{loss}_{modality}"].append(excess if value(excess) > 0 else torch.zeros((), dtype=faces.dtype))
            if loss == "mth" and value(farthest[1]) > value(nearest[1]):
                form = "_".join("same" if one[0] == modality else "cross" for one in (farthest, nearest))
                counts[form] += 1
    terms = {name: torch.stack(some).mean() if some else faces.new_zeros(()) for name, some in hinges.items()}
    loss = torch.stack(list(terms.values())).sum()
    return {"bi_quintuple": loss} | terms | {f"triplets_{form}": torch.tensor(n) for form, n in counts.items()}


def compare(
    faces: Tensor, face_people: list[int], voices: Tensor, voice_people: list[int], margin: float = 0.6
) -> None:
    answers = []
    for function, people in ((slowly, list), (bi_quintuple, torch.tensor)):
        inputs = [one.clone().double().requires_grad_() for one in (faces, voices)]
        terms = function(inputs[0], people(face_people), inputs[1], people(voice_people), margin)
        gradients = [torch.zeros_like(one) for one in inputs]
        if terms["bi_quintuple"].requires_grad:
            terms["bi_quintuple"].backward()
            gradients = [zero if one.grad is None else one.grad for one, zero in zip(inputs, gradients, strict=True)]
        answers.append((terms, gradients))
    (naive, naive_gradients), (fast, fast_gradients) = answers
    assert naive.keys() == fast.keys()
    for name, term in naive.items():
        torch.testing.assert_close(fast[name].to(term.dtype), term, atol=1e-12, rtol=1e-12, msg=name)
    for ours, theirs in zip(fast_gradients, naive_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-9)


def vectors(count: int, seed: int, dimension: int = 5) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, dimension)))


def test_a_batch_as_published_gives_what_the_formulas_say() -> None:
    people = [person for person in range(5) for _ in range(3)]
    compare(vectors(15, 0), people, vectors(15, 1), people)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    face_people=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    voice_people=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    margin=st.sampled_from([0.0, 0.3, 0.6, 2.0]),
    seed=st.integers(0, 2**20),
)
def test_any_batch_gives_what_the_formulas_say(face_people, voice_people, margin, seed) -> None:
    compare(vectors(len(face_people), seed), face_people, vectors(len(voice_people), seed + 1), voice_people, margin)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    people=st.lists(st.integers(0, 2), min_size=8, max_size=8),
)
def test_ties_and_samples_at_one_point_give_what_the_formulas_say(places, people) -> None:
    # Three points, axis-parallel so that equal distances are equal to the last bit.
    points = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[places]
    compare(points[:4], people[:4], points[4:], people[4:])


@pytest.mark.parametrize(
    ("face_people", "voice_people"),
    [
        ([0], [0]),  # nobody else: no negatives
        ([0], [1]),  # no positives
        ([0, 1], [0, 1]),  # one sample each: the mixed positive is the cross-modal one
        ([0, 1], [2, 3]),
        ([0, 0, 1], [2]),  # faces have no voices and the voice has no face
        ([0, 0, 0, 1], [0, 1, 1, 2]),
    ],
)
def test_people_with_few_samples_give_what_the_formulas_say(face_people, voice_people) -> None:
    compare(vectors(len(face_people), 2), face_people, vectors(len(voice_people), 3), voice_people)


def test_one_triplet_by_hand() -> None:
    faces, voices = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0], [-5.0, 0.0]])
    terms = bi_quintuple(faces, torch.tensor([0]), voices, torch.tensor([0, 1]), margin=0.6)
    # The face: positive at √2, negative at 2. The first voice: positive at √2, mixed negative at √2. The other: none.
    assert terms["cth_face"].item() == pytest.approx(max(0.0, math.sqrt(2) - 2 + 0.6))
    assert terms["mth_voice"].item() == pytest.approx(0.6)
    assert terms["cth_voice"].item() == 0.0


def test_each_form_of_mixed_triplet_is_counted_by_its_name() -> None:
    def at(*degrees: float) -> Tensor:
        return torch.tensor([[math.cos(math.radians(one)), math.sin(math.radians(one))] for one in degrees])

    # Faces of person 0 at 0° and 10°, their voice at 120°; person 1 has one voice at 60°: for both faces the
    # farthest positive is the voice, the nearest negative is a voice.
    terms = bi_quintuple(at(0, 10), torch.tensor([0, 0]), at(120, 60), torch.tensor([0, 1]), margin=0.6)
    assert terms["triplets_cross_cross"] == 2
    # For the voice at 120° the farthest positive is a face, the nearest negative a voice.
    assert terms["triplets_cross_same"] == 1
    assert terms["triplets_same_cross"] == terms["triplets_same_same"] == 0


def test_a_triplet_whose_positive_is_nearer_is_not_counted() -> None:
    corners = torch.eye(2)
    people = torch.tensor([0, 1])
    terms = bi_quintuple(corners, people, corners, people, margin=0.6)
    assert sum(terms[f"triplets_{form}"].item() for form in TRIPLET_FORMS) == 0
    assert terms["bi_quintuple"] == 0


def test_samples_at_one_point_have_finite_gradients() -> None:
    faces, voices = torch.ones(4, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    people = torch.tensor([0, 0, 1, 1])
    terms = bi_quintuple(faces, people, voices, people, margin=0.6)
    terms["bi_quintuple"].backward()
    assert terms["bi_quintuple"].item() == pytest.approx(4 * 0.6)
    assert torch.isfinite(faces.grad).all() and torch.isfinite(voices.grad).all()


def test_lengths_of_embeddings_do_not_matter_to_the_triplets() -> None:
    people = torch.arange(6) // 2
    faces, voices = vectors(6, 4), vectors(6, 5)
    one = bi_quintuple(faces, people, voices, people, 0.6)["bi_quintuple"]
    other = bi_quintuple(faces * 7, people, voices * 0.1, people, 0.6)["bi_quintuple"]
    torch.testing.assert_close(one, other)


def test_faces_and_voices_have_the_same_part_in_the_loss() -> None:
    people = torch.arange(6) // 2
    faces, voices = vectors(6, 6), vectors(6, 7)
    one, other = (bi_quintuple(a, people, b, people, 0.6) for a, b in ((faces, voices), (voices, faces)))
    torch.testing.assert_close(one["bi_quintuple"], other["bi_quintuple"])
    torch.testing.assert_close(one["mth_face"], other["mth_voice"])


def test_a_batch_without_voices_is_refused() -> None:
    with pytest.raises(ValueError, match="needs faces and voices, got 2 and 0"):
        bi_quintuple(vectors(2, 0), torch.tensor([0, 1]), vectors(0, 0), torch.tensor([]), 0.6)


def test_the_identity_loss_is_the_mean_over_faces_plus_the_mean_over_voices() -> None:
    classifier = torch.nn.Linear(5, 3).double()
    faces, voices = vectors(4, 8), vectors(2, 9)
    face_people, voice_people = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0])

    def slow(samples: Tensor, people: Tensor) -> Tensor:
        scores = samples @ classifier.weight.T + classifier.bias
        return sum(-torch.log(row.exp()[person] / row.exp().sum()) for row, person in zip(scores, people, strict=True))

    terms = identity_loss(classifier, faces, face_people, voices, voice_people)
    torch.testing.assert_close(terms["identity"], slow(faces, face_people) / 4 + slow(voices, voice_people) / 2)
    named = (classifier(faces).argmax(1) == face_people).double().mean().item()
    assert terms["face_accuracy"].item() == pytest.approx(named)


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


def test_mined_among_groups_it_is_the_mean_of_the_groups_and_counts_are_sums() -> None:
    random = torch.Generator().manual_seed(3)
    faces, voices = torch.randn(2, 12, 5, generator=random, dtype=torch.float64)
    people = torch.arange(6).repeat_interleave(2)
    mined = bi_quintuple(faces, people, voices, people, 0.6, groups=3)
    parts = [
        slowly(faces[rows], people[rows].tolist(), voices[rows], people[rows].tolist(), 0.6)
        for rows in (slice(0, 4), slice(4, 8), slice(8, 12))
    ]
    for name in mined:
        total = sum(value(part[name]) for part in parts)
        assert value(mined[name]) == pytest.approx(total if name.startswith("triplets_") else total / 3)


def test_groups_that_do_not_divide_the_people_are_refused() -> None:
    with pytest.raises(ValueError, match="people_per_mining divides people_per_batch"):
        Settings(people_per_batch=16, people_per_mining=5)
    with pytest.raises(ValueError, match="cannot be divided into 3 groups"):
        bi_quintuple(torch.ones(4, 2), torch.zeros(4), torch.ones(4, 2), torch.zeros(4), 0.6, groups=3)


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
    assert value(grouped["cth_face"]) < value(whole["cth_face"])
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
