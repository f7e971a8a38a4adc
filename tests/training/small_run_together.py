"""A small training as one of several processes: ``torchrun --nproc-per-node 2 -m … FOLDER``.

Each process writes ``<place>.npz``: the gradient of a divided network, and the weights of a training.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.training.small_run import RUN, SETTINGS, small_data
from training.checkpoint import read_checkpoint
from training.data_parallel import Processes, join_processes
from training.loop import CHECKPOINTS, TrainingData, train
from training.recipes import bi_quintuple
from training.vectors import Vectors


def contrast(network: torch.nn.Module, samples: Tensor, processes: Processes) -> Tensor:
    """A loss in which every sample meets every other."""
    rows = processes.divided(lambda some, _: network(some), samples, None)
    return (rows @ rows.T).logsumexp(dim=1).sum() + rows[0].square().sum()


def divided_gradient(processes: Processes) -> list[Tensor]:
    """Of 5 samples, which 2 processes cannot share evenly; the last parameter is outside of the network."""
    torch.manual_seed(1)
    network, outside = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()), torch.nn.Parameter(torch.ones(()))
    loss = contrast(network, torch.randn(5, 3), processes) * outside
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [*network.parameters(), outside]
    processes.average_gradients(parameters)
    return [torch.zeros(()) if one.grad is None else one.grad for one in parameters]


def small_vectors(name: str, people: int) -> Vectors:
    """Frozen vectors of people."""
    random, owners = np.random.default_rng(people), np.repeat(np.arange(people), 3)
    faces, voices = (random.standard_normal((len(owners), width), dtype=np.float32) for width in (12, 8))
    names = tuple(f"{name}_{number}" for number in range(people))
    return Vectors(names, ("f", "m") * (people // 2), faces, owners, voices, owners, digest=name)


def main(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    processes, run = join_processes(count, "cpu"), replace(RUN, processes=count)
    gradients = divided_gradient(processes)
    vectors = TrainingData(small_vectors("trained", 10), small_vectors("validated", 6))
    weights = {}
    for name, data in (("vectors", vectors), ("networks", small_data())):
        trained = train(bi_quintuple, SETTINGS, data, folder / name, run)
        again = train(bi_quintuple, SETTINGS, data, folder / name, run)
        assert again.validated == trained.validated and again.best_epoch == trained.best_epoch
        checkpoint = read_checkpoint(trained.folder / CHECKPOINTS)
        assert checkpoint is not None
        weights |= {f"{name} {key}": value.numpy() for key, value in checkpoint.weights.items()}
    gradient = {f"gradient {place}": one.numpy() for place, one in enumerate(gradients)}
    np.savez(folder / f"{processes.place}.npz", **weights, **gradient)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
