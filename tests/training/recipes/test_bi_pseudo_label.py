"""The method on vectors of people that can be drawn: sums, switches, what each loss is for, and exact resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.encoder import Encoder
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from tests.training.small_run import RUN, small_data
from training import loop
from training.batches import Augmentation
from training.checkpoint import read_checkpoint
from training.configuration import read_configuration, write_configuration
from training.loop import Progress, TrainingData, finished_task, train
from training.networks import NetworkGiven, given_network, trainable
from training.pretraining import IdentitySettings
from training.publish import Origin, publish
from training.reading import Preparation
from training.recipe import Batch, Given
from training.recipes import bi_pseudo_label
from training.recipes.bi_pseudo_label import (
    ABLATIONS,
    POPULATION,
    VARIANTS,
    BiPseudoLabelTask,
    Settings,
    build,
    learning_rate,
    optimiser,
    stages,
)

SMALL = replace(
    Settings(), people_per_batch=24, embedding=8, hidden=8, cluster_counts=(2, 3, 6), dropout=0.0, reduction="mean"
)
NOTHING = {"association": "off", "bi_pseudo_label_loss": False, "identity_loss": False, "distribution_loss": False}


def only(**switched: Any) -> Settings:
    """Small settings with nothing but the losses named here."""
    return replace(SMALL, **(NOTHING | switched))


def task_of(settings: Settings, sexes: str, face: int = 6, voice: int = 5, seed: int = 0) -> BiPseudoLabelTask:
    given = Given(
        len(sexes),
        tuple("" if sex == "?" else sex for sex in sexes),
        NetworkGiven(None, None, face),
        NetworkGiven(None, None, voice),
    )
    return build(settings, given, seed)


def pairs(faces: Tensor, voices: Tensor, people: Tensor | None = None) -> Batch:
    owners = torch.arange(len(faces)) if people is None else people
    return Batch(faces.float(), owners, voices.float(), None, owners)


def noise(rows: int, width: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)))


def a_batch(seed: int = 0, people: int = 24) -> Batch:
    return pairs(noise(people, 6, seed), noise(people, 5, seed + 100))


def learn(task: BiPseudoLabelTask, batch: Batch, steps: int = 60, rate: float = 0.02) -> list[float]:
    """Totals of so many steps on one batch."""
    steps_of, totals = torch.optim.Adam(task.parameters(), lr=rate), []
    torch.manual_seed(0)
    for _ in range(steps):
        steps_of.zero_grad()
        total = task.losses(batch)["total"]
        if total.requires_grad:
            total.backward()
            steps_of.step()
        totals.append(total.item())
    return totals


def cosines(task: BiPseudoLabelTask, faces: Tensor, voices: Tensor) -> Tensor:
    """(n, n) of new faces to new voices."""
    with torch.no_grad():
        points = [task.eval().embed(one, some.float()) for one, some in zip(Modality, (faces, voices), strict=True)]
    return torch.nn.functional.cosine_similarity(points[0][:, None], points[1][None], dim=2)


def test_the_total_is_equation_11_added_up_over_the_numbers_of_clusters() -> None:
    terms = task_of(SMALL, "fm" * 12).losses(a_batch())
    expected = terms["association"] + 10 * terms["bi_pseudo_label"] + terms["distribution"]
    torch.testing.assert_close(terms["total"], expected + 3 * 0.1 * terms["identity"])
    torch.testing.assert_close(terms["identity"], terms["person"] + terms["sex"])


def test_several_numbers_of_clusters_are_the_sum_of_each() -> None:
    """With the same classifiers and starts, q = 2 and q = 3 side by side are q = 2 alone and q = 3 alone."""
    settings = only(bi_pseudo_label_loss=True, distribution_loss=True, association="learned", variant="FS")
    both, batch = task_of(settings, "fm" * 12), a_batch()
    torch.manual_seed(4)
    together = both.losses(batch)
    torch.manual_seed(4)
    apart = []
    for variant in ("F", "S"):  # in this order they draw what both drew
        one = task_of(replace(settings, variant=variant), "fm" * 12)
        one.load_state_dict({name: value for name, value in both.state_dict().items() if name in one.state_dict()})
        for memory in one.prototypes.values():
            memory.load_state_dict({"mean": torch.zeros(8), "count": torch.tensor(0)})
        apart.append(one.losses(batch))
    for name in ("total", "association", "bi_pseudo_label", "distribution"):
        torch.testing.assert_close(together[name], apart[0][name] + apart[1][name])
    assert {"agreement_2", "agreement_3"} < together.keys() and "agreement_6" not in together


@pytest.mark.parametrize(
    ("variant", "clusters"),
    [("F", (8,)), ("S", (32,)), ("T", (64,)), ("FS", (8, 32)), ("FT", (8, 64)), ("ST", (32, 64)), ("FST", (8, 32, 64))],
)
def test_each_variant_has_its_numbers_of_clusters(variant: str, clusters: tuple[int, ...]) -> None:
    assert replace(Settings(), variant=variant).clusters == clusters and variant in VARIANTS


def test_sums_are_the_default_and_means_divide_them_by_the_pairs() -> None:
    batch, terms = a_batch(), {}
    for reduction in ("sum", "mean"):
        torch.manual_seed(1)
        terms[reduction] = task_of(replace(SMALL, reduction=reduction), "fm" * 12).losses(batch)
    assert Settings().reduction == "sum"
    for name in ("bi_pseudo_label", "person", "sex"):
        torch.testing.assert_close(terms["sum"][name], 24 * terms["mean"][name])
    for name in ("association", "distribution"):
        torch.testing.assert_close(terms["sum"][name], terms["mean"][name])


def test_people_of_unknown_sex_alone_teach_nothing_of_it() -> None:
    task = task_of(only(identity_loss=True), "?" * 24)
    terms = task.losses(a_batch())
    terms["total"].backward()
    assert terms["sex"].item() == 0 and terms["person"].item() > 0
    assert not task.sex.weight.grad.any() and torch.isfinite(terms["total"])


def test_rows_that_are_not_pairs_are_refused() -> None:
    batch = a_batch()
    with pytest.raises(ValueError, match="face i and voice i of a batch must be of one person"):
        task_of(SMALL, "fm" * 12).losses(replace(batch, voice_people=batch.voice_people.flip(0)))


def test_labels_come_from_the_headed_features_scaled_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    found = bi_pseudo_label.pair_labels
    monkeypatch.setattr(bi_pseudo_label, "pair_labels", lambda *told: (seen.append(told), found(*told))[1])
    task, batch = task_of(SMALL, "fm" * 12), a_batch()
    task.losses(batch)
    faces = task.embed(Modality.FACE, batch.faces).detach().double()
    scaled = 2 * (faces - faces.amin(0)) / (faces.amax(0) - faces.amin(0)) - 1
    torch.testing.assert_close(seen[0][0], scaled)
    assert [told[3:] for told in seen] == [(2, True), (3, True), (6, True)]
    torch.testing.assert_close(task.prototypes["face"].mean.double(), seen[0][2][0], atol=1e-6, rtol=0)


def test_features_that_are_no_numbers_make_a_loss_that_is_none() -> None:
    batch = a_batch()
    batch.faces[3] = torch.nan
    assert torch.isnan(task_of(SMALL, "fm" * 12).losses(batch)["total"])


def test_each_modality_has_a_prototype_of_its_own_that_only_training_moves() -> None:
    task = task_of(SMALL, "fm" * 12)
    task.losses(a_batch(0)), task.losses(a_batch(1))
    face, voice = (task.prototypes[one].mean.clone() for one in ("face", "voice"))
    assert int(task.prototypes["face"].count) == 2 and not torch.allclose(face, voice)
    task.eval().losses(a_batch(2))
    assert torch.equal(task.prototypes["face"].mean, face)


# What each loss is for, in people made so that it alone can do it, and what is missing without it.


def grouped(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A quarter of the people stand apart: plainly by their voices, faintly among much else by their faces."""
    group = (torch.arange(rows) % 4 == 0).long()
    voices, faces = noise(rows, 5, seed) * 0.3, noise(rows, 6, seed + 1)
    voices[:, 0] += 6 * group
    faces[:, 0] = faces[:, 0] * 0.1 + group
    return faces, voices, group


