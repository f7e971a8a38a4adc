"""Training steps per second, beside a bare loop of the same networks and losses on the same tensors.

Run ``python -m tests.benchmarks.training_speed [--method visavox] [--cached] [--people 1000] [--steps 40]``. The bare
loop has a few batches ready in memory and does nothing but forward, backward and step; what it is ahead by is what
order, variation, a beginning in closed form, the log and checkpoints cost. Both are measured in turn in one process,
several times, so trust the ratio rather than the steps. The loader alone, which chooses an epoch's samples and makes
its batches (beside the steps where a GPU takes them), is measured too: as long as it makes many more of them a second
than are learned from, it is not what a training waits for.

``--cached``: on frozen vectors, with the defaults of each method; else end to end, with the presets for
invented people.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.training.small_run import small_people
from training.batches import batch_plan, make_batch
from training.loop import Progress, RunSettings, TrainingData, train
from training.prepared import Prepared
from training.reading import Preparation, preparation_for
from training.recipe import Batch, Given, Stage, Task, load_recipe, recipes
from training.runs import given_of
from training.vectors import Vectors

DETECTOR = "dlib_hog"
FRAMES = 250  # of a voice: people speak for two to three seconds
SAMPLES = 4
CACHED_DIMENSIONS = (512, 192)  # of Inception-ResNet-v1's faces and ECAPA-TDNN's voices
WARM_UP = 3
SLOW = 1e-6  # learning rate: noise has nothing to teach, and untaught networks would leave the finite numbers
READY = 30  # batches kept for the bare loop: all of a long epoch would not stay in a processor's cache


@dataclass(frozen=True)
class Measured:
    """One line of the table: medians over the rounds, in steps or batches per second."""

    method: str
    stage: str
    device: str
    threads: int
    steps: int
    loader: float
    bare: float
    loop: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float


def drawn_people(name: str, people: int, preparation: Preparation) -> Prepared:
    """Noisy pictures and sounds of a preparation's size, as long as real utterances."""
    drawn, side, bands = small_people(name, people, SAMPLES), preparation.face.side, _bands(preparation)
    faces = np.resize(drawn.faces, (len(drawn.faces), side, side, 3))
    mels = np.random.default_rng(0).normal(0, 1, (len(drawn.voice_people) * FRAMES, bands)).astype(np.float16)
    offsets = np.arange(len(drawn.voice_people) + 1) * FRAMES
    return replace(drawn, faces=faces, mels=mels, offsets=offsets, preparation=preparation)


