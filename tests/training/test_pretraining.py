"""The stage that teaches a method's networks to tell people apart, in front of the method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax

from encoders.backbones.small_voice import SmallVoicePreparation
from encoders.encoder import Encoder
from encoders.space import Modality
from tests.training.recipes.whole_run import taught as steps_of
from tests.training.small_run import RUN, SETTINGS, small_data, small_given
from tests.training.test_publish import ORIGIN
from training.batches import batch_plan, make_batch
from training.beginnings import NetworksAsGiven, settings_begun
from training.loop import TrainingError, finished_task, train
from training.networks import begins_as, read_network_preparation
from training.pretraining import IdentitySettings, IdentityTask, identity_stage
from training.publish import publish
from training.reading import preparation_for
from training.recipe import seeded
from training.recipes import bi_pseudo_label, bi_quintuple, joint_embedding, prior_transport, visavox
from training.validation import embed_prepared

METHODS = {bi_pseudo_label: "pretraining"} | dict.fromkeys((joint_embedding, prior_transport, visavox), "identity")


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__.rpartition(".")[2])
def test_it_teaches_the_networks_of_the_method_by_its_own_numbers(method: Any) -> None:
    networks = {"face_backbone": "vit_face", "face_preparation": {"side": 48}, "voice_backbone": "dimnet_voice"}
    taught = IdentitySettings(epochs=3, scale=8.0)
    settings = replace(method.POPULATION, **networks, **{METHODS[method]: taught})
    first, _ = method.stages(settings, frozen=False)
    assert first.name == "identity" and first.keep == "last"
    assert first.settings == replace(taught, **networks, voice_preparation=settings.voice_preparation)
    assert first.settings.voices


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__.rpartition(".")[2])
def test_there_is_none_before_frozen_vectors_or_where_it_is_not_wanted(method: Any) -> None:
    wanted = replace(method.POPULATION, **{METHODS[method]: IdentitySettings()})
    unwanted = replace(method.POPULATION, **{METHODS[method]: None})
    assert len(method.stages(wanted, frozen=True)) == len(method.stages(unwanted, frozen=False)) == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_its_loss_is_a_smoothed_softmax_of_cosines_over_all_people_of_each_modality(smoothing: float) -> None:
    settings = IdentitySettings(people_per_batch=4, steps_per_epoch=1, scale=8.0, smoothing=smoothing)
    task, data = seeded(IdentityTask, 3, settings, small_given()).eval(), small_data().training
    batch = make_batch(data, batch_plan(data, settings, 0, 0), 0)
    losses = task.losses(batch)
    told = {
        "face": (batch.faces, None, batch.face_people, task.face_classifier.weight),
        "voice": (batch.voices, batch.voice_lengths, batch.voice_people, task.voice_classifier.weight),
    }
    naive = {}
    for modality in Modality:
        samples, lengths, people, weights = told[modality.value]
        terms = []
        for feature, person in zip(task.features(modality, samples, lengths), people.tolist(), strict=True):
            scores = [8.0 * feature @ one / (feature.norm() * one.norm()) for one in weights]
            logs = log_softmax(torch.stack(scores), dim=0)
            terms.append(-(1 - smoothing) * logs[person] - smoothing * logs.mean())
        naive[modality.value] = torch.stack(terms).mean()
        torch.testing.assert_close(losses[modality.value], naive[modality.value], rtol=1e-4, atol=1e-5)
    wanted = [*list(task.parameters())[:4], task.face_classifier.weight, task.voice_classifier.weight]
    gradients = (torch.autograd.grad(one, wanted, retain_graph=True) for one in (losses["total"], sum(naive.values())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_it_learns_to_tell_its_people_apart(tmp_path: Path) -> None:
    settings = IdentitySettings(epochs=4, people_per_batch=4, steps_per_epoch=10)
    shown: list[Any] = []

    class Only:
        __name__ = "only"

        @staticmethod
        def stages(_settings: Any, _frozen: bool) -> Any:
            return (identity_stage(settings),)

    train(Only, settings, small_data(), tmp_path, RUN, shown.append)  # type: ignore[arg-type]
    first, last = (next(one.losses for one in shown if one.step == 10 * epoch) for epoch in (1, 4))
    assert last["face"] < first["face"] and last["voice"] < first["voice"]
    assert last["face_accuracy"] > 0.5 and last["voice_accuracy"] > 0.5  # chance is 0.1


def test_a_voice_network_that_nobody_goes_on_from_is_not_taught() -> None:
    settings = replace(prior_transport.POPULATION, voice_taught=False, people_per_batch=6).fitting(10)
    (first, _), given = prior_transport.stages(settings, frozen=False), small_given()
    assert not first.settings.voices
    assert all(
        prior_transport.stages(replace(settings, **{name: True}), frozen=False)[0].settings.voices
        for name in ("voice_taught", "on_vectors")
    )
    task = first.build(given, 0, None).train()
    assert not task.voice.training and task.face.training
    before, data = {name: value.clone() for name, value in task.state_dict().items()}, small_data().training
    log = steps_of(task, first.optimiser(task), make_batch(data, batch_plan(data, first.settings, 0, 0), 0), 3)
    assert set(log[0]) == {"total", "face", "face_accuracy"} and log[-1]["total"] < log[0]["total"]
    moved = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in moved} == {"face", "face_classifier"}


@pytest.mark.parametrize(
    ("more", "given", "teaches"),
    [
        ({}, (), True),
        ({}, ("voice",), True),
        ({}, ("face",), False),
        ({"voice_taught": True}, ("face",), True),
        ({"on_vectors": True}, ("face",), True),
        ({"voice_taught": True}, ("face", "voice"), False),
    ],
)
def test_a_teacher_that_is_given_is_not_taught(
    begun: Path, more: dict[str, Any], given: tuple[str, ...], teaches: bool
) -> None:
    settings, run = prior_transport.Settings(**more), replace(RUN, **{f"initial_{one}": begun for one in given})
    told = settings_begun(settings, run)
    assert (told.identity is not None) == teaches and replace(told, identity=settings.identity) == settings


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__.rpartition(".")[2])
def test_networks_that_both_are_given_are_not_taught(begun: Path, method: Any) -> None:
    settings = replace(method.POPULATION, **{METHODS[method]: IdentitySettings()})
    both = settings_begun(settings, replace(RUN, initial_face=begun, initial_voice=begun))
    assert both == replace(settings, **{METHODS[method]: None})
    assert settings_begun(settings, RUN) == settings
    assert settings_begun(settings, replace(RUN, initial_voice=begun)) == settings


def networks_of(folder: Path, modality: Modality) -> dict[str, torch.Tensor]:
    return dict(Encoder.load(folder).backbones[modality].own_weights())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder folder of small networks."""
    place = tmp_path_factory.mktemp("begun")
    settings = replace(SETTINGS, epochs=1, steps_per_epoch=1)
    trained = train(bi_quintuple, settings, small_data(), place / "runs" / "begun", RUN)
    return publish(bi_quintuple, settings, small_data(), trained, ORIGIN, place / "encoders")