def told_apart(task: BiPseudoLabelTask) -> float:
    """How often a new face is nearer to a voice of its group than to one of another."""
    faces, voices, group = grouped(30, 50)
    near, same = cosines(task, faces, voices), group[:, None] == group[None]
    wins = [(row[kin][:, None] > row[~kin][None]).float().mean() for row, kin in zip(near, same, strict=True)]
    return float(torch.stack(wins).mean())


def test_prediction_across_modalities_brings_faces_to_the_voices_of_their_group() -> None:
    shares = {}
    for on in (True, False):
        settings = only(bi_pseudo_label_loss=on, association="learned", variant="F", head="linear")
        task = task_of(settings, "f" * 24, seed=2)
        learn(task, pairs(*grouped(24, 30)[:2]), steps=40)
        shares[on] = told_apart(task)
    assert shares[True] > 0.95 and shares[False] < 0.75


def test_the_learned_association_raises_the_score_of_pairs_and_the_hard_one_teaches_nothing() -> None:
    moved, scores = {}, {}
    for mode in ("learned", "hard"):
        task = task_of(only(association=mode, identity_loss=True, identity_weight=0.0, variant="F"), "f" * 24)
        before = task.head.face[0].weight.clone()
        learn(task, a_batch(), steps=30, rate=0.04)
        moved[mode] = not torch.equal(task.head.face[0].weight, before)
        scores[mode] = -math.log(task.losses(a_batch())["association"].item())
    assert moved == {"learned": True, "hard": False}
    assert scores["learned"] > 0.9 and scores["hard"] < 0.7


