"""The networks of a published encoder as they were before training, by what the folder of its run says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.encoder import Encoder
from encoders.packaging import drawn_voice
from encoders.space import Modality
from tests.training.small_run import RUN, SETTINGS, small_data, small_given
from tests.training.test_publish import ORIGIN
from training.before_training import IDENTITY, NOT_TRAINED, UNTRAINED, networks_before
from training.checkpoint import write_weights
from training.loop import BEST_FILE, RunSettings, Trained, read_best, train
from training.pretraining import IdentitySettings
from training.publish import publish
from training.reading import Preparation, preparation_for
from training.recipe import Recipe
from training.recipes import bi_quintuple, joint_embedding, prior_transport, single_stream

SHORT = replace(SETTINGS, epochs=1, steps_per_epoch=1)


def made(
    place: Path,
    settings: Any = SHORT,
    run: RunSettings = RUN,
    recipe: Recipe = bi_quintuple,
    preparation: Preparation = ORIGIN.preparation,
) -> tuple[Encoder, Trained]:
    data, origin = small_data(preparation), replace(ORIGIN, preparation=preparation)
    trained = train(recipe, settings, data, place / "runs" / "method-1", run)
    return Encoder.load(publish(recipe, settings, data, trained, origin, place / "encoders")), trained


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Trained]:
    return made(tmp_path_factory.mktemp("once"))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_without_an_earlier_stage_it_is_the_network_that_the_run_drew(once: tuple[Encoder, Trained]) -> None:
    encoder, trained = once
    drawn = bi_quintuple.build(SHORT, small_given(), RUN.seed)
    before = networks_before(encoder, trained.folder)
    assert {one.stood for one in before.values()} == {UNTRAINED}
    assert same(before[Modality.FACE].network.own_weights(), drawn.face.state_dict())
    assert not same(before[Modality.FACE].network.own_weights(), encoder.backbones[Modality.FACE].own_weights())


def test_it_embeds_as_the_one_that_serves_does(once: tuple[Encoder, Trained]) -> None:
    network = networks_before(once[0], None)[Modality.VOICE].network
    vectors = network.embed([network.prepare(drawn_voice(number, 1.0)) for number in (1, 2)])
    assert vectors.shape == (2, 128) and np.isfinite(vectors).all()


def test_the_stage_that_told_people_apart_is_what_was_before(tmp_path: Path) -> None:
    identity = IdentitySettings(epochs=1, steps_per_epoch=1, people_per_batch=4, augmentation=SHORT.augmentation)
    shortened: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 1, "people_per_batch": 4, "people_per_mining": None}
    settings = replace(joint_embedding.POPULATION, identity=identity, **shortened)
    encoder, trained = made(tmp_path, settings, recipe=joint_embedding)
    before = networks_before(encoder, trained.folder)
    kept = read_best(trained.earlier[0])
    assert {one.stood for one in before.values()} == {IDENTITY}
    for modality, one in before.items():
        own = one.network.own_weights()
        assert own and all(torch.equal(value, kept[f"{modality}.{name}"]) for name, value in own.items())


def test_the_weights_that_a_network_began_with_are_looked_for(tmp_path: Path, once: tuple[Encoder, Trained]) -> None:
    encoder, trained = made(tmp_path, run=replace(RUN, initial_voice=once[0].folder))
    before = networks_before(encoder, trained.folder, [tmp_path, once[0].folder])
    assert before[Modality.VOICE].stood == f"as it is in {once[0].folder.name}"
    assert same(before[Modality.VOICE].network.own_weights(), once[0].backbones[Modality.VOICE].own_weights())
    assert before[Modality.FACE].stood == UNTRAINED
    assert networks_before(encoder, trained.folder)[Modality.VOICE].stood == UNTRAINED


def test_a_voice_network_that_was_not_taught_beside_its_teacher_was_not_trained(tmp_path: Path) -> None:
    identity = IdentitySettings(epochs=1, steps_per_epoch=1, people_per_batch=4, augmentation=SHORT.augmentation)
    short = {"epochs": 1, "steps_per_epoch": 1, "people_per_batch": 4}
    settings = replace(prior_transport.POPULATION, identity=identity, voice_taught=False, **short)
    encoder, trained = made(tmp_path, settings, recipe=prior_transport)
    before = networks_before(encoder, trained.folder)
    assert (before[Modality.FACE].stood, before[Modality.VOICE].stood) == (IDENTITY, UNTRAINED)


def test_what_one_network_for_both_began_with_is_that_of_voices_too(tmp_path: Path) -> None:
    shortened: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 1, "people_per_batch": 4}
    settings = replace(
        single_stream.POPULATION, stream=replace(single_stream.POPULATION.stream, **shortened), **shortened
    )
    method = {"settings": settings, "recipe": single_stream, "preparation": preparation_for(settings, "dlib_hog")}
    first, _ = made(tmp_path / "first", **method)
    encoder, trained = made(tmp_path / "second", run=replace(RUN, initial_face=first.folder), **method)
    before = networks_before(encoder, trained.folder, [first.folder])
    assert {one.stood for one in before.values()} == {f"as it is in {first.folder.name}"}
    for modality, one in before.items():
        assert same(one.network.own_weights(), first.backbones[modality].own_weights())


def test_of_a_run_that_is_not_understood_any_more_it_is_some_network_of_the_kind(
    tmp_path: Path, once: tuple[Encoder, Trained]
) -> None:
    write_weights(tmp_path / BEST_FILE, {"face.weight": torch.zeros(1)})
    before = networks_before(once[0], tmp_path)
    assert {one.stood for one in before.values()} == {UNTRAINED}


def test_a_damaged_run_is_one_that_is_not_understood(tmp_path: Path, once: tuple[Encoder, Trained]) -> None:
    (tmp_path / BEST_FILE).write_bytes(b"cut off")
    assert {one.stood for one in networks_before(once[0], tmp_path).values()} == {UNTRAINED}


def test_a_network_whose_vectors_were_frozen_is_what_it_was(tmp_path: Path, once: tuple[Encoder, Trained]) -> None:
    write_weights(tmp_path / BEST_FILE, {"head.weight": torch.zeros(1)})
    before = networks_before(once[0], tmp_path)[Modality.FACE]
    assert before.stood == NOT_TRAINED and before.network is once[0].backbones[Modality.FACE]
