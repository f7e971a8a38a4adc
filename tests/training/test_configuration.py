from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from encoders.encoder import packaged_encoders
from encoders.folder import read_description
from training.batches import Augmentation
from training.configuration import (
    Configuration,
    ConfigurationError,
    changed,
    read_configuration,
    without_part,
    write_configuration,
)
from training.pretraining import IdentitySettings
from training.recipes import bi_pseudo_label, bi_quintuple, joint_embedding, prior_transport, single_stream, visavox
from training.runs import RUN_FILE


def read(folder: Path, text: str, otherwise: str = "population") -> Configuration:
    path = folder / "run.yaml"
    path.write_text(text)
    return read_configuration(bi_quintuple, path, otherwise)


def test_what_a_file_says_replaces_a_presets_numbers(tmp_path: Path) -> None:
    told = read(
        tmp_path, "epochs: 3\nmargin: 1\nlearning_rate: 1e-2\nsteps_per_epoch: null\nrun: {seed: 4, bfloat16: on}"
    )
    assert (told.settings.epochs, told.settings.margin, told.settings.steps_per_epoch) == (3, 1.0, None)
    assert told.settings.learning_rate == 0.01 and told.settings.people_per_batch == 96
    assert (told.run.seed, told.run.bfloat16) == (4, True)
    assert read(tmp_path, "preset: paper").settings == bi_quintuple.Settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epoch: 3", "no setting epoch; there are .*epochs"),
        ("epochs: 2.5", "epochs cannot be 2.5: .*integer"),
        ("epochs: yes", "epochs cannot be True"),
        ("margin: wide", "margin cannot be 'wide'"),
        ("margin: -1", "margin at least 0"),
        ("curve: square", "curve cannot be 'square'"),
        ("run: {sed: 1}", "run has seed, .*unknown: sed"),
        ("run: 3", "not keys and values"),
        ("preset: mine", "no preset 'mine'; choose one of: paper, population"),
        ("- 1", "must hold keys and values, got list"),
        ("a: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.getcwd []", "cannot be read as YAML"),
    ],
)
def test_what_a_file_misspells_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("recipe", "group"),
    [(joint_embedding, "identity"), (visavox, "identity"), (bi_pseudo_label, "pretraining"), (visavox, "augmentation")],
)
def test_a_group_that_is_off_by_default_is_read_as_strictly_as_any_other(recipe: ModuleType, group: str) -> None:
    settings = recipe.Settings()
    with pytest.raises(ConfigurationError, match=f"no setting nonsense in {group}; there are "):
        changed(settings, {group: {"nonsense": 1}})
    key, value = ("frames", 120) if group == "augmentation" else ("scale", 8.0)
    told = getattr(changed(settings, {group: {key: value}}), group)
    assert told == replace(Augmentation() if group == "augmentation" else IdentitySettings(), **{key: value})
    if group != "augmentation":
        assert getattr(changed(changed(settings, {group: {key: value}}), {group: None}), group) is None


def test_a_part_is_taken_away_by_the_name_of_its_row() -> None:
    full = bi_quintuple.Settings()
    assert without_part(bi_quintuple, full, "two layers (DFC)") == replace(full, head="two_layers")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="bi_quintuple has no ablation 'two heads'; choose of: 'one layer"):
        without_part(bi_quintuple, full, "two heads")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'sums' changes nothing: prior_transport is told so already"):
        without_part(prior_transport, prior_transport.Settings(), "sums")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "settings", "row"),
    [
        (single_stream, single_stream.Settings(), "softmax only in stage 1 (lambda 0)"),
        (prior_transport, prior_transport.Settings(), "wav2vec 2.0"),
        (prior_transport, prior_transport.Settings(), "vision transformer for faces"),
    ],
)
def test_what_is_of_networks_is_no_row_of_frozen_vectors(method: Any, settings: Any, row: str) -> None:
    assert without_part(method, settings, row) != settings
    with pytest.raises(ConfigurationError, match=r"is of networks that learn, .*: train with --population or --corpus"):
        without_part(method, settings, row, frozen=True)


def test_what_is_of_the_head_is_a_row_of_frozen_vectors_too() -> None:
    full = single_stream.Settings()
    assert without_part(single_stream, full, "fusion, CE only", frozen=True) == replace(full, orthogonal_weight=0.0)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read as YAML"):
        read_configuration(bi_quintuple, tmp_path / "none.yaml", "paper")


def test_the_effective_configuration_is_kept_as_a_file_that_gives_it_again(tmp_path: Path) -> None:
    told = read(tmp_path, "epochs: 3\nrun: {seed: 7}", "paper")
    voice = packaged_encoders()["voice_identity"]
    (tmp_path / RUN_FILE).write_text('{"made_with": {"git": "abc-dirty", "threads": 3}}')
    begun = replace(told, run=replace(told.run, initial_voice=voice, processes=2))
    write_configuration(tmp_path / "kept.yaml", begun, tmp_path)
    again = read_configuration(bi_quintuple, tmp_path / "kept.yaml", "population")
    assert again == told
    kept = (tmp_path / "kept.yaml").read_text()
    assert kept.startswith("# code: abc-dirty\n# device: cpu\n# processes: 2\n# threads: 3\n# initial_voice: ")
    assert f"{voice.name} ({read_description(voice).digest()})\n" in kept
    write_configuration(tmp_path / "bare.yaml", told, tmp_path / "nowhere")
    assert (tmp_path / "bare.yaml").read_text().startswith("# code: no git checkout\n# device: cpu\n# processes: 1\n")
