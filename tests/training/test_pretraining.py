"""The stage that teaches a method's networks to tell people apart, in front of the method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from training.pretraining import IdentitySettings
from training.recipes import bi_pseudo_label, joint_embedding, prior_transport, visavox

METHODS = {bi_pseudo_label: "pretraining"} | dict.fromkeys((joint_embedding, prior_transport, visavox), "identity")


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__.rpartition(".")[2])
def test_it_teaches_the_networks_of_the_method_by_its_own_numbers(method: Any) -> None:
    networks = {"face_backbone": "vit_face", "face_preparation": {"side": 48}, "voice_backbone": "dimnet_voice"}
    taught = IdentitySettings(epochs=3, scale=8.0)
    settings = replace(method.POPULATION, **networks, **{METHODS[method]: taught})
    first, _ = method.stages(settings, frozen=False)
    assert first.name == "identity" and first.keep == "last"
    assert first.settings == replace(taught, **networks, voice_preparation=settings.voice_preparation)


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__.rpartition(".")[2])
def test_there_is_none_before_frozen_vectors_or_where_it_is_not_wanted(method: Any) -> None:
    wanted = replace(method.POPULATION, **{METHODS[method]: IdentitySettings()})
    unwanted = replace(method.POPULATION, **{METHODS[method]: None})
    assert len(method.stages(wanted, frozen=True)) == len(method.stages(unwanted, frozen=False)) == 1
