from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from training import runs
from training.recipes import bi_quintuple
from training.runs import RunMismatch, RunSettings, TrainingError, append_log, claim, describe, trim_log


def test_a_run_is_described_as_its_file_gives_it_back() -> None:
    described = describe(bi_quintuple, bi_quintuple.Settings(), RunSettings())
    assert json.loads(json.dumps(described)) == described
    assert described["recipe"] == "bi_quintuple" and described["settings"]["margin"] == 0.6


def test_threads_and_saving_are_no_part_of_what_decides_a_run() -> None:
    settings = bi_quintuple.Settings()
    many = RunSettings(threads=8, checkpoint_seconds=1.0)
    assert describe(bi_quintuple, settings, many) == describe(bi_quintuple, settings, RunSettings())


def test_auto_is_the_device_there_is() -> None:
    assert RunSettings(device="auto").torch_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert RunSettings(device="cpu").torch_device().type == "cpu"


def test_a_setting_that_is_new_or_gone_is_a_difference(tmp_path: Path) -> None:
    claim(tmp_path, {"settings": {"margin": 0.6, "old": 1}})
    with pytest.raises(RunMismatch, match="new was None, is 2; old was 1, is None"):
        claim(tmp_path, {"settings": {"margin": 0.6, "new": 2}})


def test_a_damaged_description_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / runs.RUN_FILE).write_text("{")
    with pytest.raises(TrainingError, match="remove the folder to train anew"):
        claim(tmp_path, {})


def test_the_log_forgets_what_comes_after_an_epoch(tmp_path: Path) -> None:
    trim_log(tmp_path, 0)
    for epoch in (1, 2, 3):
        append_log(tmp_path, {"epoch": epoch})
    trim_log(tmp_path, 2)
    assert (tmp_path / runs.LOG_FILE).read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
