"""The losses against loops and by what each is for; the choices of the reconstruction; whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

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
from training.losses import bi_quintuple, identity_loss
from training.pretraining import IdentitySettings
from training.recipes import joint_embedding
from training.recipes.joint_embedding import (
    POPULATION,
    JointEmbeddingTask,
    Settings,
    batch_centres,
    build,
    centre_loss,
    learning_rate,
    optimiser,
    stages,
)

SMALL = replace(
    POPULATION, epochs=2, steps_per_epoch=None, people_per_batch=4, samples_per_person=2, people_per_mining=None,
    learning_rate=0.05, embedding=16, hidden=8, identity=None, augmentation=Augmentation(frames=30),
)  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_task(**changed) -> JointEmbeddingTask:
    return build(replace(SMALL, **changed), small_given(), 3)


def centres_slowly(faces: Tensor, face_people, voices: Tensor, voice_people, centres: Tensor) -> Tensor:
    """½·Σ(‖f − c_y‖² + ‖v − c_y‖²), one number at a time."""
    total = torch.zeros((), dtype=faces.dtype)
    for samples, people in ((faces, face_people), (voices, voice_people)):
        for sample, person in zip(samples, people, strict=True):
            for place in range(len(sample)):
                total = total + (sample[place] - centres[person][place]) ** 2 / 2
    return total


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    face_people=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    voice_people=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    seed=st.integers(0, 2**20),
)
def test_the_centre_loss_is_what_the_formula_says_in_value_and_gradient(face_people, voice_people, seed) -> None:
    answers = []
    for fast in (False, True):
        inputs = [
            drawn(*shape, seed=seed + place).requires_grad_()
            for place, shape in enumerate(((len(face_people), 3), (len(voice_people), 3), (3, 3)))
        ]
        faces, voices, centres = inputs
        if fast:
            loss = centre_loss(faces, centres[face_people], voices, centres[voice_people])
        else:
            loss = centres_slowly(faces, face_people, voices, voice_people, centres)
        loss.backward()
        answers.append((loss.detach(), *(one.grad for one in inputs)))
    for naive, quick in zip(*answers, strict=True):
        torch.testing.assert_close(quick, naive)


def test_the_mean_is_over_faces_plus_over_voices() -> None:
    faces, voices = drawn(2, 3), drawn(5, 3, seed=1)
    zeros = [torch.zeros_like(one) for one in (faces, voices)]
    alone = [centre_loss(faces, zeros[0], zeros[1], zeros[1]), centre_loss(zeros[0], zeros[0], voices, zeros[1])]
    torch.testing.assert_close(centre_loss(faces, zeros[0], voices, zeros[1], "mean"), alone[0] / 2 + alone[1] / 5)


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    face_people=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    voice_people=st.lists(st.integers(0, 3), min_size=1, max_size=6),
)
def test_batch_centres_are_the_means_of_a_persons_faces_and_voices(face_people, voice_people) -> None:
    faces, voices = drawn(len(face_people), 3), drawn(len(voice_people), 3, seed=1)
    samples, people = torch.cat([faces, voices]), [*face_people, *voice_people]
    found = torch.cat(batch_centres(faces, torch.tensor(face_people), voices, torch.tensor(voice_people)))
    for place, person in enumerate(people):
        own = [samples[other] for other in range(len(people)) if people[other] == person]
        torch.testing.assert_close(found[place], torch.stack(own).mean(dim=0))


def test_samples_are_pulled_by_lambda_and_centres_by_the_whole_loss() -> None:
    task = small_task(ranking="none", identity_loss=False, centre_weight=0.01)
    seen: list[Tensor] = []

    def look(head, inputs, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    task.head.register_forward_hook(look)
    batch = drawn_batch()
    torch.nn.init.normal_(task.centres)
    terms = task.losses(batch)
    terms["total"].backward()
    faces, voices = seen
    people, centres = batch.face_people, task.centres.detach()
    assert terms["total"].item() == pytest.approx(0.01 * terms["centre"].item())
    torch.testing.assert_close(faces.grad, 0.01 * (faces.detach() - centres[people]))
    away = torch.zeros_like(centres)
    for samples in (faces, voices):
        away.index_add_(0, people, centres[people] - samples.detach())
    torch.testing.assert_close(task.centres.grad, away)


def test_the_total_is_the_sum_of_what_is_wanted() -> None:
    batch = drawn_batch()
    for ranking in ("bi_quintuple", "triplet", "none"):
        for named in (True, False):
            terms = small_task(ranking=ranking, identity_loss=named, centre_weight=0.5).losses(batch)
            wanted = 0.5 * terms["centre"] + named * terms["identity"]
            wanted = wanted if ranking == "none" else wanted + terms[ranking]
            torch.testing.assert_close(terms["total"], wanted)
    terms = small_task(centre_weight=0.0).losses(batch)
    torch.testing.assert_close(terms["total"], terms["bi_quintuple"] + terms["identity"])


def test_the_terms_are_those_of_what_the_head_gives_before_it_is_normalised() -> None:
    task, batch = small_task(centres="batch").eval(), drawn_batch()
    with torch.no_grad():
        faces, voices = task.embed(Modality.FACE, batch.faces), task.embed(Modality.VOICE, batch.voices)
        terms = task.losses(batch)
    people = batch.face_people
    samples = (faces, people, voices, people)
    wanted = bi_quintuple(*samples, task.settings.margin) | identity_loss(task.classifier, *samples)
    wanted["triplet"] = wanted["cth_face"] + wanted["cth_voice"]
    face_means, voice_means = batch_centres(*samples)
    wanted["centre"] = centre_loss(faces, face_means, voices, voice_means)
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value)


def spread(samples: Tensor, people: Tensor) -> float:
    """Sum of squared distances to the person's own mean."""
    alike = (people[:, None] == people[None, :]).double()
    return float((samples - alike @ samples / alike.sum(dim=1, keepdim=True)).square().sum())