FROZEN = {
    visavox: replace(
        visavox.POPULATION, networks="frozen", shrinkage=0.9, epochs=1, steps_per_epoch=2, people_per_batch=6
    ),
    prior_transport: replace(
        prior_transport.POPULATION, on_vectors=True, identity=None, epochs=1, steps_per_epoch=2, people_per_batch=6
    ),
}


@pytest.mark.parametrize("method", FROZEN, ids=lambda one: one.__name__.rpartition(".")[2])
def test_networks_that_are_given_stay_as_they_are_under_the_head_that_learns(
    tmp_path: Path, begun: Path, method: Any
) -> None:
    data, run = small_data(), replace(RUN, initial_face=begun, initial_voice=begun)
    settings = replace(FROZEN[method], face_backbone="small_face", voice_backbone="small_voice")
    settings = replace(settings, face_preparation={}, voice_preparation={})
    trained = train(method, settings, data, tmp_path / "runs" / "one", run)
    assert trained.earlier == () and train(method, settings, data, tmp_path / "runs" / "one", run) == trained
    served = Encoder.load(publish(method, settings, data, trained, ORIGIN, tmp_path / "encoders"))
    for modality in Modality:
        own, before = served.backbones[modality].own_weights(), networks_of(begun, modality)
        assert before and all(torch.equal(value, own[name]) for name, value in before.items())
    task = finished_task(method, settings, data, trained)
    alone = bi_quintuple.build(SETTINGS, small_given(), 0)
    for modality in Modality:
        alone.get_submodule(modality.value).load_state_dict(networks_of(begun, modality))
    seen = embed_prepared(alone.eval(), data.validation, torch.device("cpu"), headless=True)
    made = embed_prepared(task, data.validation, torch.device("cpu"))
    with torch.inference_mode():
        for modality in Modality:
            expected = task.head(torch.from_numpy(seen[modality]), modality).numpy()
            torch.testing.assert_close(made[modality], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", FROZEN, ids=lambda one: one.__name__.rpartition(".")[2])
def test_networks_that_stay_as_they_are_have_to_be_given(tmp_path: Path, begun: Path, method: Any) -> None:
    for run in (RUN, replace(RUN, initial_face=begun)):
        with pytest.raises(TrainingError, match=r"weights of the .* network are.*--initial.*--features"):
            train(method, FROZEN[method], small_data(), tmp_path, run)


def test_a_folder_that_lacks_a_layer_of_a_network_that_stays_as_it_is_is_refused(
    tmp_path: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.beginnings.begin_with", lambda *_: ["last.weight"])
    run = replace(RUN, initial_face=begun, initial_voice=begun)
    with pytest.raises(TrainingError, match=r"lacks 1 parameters of small_face, such as last\.weight"):
        train(visavox, FROZEN[visavox], small_data(), tmp_path, run)


def test_a_network_that_stays_as_it_is_sees_samples_as_it_learned_to(tmp_path: Path, begun: Path) -> None:
    given = small_given()
    face = replace(given.face, initial=begun)
    NetworksAsGiven(replace(given, face=face, voice=replace(given.voice, initial=begun)))
    other = replace(given.voice, initial=begun, preparation=SmallVoicePreparation(least_seconds=0.9))
    with pytest.raises(ValueError, match=r"has learned from voices as SmallVoice.*set voice_preparation to that"):
        NetworksAsGiven(replace(given, face=face, voice=other))


@pytest.mark.parametrize(
    ("held", "wanted", "fits"),
    [
        ("inception_resnet_v1_vggface2", "inception_resnet_v1", True),
        ("inception_resnet_v1_vggface2", "inception_resnet_v1_casia_webface", False),
        ("small_face", "inception_resnet_v1", False),
    ],
)
def test_weights_of_a_row_are_its_own_or_of_a_network_without_any(held: str, wanted: str, fits: bool) -> None:
    assert begins_as(Modality.FACE, held, wanted) is fits
    assert not begins_as(Modality.VOICE, "hubert_base", "wav2vec2_base")  # one kind of network, other weights


def test_what_visavox_leaves_frozen_is_prepared_as_the_public_weights_want_it() -> None:
    ours = visavox.Settings()
    wanted = preparation_for(ours, "dlib_hog")
    assert wanted.face == read_network_preparation(Modality.FACE, "inception_resnet_v1_vggface2", {})
    assert wanted.voice == read_network_preparation(Modality.VOICE, "ecapa_tdnn", {})
