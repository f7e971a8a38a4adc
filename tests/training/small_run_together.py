"""A small training as one of several processes: ``torchrun --nproc-per-node 2 -m … FOLDER``.

Each process writes ``<place>.npz``: the gradient of a divided network, what a divided network drops out, and the
weights of trainings, as the last checkpoint has them and as the process itself has them in hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.training.small_run import RUN, SETTINGS, small_data
from training import loop
from training.checkpoint import read_checkpoint
from training.data_parallel import Processes, join_processes
from training.loop import CHECKPOINTS, Progress, TrainingData, train
from training.recipe import Given, Stage, Task
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


def dropped_out(processes: Processes) -> dict[str, Tensor]:
    """Eight samples behind dropout, and what is drawn next."""
    torch.manual_seed(2)
    kept = processes.divided(lambda some, _: torch.nn.functional.dropout(some), torch.ones(8, 64), None)
    return {"kept": kept, "next": torch.rand(4)}


class Plain:
    """A method whose networks have no batch statistics: several processes come to the weights of one."""

    __name__ = "plain"
    __file__ = bi_quintuple.__file__

    @staticmethod
    def stages(settings: bi_quintuple.Settings, frozen: bool) -> tuple[Stage, ...]:
        (stage,) = bi_quintuple.stages(settings, frozen)

        def build(given: Given, seed: int, before: Task | None = None) -> Task:
            task = stage.build(given, seed, before)
            for part in list(task.modules()):
                for name, child in part.named_children():
                    if isinstance(child, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                        part.add_module(name, torch.nn.Identity())
            return task

        return (replace(stage, build=build),)


class Begun:
    """A method that begins with what each process makes of its own: all go on from the first one's."""

    __name__ = "begun"
    __file__ = bi_quintuple.__file__

    def __init__(self, place: int) -> None:
        self._place = place

    def stages(self, settings: bi_quintuple.Settings, frozen: bool) -> tuple[Stage, ...]:
        def begin(task: Task, _vectors: Vectors) -> None:
            own = torch.Generator().manual_seed(self._place)
            for one in task.head.parameters():
                one.data.add_(torch.rand(one.shape, generator=own))

        (stage,) = bi_quintuple.stages(settings, frozen)
        return (replace(stage, begin=begin),)


def watch(in_hand: dict[str, Tensor]) -> None:
    """Keep the weights that a process has when its loop ends: the first alone writes any."""
    whole = loop._Loop.run

    def run(self: loop._Loop, on_progress: Callable[[Progress], None]) -> None:
        whole(self, on_progress)
        in_hand.update({name: value.clone() for name, value in self._task.state_dict().items()})

    loop._Loop.run = run  # type: ignore[method-assign]


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
    weights: dict[str, Any] = {}
    in_hand: dict[str, Tensor] = {}
    watch(in_hand)
    runs = (
        ("vectors", bi_quintuple, vectors),
        ("networks", bi_quintuple, small_data()),
        ("plain", Plain, small_data()),
        ("begun", Begun(processes.place), vectors),
    )
    for name, method, data in runs:
        settings = replace(SETTINGS, learning_rate=0.001) if method is Plain else SETTINGS
        in_hand.clear()
        trained = train(method, settings, data, folder / name, run)  # type: ignore[arg-type]
        weights |= {f"hand {name} {key}": value.numpy() for key, value in in_hand.items()}
        again = train(method, settings, data, folder / name, run)  # type: ignore[arg-type]
        assert again.validated == trained.validated and again.best_epoch == trained.best_epoch
        checkpoint = read_checkpoint(trained.folder / CHECKPOINTS)
        assert checkpoint is not None
        weights |= {f"{name} {key}": value.numpy() for key, value in checkpoint.weights.items()}
    gradient = {f"gradient {place}": one.numpy() for place, one in enumerate(gradients)}
    dropped = {f"dropout {name}": one.numpy() for name, one in dropped_out(processes).items()}
    np.savez(folder / f"{processes.place}.npz", **weights, **gradient, **dropped)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
