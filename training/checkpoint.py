"""Checkpoints: what a run needs to go on exactly, written so that a kill at any instant loses nothing.

A checkpoint is a folder of three files: ``weights.safetensors`` (the task's state), ``optimiser.pt`` (its
state, read back with ``weights_only``), ``state.json`` (where the run stands, and the SHA-256 of the other
two). It is written under a temporary name, synced to the disk and then renamed; the one before it stays
until the next is complete, and is read when the newest proves damaged.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from encoders.weights import sha256_of

WEIGHTS_FILE = "weights.safetensors"
OPTIMISER_FILE = "optimiser.pt"
STATE_FILE = "state.json"
GENERATIONS = 2


class CheckpointError(Exception):
    """Checkpoints are there, but none of them can be read; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stood.

    Args:
        weights: the task's state by name, on the CPU.
        optimiser: the optimiser's ``state_dict``.
        state: plain numbers: epoch, batch, sums of losses, the best validation …
    """

    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    state: Mapping[str, Any]


def write_checkpoint(folder: Path, number: int, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, and remove what is older than the one before it.

    Args:
        folder: of all checkpoints of the run; made if need be.
        number: steps done: newer checkpoints have larger numbers.
        checkpoint: what to write.

    Returns:
        The checkpoint's own folder.
    """
    place = folder / f"{number:09d}"
    staging = folder / f"{number:09d}.partial"
    for left in folder.glob("*.partial"):  # of a run that was killed while it wrote
        shutil.rmtree(left)
    staging.mkdir(parents=True)
    write_weights(staging / WEIGHTS_FILE, checkpoint.weights)
    optimiser = io.BytesIO()
    torch.save(dict(checkpoint.optimiser), optimiser)
    _write_synced(staging / OPTIMISER_FILE, optimiser.getvalue())
    hashes = {name: sha256_of(staging / name) for name in (WEIGHTS_FILE, OPTIMISER_FILE)}
    _write_synced(staging / STATE_FILE, _encoded({"state": dict(checkpoint.state), "files": hashes}))
    if place.exists():  # the run went back to an older generation and has come here again
        shutil.rmtree(place)
    staging.rename(place)
    _sync_folder(folder)
    for old in _generations(folder)[:-GENERATIONS]:
        shutil.rmtree(old)
    return place


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None when nothing was ever written.

    Raises:
        CheckpointError: every checkpoint there is damaged.
    """
    reasons = []
    for place in reversed(_generations(folder)):
        try:
            return _read(place)
        except (OSError, ValueError, KeyError) as error:
            reasons.append(f"{place.name}: {error}")
    if reasons:
        raise CheckpointError(
            f"{folder}: no checkpoint can be read ({'; '.join(reasons)}); remove the run's folder {folder.parent} to "
            "begin anew"
        )
    return None


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors: the file is there completely or not at all."""
    replace_file(path, save({name: value.detach().cpu().contiguous() for name, value in weights.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU."""
    return dict(load_file(path))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object: the file is there completely or not at all."""
    replace_file(path, _encoded(document))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file and wait for the disk; whoever reads meanwhile finds the old content or the new, never half."""
    staging = path.with_name(f"{path.name}.partial")
    _write_synced(staging, content)
    staging.replace(path)
    _sync_folder(path.parent)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _read(place: Path) -> Checkpoint:
    document = json.loads((place / STATE_FILE).read_text(encoding="utf-8"))
    for name, expected in document["files"].items():
        if sha256_of(place / name) != expected:
            raise ValueError(f"{name} is not what was written")
    optimiser = torch.load(place / OPTIMISER_FILE, map_location="cpu", weights_only=True)
    return Checkpoint(read_weights(place / WEIGHTS_FILE), optimiser, document["state"])


def _generations(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(place for place in folder.glob("*") if place.name.isdigit())


def _encoded(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
