"""The losses against loops written from the paper's formulas; what each is for; the switches; whole runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from encoders.space import Modality
from tests.training.recipes.whole_run import (
    cut_off,
    drawn_batch,
    final,
    small_batch,
    small_training,
    taught,
    worst_agreement,
)
from tests.training.small_run import small_given
from training.batches import Augmentation
from training.networks import NetworkGiven, read_network_preparation
from training.optimal_transport import mutual_best, transport_loss
from training.pretraining import IdentitySettings
from training.recipe import Batch, Given
from training.recipes import prior_transport
from training.recipes.prior_transport import (
    POPULATION,
    PriorTransportTask,
    Settings,
    build,
    contrastive,
    cosines,
    learning_rate,
    optimiser,
    relational_distillation,
    stages,
)

SMALL = replace(
    POPULATION, epochs=1, steps_per_epoch=None, people_per_batch=4, samples_per_person=2, hidden=16,
    learning_rate=1e-3, final_learning_rate=1e-5, temperature=0.07, reduction="mean", transport_unit=False,
    identity=IdentitySettings(epochs=1, steps_per_epoch=2, people_per_batch=4), augmentation=Augmentation(frames=30),
)  # fmt: skip
ALONE = replace(SMALL, identity=None)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum() / (one.square().sum().sqrt() * other.square().sum().sqrt())


def contrast_slowly(faces: Tensor, voices: Tensor, people: list[int], temperature: float) -> Tensor:
    """Equations 1 to 4 with similarities, one sample at a time; a person's other samples are left out."""
    total = torch.zeros((), dtype=faces.dtype)
    for anchors, others in ((voices, faces), (faces, voices)):
        for i, anchor in enumerate(anchors):
            own = torch.exp(cosine(anchor, others[i]) / temperature)
            rivals = sum(
                torch.exp(cosine(anchor, other) / temperature)
                for j, other in enumerate(others)
                if people[j] != people[i]
            )
            total = total - torch.log(own / (own + rivals))
    return total


def distil_slowly(students: Tensor, teachers: Tensor) -> Tensor:
    """Equation 9, one pair of faces at a time."""
    pairs = [(i, j) for i in range(len(students)) for j in range(len(students))]
    return sum(  # type: ignore[return-value]
        (cosine(students[i], students[j]) - cosine(teachers[i], teachers[j]).detach()) ** 2 for i, j in pairs
    )


def agree(slow, fast, *inputs: Tensor) -> None:
    answers = []
    for function in (slow, fast):
        own = [one.clone().requires_grad_() for one in inputs]
        loss = function(*own)
        loss.backward()
        answers.append([loss.detach(), *(torch.zeros_like(one) if one.grad is None else one.grad for one in own)])
    for naive, quick in zip(*answers, strict=True):
        torch.testing.assert_close(quick, naive, atol=1e-10, rtol=1e-9)


@hypothesis_settings(max_examples=8, deadline=None)
@given(
    people=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    temperature=st.sampled_from([0.05, 0.07, 1.0]),
    seed=st.integers(0, 2**20),
)
def test_the_contrast_is_what_the_formulas_say(people, temperature, seed) -> None:
    owners = torch.tensor(people)
    rivals = owners[:, None] != owners[None, :]

    def fast(faces: Tensor, voices: Tensor) -> Tensor:
        return contrastive(cosines(faces, voices), rivals, temperature)["contrastive"]

    def slow(faces: Tensor, voices: Tensor) -> Tensor:
        return contrast_slowly(faces, voices, people, temperature)

    agree(slow, fast, drawn(len(people), 4, seed=seed), drawn(len(people), 4, seed=seed + 1))


@hypothesis_settings(max_examples=8, deadline=None)
@given(count=st.integers(1, 5), seed=st.integers(0, 2**20))
def test_the_distillation_is_what_the_formula_says_and_leaves_the_teacher_alone(count, seed) -> None:
    agree(distil_slowly, relational_distillation, drawn(count, 3, seed=seed), drawn(count, 5, seed=seed + 1))