PEOPLE = torch.arange(4).repeat_interleave(2)


def moved(loss, steps: int = 150, rate: float = 0.05, seed: int = 7) -> tuple[Tensor, Tensor]:
    """Where faces and voices go that a loss pulls at: (8, 5) each, two of each of four people."""
    free = drawn(16, 5, seed=seed).requires_grad_()
    for _ in range(steps):
        (slope,) = torch.autograd.grad(loss(free[:8], PEOPLE, free[8:], PEOPLE), free, allow_unused=True)
        free = (free - rate * slope).detach().requires_grad_()
    return free[:8].detach(), free[8:].detach()


def rightly_ranked(faces: Tensor, voices: Tensor) -> float:
    """Share of faces whose nearest voice is their person's."""
    one, other = (torch.nn.functional.normalize(some, dim=1) for some in (faces, voices))
    return float((PEOPLE[(one @ other.T).argmax(dim=1)] == PEOPLE).double().mean())


@pytest.mark.parametrize("ranking", ["bi_quintuple", "triplet"])
def test_the_ranking_brings_the_right_voice_to_the_front_and_the_centres_alone_do_not(ranking: str) -> None:
    def rank(*samples: Tensor) -> Tensor:
        terms = bi_quintuple(*samples, 0.6)
        return terms["bi_quintuple"] if ranking == "bi_quintuple" else terms["cth_face"] + terms["cth_voice"]

    assert rightly_ranked(*moved(lambda *samples: 0 * samples[0].sum())) < 0.5
    assert rightly_ranked(*moved(rank, steps=400)) == 1


def test_the_quintuples_also_part_the_faces_of_people_which_the_triplets_do_not_see() -> None:
    # each face beside its own voice; the faces of two people at one place, their voices apart
    faces = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    voices = torch.tensor([[0.6, 0.8], [0.6, -0.8]], dtype=torch.float64)
    terms = bi_quintuple(faces, torch.tensor([0, 1]), voices, torch.tensor([0, 1]), 0.0)
    assert terms["cth_voice"] == terms["cth_face"] == 0 and terms["mth_face"] > 0.5