def test_the_distribution_loss_makes_labels_as_frequent_in_faces_as_in_voices() -> None:
    faces, voices = noise(24, 6, 30) * 0.3, noise(24, 5, 131) * 0.3
    faces[:, 0] += torch.where(torch.arange(24) < 3, 2.0, -2.0)  # 3 of 24 stand apart
    voices[:, 0] += torch.where(torch.arange(24) < 12, 2.0, -2.0)  # half of them
    judge, after = task_of(only(distribution_loss=True, variant="F"), "f" * 24).eval(), {}
    for on in (True, False):
        settings = only(distribution_loss=on, association="learned", variant="F", temperature=0.3)
        task = task_of(settings, "f" * 24)
        learn(task, pairs(faces, voices), steps=40, rate=0.05)
        judge.head.load_state_dict(task.head.state_dict())
        after[on] = judge.losses(pairs(faces, voices))["distribution"].item()
    assert after[True] < 0.1 * after[False]


def test_the_identity_loss_brings_a_persons_faces_and_voices_together() -> None:
    truth, people = noise(8, 5, 40), torch.arange(8).repeat_interleave(3)
    turned = torch.linalg.qr(noise(6, 6, 41)).Q[:5]

    def samples(seed: int) -> tuple[Tensor, Tensor]:
        return (truth[people] @ turned) + 0.2 * noise(24, 6, seed), truth[people] + 0.2 * noise(24, 5, seed + 1)

    shares = {}
    for on in (True, False):
        task = task_of(only(identity_loss=on, association="learned", variant="F"), "fm" * 4)
        learn(task, pairs(*samples(42), people), steps=30, rate=0.05)
        found = cosines(task, *samples(44)).argmax(dim=1)
        shares[on] = (people[found] == people).float().mean().item()
    assert shares[True] > 0.8 and shares[False] < 0.5


def test_known_sexes_are_told_apart_in_people_never_seen() -> None:
    def samples(seed: int) -> tuple[Tensor, Tensor]:
        sex = torch.arange(24)[:, None] % 2 * 1.0
        return noise(24, 6, seed) + sex * 1.5, noise(24, 5, seed + 1) - sex * 1.5

    shares = {}
    for sexes in ("fm" * 12, "?" * 24):
        task = task_of(only(identity_loss=True), sexes)
        learn(task, pairs(*samples(60)), steps=60)
        faces = task.sex(task.eval().embed(Modality.FACE, samples(62)[0].float())).argmax(dim=1)
        shares[sexes[0]] = (faces == torch.arange(24) % 2).float().mean().item()
    assert shares["f"] > 0.9 and shares["?"] < 0.8


def test_starts_with_the_same_people_make_labels_of_corresponding_features_agree() -> None:
    features, agreements = noise(24, 6, 70), {}
    for starts in ("paired", "separate"):
        task = task_of(only(association="hard", identity_loss=True, variant="T", starts=starts), "f" * 24, voice=6)
        task.head.voice.load_state_dict(task.head.face.state_dict())
        torch.manual_seed(0)
        found = [task.losses(pairs(features, features))["agreement_6"].item() for _ in range(10)]
        agreements[starts] = np.mean(found)
    assert agreements["paired"] == 1.0 and agreements["separate"] < 0.9


SWITCHES: dict[str, Mapping[str, Any]] = {
    **{name: told for name, told in ABLATIONS.items() if "variant" not in name},
    "in full": {},
    "without L_cma": {"association": "off"},
    "separate starts": {"starts": "separate"},
    "sums": {"reduction": "sum", "score_scale": "sum", "distribution_reduction": "sum"},
}