def test_means_are_the_sums_over_samples_and_over_pairs_of_faces() -> None:
    faces, voices = drawn(6, 4), drawn(6, 4, seed=1)
    rivals = ~torch.eye(6, dtype=torch.bool)
    whole, mean = (contrastive(cosines(faces, voices), rivals, 0.1, one) for one in ("sum", "mean"))
    for name, value in whole.items():
        torch.testing.assert_close(mean[name] * 6, value)
    torch.testing.assert_close(
        relational_distillation(faces, voices, "mean") * 36, relational_distillation(faces, voices)
    )


def moved(faces: Tensor, loss, rate: float = 0.05, steps: int = 100) -> Tensor:
    """Where faces go that a loss pulls at."""
    free = faces.clone().requires_grad_()
    for _ in range(steps):
        (slope,) = torch.autograd.grad(loss(free), free)
        free = (free - rate * slope).detach().requires_grad_()
    return free.detach()


def retrieved(faces: Tensor, voices: Tensor) -> float:
    return float((cosines(faces, voices).argmax(dim=1) == torch.arange(len(faces))).double().mean())


CROSSED = normalize(drawn(8, 6, seed=2), dim=1)[torch.arange(8).roll(1)]  # each face where another one's voice is
VOICES = normalize(drawn(8, 6, seed=2), dim=1)
APART = ~torch.eye(8, dtype=torch.bool)


def test_the_contrast_tells_pairs_from_others_where_carrying_the_clouds_does_not() -> None:
    assert retrieved(CROSSED, VOICES) == 0 and float(transport_loss(CROSSED, VOICES)) < 1e-20
    told = moved(CROSSED, lambda faces: contrastive(cosines(faces, VOICES), APART, 0.2, "mean")["contrastive"])
    assert retrieved(told, VOICES) == 1
    assert retrieved(moved(CROSSED, lambda faces: transport_loss(faces, VOICES)), VOICES) == 0


def test_equation_4_as_printed_would_drive_pairs_apart() -> None:
    near = normalize(VOICES + 0.1 * drawn(8, 6, seed=3), dim=1)
    printed = moved(near, lambda faces: contrastive(1 - cosines(faces, VOICES), APART, 0.2)["contrastive"])
    meant = moved(near, lambda faces: contrastive(cosines(faces, VOICES), APART, 0.2)["contrastive"])
    assert retrieved(meant, VOICES) == 1 and retrieved(printed, VOICES) < 0.5


def test_the_transport_closes_a_gap_between_the_clouds_that_the_contrast_does_not_see() -> None:
    far = 3 * VOICES  # every direction is right, the cloud is elsewhere
    told = moved(far, lambda faces: contrastive(cosines(faces, VOICES), APART, 0.2, "mean")["contrastive"])
    assert float((told - VOICES).norm(dim=1).min()) > 1.9
    carried = moved(far, lambda faces: transport_loss(faces, VOICES), rate=1.0)
    assert float((carried - VOICES).norm(dim=1).max()) < 1e-3


def test_the_distillation_gives_back_what_the_teacher_knows() -> None:
    teachers = drawn(8, 10, seed=4)
    collapsed = torch.ones(8, 6, dtype=torch.float64) + 0.01 * drawn(8, 6, seed=5)
    told = moved(collapsed, lambda faces: relational_distillation(faces, teachers), steps=300)
    before, after = (relational_distillation(one, teachers).item() for one in (collapsed, told))
    assert before > 20 and after < 0.1 * before


def small_task(**changed) -> PriorTransportTask:
    return build(replace(ALONE, **changed).resolved(), small_given(), 3)


def test_the_total_is_the_sum_of_the_terms_that_are_switched_on() -> None:
    names = ("contrastive", "transport", "distillation")
    for wanted in range(1, 8):
        on = {f"{name}_loss": bool(wanted >> place & 1) for place, name in enumerate(names)}
        terms = small_task(transport_weight=0.5, transport_choice=False, **on).losses(drawn_batch())
        weights = {"contrastive": 1.0, "transport": 0.5, "distillation": 1.0}
        summed = sum(terms[name] * weights[name] for name in names if on[f"{name}_loss"])
        torch.testing.assert_close(terms["total"], summed)


def vector_task(**changed) -> PriorTransportTask:
    given = Given(10, ("",) * 10, NetworkGiven(None, None, 7), NetworkGiven(None, None, 5))
    return build(replace(ALONE, **changed).resolved(), given, 3).eval()