def test_the_centres_gather_a_persons_faces_and_voices_and_without_them_they_stay_wide() -> None:
    classifier = torch.nn.Linear(5, 4).double()
    torch.nn.init.normal_(classifier.weight, generator=torch.Generator().manual_seed(1))

    def named(*samples: Tensor) -> Tensor:
        return identity_loss(classifier, *samples)["identity"]

    def gathered(*samples: Tensor) -> Tensor:
        return named(*samples) + 0.3 * centre_loss(samples[0], *_between(*samples), reduction="sum")

    def _between(faces: Tensor, face_people: Tensor, voices: Tensor, voice_people: Tensor):
        face_means, voice_means = batch_centres(faces, face_people, voices, voice_people)
        return face_means, voices, voice_means

    both = PEOPLE.repeat(2)
    wide, narrow = (spread(torch.cat(moved(loss)), both) for loss in (named, gathered))
    assert narrow < 0.1 * wide


def test_the_identity_names_people_whom_the_centres_alone_let_fall_together() -> None:
    classifier = torch.nn.Linear(5, 4).double()
    torch.nn.init.normal_(classifier.weight, generator=torch.Generator().manual_seed(1))
    centres = torch.zeros(4, 5, dtype=torch.float64)

    def fallen(faces: Tensor, face_people: Tensor, voices: Tensor, voice_people: Tensor) -> Tensor:
        return centre_loss(faces, centres[face_people], voices, centres[voice_people])

    def named(*samples: Tensor) -> Tensor:
        return fallen(*samples) * 0.01 + identity_loss(classifier, *samples)["identity"]

    accuracy = [
        float(identity_loss(classifier, faces, PEOPLE, voices, PEOPLE)["face_accuracy"])
        for faces, voices in (moved(fallen, steps=400), moved(named, steps=400, rate=0.5))
    ]
    assert accuracy[0] < 0.6 and accuracy[1] == 1


def test_the_losses_fall_on_a_batch_and_every_parameter_learns() -> None:
    task = small_task(head="weighted_residual")
    torch.nn.init.constant_(task.head.shared[0].eta, 0.1)  # at 0 nothing reaches the inner layers
    log = taught(task, optimiser(task, task.settings), small_batch(SMALL), 15)
    assert all(log[-1][name] < 0.7 * log[0][name] for name in ("total", "bi_quintuple", "identity"))
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in task.parameters())


def test_learned_centres_come_to_lie_among_their_samples_and_others_stay() -> None:
    batch = small_batch(SMALL)
    task = small_task(ranking="none", identity_loss=False, centre_weight=1e-6)
    taught(task, optimiser(task, task.settings), batch, 15)
    with torch.no_grad():
        faces, voices = task.embed(Modality.FACE, batch.faces), task.embed(Modality.VOICE, batch.voices)
        means = batch_centres(faces, batch.face_people, voices, batch.voice_people)[0]
        centres = task.centres[batch.face_people]
    assert float((centres - means).norm()) < 0.5 * float(means.norm())  # they began at 0
    others = [person for person in range(10) if person not in batch.face_people]
    assert others and not task.centres[others].any()


@pytest.mark.parametrize(
    ("head", "layers"),
    [("linear", {"face": 1, "voice": 1, "shared": 0}), ("weighted_residual", {"face": 1, "voice": 1, "shared": 1})],
)
def test_the_head_is_a_layer_of_each_own_or_also_the_shared_one(head: str, layers: dict[str, int]) -> None:
    task = small_task(head=head)
    assert {name: len(task.head.get_submodule(name)) for name in layers} == layers
    assert task.head.output_dimension == 16


def test_hardest_samples_are_sought_among_the_people_that_the_settings_say() -> None:
    batch = drawn_batch()
    whole, grouped = (small_task(people_per_mining=size).eval().losses(batch)["cth_face"].item() for size in (None, 2))
    assert grouped < whole


def test_centres_know_no_weight_decay() -> None:
    task = small_task(weight_decay=0.01)
    groups = optimiser(task, task.settings).param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0] and groups[1]["params"] == [task.centres]
    assert all(group["momentum"] == 0.9 for group in groups)
    assert len(optimiser(small_task(centres="batch"), SMALL).param_groups) == 1