def drawn_vectors(people: int) -> Vectors:
    """Noise, as wide as two of the field's networks give it."""
    random, owners = np.random.default_rng(people), np.repeat(np.arange(people), SAMPLES)
    faces, voices = (random.standard_normal((len(owners), width), dtype=np.float32) for width in CACHED_DIMENSIONS)
    names = tuple(f"{people}_{number:05d}" for number in range(people))
    return Vectors(names, ("f", "m") * (people // 2), faces, owners, voices, owners)


def loading(data: TrainingData, stage: Stage, run: RunSettings) -> tuple[list[Batch], float]:
    """The first batches of one epoch, and how many a second the loader makes when nothing else is done."""
    started, kept = time.perf_counter(), []
    plan = batch_plan(data.training, stage.settings, run.seed, 0)
    for number in range(len(plan)):
        batch = make_batch(data.training, plan, number)
        if len(kept) < READY:
            kept.append(batch)
    return kept, len(plan) / (time.perf_counter() - started)


def bare_loop(batches: list[Batch], steps: int, stage: Stage, given: Given, device: str) -> float:
    """Steps per second of forward, backward and step."""
    task = stage.build(given, 0, None).to(device).train()
    optimiser = stage.optimiser(task)
    for group in optimiser.param_groups:
        group["lr"] = SLOW
    ready = [batch.to(device) for batch in batches]
    _wait(device)
    started = time.perf_counter()
    for batch in islice(cycle(ready), steps):
        loss = task.losses(batch)["total"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    _wait(device)
    return steps / (time.perf_counter() - started)


def whole_loop(data: TrainingData, stage: Stage, run: RunSettings) -> float:
    """Steps per second of a run, its validation left out, its checkpoints and log not."""
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        seen.append((time.perf_counter(), progress.step))

    with tempfile.TemporaryDirectory() as folder:
        alone: Any = SimpleNamespace(__name__=stage.name, stages=lambda settings, frozen: (stage,))
        started = time.perf_counter()
        train(alone, stage.settings, data, Path(folder), run, note)
        lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    validating = sum(json.loads(line)["validation_seconds"] for line in lines if "validation_seconds" in line)
    return seen[-1][1] / (seen[-1][0] - started - validating)


def measure(name: str, stage: Stage, data: TrainingData, rounds: int, run: RunSettings) -> Measured:
    """A stage by itself, both loops in turn, ``rounds`` times."""
    torch.set_num_threads(run.threads)
    given = given_of(data, run)
    batches, _ = loading(data, stage, run)
    steps: int = stage.settings.steps_per_epoch
    bare_loop(batches, WARM_UP, stage, given, run.device)
    pairs = [(bare_loop(batches, steps, stage, given, run.device), whole_loop(data, stage, run)) for _ in range(rounds)]
    loaders, ratios = [loading(data, stage, run)[1] for _ in range(rounds)], [whole / bare for bare, whole in pairs]
    return Measured(
        method=name, stage=stage.name, device=str(run.torch_device()), threads=run.threads, steps=steps,
        loader=median(loaders), bare=median(bare for bare, _ in pairs), loop=median(whole for _, whole in pairs),
        ratio=median(ratios), lowest_ratio=min(ratios), highest_ratio=max(ratios),
    )  # fmt: skip


def stages_of(name: str, people: int, steps: int, cached: bool) -> Iterator[tuple[Stage, TrainingData]]:
    """Every stage of a method for one epoch of so many steps, from networks of its own, and what it learns from."""
    recipe = load_recipe(name)
    settings = (recipe.Settings() if cached else recipe.POPULATION).fitting(people)
    preparation = None if cached else preparation_for(settings, DETECTOR)
    for stage in recipe.stages(settings, cached):
        if preparation is None or stage.on_vectors:
            data = TrainingData(drawn_vectors(people), drawn_vectors(8))
        else:
            data = TrainingData(
                *(drawn_people(which, count, preparation) for which, count in (("a", people), ("b", 8)))
            )
        short = replace(stage.settings, epochs=1, steps_per_epoch=steps)
        yield replace(stage, settings=short, build=_beginning(stage), learning_rate=lambda _progress: SLOW), data


def _beginning(stage: Stage) -> Any:
    def build(given: Given, seed: int, before: Task | None = None) -> Task:
        return stage.build(given, seed, None)

    return build


def _bands(preparation: Preparation) -> int:
    """How wide a row of a voice is: waveforms have 160 samples in a row, of 10 ms."""
    voice = preparation.voice
    return int(getattr(voice, "bands", getattr(voice, "mel_bands", 0)) or 160)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", action="append", help="only this one; repeatable")
    parser.add_argument("--cached", action="store_true", help="learn from frozen vectors")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--steps", type=int, help="of an epoch; as a rule 200 on frozen vectors, else 40")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()
    run = RunSettings(device=options.device, threads=options.threads, curves=False)
    table, done, steps = [], set(), options.steps or (200 if options.cached else 40)
    if not options.json:
        print("method            stage             steps  loader/s  bare/s  loop/s  ratio  (lowest to highest)")
    for name in options.method or recipes():
        for stage, data in stages_of(name, options.people, steps, options.cached):
            if (stage.name, repr(stage.settings)) in done:  # methods share their beginnings
                continue
            done.add((stage.name, repr(stage.settings)))
            line = measure(name, stage, data, options.rounds, run)
            table.append(line)
            if not options.json:
                print(
                    f"{line.method:<18}{line.stage:<18}{line.steps:>5}{line.loader:>10.1f}{line.bare:>8.2f}"
                    f"{line.loop:>8.2f}{line.ratio:>7.2f}  ({line.lowest_ratio:.2f} to {line.highest_ratio:.2f})",
                    flush=True,
                )
    if options.json:
        print(json.dumps([asdict(line) for line in table]))


if __name__ == "__main__":
    main()
