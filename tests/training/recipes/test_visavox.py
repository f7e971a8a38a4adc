"""The contrast against a loop written straight from its formula, value and gradient; and what each part is for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from encoders.backbones.small_face import chips_to_input, prepare_chip
from encoders.backbones.small_voice import prepare_mel
from encoders.encoder import Encoder
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from tests.training.small_run import RUN, small_data, small_given
from tests.training.test_correlation import planted
from tests.training.test_publish import ORIGIN, assert_same
from training import loop
from training.checkpoint import read_checkpoint
from training.correlation import correlate
from training.loop import Progress, TrainingData, TrainingError, finished_task, read_best, train
from training.networks import NetworkGiven
from training.pretraining import IdentitySettings
from training.publish import publish
from training.recipe import Batch, Given, Task
from training.recipes import visavox
from training.recipes.visavox import (
    POPULATION,
    Settings,
    VisavoxTask,
    build,
    contrast,
    learning_rate,
    optimiser,
    stages,
)
from training.runs import LOG_FILE
from training.validation import Validated
from training.vectors import Vectors

SMALL = replace(
    POPULATION,
    identity=IdentitySettings(epochs=1, steps_per_epoch=2, people_per_batch=4),
    epochs=2,
    steps_per_epoch=3,
    people_per_batch=5,
    samples_per_person=2,
    hidden=8,
)


def slowly(scores: Tensor, same: Tensor, ignored: Tensor, weights: Tensor) -> Tensor:
    losses, counted = [], []
    for i in range(len(scores)):
        negatives = [n for n in range(scores.shape[1]) if not same[i, n] and not ignored[i, n]]
        positives = [p for p in range(scores.shape[1]) if same[i, p] and not ignored[i, p]]
        if not negatives or not positives:
            continue
        against = torch.stack([scores[i, n].exp() for n in negatives]).sum()
        each = [-weights[i, p] * torch.log(scores[i, p].exp() / (scores[i, p].exp() + against)) for p in positives]
        losses.append(torch.stack(each).mean())
        counted.append(float(weights[i, positives].mean()))
    return torch.stack(losses).sum() / sum(counted)


@pytest.mark.parametrize("seed", range(4))
def test_the_contrast_is_what_its_formula_says_in_value_and_gradient(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(6, 6, generator=random, dtype=torch.float64)
    people = torch.tensor([0, 0, 1, 2, 2, 3])
    same, ignored = people[:, None] == people[None, :], torch.eye(6, dtype=torch.bool)
    weights = torch.rand(6, 6, generator=random, dtype=torch.float64)
    answers = []
    for function in (contrast, slowly):
        given = scores.clone().requires_grad_()
        value = function(given, same, ignored, weights)
        value.backward()
        answers.append((value.detach(), given.grad))
    torch.testing.assert_close(answers[0], answers[1])


def test_an_unsure_pair_counts_for_less_where_it_is_all_that_an_anchor_has() -> None:
    scores, same = torch.randn(5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(), torch.eye(5) > 0
    sure, unsure = torch.ones(5, 5), torch.ones(5, 5)
    unsure[2] = 0.1
    pulls = []
    for weights in (sure, unsure):
        (gradient,) = torch.autograd.grad(contrast(scores, same, ~same & same, weights), scores)
        pulls.append(gradient[2].abs().sum() / gradient[0].abs().sum())
    assert pulls[1] == pytest.approx(0.1 * float(pulls[0]), rel=1e-4)


def test_an_anchor_without_positive_or_negative_is_left_out() -> None:
    scores, nobody = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool)
    assert contrast(scores, nobody, nobody) == 0 and contrast(scores, ~nobody, nobody) == 0
    one = torch.tensor([[True, False], [False, False]])
    assert contrast(scores, one, nobody).item() == pytest.approx(math.log(2))


def test_further_samples_of_the_anchors_person_are_no_negatives() -> None:
    people, nobody = torch.tensor([0, 0, 1]), torch.zeros(3, 3, dtype=torch.bool)
    same = people[:, None] == people[None, :]
    scores = torch.tensor([[0.0, 50.0, 0.0], [50.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # the person's other sample is near
    masked = contrast(scores, same, nobody)
    unmasked = contrast(scores, torch.eye(3, dtype=torch.bool), nobody)  # as if it showed somebody else
    assert masked < 1 < 30 < unmasked


def batch(people: list[int], **weights: Tensor) -> Batch:
    owners = torch.tensor(people)
    random = torch.Generator().manual_seed(1)
    faces, voices = torch.randn(2, len(people), 6, generator=random)
    return Batch(faces, owners, voices, None, owners, **weights)


def frozen(people: int, sexes: Iterable[str]) -> Given:
    return Given(people, tuple(sexes), NetworkGiven(None, None, 6), NetworkGiven(None, None, 6))


def frozen_settings(**changed: object) -> Settings:
    return replace(Settings(embedding=6, hidden=4, dropout=0.0), **changed)  # type: ignore[arg-type]


def task_slowly(task: VisavoxTask, some: Batch, same_sex: float, within: float) -> dict[str, Tensor]:
    """The terms of a batch, one pair at a time."""
    parties = {
        "face": (task.embed(Modality.FACE, some.faces), some.face_people.tolist(), some.face_weights),
        "voice": (task.embed(Modality.VOICE, some.voices), some.voice_people.tolist(), some.voice_weights),
    }
    terms = {}
    for one, other in product(parties, parties):
        (anchors, owners, sure), (candidates, others, surely) = parties[one], parties[other]
        shape, scores, weights = (len(anchors), len(candidates)), [], []
        same, ignored = torch.zeros(2, *shape, dtype=torch.bool)
        for i, j in product(*map(range, shape)):
            sexes = [task.given.sexes[person] for person in (owners[i], others[j])]
            bonus = same_sex if owners[i] != others[j] and sexes in (["f", "f"], ["m", "m"]) else 0.0
            cosine = (anchors[i] * candidates[j]).sum() / (anchors[i].norm() * candidates[j].norm())
            scores.append(cosine / task.settings.temperature + bonus)
            weights.append(sure[i] * surely[j])
            same[i, j], ignored[i, j] = owners[i] == others[j], one == other and i == j
        terms[f"{one}_to_{other}"] = slowly(
            torch.stack(scores).reshape(shape), same, ignored, torch.stack(weights).reshape(shape)
        )
    inside = within * (terms["face_to_face"] + terms["voice_to_voice"])
    return {"total": terms["face_to_voice"] + terms["voice_to_face"] + inside} | terms


def test_all_terms_of_a_batch_are_what_a_loop_over_its_pairs_says_in_value_and_gradient() -> None:
    settings = frozen_settings(same_sex=0.7, within=0.5, samples_per_person=2)
    task = build(settings, frozen(6, ("f", "f", "m", "m", "", "")), 0).double().eval()
    random = torch.Generator().manual_seed(2)
    faces, voices = torch.randn(2, 12, 6, generator=random, dtype=torch.float64)
    weights = torch.rand(2, 12, generator=random, dtype=torch.float64)
    people = torch.arange(6).repeat(2)
    told = people[torch.randperm(12, generator=random)]
    some = Batch(faces.requires_grad_(), people, voices.requires_grad_(), None, told, weights[0], weights[1])
    quick, naive = task.losses(some), task_slowly(task, some, same_sex=0.7, within=0.5)
    assert quick.keys() == naive.keys() and abs(naive["face_to_voice"] - naive["voice_to_face"]) > 0.01
    learned = [faces, voices, *task.parameters()]
    for name, value in naive.items():
        torch.testing.assert_close(quick[name], value, msg=name)
    gradients = (torch.autograd.grad(terms["total"], learned) for terms in (quick, naive))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_negative_of_the_anchors_own_sex_pulls_harder() -> None:
    gradients = {}
    for push in (0.0, 3.0):
        task = build(frozen_settings(same_sex=push), frozen(3, "ffm"), 0).eval()
        some = batch([0, 1, 2])
        some = replace(some, faces=some.faces[:1], face_people=some.face_people[:1])  # a woman's
        some.voices.requires_grad_()
        task.losses(some)["face_to_voice"].backward()
        gradients[push] = some.voices.grad.norm(dim=1)
    alike = {push: float(found[1] / found[2]) for push, found in gradients.items()}  # the woman's and the man's voice
    assert alike[3.0] > 1.2 * alike[0.0]


def test_somebody_whose_sex_nobody_says_is_an_ordinary_negative() -> None:
    values = [
        build(frozen_settings(same_sex=push), frozen(3, ("", "", "")), 0).losses(batch([0, 1, 2]))["total"]
        for push in (0.0, 3.0)
    ]
    torch.testing.assert_close(*values)


def test_a_pair_that_is_surely_wrong_teaches_nothing() -> None:
    some = batch([0, 0, 1, 1], face_weights=torch.tensor([1.0, 0.0, 1.0, 1.0]), voice_weights=torch.ones(4))
    some.faces.requires_grad_()
    build(frozen_settings(), frozen(2, "fm"), 0).eval().losses(some)["face_to_voice"].backward()
    assert some.faces.grad[1].abs().sum() == 0 and some.faces.grad[0].abs().sum() > 0


def test_within_a_modality_the_same_contrast_is_added() -> None:
    wanted = (frozen_settings(within=one, samples_per_person=2) for one in (0.0, 0.5))
    plain, more = (build(one, frozen(2, "fm"), 0).eval() for one in wanted)
    one, other = plain.losses(batch([0, 0, 1, 1])), more.losses(batch([0, 0, 1, 1]))
    assert set(other) - set(one) == {"face_to_face", "voice_to_voice"}
    torch.testing.assert_close(other["total"], one["total"] + 0.5 * (other["face_to_face"] + other["voice_to_voice"]))


def test_the_networks_begin_with_what_the_stage_before_taught_them() -> None:
    first, last = stages(SMALL, frozen=False)
    before = first.build(small_given(), 3, None)
    task = last.build(small_given(), 4, before)
    assert all(torch.equal(value, before.face.state_dict()[name]) for name, value in task.face.state_dict().items())
    assert all(torch.equal(value, before.voice.state_dict()[name]) for name, value in task.voice.state_dict().items())


def test_only_the_head_is_trained_where_vectors_are_frozen() -> None:
    (stage,) = stages(Settings(), frozen=True)
    assert stage.name == "visavox" and not stage.on_vectors
    assert [stage.name for stage in stages(replace(SMALL, networks="frozen"), frozen=False)] == ["identity", "visavox"]
    assert stages(replace(SMALL, networks="frozen"), frozen=False)[1].on_vectors
    task = stage.build(frozen(3, "ffm"), 0, None)
    assert {name.split(".")[0] for name, _ in task.named_parameters()} == {"head"}


@pytest.mark.parametrize("networks", ["trained", "frozen"])
def test_it_trains_through_both_stages_and_its_finished_task_gives_the_figures(tmp_path: Path, networks) -> None:
    from training.validation import validate

    settings, data = replace(SMALL, networks=networks), small_data()
    trained = train(visavox, settings, data, tmp_path / "visavox", RUN)
    assert len(trained.earlier) == 1 and trained.earlier[0].name.startswith("identity-")
    task = finished_task(visavox, settings, data, trained)
    assert validate(task, data.validation) == trained.validated
    assert task.given.face.backbone == "small_face"
    served = Encoder.load(publish(visavox, settings, data, trained, ORIGIN, tmp_path / "encoders"))
    face, voice = drawn_face(5), drawn_voice(5, 1.3)
    chip, mel = prepare_chip(face, ORIGIN.preparation.face), prepare_mel(voice, ORIGIN.preparation.voice)
    with torch.inference_mode():
        expected_face = task.embed(Modality.FACE, chips_to_input(torch.from_numpy(chip)[None]))[0]
        expected_voice = task.embed(Modality.VOICE, mel[None])[0]
    assert_same(served, Modality.FACE, face, expected_face)
    assert_same(served, Modality.VOICE, voice, expected_voice)


def vectors(people: int, seed: int, names: str) -> Vectors:
    random = np.random.default_rng([seed, people])
    centres, owners = random.normal(size=(people, 8)), np.repeat(np.arange(people), 3)
    turned = np.linalg.qr(np.random.default_rng(9).normal(size=(8, 8)))[0]
    faces, voices = (centres[owners] + 0.3 * random.normal(size=(len(owners), 8)) for _ in range(2))
    return Vectors(
        tuple(f"{names}{number:03d}" for number in range(people)),
        ("f", "m") * (people // 2),
        faces.astype(np.float32),
        owners,
        (voices @ turned).astype(np.float32),
        owners,
        f"{names} {seed}",
    )


def test_a_run_that_was_stopped_has_the_same_average_in_the_end(tmp_path: Path, monkeypatch) -> None:
    data = TrainingData(vectors(20, 0, "a"), vectors(8, 1, "b"))
    settings = frozen_settings(epochs=2, steps_per_epoch=4, people_per_batch=10, average=0.8)
    train(visavox, settings, data, tmp_path / "whole", RUN)

    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step >= 3:
            raise Stopped

    monkeypatch.setattr(loop, "TOLD_EVERY", 0.0)
    with pytest.raises(Stopped):
        train(visavox, settings, data, tmp_path / "halves", RUN, stop)
    train(visavox, settings, data, tmp_path / "halves", RUN)
    one, other = (read_best(tmp_path / name) for name in ("whole", "halves"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    plain = train(visavox, replace(settings, average=0.0), data, tmp_path / "plain", RUN)
    assert not all(torch.equal(one[name], read_best(plain.folder)[name]) for name in one)


def test_on_frozen_vectors_it_learns_what_faces_and_voices_share(tmp_path: Path) -> None:
    data = TrainingData(vectors(60, 0, "a"), vectors(20, 1, "b"))
    settings = frozen_settings(
        embedding=8, epochs=12, steps_per_epoch=10, people_per_batch=40, learning_rate=1e-2, shrinkage=None
    )
    trained = train(visavox, settings, data, tmp_path / "run", RUN)
    assert trained.validated.mean > 0.8  # chance is 0.09; the two modalities are a rotation of each other


def test_a_shared_trunk_learns_what_no_turn_of_the_vectors_can_give(tmp_path: Path) -> None:
    """A voice shows how large what the face shows is, whatever its sign."""

    def people(count: int, seed: int, names: str) -> Vectors:
        random = np.random.default_rng([seed, count])
        traits, owners = random.normal(size=(count, 4)), np.repeat(np.arange(count), 2)
        faces, voices = (
            (told[owners] + 0.1 * random.normal(size=(2 * count, 4))).astype(np.float32)
            for told in (traits, np.abs(traits))
        )
        identities = tuple(f"{names}{number:04d}" for number in range(count))
        return Vectors(identities, ("f", "m") * (count // 2), faces, owners, voices, owners, f"{names} {seed}")

    reached = {}
    for trunk in (0, 1):
        settings = frozen_settings(
            embedding=16, hidden=64, trunk=trunk, epochs=8, steps_per_epoch=25, people_per_batch=100,
            learning_rate=1e-2, final_learning_rate=1e-4, shrinkage=None, temperature=0.1,
        )  # fmt: skip
        data = TrainingData(people(300, 0, "a"), people(40, 1, "b"))
        reached[trunk] = train(visavox, settings, data, tmp_path / str(trunk), RUN).validated.mean
    assert reached[1] > 0.45 > 0.25 > reached[0]  # chance is 0.06


def test_the_defaults_are_many_people_on_frozen_vectors() -> None:
    ours = Settings()
    assert (ours.networks, ours.people_per_batch, ours.trunk, ours.average) == ("frozen", 1024, 1, 0.98)
    assert (ours.temperature, ours.shrinkage, ours.epochs, ours.steps_per_epoch) == (0.5, 0.9, 20, 20)
    assert (ours.face_backbone, ours.voice_backbone) == ("inception_resnet_v1", "ecapa_tdnn")


def begun_settings(**changed) -> Settings:
    return frozen_settings(**({"shrinkage": 0.5, "epochs": 2, "steps_per_epoch": 4, "people_per_batch": 10} | changed))


def test_a_head_begins_where_the_faces_and_voices_of_its_people_vary_together() -> None:
    given_to, unseen = vectors(20, 0, "a"), vectors(8, 1, "b")
    (stage,) = stages(begun_settings(trunk=0, embedding=12), frozen=True)
    eight = NetworkGiven(None, None, 8)
    task = stage.build(Given(20, ("f", "m") * 10, eight, eight), 0, None).eval()
    assert stage.begin is not None
    stage.begin(task, given_to)
    found = correlate(given_to, 0.5, 99)
    for modality in Modality:
        with torch.inference_mode():
            made = task.embed(modality, torch.from_numpy(unseen.of(modality))).numpy()
        expected = found[modality](unseen.of(modality))
        np.testing.assert_allclose(made[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-5)
        spare = made[:, expected.shape[1] :]
        assert spare.shape == (24, 4) and spare.any(axis=0).all() and np.abs(spare).max() < 0.05
    assert stages(frozen_settings(shrinkage=None), frozen=True)[0].begin is None


def test_a_beginning_that_no_epoch_betters_is_kept(tmp_path: Path, monkeypatch) -> None:
    asked, figures = [], iter([0.6, 0.2, 0.5])

    def told(task: Task, samples: Vectors, device: torch.device) -> Validated:
        asked.append({name: value.clone() for name, value in task.state_dict().items()})
        return Validated(*[next(figures)] * 4)

    monkeypatch.setattr(loop, "validate", told)
    data = TrainingData(vectors(20, 0, "a"), vectors(8, 1, "b"))
    trained = train(visavox, begun_settings(average=0.5), data, tmp_path, replace(RUN, curves=True))
    assert (trained.best_epoch, trained.validated.mean, trained.epochs) == (0, 0.6, 2)
    best = read_best(tmp_path)
    assert all(torch.equal(value, asked[0][name]) for name, value in best.items())
    rows = correlate(data.training, 0.5, 6)[Modality.FACE].rows  # what is averaged begins there too
    np.testing.assert_allclose(best["head.face.1.weight"], rows, rtol=1e-6, atol=1e-7)
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert [(line["epoch"], line["validation"]["voice_to_face"]) for line in lines] == [(0, 0.6), (1, 0.2), (2, 0.5)]
    assert lines[0]["losses"] == {} and lines[0]["learning_rate"] == 0
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = {name: [point.step for point in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert points["validation/voice_to_face_map"] == [0, 1, 2] and points["people_per_second"] == [1, 2]


def test_a_finished_run_is_answered_without_beginning_again(tmp_path: Path, monkeypatch) -> None:
    data = TrainingData(vectors(20, 0, "a"), vectors(8, 1, "b"))
    first = train(visavox, begun_settings(), data, tmp_path, RUN)
    monkeypatch.setattr(visavox, "correlate", lambda *_: pytest.fail("it began again"))
    assert train(visavox, begun_settings(), data, tmp_path, RUN) == first


@pytest.mark.parametrize("saved", [0.0, 99.0])
def test_a_run_that_was_stopped_has_judged_its_beginning_once(tmp_path: Path, monkeypatch, saved: float) -> None:
    """Stopped in its first epoch: behind a checkpoint, and before there is one."""
    data = TrainingData(vectors(20, 0, "a"), vectors(8, 1, "b"))
    whole = train(visavox, begun_settings(), data, tmp_path / "whole", RUN)

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise InterruptedError

    monkeypatch.setattr(loop, "TOLD_EVERY", 0.0)
    run = replace(RUN, checkpoint_seconds=saved)
    with pytest.raises(InterruptedError):
        train(visavox, begun_settings(), data, tmp_path / "halves", run, stop)
    assert bool(read_checkpoint(tmp_path / "halves" / loop.CHECKPOINTS)) == (saved == 0)
    halves = train(visavox, begun_settings(), data, tmp_path / "halves", run)
    assert replace(halves, folder=whole.folder) == whole
    one, other = (read_best(tmp_path / name) for name in ("whole", "halves"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    logs = [(tmp_path / name / LOG_FILE).read_text().splitlines() for name in ("whole", "halves")]
    epochs = [[json.loads(line)["epoch"] for line in log] for log in logs]
    assert epochs[0] == epochs[1] == [0, 1, 2]


def test_of_few_people_a_head_that_begins_there_learns_more(tmp_path: Path) -> None:
    learned, unseen = planted(24, (300, 200), samples=2, noise=4.0), planted(60, (300, 200), seed=5, noise=4.0)
    data = TrainingData(learned, replace(unseen, identities=tuple(f"unseen {name}" for name in unseen.identities)))
    few = replace(Settings(), epochs=4, embedding=64).fitting(24)
    found = {}
    for rate in (1e-3, 1e-4):
        at_random = replace(few, shrinkage=None, learning_rate=rate)
        found[rate] = train(visavox, at_random, data, tmp_path / str(rate), RUN).validated.mean
    begun = train(visavox, few, data, tmp_path / "begun", RUN).validated.mean
    assert begun > max(found.values()) + 0.03 and max(found.values()) > 0.15  # chance is 0.05


def test_people_of_whom_nothing_can_be_told_stop_the_training_with_a_reason(tmp_path: Path) -> None:
    learned = vectors(20, 0, "a")
    alike = replace(learned, voices=np.ones_like(learned.voices))
    with pytest.raises(TrainingError, match=r"nothing to begin with: faces and voices .* do not vary together: look"):
        train(visavox, begun_settings(), TrainingData(alike, vectors(8, 1, "b")), tmp_path, RUN)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"networks": "thawed"}, "frozen or trained"),
        ({"epochs": 0}, "epochs and steps"),
        ({"people_per_batch": 1}, "at least 2 people"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"final_learning_rate": 1.0}, "falls from learning_rate"),
        ({"trunk": -1}, "trunk are at least 0"),
        ({"dropout": 1.0}, r"dropout is in \[0, 1\)"),
        ({"within": 0.5}, "samples_per_person 2 or more"),
        ({"shrinkage": 0.0}, r"shrinkage is in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(wrong, told) -> None:
    with pytest.raises(ValueError, match=told):
        replace(Settings(), **wrong)


def test_few_people_fill_smaller_batches() -> None:
    fitted = replace(POPULATION, identity=IdentitySettings()).fitting(20)
    assert fitted.people_per_batch == 15 and fitted.identity is not None and fitted.identity.people_per_batch == 15
    assert POPULATION.fitting(2000) == POPULATION and fitted.samples_per_person == 1


@pytest.mark.parametrize(
    ("people", "batch", "samples"),
    [(1300, 1024, 1), (1100, 825, 2), (901, 675, 2), (683, 512, 2), (682, 511, 1), (100, 75, 1)],
)
def test_a_second_sample_of_each_stands_for_people_who_are_missing(people: int, batch: int, samples: int) -> None:
    fitted = Settings().fitting(people)
    assert (fitted.people_per_batch, fitted.samples_per_person) == (batch, samples)
    assert replace(Settings(), samples_per_person=3).fitting(people).samples_per_person == 3
    assert replace(Settings(), networks="trained").fitting(people).samples_per_person == 1


def test_the_optimiser_and_the_rates_are_those_of_the_settings() -> None:
    (group,) = optimiser(build(frozen_settings(), frozen(2, "fm"), 0), Settings(weight_decay=0.3)).param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-4, 0.3)
    rates = [learning_rate(Settings(), share / 20) for share in range(21)]
    assert rates[0] == 0 and max(rates) == rates[2] == pytest.approx(1e-4) and rates[-1] == pytest.approx(1e-6)