@pytest.mark.parametrize("changed", SWITCHES.values(), ids=SWITCHES.keys())
def test_every_ablation_lowers_its_loss_and_every_parameter_learns(changed: Mapping[str, Any]) -> None:
    task = task_of(replace(SMALL, **changed), "fm" * 12)
    if "eta" in dict(task.head.shared[0].named_parameters()):
        torch.nn.init.constant_(task.head.shared[0].eta, 0.1)  # at 0 nothing reaches the inner layers
    batch = a_batch()
    task.losses(batch)["total"].backward()
    assert not [name for name, one in task.named_parameters() if one.grad is None or not one.grad.any()]
    totals = learn(task, batch, steps=20, rate=0.03)
    assert np.mean(totals[-4:]) < 0.98 * np.mean(totals[:4])


def test_only_what_is_switched_on_is_made_and_logged() -> None:
    task = task_of(replace(SMALL, **ABLATIONS["CMWR+id"]), "fm" * 12)
    assert {name.split(".")[0] for name in task.state_dict()} == {"head", "people", "sex"}
    assert not [name for name in task.losses(a_batch()) if name.startswith(("agree", "assoc", "bi_", "distrib"))]


def test_the_head_is_the_residual_layer_with_dropout_or_one_layer() -> None:
    told = task_of(replace(SMALL, dropout=0.5), "fm").head.parameters_told
    assert told["shared"] == [["weighted_residual_dropout", 8, 8, 0.5]]
    assert (told["face"], told["voice"]) == ([["linear", 6, 8]], [["linear", 5, 8]])
    assert task_of(replace(SMALL, head="linear"), "fm", 8, 8).head.parameters_told["shared"] == [["linear", 8, 8]]


def test_the_defaults_are_the_papers() -> None:
    paper = Settings()
    assert (paper.people_per_batch * paper.samples_per_person, paper.clusters) == (128, (8, 32, 64))
    assert (paper.bi_pseudo_label_weight, paper.identity_weight, paper.embedding) == (10, 0.1, 256)
    assert (paper.face_backbone, paper.voice_backbone) == ("resnet34_face", "dimnet_voice")
    assert paper.voice_preparation == {"features": "mfcc", "quiet_below": 40.0} and paper.augmentation.frames == 1000
    assert (learning_rate(paper, 0), learning_rate(paper, 1)) == (pytest.approx(1e-3), pytest.approx(1e-8))
    assert isinstance(optimiser(task_of(SMALL, "fm"), paper), torch.optim.Adam)


