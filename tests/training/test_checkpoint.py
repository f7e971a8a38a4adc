from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from training.checkpoint import (
    Checkpoint,
    CheckpointError,
    read_checkpoint,
    read_weights,
    replace_file,
    write_checkpoint,
    write_weights,
)


class Killed(BaseException):
    """As a kill: no code of ours gets to tidy up after it but what Python runs by itself."""


def checkpoint(number: int) -> Checkpoint:
    weights = {"layer": torch.full((3,), float(number)), "seen": torch.tensor(number)}
    return Checkpoint(weights, {"state": {0: {"momentum": torch.ones(3)}}, "param_groups": []}, {"epoch": number})


def standing(folder: Path) -> int:
    read = read_checkpoint(folder)
    assert read is not None
    assert int(read.weights["seen"]) == read.state["epoch"]
    return int(read.state["epoch"])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 7, checkpoint(7))
    read = read_checkpoint(tmp_path)
    assert read is not None and read.state == {"epoch": 7}
    assert torch.equal(read.weights["layer"], torch.full((3,), 7.0))
    assert torch.equal(read.optimiser["state"][0]["momentum"], torch.ones(3))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "nowhere") is None


def test_two_generations_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for number in (9, 10, 11):
        write_checkpoint(tmp_path, number, checkpoint(number))
    assert sorted(place.name for place in tmp_path.iterdir()) == ["000000010", "000000011"]
    assert standing(tmp_path) == 11


@pytest.mark.parametrize("file", ["weights.safetensors", "optimiser.pt", "state.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_damaged_generation_gives_way_to_the_one_before(tmp_path: Path, file: str, damage: bytes | None) -> None:
    write_checkpoint(tmp_path, 1, checkpoint(1))
    place = write_checkpoint(tmp_path, 2, checkpoint(2))
    (place / file).unlink() if damage is None else (place / file).write_bytes(damage)
    assert standing(tmp_path) == 1


def test_a_run_that_went_back_a_generation_comes_to_the_same_number_again(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, checkpoint(1))
    (write_checkpoint(tmp_path, 2, checkpoint(2)) / "state.json").write_text("")
    write_checkpoint(tmp_path, 2, checkpoint(2))
    assert standing(tmp_path) == 2


def test_when_all_are_damaged_the_error_says_what_to_remove(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path / "checkpoints", 1, checkpoint(1)) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=f"000000001.*remove the run's folder {tmp_path} "):
        read_checkpoint(tmp_path / "checkpoints")


def test_a_kill_at_any_write_leaves_the_old_checkpoint_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, syncs = os.fsync, 0

    def die_at(number: int) -> None:
        nonlocal syncs
        syncs = 0

        def fsync(descriptor: int) -> None:
            nonlocal syncs
            syncs += 1
            if syncs == number:
                raise Killed
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    write_checkpoint(tmp_path, 1, checkpoint(1))
    deaths = 0
    for number in range(2, 20):
        before = standing(tmp_path)
        die_at(number - 1)
        try:
            write_checkpoint(tmp_path, number, checkpoint(number))
        except Killed:
            deaths += 1
            assert standing(tmp_path) in (before, number)
        else:
            break
    assert deaths >= 4 and standing(tmp_path) == number
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_is_replaced_or_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "card"
    replace_file(path, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_weights_keep_every_bit_and_type(tmp_path: Path) -> None:
    weights = {"half": torch.randn(5).half(), "count": torch.tensor(3), "turned": torch.randn(2, 3).T}
    write_weights(tmp_path / "weights", weights)
    read = read_weights(tmp_path / "weights")
    assert all(torch.equal(read[name], weights[name]) and read[name].dtype == weights[name].dtype for name in weights)
