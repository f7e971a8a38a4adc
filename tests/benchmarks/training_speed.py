"""Training steps per second, beside a bare loop of the same networks and losses on the same tensors.

Run ``python -m tests.benchmarks.training_speed [--people 200] [--epochs 2] [--threads 1] [--json]``. The bare
loop has its batches ready in memory and does nothing but forward, backward and step; what it is ahead by is
what order, variation, the log and checkpoints cost. Both are measured in turn in one process, several times,
so trust the ratio rather than the steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from tests.training.small_run import small_given, small_people
from training.batches import batch_plan, make_batch
from training.loop import Progress, RunSettings, TrainingData, train
from training.prepared import Prepared
from training.recipe import Batch
from training.recipes import bi_quintuple

FRAMES_TIMES = 7  # small_people's voices are 25 to 45 frames long, people's 2 to 3 seconds
WARM_UP = 3


@dataclass(frozen=True)
class Measured:
    """One line of the table: medians over the rounds, in steps per second."""

    device: str
    threads: int
    steps: int
    bare: float
    loop: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float


def spoken(prepared: Prepared) -> Prepared:
    """The same people with voices as long as real utterances."""
    pieces = np.split(prepared.mels, prepared.offsets[1:-1])
    mels = np.concatenate([np.tile(piece, (FRAMES_TIMES, 1)) for piece in pieces])
    return replace(prepared, mels=mels, offsets=prepared.offsets * FRAMES_TIMES)


def bare_loop(batches: list[Batch], settings: bi_quintuple.Settings, people: int, device: str) -> float:
    """Steps per second of forward, backward and step."""
    task = bi_quintuple.build(settings, small_given(people), 0).to(device).train()
    optimiser = bi_quintuple.optimiser(task, settings)
    ready = [batch.to(device) for batch in batches]
    for number, batch in enumerate([*ready[:WARM_UP], *ready]):
        if number == WARM_UP:
            _wait(device)
            started = time.perf_counter()
        loss = task.losses(batch)["total"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    _wait(device)
    return len(ready) / (time.perf_counter() - started)


def whole_loop(data: TrainingData, settings: bi_quintuple.Settings, run: RunSettings) -> float:
    """Steps per second of a run, its validation left out, its checkpoints and log not."""
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        seen.append((time.perf_counter(), progress.step))

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(bi_quintuple, settings, data, Path(folder), run, note)
        lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    validating = sum(json.loads(line)["validation_seconds"] for line in lines if "validation_seconds" in line)
    return seen[-1][1] / (seen[-1][0] - started - validating)


def measure(people: int, epochs: int, rounds: int, run: RunSettings) -> Measured:
    """Both loops in turn, ``rounds`` times."""
    data = TrainingData(spoken(small_people("learned", people, 8)), spoken(small_people("validated", 8, 2)))
    settings = replace(bi_quintuple.POPULATION, epochs=epochs)
    plans = [batch_plan(data.training, settings, run.seed, epoch) for epoch in range(epochs)]
    batches = [make_batch(data.training, plan, number) for plan in plans for number in range(len(plan))]
    torch.set_num_threads(run.threads)
    pairs = [(bare_loop(batches, settings, people, run.device), whole_loop(data, settings, run)) for _ in range(rounds)]
    ratios = [whole / bare for bare, whole in pairs]
    return Measured(
        device=str(run.torch_device()), threads=run.threads, steps=len(batches),
        bare=median(bare for bare, _ in pairs), loop=median(whole for _, whole in pairs),
        ratio=median(ratios), lowest_ratio=min(ratios), highest_ratio=max(ratios),
    )  # fmt: skip


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()
    table = [
        measure(options.people, options.epochs, options.rounds, RunSettings(device=options.device, threads=threads))
        for threads in options.threads
    ]
    if options.json:
        print(json.dumps([asdict(line) for line in table]))
        return
    print("device  threads  steps  bare steps/s  loop steps/s  ratio  (lowest to highest)")
    for line in table:
        print(
            f"{line.device:<8}{line.threads:>7}{line.steps:>7}{line.bare:>14.2f}{line.loop:>14.2f}{line.ratio:>7.2f}"
            f"  ({line.lowest_ratio:.2f} to {line.highest_ratio:.2f})"
        )


if __name__ == "__main__":
    main()