@pytest.mark.parametrize("curve", ["exponential", "cosine"])
def test_the_learning_rate_falls(curve: Any) -> None:
    rates = [learning_rate(replace(Settings(), curve=curve), share / 10) for share in range(11)]
    assert all(later < earlier for earlier, later in pairwise(rates))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "epochs and steps, got 0"),
        ({"people_per_batch": 1}, "at least 2 people"),
        ({"people_per_batch": 63}, "64 clusters need as many samples in a batch, which has 63 people with 1 each"),
        ({"final_learning_rate": 1.0}, "falls from learning_rate"),
        ({"warm_up": 1.0}, r"warm_up is in \[0, 1\), got 1\.0"),
        ({"variant": "TF"}, "variant is one of F, S, T, FS, FT, ST, FST, got 'TF'"),
        ({"prototype": "mean"}, "prototype is one of geometric_median, medoid, got 'mean'"),
        ({"head": "none"}, "head is one of cmwr, linear"),
        ({"starts": "zeros"}, "starts is one of paired, separate"),
        ({"association": "soft"}, "association is one of learned, hard, off"),
        ({"reduction": "max"}, "reduction is one of sum, mean"),
        ({"curve": "square"}, "curve is one of"),
        ({"cluster_counts": (8, 8, 64)}, "3 different numbers"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"identity_weight": -1.0}, "weights are at least 0"),
        (NOTHING, "nothing to train by"),
        (NOTHING | {"association": "hard"}, "has no gradient"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(Settings(), **wrong)


@pytest.mark.parametrize(("people", "batch", "samples"), [(924, 128, 1), (141, 128, 1), (140, 105, 2), (4, 3, 43)])
def test_fewer_people_bring_more_samples_each(people: int, batch: int, samples: int) -> None:
    fitted = Settings().fitting(people)
    assert (fitted.people_per_batch, fitted.samples_per_person) == (batch, samples)


def test_fewer_people_fill_the_batches_of_the_stage_before_too() -> None:
    few = POPULATION.fitting(40).pretraining
    assert few is not None and few.people_per_batch == 30
    assert POPULATION.fitting(1250).pretraining == POPULATION.pretraining
    assert replace(TINY, people_per_batch=1000).fitting(40).pretraining == TINY.pretraining


def test_a_configuration_file_reaches_groups_of_settings_and_is_kept_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("variant: FT\ncluster_counts: [4, 8, 16]\naugmentation: {frames: 300}\npretraining: {epochs: 2}\n")
    told = read_configuration(bi_pseudo_label, path, "paper")
    assert told.settings.clusters == (4, 16) and told.settings.augmentation.frames == 300
    assert told.settings.pretraining == IdentitySettings(epochs=2)
    write_configuration(path, told, tmp_path)
    assert read_configuration(bi_pseudo_label, path, "population") == told


def test_networks_learn_people_first_where_that_is_asked_for_and_they_are_not_frozen() -> None:
    assert [one.name for one in stages(POPULATION, frozen=False)] == ["identity", "bi_pseudo_label"]
    assert [one.name for one in stages(POPULATION, frozen=True)] == ["bi_pseudo_label"]
    assert [one.name for one in stages(Settings(), frozen=False)] == ["bi_pseudo_label"]


def test_networks_begin_as_the_stage_before_left_them() -> None:
    face, voice = (trainable(one, f"small_{one}").preparation() for one in Modality)
    networks = given_network(Modality.FACE, "small_face", face), given_network(Modality.VOICE, "small_voice", voice)
    given = Given(3, ("f", "m", ""), *networks)
    first, second = stages(replace(TINY, people_per_batch=5), frozen=False)
    before = first.build(given, 1, None)
    task, other = second.build(given, 2, before), second.build(given, 2, None)
    for name in ("face", "voice"):
        weights = (dict(one.get_submodule(name).named_parameters()) for one in (before, task, other))
        one, same, drawn = (next(value for value in some.values() if value.ndim > 1) for some in weights)
        assert torch.equal(one, same) and not torch.equal(one, drawn)


# The whole of it: two small networks on noisy pictures and sounds, killed half way, published.

TINY = replace(
    POPULATION,
    epochs=2,
    steps_per_epoch=2,
    people_per_batch=4,
    samples_per_person=2,
    cluster_counts=(2, 3, 5),
    hidden=8,
    augmentation=Augmentation(frames=30),
    pretraining=IdentitySettings(epochs=1, steps_per_epoch=1, people_per_batch=5),
)


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_ends_in_the_same_weights_and_prototypes_and_serves_them(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole" / "run", tmp_path / "halves" / "run"
    data = small_data()
    trained = train(bi_pseudo_label, TINY, data, made(whole), RUN)

    def stop(progress: Progress) -> None:
        if progress.stage == "bi_pseudo_label" and progress.epoch == 1:
            raise Stopped

    with pytest.raises(Stopped):
        train(bi_pseudo_label, TINY, data, made(halves), RUN, stop)
    train(bi_pseudo_label, TINY, data, halves, RUN)
    one, other = (read_checkpoint(folder / loop.CHECKPOINTS) for folder in (whole, halves))
    assert one is not None and other is not None and one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert one.weights["prototypes.voice.count"] == 4 and one.weights["prototypes.face.mean"].any()
    reloads(data, trained, tmp_path)


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def reloads(data: TrainingData, trained: loop.Trained, folder: Path) -> None:
    """The published folder holds networks and head alone, and gives the vectors of the task."""
    golden = {Modality.FACE: [drawn_face(1)], Modality.VOICE: [drawn_voice(1, 0.7)]}
    origin = Origin("invented people", "10 people", "6 people", Preparation(), golden)
    encoder = Encoder.load(publish(bi_pseudo_label, TINY, data, trained, origin, folder / "encoders"))
    assert encoder.verify_golden() > 0.99999
    task = finished_task(bi_pseudo_label, TINY, data, trained)
    features = np.random.default_rng(0).standard_normal((3, 128)).astype(np.float32)
    for modality in Modality:
        with torch.no_grad():
            expected = task.head(torch.from_numpy(features), modality).numpy()
        np.testing.assert_allclose(encoder.head.apply(features, modality), expected, atol=1e-6)