def vector_batch(people: int = 6, samples: int = 2) -> Batch:
    """Frozen vectors, each in a direction of its own."""
    owners = torch.arange(people).repeat_interleave(samples)
    return Batch(4 * drawn(len(owners), 7).float(), owners, 4 * drawn(len(owners), 5, seed=1).float(), None, owners)


def test_all_terms_of_a_batch_are_those_of_its_vectors() -> None:
    task, batch = vector_task(transport_choice=False, temperature=0.3, reduction="sum"), vector_batch()
    with torch.no_grad():
        faces, voices, terms = task.head.face(batch.faces), task.head.voice(batch.voices), task.losses(batch)
    slow = contrast_slowly(faces.double(), voices.double(), batch.face_people.tolist(), 0.3)
    assert terms["contrastive"].item() == pytest.approx(slow.item(), rel=1e-4)
    assert terms["transport"].item() == pytest.approx(transport_loss(faces, voices).item(), rel=1e-4)
    assert terms["distillation"].item() == pytest.approx(distil_slowly(faces, batch.faces).item(), rel=1e-4)
    assert terms["chosen"] == 1


def test_only_pairs_that_beat_their_rivals_take_part_in_the_transport() -> None:
    task, batch = vector_task(), vector_batch()
    with torch.no_grad():
        faces, voices, terms = task.head.face(batch.faces), task.head.voice(batch.voices), task.losses(batch)
    people = batch.face_people
    chosen = mutual_best(cosines(faces, voices), people[:, None] == people[None, :])
    assert 0 < terms["chosen"] == chosen.float().mean() < 1
    torch.testing.assert_close(terms["transport"], transport_loss(faces[chosen], voices[chosen]))


def test_on_vectors_of_unit_length_the_transport_sees_directions_alone() -> None:
    for unit in (True, False):
        task = vector_task(transport_unit=unit, transport_choice=False)
        before = task.losses(vector_batch())["transport"]
        with torch.no_grad():
            task.head.face[2].weight *= 2
            task.head.face[2].bias *= 2
        after = task.losses(vector_batch())["transport"]
        assert bool(torch.isclose(before, after)) is unit


def test_sinkhorn_carries_at_more_cost() -> None:
    costs = [
        vector_task(transport_solver=solver, transport_choice=False, transport_regularisation=0.5)
        .losses(vector_batch())["transport"]
        .item()
        for solver in ("exact", "sinkhorn")
    ]
    assert costs[0] < 0.99 * costs[1]


def test_sinkhorn_blurs_its_plan_as_much_as_the_settings_say() -> None:
    batch, costs = vector_batch(), []
    for blur in (0.2, 0.8):
        task = vector_task(transport_solver="sinkhorn", transport_choice=False, transport_regularisation=blur)
        with torch.no_grad():
            faces, voices = task.head.face(batch.faces), task.head.voice(batch.voices)
            costs.append(task.losses(batch)["transport"].item())
        assert costs[-1] == pytest.approx(transport_loss(faces, voices, "sinkhorn", blur).item(), rel=1e-5)
    assert costs[0] < 0.99 * costs[1]


def test_other_samples_of_a_person_are_rivals_only_if_all_are() -> None:
    for samples in (1, 2):
        kind, harsh = (
            vector_task(rivals=who).losses(vector_batch(samples=samples))["contrastive"].item()
            for who in ("other_people", "all")
        )
        assert kind == harsh if samples == 1 else kind < 0.99 * harsh


def test_the_weight_of_the_transport_rises_with_the_batches_that_were_trained_on() -> None:
    task = small_task(transport_rise=4, transport_choice=False, contrastive_loss=False, distillation_loss=False)
    shares = []
    for _ in range(6):
        terms = task.losses(drawn_batch())
        shares.append(float((terms["total"] / terms["transport"]).detach()))
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    task.eval().losses(drawn_batch())
    assert task.state_dict()["batches"] == 6


def test_a_frozen_teacher_stays_as_it_is_to_the_last_statistic_and_another_learns() -> None:
    for frozen in (True, False):
        task = small_task(teacher_frozen=frozen)
        before = {name: value.clone() for name, value in task.face.state_dict().items()}
        taught(task, optimiser(task, task.settings), drawn_batch(), 2)
        after = task.face.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before) is frozen