def test_the_defaults_are_s0s() -> None:
    paper = Settings()
    assert (paper.people_per_batch, paper.samples_per_person, paper.margin, paper.epochs) == (16, 4, 0.6, 50)
    assert (paper.face_backbone, paper.voice_backbone, paper.embedding) == ("inception_resnet_v1", "dimnet_voice", 256)
    rates = [learning_rate(paper, share) for share in (0, 0.2, 1)]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-8])
    assert (paper.momentum, paper.weight_decay, paper.ranking) == (0.9, 5e-4, "bi_quintuple")


def test_networks_are_taught_identity_first_only_if_wanted() -> None:
    assert [stage.name for stage in stages(Settings(), frozen=False)] == ["joint_embedding"]
    wanted = replace(SMALL, identity=IdentitySettings(epochs=3, people_per_batch=5))
    assert [stage.name for stage in stages(wanted, frozen=True)] == ["joint_embedding"]
    first, main = stages(wanted, frozen=False)
    assert (first.settings.epochs, first.settings.people_per_batch) == (3, 5)
    assert first.settings.face_backbone == main.settings.face_backbone == "small_face"
    before = first.build(small_given(), 1, None)
    task = main.build(small_given(), 2, before)
    assert torch.equal(task.face.linear.weight, before.face.linear.weight)
    assert torch.equal(task.voice.linear.weight, before.voice.linear.weight)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, r"at least 1, .* got \(0, 1, 4, 256, 256\)"),
        ({"people_per_batch": 1}, r"at least 2 \(negatives\)"),
        ({"people_per_mining": 5}, r"divides people_per_batch \(16\)"),
        ({"final_learning_rate": 1.0}, r"falls from learning_rate \(0\.001\)"),
        ({"ranking": "square"}, "ranking is one of bi_quintuple, triplet, none, got square"),
        ({"centres": "none"}, "centres is one of learned, batch"),
        ({"reduction": "product"}, "reduction is one of sum, mean"),
        ({"head": "deep"}, "head is one of linear, weighted_residual"),
        ({"curve": "square"}, "curve is one of"),
        ({"warm_up": 1.0}, r"warm_up are in \[0, 1\)"),
        ({"centre_weight": -1.0}, "centre_weight at least 0"),
        ({"ranking": "none", "identity_loss": False, "centre_weight": 0.0}, "nothing to train by"),
    ],
)
def test_impossible_settings_are_refused(wrong, told) -> None:
    with pytest.raises(ValueError, match=told):
        replace(Settings(), **wrong)


@pytest.mark.parametrize(
    ("people", "mining", "batch", "group"), [(900, 4, 16, 4), (18, 4, 16, 4), (10, 4, 4, 4), (4, 4, 3, None)]
)
def test_few_people_fill_smaller_batches_with_some_to_spare(people, mining, batch, group) -> None:
    fitted = Settings(people_per_mining=mining, identity=IdentitySettings()).fitting(people)
    assert (fitted.people_per_batch, fitted.people_per_mining) == (batch, group)
    assert fitted.identity.people_per_batch == min(128, 3 * people // 4)
    assert Settings().fitting(people).identity is None


def test_a_run_cut_off_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small_training(joint_embedding, SMALL, tmp_path / "whole" / "run")
    (tmp_path / "cut").mkdir()
    cut_off(joint_embedding, SMALL, tmp_path / "cut" / "run", JointEmbeddingTask, 5, monkeypatch)
    again = small_training(joint_embedding, SMALL, tmp_path / "cut" / "run")
    one, other = final(whole), final(again)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert one["centres"].any()


def test_a_published_folder_gives_the_vectors_of_the_training(tmp_path: Path) -> None:
    settings = replace(SMALL, epochs=1, head="weighted_residual")
    trained = small_training(joint_embedding, settings, tmp_path / "runs" / "run")
    assert worst_agreement(joint_embedding, settings, trained, tmp_path / "encoders") > 0.99999
