from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from encoders.backbones.inception_resnet_v1_voice import prepare_spectrogram
from encoders.backbones.small_picture import prepare_picture
from encoders.encoder import Encoder
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from tests.training.small_run import small_data
from tests.training.test_fusion import loop_orthogonal
from training.loop import RunSettings, Trained, TrainingData, finished_task, read_best, train
from training.networks import NetworkGiven, given_network, read_network_preparation, trainable
from training.publish import Origin, publish
from training.reading import preparation_for
from training.recipe import Batch, Given, Task
from training.recipes import single_stream
from training.recipes.single_stream import (
    POPULATION,
    FusionTask,
    Settings,
    StreamSettings,
    build_fusion,
    build_stream,
    joint_centre_distances,
    learning_rate,
    optimiser,
    stages,
    stream_loss,
)

SMALL = replace(
    POPULATION,
    stream=replace(
        POPULATION.stream, epochs=2, steps_per_epoch=3, people_per_batch=4, samples_per_person=2, learning_rate=0.01
    ),
    epochs=3,
    steps_per_epoch=3,
    people_per_batch=4,
    samples_per_person=2,
    learning_rate=0.01,
    embedding=16,
)
PREPARATION = preparation_for(POPULATION, "dlib_hog")


def given_for(settings: Settings, people: int = 10) -> Given:
    """What stage 1 is made for."""
    networks = [
        given_network(modality, backbone, read_network_preparation(modality, backbone, preparation))
        for modality, backbone, preparation in (
            (Modality.FACE, settings.face_backbone, settings.face_preparation),
            (Modality.VOICE, settings.voice_backbone, settings.voice_preparation),
        )
    ]
    return Given(people, ("",) * people, *networks)


def given_vectors(people: int = 5, face: int = 6, voice: int = 4) -> Given:
    """What stage 2 is made for."""
    return Given(people, ("",) * people, NetworkGiven(None, None, face), NetworkGiven(None, None, voice))


def pairs(count: int = 8, people: int = 5, seed: int = 0, face: int = 6, voice: int = 4) -> Batch:
    """Pairs of vectors, float64."""
    random = torch.Generator().manual_seed(seed)
    owners = torch.randint(people, (count,), generator=random)
    faces, voices = (torch.randn(count, width, generator=random, dtype=torch.float64) for width in (face, voice))
    return Batch(faces, owners, voices, None, owners)


def pictures(people: int = 3, samples: int = 2) -> Batch:
    """Faces and sounds of one size."""
    random = torch.Generator().manual_seed(0)
    owners = torch.arange(people).repeat_interleave(samples)
    faces = torch.randn(len(owners), 3, 64, 64, generator=random)
    return Batch(faces, owners, torch.randn(len(owners), 64, 64, generator=random), None, owners)