def test_the_losses_fall_on_a_batch_and_everything_that_is_not_frozen_learns() -> None:
    task = small_task(learning_rate=3e-3, final_learning_rate=1e-3, transport_unit=True)
    log = taught(task, optimiser(task, task.settings), small_batch(SMALL), 60)
    assert log[-1]["total"] < 0.7 * log[0]["total"] and log[-1]["contrastive"] < 0.7 * log[0]["contrastive"]
    assert log[-1]["chosen"] > log[0]["chosen"]
    learned = {name for name, one in task.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0}
    assert {name.split(".")[0] for name in learned} == {"voice", "head"}


def test_behind_frozen_vectors_both_modalities_have_layers_and_behind_networks_only_faces() -> None:
    vectors = Given(3, ("", "", ""), NetworkGiven(None, None, 20), NetworkGiven(None, None, 12))
    frozen, tuned = build(ALONE.resolved(), vectors, 0), small_task()
    assert [len(one) for one in (frozen.head.face, frozen.head.voice, frozen.head.shared)] == [3, 3, 0]
    assert [len(one) for one in (tuned.head.face, tuned.head.voice, tuned.head.shared)] == [3, 0, 0]
    assert frozen.head.output_dimension == 12


def test_a_teacher_is_taught_first_unless_it_is_given_or_its_vectors_are() -> None:
    assert [stage.name for stage in stages(Settings(), frozen=False)] == ["identity", "prior_transport"]
    assert [stage.name for stage in stages(Settings(identity=None), False)] == ["prior_transport"]
    assert [stage.name for stage in stages(Settings(), frozen=True)] == ["prior_transport"]
    on_vectors = replace(Settings(), on_vectors=True)
    assert [stages(on_vectors, frozen)[-1].on_vectors for frozen in (False, True)] == [True, False]


@pytest.mark.parametrize("taught_too", [True, False])
def test_the_teacher_is_the_network_of_the_stage_before_and_the_voice_network_if_wanted(taught_too: bool) -> None:
    first, main = stages(replace(SMALL, voice_taught=taught_too), frozen=False)
    before = first.build(small_given(), 1, None)
    task = main.build(small_given(), 2, before)
    assert torch.equal(task.face.linear.weight, before.face.linear.weight)
    assert torch.equal(task.voice.linear.weight, before.voice.linear.weight) is taught_too


def test_the_first_stage_has_its_own_numbers_and_the_networks_of_the_second() -> None:
    first, main = stages(Settings(identity=IdentitySettings(epochs=7, people_per_batch=9)), frozen=False)
    assert (first.settings.epochs, first.settings.people_per_batch) == (7, 9)
    for name in ("face_backbone", "voice_backbone", "face_preparation", "voice_preparation"):
        assert getattr(first.settings, name) == getattr(main.settings, name)


def test_the_defaults_are_the_papers() -> None:
    paper = stages(Settings(), frozen=False)[-1].settings
    assert (paper.people_per_batch, paper.samples_per_person, paper.reduction) == (64, 1, "sum")
    assert (paper.learning_rate, paper.final_learning_rate, paper.schedule) == (1e-3, 1e-8, "stepped")
    assert (paper.face_backbone, paper.voice_backbone, paper.face_preparation) == (
        "resnet34_face", "ecapa_tdnn", {"side": 122},
    )  # fmt: skip
    varied = paper.augmentation
    assert (varied.frames, varied.masked_frames, varied.masked_bands, varied.mirror) == (200, 5, 10, 0.5)
    task = small_task()
    (group,) = optimiser(task, Settings()).param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 2e-5, (0.9, 0.999))


@pytest.mark.parametrize("backbone", ["wav2vec2_base", "hubert_base", "wavlm_base"])
def test_a_transformer_has_its_own_rates_and_no_blanks_in_its_waveform(backbone: str) -> None:
    told = Settings(voice_backbone=backbone).resolved()
    assert (told.learning_rate, told.final_learning_rate, told.schedule) == (1e-5, 1e-7, "three_phase")
    assert told.augmentation.masked_frames == told.augmentation.masked_bands == 0
    assert replace(POPULATION, voice_backbone=backbone).resolved().augmentation.gain == 0  # it would move the waveform
    wanted = read_network_preparation(Modality.VOICE, backbone, told.voice_preparation)
    assert wanted.architecture == backbone.removesuffix("_base")
    assert replace(told, learning_rate=1e-4).resolved().learning_rate == 1e-4


