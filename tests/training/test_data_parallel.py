"""Several processes that train one model: what one alone would come to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.data_parallel import Processes, join_processes

PROGRAM = "tests.training.small_run_together"


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as kept:
        return dict(kept)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, "-m", PROGRAM, str(folder), "1"], check=True, timeout=120)
    return arrays(folder / "0.npz")


@pytest.fixture(scope="module")
def together_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", PROGRAM]
    subprocess.run([*launcher, str(folder), "2"], check=True, timeout=240, stderr=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def together(together_folder: Path) -> Mapping[str, Any]:
    return arrays(together_folder / "0.npz")


@pytest.mark.long
def test_a_divided_network_has_the_gradient_of_the_whole(alone: Mapping[str, Any], together: Mapping[str, Any]) -> None:
    names = [name for name in alone if name.startswith("gradient")]
    assert len(names) == 3
    for name in names:
        assert np.abs(alone[name]).max() > 0
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_two_processes_come_to_the_weights_of_one(alone: Mapping[str, Any], together: Mapping[str, Any]) -> None:
    names = [name for name in alone if name.startswith(("vectors", "begun"))]
    assert len(names) > 8
    for name in names:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_networks_are_trained_by_both_and_nearly_alike(alone: Mapping[str, Any], together: Mapping[str, Any]) -> None:
    """Only nearly: each process has batch statistics of its own."""
    name = next(name for name in alone if name.startswith("networks head") and alone[name].ndim == 2)
    a, b = alone[name].ravel(), together[name].ravel()
    assert 0.9 < np.corrcoef(a, b)[0, 1] < 1 - 1e-9


@pytest.mark.long
def test_the_first_alone_writes_and_the_run_says_how_many_there_were(together_folder: Path) -> None:
    log = (together_folder / "networks" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3]
    assert json.loads((together_folder / "networks" / "run.json").read_text())["processes"] == 2


@pytest.mark.long
def test_networks_without_batch_statistics_come_to_the_weights_of_one(
    alone: Mapping[str, Any], together: Mapping[str, Any]
) -> None:
    names = [name for name in alone if name.startswith("plain")]
    assert len(names) > 10
    for name in names:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_both_end_with_the_same_weights_in_hand(together: Mapping[str, Any], together_folder: Path) -> None:
    second = arrays(together_folder / "1.npz")
    for kind in ("vectors", "networks", "plain", "begun"):
        own = [name for name in together if name.startswith(f"hand {kind}")]
        learned = [name for name in own if "running_" not in name]  # batch statistics are each process's own
        assert len(learned) > 4 and all(np.array_equal(second[name], together[name]) for name in learned)
        assert all(np.array_equal(together[name.removeprefix("hand ")], together[name]) for name in own)


@pytest.mark.long
def test_each_drops_out_others_and_what_is_drawn_behind_is_the_same(
    together: Mapping[str, Any], together_folder: Path
) -> None:
    second, kept = arrays(together_folder / "1.npz"), together["dropout kept"]
    assert np.array_equal(second["dropout kept"], kept) and np.array_equal(
        second["dropout next"], together["dropout next"]
    )
    assert not np.array_equal(kept[:4], kept[4:]) and 0.3 < (kept > 0).mean() < 0.7


def test_one_process_alone_is_left_as_it_is() -> None:
    processes, network = join_processes(1, "cpu"), torch.nn.Linear(2, 2)
    assert (processes.count, processes.place, processes.first, processes.device) == (1, 0, True, None)
    samples = torch.ones(1, 2)
    assert torch.equal(processes.divided(lambda some, _: network(some), samples, None), network(samples))


def test_fewer_samples_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "count", 3)
    with pytest.raises(ValueError, match="2 samples cannot be divided among 3 processes: enlarge the batch"):
        Processes().divided(lambda some, _: some, torch.ones(2, 2), None)
