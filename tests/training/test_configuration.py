from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from encoders.encoder import packaged_encoders
from encoders.folder import read_description
from training.configuration import Configuration, ConfigurationError, read_configuration, write_configuration
from training.recipes import bi_quintuple
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