def test_a_stepped_rate_falls_by_tenths_in_stretches_of_one_length() -> None:
    rates = [learning_rate(Settings(), place / 60) for place in range(61)]
    assert rates[:60:10] == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8])
    assert all(rates[place] == rates[place // 10 * 10] for place in range(60)) and rates[60] == rates[59]
    assert learning_rate(Settings(steps=1), 1.0) == 1e-3


def test_three_phases_rise_stay_and_fall() -> None:
    told = Settings(voice_backbone="wav2vec2_base")
    rates = [learning_rate(told, share) for share in (0, 0.075, 0.15, 0.2, 0.3, 0.65, 1)]
    assert rates == pytest.approx([1e-7, 5.05e-6, 1e-5, 1e-5, 1e-5, 1e-6, 1e-7])
    assert learning_rate(replace(told, phases=(0.5, 0.5, 0.0)), 1.0) == 1e-5


def test_progress_outside_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        learning_rate(Settings(), 1.5)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, r"at least 1, .* got \(0, 1, 1, 6, 512\)"),
        ({"steps_per_epoch": -1}, r"got \(50, -1"),
        ({"people_per_batch": 1}, r"at least 2 \(rivals\)"),
        ({"transport_rise": -1}, "transport_rise at least 0"),
        ({"learning_rate": 1e-9, "final_learning_rate": 1e-8}, r"falls from learning_rate \(1e-09\)"),
        ({"final_learning_rate": 0.0}, "both above 0"),
        ({"phases": (0.15, 0.01, 0.07)}, r"sum to 1, got \(0\.15, 0\.01, 0\.07\)"),
        ({"temperature": 0.0}, "temperature and transport_regularisation are above 0"),
        ({"weight_decay": -1.0}, r"at least 0, got \(-1\.0, 1\.0\)"),
        ({"schedule": "square"}, "schedule is one of stepped, three_phase, None, got square"),
        ({"reduction": "product"}, "reduction is one of sum, mean"),
        ({"transport_solver": "guess"}, "transport_solver is one of exact, sinkhorn"),
        ({"rivals": "nobody"}, "rivals is one of"),
        ({"contrastive_loss": False, "transport_loss": False, "distillation_loss": False}, "nothing to train by"),
    ],
)
def test_impossible_settings_are_refused(wrong, told) -> None:
    with pytest.raises(ValueError, match=told):
        replace(Settings(), **wrong)


def test_a_rate_below_the_papers_last_one_is_refused_when_it_comes_to_train() -> None:
    with pytest.raises(ValueError, match="falls from"):
        stages(Settings(learning_rate=1e-9), frozen=False)


@pytest.mark.parametrize(("people", "batch"), [(900, 64), (71, 64), (70, 52), (10, 7), (2, 2)])
def test_few_people_fill_smaller_batches_with_some_to_spare(people: int, batch: int) -> None:
    fitted = Settings().fitting(people)
    assert fitted.people_per_batch == batch
    assert fitted.identity.people_per_batch == min(128, max(2, 3 * people // 4))


def test_a_run_cut_off_in_its_last_stage_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small_training(prior_transport, SMALL, tmp_path / "whole" / "run")
    (tmp_path / "cut").mkdir()
    cut_off(prior_transport, SMALL, tmp_path / "cut" / "run", PriorTransportTask, 2, monkeypatch)
    again = small_training(prior_transport, SMALL, tmp_path / "cut" / "run")
    one, other = final(whole), final(again)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert int(one["batches"]) == 4


@pytest.mark.parametrize("on_vectors", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_published_folder_gives_the_vectors_of_the_training(tmp_path: Path, on_vectors: bool) -> None:
    settings = replace(SMALL, on_vectors=on_vectors)
    trained = small_training(prior_transport, settings, tmp_path / "runs" / "run")
    assert math.isfinite(trained.validated.mean)
    assert worst_agreement(prior_transport, settings, trained, tmp_path / "encoders") > 0.99999