def drawn(rows=9, columns=4, people=5, seed=0):
    """Scores, vectors and who they are of: float64."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, people, generator=random, dtype=torch.float64)
    vectors = torch.randn(rows, columns, generator=random, dtype=torch.float64)
    return scores, vectors, torch.randint(people, (rows,), generator=random)


def loop_stream(scores, vectors, people, weight, reduction):
    """Equations 1 and 2, sample by sample."""
    total = torch.zeros((), dtype=torch.float64)
    for row, person in zip(scores, people, strict=True):
        total = total - (row[person].exp() / sum(score.exp() for score in row)).log()
    for person in set(people.tolist()):
        own = [vector for vector, owner in zip(vectors, people, strict=True) if owner == person]
        centre = sum(own) / len(own)
        total = total + weight / 2 * sum((vector - centre).square().sum() for vector in own)
    return total if reduction == "sum" else total / len(people)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("weight", "seed"), [(1.0, 0), (0.3, 1), (0.0, 2)])
def test_the_streams_loss_is_the_printed_one_in_value_and_gradient(reduction, weight, seed):
    scores, vectors, people = drawn(seed=seed)
    scores.requires_grad_(), vectors.requires_grad_()
    ours = stream_loss(scores, vectors, people, weight, reduction)["total"]
    naive = loop_stream(scores, vectors, people, weight, reduction)
    torch.testing.assert_close(ours, naive)
    for one in (scores, vectors):
        found = torch.autograd.grad(ours, one, retain_graph=True, materialize_grads=True)[0]
        torch.testing.assert_close(found, torch.autograd.grad(naive, one, retain_graph=True, materialize_grads=True)[0])


def test_the_classifier_knows_all_training_people_not_only_those_of_the_batch():
    scores = torch.zeros(1, 7)
    assert stream_loss(scores, torch.ones(1, 2), torch.tensor([3]), 1.0)["identity"].exp().item() == pytest.approx(7)


def test_a_person_with_one_sample_is_its_own_centre():
    assert joint_centre_distances(torch.randn(3, 4), torch.tensor([4, 0, 2])).item() == 0.0


@pytest.mark.parametrize(("weight", "nearer"), [(1.0, True), (0.0, False)])
def test_the_centre_brings_faces_and_voices_of_a_person_together_and_without_it_they_stay_apart(weight, nearer):
    people = torch.tensor([0, 1, 0, 1])  # two faces, then two voices
    vectors = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0], [1.0, 0.0, -5.0], [0.0, 1.0, -5.0]]).requires_grad_()
    classifier = torch.tensor([[4.0, -4.0, 0.0], [-4.0, 4.0, 0.0]])
    optimiser = torch.optim.SGD([vectors], lr=0.05)
    for _ in range(50):
        optimiser.zero_grad()
        stream_loss(vectors @ classifier.T, vectors, people, weight)["total"].backward()
        optimiser.step()
    assert bool((vectors[0] - vectors[2]).norm() < 1.0) is nearer


def test_the_centre_alone_makes_everybody_one_point_and_names_keep_people_apart():
    vectors, people = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4).repeat(2)
    spread, accuracy = {}, {}
    for named in (True, False):
        torch.manual_seed(0)
        classifier = torch.nn.Linear(2, 4)
        network = torch.nn.Linear(2, 2)  # of all people alike: what brings one together brings all
        optimiser = torch.optim.Adam([*network.parameters(), *classifier.parameters()], lr=0.1)
        samples = vectors[people] + 0.1 * torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
        for _ in range(300):
            moved = network(samples)
            loss = stream_loss(classifier(moved), moved, people, 1.0)["total"]
            optimiser.zero_grad()
            (loss if named else joint_centre_distances(moved, people)).backward()
            optimiser.step()
        moved = network(samples).detach()
        centres = torch.stack([moved[people == person].mean(dim=0) for person in range(4)])
        spread[named] = torch.pdist(centres).min().item()
        accuracy[named] = (classifier(moved).argmax(dim=1) == people).float().mean().item()
    assert spread[True] > 20 * spread[False] and accuracy[True] == 1.0 > accuracy[False]


def loop_fusion(task: FusionTask, batch: Batch) -> torch.Tensor:
    """Equations 3 to 11, pair by pair."""
    fused = []
    for face, voice in zip(batch.faces, batch.voices, strict=True):
        u, v = (
            torch.tanh(layer[0].weight @ vector + layer[0].bias)
            for layer, vector in ((task.head.face, face), (task.head.voice, voice))
        )
        u, v, both = u / u.norm(), v / v.norm(), torch.cat([voice, face])
        alphas = [
            torch.sigmoid(gate.weight @ both + gate.bias) for gate in (task.fusion.face_gate, task.fusion.voice_gate)
        ]
        k = alphas[0].exp() / (alphas[0].exp() + alphas[1].exp())
        fused.append(k * u + (1 - k) * v)
    total = loop_orthogonal(fused, batch.face_people, task.settings.orthogonality) * task.settings.orthogonal_weight
    for one, person in zip(fused, batch.face_people, strict=True):
        scores = [(row * one).sum().exp() for row in task.classifier.weight]
        total = total - (scores[person] / sum(scores)).log() / len(fused)
    return total


@pytest.mark.parametrize("changed", [{}, {"scalar_gate": True}, {"orthogonality": "mean", "orthogonal_weight": 0.3}])
def test_the_fusions_loss_is_the_printed_one_in_value_and_gradient(changed: dict[str, Any]) -> None:
    settings = Settings(embedding=3, **changed)
    task, batch = build_fusion(settings, given_vectors(), 0).double(), pairs()
    ours, naive = task.losses(batch)["total"], loop_fusion(task, batch)
    torch.testing.assert_close(ours, naive)
    parameters = list(task.parameters())
    for one, other in zip(*(torch.autograd.grad(loss, parameters) for loss in (ours, naive)), strict=True):
        torch.testing.assert_close(one, other)


def test_without_fusion_each_projection_is_judged_by_itself() -> None:
    task, batch = build_fusion(Settings(embedding=3, fusion=False), given_vectors(), 0).double(), pairs()
    found = task.losses(batch)
    points = torch.cat([task.embed(Modality.FACE, batch.faces), task.embed(Modality.VOICE, batch.voices)])
    people = batch.face_people.repeat(2)
    expected = torch.nn.functional.cross_entropy(points @ task.classifier.weight.T, people)
    torch.testing.assert_close(found["total"], expected + loop_orthogonal(points, people, "sum"))
    assert task.fusion is None and "face_share" not in found


@pytest.mark.parametrize(
    ("changed", "absent"), [({"orthogonal_weight": 0.0}, "orthogonal"), ({"cross_entropy": False}, "identity")]
)
def test_each_ablation_leaves_its_term_out(changed: dict[str, Any], absent: str) -> None:
    task = build_fusion(Settings(embedding=3, **changed), given_vectors(), 0).double()
    found = task.losses(pairs())
    left = {"orthogonal", "identity"} - {absent}
    torch.testing.assert_close(found["total"], found[left.pop()])


def fused_cosine(cross_entropy: bool) -> float:
    """How alike two people are in the end who began alike, with a third between whom and them all evens out."""
    people = torch.tensor([0, 0, 1, 1, 2, 2])
    samples, places = torch.eye(3)[people], torch.tensor([[1.0, 1.0, -0.5], [0.0, 1e-3, 0.75**0.5]])
    settings = Settings(embedding=2, orthogonality="mean", cross_entropy=cross_entropy, learning_rate=0.05)
    task = build_fusion(settings, given_vectors(3, 3, 3), 0)
    with torch.no_grad():
        for layer in (task.head.face[0], task.head.voice[0]):
            layer.weight.copy_(places)
            layer.bias.zero_()
    steps = optimiser(task, settings)
    for _ in range(80):
        steps.zero_grad()
        task.losses(Batch(samples, people, samples, None, people))["total"].backward()
        steps.step()
    points = normalize(task.embed(Modality.FACE, samples).detach())
    return float(points[0] @ points[2])


def test_only_the_classifier_tells_people_apart_whom_the_sum_of_cosines_does_not_see() -> None:
    assert fused_cosine(cross_entropy=False) > 0.99 and fused_cosine(cross_entropy=True) < 0.9


def test_fusion_takes_pairs_only() -> None:
    batch = pairs()
    unpaired = Batch(batch.faces, batch.face_people, batch.voices, None, batch.voice_people.roll(1))
    with pytest.raises(ValueError, match="fusion takes pairs"):
        build_fusion(Settings(embedding=3), given_vectors(), 0).double().losses(unpaired)


def test_one_network_sees_and_hears_and_is_counted_once() -> None:
    task = build_stream(POPULATION.stream, given_for(POPULATION), 0)
    assert task.voice is task.face
    assert not [name for name in task.state_dict() if name.startswith("voice")]
    assert len(list(task.parameters())) == len(list(task.face.parameters())) + 2


def test_both_modalities_go_through_the_network_in_one_batch() -> None:
    task, batch = build_stream(POPULATION.stream, given_for(POPULATION), 0), pictures()
    seen: list[int] = []
    task.face.layers.register_forward_hook(lambda module, inputs, outputs: seen.append(len(inputs[0])))
    found = task.losses(batch)
    assert seen == [12]
    task.load_state_dict(build_stream(POPULATION.stream, given_for(POPULATION), 0).state_dict())
    sounds = batch.voices.transpose(1, 2)[:, None].expand(-1, 3, -1, -1)
    vectors = task.face.features(torch.cat([batch.faces, sounds]))
    people = batch.face_people.repeat(2)
    expected = stream_loss(task.classifier(vectors), vectors, people, POPULATION.stream.centre_weight, "mean")
    torch.testing.assert_close(found["total"], expected["total"])


@pytest.mark.parametrize(
    "settings",
    [
        POPULATION,
        replace(
            Settings(),
            face_preparation={"side": 80, "unit_length": False},
            voice_preparation={"bands": 80, "unit_length": False},
        ),
    ],
)
def test_sounds_are_prepared_for_training_as_for_serving(settings: Settings) -> None:
    wanted = read_network_preparation(Modality.VOICE, settings.voice_backbone, settings.voice_preparation)
    prepare = {"small_picture_voice": prepare_picture, "inception_resnet_v1_voice": prepare_spectrogram}
    sound = drawn_voice(1, 0.6)
    kept = trainable(Modality.VOICE, settings.voice_backbone).prepare(sound, wanted)
    np.testing.assert_array_equal(kept, prepare[settings.voice_backbone](sound, wanted).numpy())
    assert trainable(Modality.VOICE, settings.voice_backbone).prepare(0 * sound, wanted).reason == "silent"


def test_two_networks_or_pictures_of_two_sizes_are_refused() -> None:
    given = given_for(POPULATION)
    other = given_network(Modality.VOICE, "small_voice", read_network_preparation(Modality.VOICE, "small_voice", {}))
    with pytest.raises(ValueError, match="small_picture and small_voice are two"):
        build_stream(POPULATION.stream, replace(given, voice=other), 0)
    larger = replace(given.face, preparation=replace(given.face.preparation, side=96))
    with pytest.raises(ValueError, match=r"side \(96\) and voice_preparation\.bands \(64\) the same"):
        build_stream(POPULATION.stream, replace(given, face=larger), 0)
    with pytest.raises(ValueError, match=r"unit_length \(True\) and voice_preparation\.unit_length \(False\) the same"):
        Settings(face_preparation={"side": 256})
    with pytest.raises(ValueError, match=r"side \(96\) and voice_preparation\.bands \(256\) the same"):
        Settings(face_preparation={"side": 96, "unit_length": False})
    published = given_for(Settings())
    uneven = replace(published.face, preparation=replace(published.face.preparation, unit_length=True))
    with pytest.raises(ValueError, match=r"unit_length \(True\) and voice_preparation\.unit_length \(False\) the same"):
        build_stream(StreamSettings(), replace(published, face=uneven), 0)
    with pytest.raises(ValueError, match="the voice_backbone is small_picture_voice, got dimnet_voice"):
        replace(POPULATION, voice_backbone="dimnet_voice")


def test_the_optimiser_of_each_stage_has_the_rate_and_the_decay_of_its_settings() -> None:
    stream, fusion = replace(POPULATION.stream, learning_rate=0.02), Settings(embedding=3, learning_rate=0.03)
    for decay in (0.0, 0.3):
        for task, settings in (
            (build_stream(stream, given_for(POPULATION), 0), replace(stream, weight_decay=decay)),
            (build_fusion(fusion, given_vectors(), 0), replace(fusion, weight_decay=decay)),
        ):
            (group,) = optimiser(task, settings).param_groups
            assert (group["lr"], group["weight_decay"]) == (settings.learning_rate, decay)
            assert len(group["params"]) == len(list(task.parameters()))


def test_a_few_steps_learn_a_batch_by_heart() -> None:
    batch, losses = pictures(), []
    task = build_stream(replace(SMALL.stream, centre_weight=0.01), given_for(POPULATION), 0)
    steps = optimiser(task, SMALL.stream)
    for _ in range(12):
        steps.zero_grad()
        found = task.losses(batch)
        found["total"].backward()
        steps.step()
        losses.append(found["total"].item())
    assert losses[-1] < 0.5 * losses[0] and found["accuracy"] == 1.0


def test_stage_one_trains_the_network_and_stage_two_learns_from_its_vectors() -> None:
    both, alone = stages(POPULATION, frozen=False), stages(POPULATION, frozen=True)
    assert [stage.name for stage in both] == ["stream", "fusion"] and [stage.name for stage in alone] == ["fusion"]
    assert [stage.on_vectors for stage in (*both, *alone)] == [False, True, False]
    assert isinstance(both[0].settings, StreamSettings) and both[0].settings.epochs == POPULATION.stream.epochs


def test_what_serves_is_a_linear_layer_with_tanh_of_unit_length_per_modality() -> None:
    task = build_fusion(Settings(embedding=3), given_vectors(), 0).double()
    batch = pairs()
    (linear, *_), faces = task.head.face, task.embed(Modality.FACE, batch.faces)
    torch.testing.assert_close(faces, normalize(torch.tanh(linear(batch.faces))))
    assert task.head.parameters_told["shared"] == [] and task.embed(Modality.VOICE, batch.voices).shape == (8, 3)


def test_the_defaults_are_the_papers() -> None:
    paper = Settings()
    assert (paper.face_backbone, paper.voice_backbone) == ("inception_resnet_v1", "inception_resnet_v1_voice")
    given = given_for(paper)
    assert (given.face.dimension, given.voice.dimension, given.face.preparation.side) == (512, 512, 256)
    assert paper.stream.people_per_batch * paper.stream.samples_per_person == 45
    assert (paper.stream.centre_weight, paper.stream.reduction, paper.orthogonality) == (1.0, "sum", "sum")
    assert paper.orthogonal_weight == 1.0 and paper.cross_entropy
    assert paper.people_per_batch * paper.samples_per_person == 128 and paper.epochs == 100
    assert learning_rate(paper, 0.0) == pytest.approx(1e-5) and paper.fusion and not paper.scalar_gate
    assert learning_rate(paper, 0.5) == pytest.approx((1e-5 * paper.final_learning_rate) ** 0.5)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "epochs and steps, got 0"),
        ({"people_per_batch": 1}, "at least 2 people"),
        ({"final_learning_rate": 1.0}, "falls from learning_rate"),
        ({"warm_up": 1.0}, r"warm_up is in \[0, 1\)"),
        ({"embedding": 0}, "embedding is at least 1"),
        ({"orthogonality": "median"}, "sum, sum_without_diagonal, mean"),
        ({"cross_entropy": False, "orthogonal_weight": 0.0}, "nothing to train by"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(POPULATION, **wrong)


@pytest.mark.parametrize("wrong", [{"centre_weight": -1.0}, {"reduction": "median"}])
def test_impossible_settings_of_stage_one_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="centre_weight is at least 0, reduction sum or mean"):
        StreamSettings(**wrong)


@pytest.mark.parametrize(("people", "stream", "fusion"), [(1250, 15, 64), (60, 15, 45), (6, 4, 4), (2, 2, 2)])
def test_few_people_fill_smaller_batches_of_both_stages(people: int, stream: int, fusion: int) -> None:
    fitted = Settings().fitting(people)
    assert (fitted.stream.people_per_batch, fitted.people_per_batch) == (stream, fusion)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(
        single_stream, SMALL, small_data(PREPARATION), tmp_path_factory.mktemp("runs") / "run", RunSettings(seed=5)
    )


class Stopped(Exception):
    """Somebody stops the training."""


def stop_after(count: int) -> Any:
    """A listener that stops the training when it has been told so often."""
    told = iter(range(count))

    def listen(progress: Any) -> None:
        if next(told, None) is None:
            raise Stopped

    return listen


def test_a_training_that_is_stopped_in_either_stage_goes_on_to_the_same_weights(
    trained: Trained, tmp_path: Path
) -> None:
    run = RunSettings(seed=5)
    for told in (0, 2):  # after an epoch of the first stage, and of the second
        with pytest.raises(Stopped):
            train(single_stream, SMALL, small_data(PREPARATION), tmp_path / "run", run, stop_after(told))
    again = train(single_stream, SMALL, small_data(PREPARATION), tmp_path / "run", run)
    for one, other in zip((*trained.earlier, trained.folder), (*again.earlier, again.folder), strict=True):
        first, second = read_best(one), read_best(other)
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def published(settings: Settings, data: TrainingData, trained: Trained, folder: Path) -> Encoder:
    """The folder of a run, loaded."""
    golden = {Modality.FACE: [drawn_face(1)], Modality.VOICE: [drawn_voice(1, 0.7)]}
    origin = Origin("invented people", "10 invented people", "6 others", data.training.preparation, golden)
    return Encoder.load(publish(single_stream, settings, data, trained, origin, folder))


def assert_the_vectors_of_training(encoder: Encoder, task: Task, spectra: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        expected = torch.cat([task.embed(Modality.VOICE, one[None]) for one in spectra]).numpy()
    found = encoder.encode(Modality.VOICE, [drawn_voice(seed, 0.6 + seed) for seed in range(len(spectra))])
    assert min(float(one.vector @ row) for one, row in zip(found, expected, strict=True)) > 0.99999


def test_a_published_folder_holds_one_network_twice_and_gives_the_vectors_of_training(
    trained: Trained, tmp_path: Path
) -> None:
    encoder = published(SMALL, small_data(PREPARATION), trained, tmp_path)
    assert encoder.folder.name.startswith("single_stream-") and encoder.verify_golden() > 0.99999
    branches = encoder.description.branches
    assert branches[Modality.FACE].weights.sha256 == branches[Modality.VOICE].weights.sha256
    spectra = [prepare_picture(drawn_voice(seed, 0.6 + seed), PREPARATION.voice) for seed in range(4)]
    assert_the_vectors_of_training(
        encoder, finished_task(single_stream, SMALL, small_data(PREPARATION), trained), spectra
    )


@pytest.mark.long
def test_the_papers_network_trains_and_serves_as_the_small_one_does(tmp_path: Path) -> None:
    small = {"dimension": 16, "unit_length": False}
    settings = replace(
        Settings(),
        stream=replace(SMALL.stream, epochs=1, augmentation=replace(SMALL.augmentation, frames=80)),
        epochs=1,
        people_per_batch=4,
        embedding=8,
        face_preparation=small | {"side": 80},
        voice_preparation=small | {"bands": 80},
    )
    data = small_data(preparation_for(settings, "dlib_hog"))
    trained = train(single_stream, settings, data, tmp_path / "run", RunSettings(seed=5))
    task, wanted = finished_task(single_stream, settings, data, trained), data.training.preparation.voice
    spectra = [prepare_spectrogram(drawn_voice(seed, 0.6 + seed), wanted) for seed in range(2)]
    assert_the_vectors_of_training(published(settings, data, trained, tmp_path / "encoders"), task, spectra)
