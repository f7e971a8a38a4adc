"""The one loop: epochs of batches, the only ``backward``, checkpoints, exact resume, validation by search.

A run lives in a folder of its own::

    run.json           what is trained on what: the effective settings; a run goes on only under the same
    tensorboard/       the log as curves, where they are wanted
    log.jsonl          one line per epoch: learning rate, mean of each loss term, validation, seconds;
                       epoch 0 is what a training began with, where that is validated
    checkpoints/       two generations (training.checkpoint)
    best.safetensors   the task's state at the best mean validation mAP

A method of several stages has a run for each. Those before the last lie beside the folder under a name that all that
decides them gives, so that two methods which begin alike share a beginning.

Nothing random lives between steps: the data order and augmentation of a batch follow from (seed, epoch,
batch), and the networks' own randomness (dropout) is seeded from the same three. So a run that was killed
at any instant ends in the same weights, bit for bit, as one left alone, on the same device with the same
number of threads and the same torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from encoders.space import Modality
from training.batches import Plan, batch_plan, make_batches
from training.beginnings import networks_at_first
from training.checkpoint import Checkpoint, read_checkpoint, read_weights, write_checkpoint, write_weights
from training.curves import Curves
from training.data_parallel import Processes, join_processes, join_task
from training.networks import NetworkGiven
from training.recipe import Assembled, Batch, Given, Recipe, Stage, Task, recipe_name
from training.reproducible import reproducible, seed_step, step_seed
from training.runs import (
    RunHeld,
    RunMismatch,
    RunSettings,
    TrainingData,
    TrainingError,
    append_log,
    claim,
    describe_data,
    describe_stage,
    given_of,
    held,
    key_of,
    recorded_threads,
    trim_log,
)
from training.validation import Validated, as_vectors, validate
from training.vectors import Vectors

__all__ = [
    "Diverged",
    "Progress",
    "RunHeld",
    "RunMismatch",
    "RunSettings",
    "Trained",
    "TrainingData",
    "TrainingError",
    "finished_task",
    "read_best",
    "train",
]

CHECKPOINTS = "checkpoints"
# What a checkpoint calls the moving average of the weights, before each one's own name.
AVERAGE = "average of "
BEST_FILE = "best.safetensors"
# How often progress is told and the losses are looked at, in seconds: a look waits for the device.
TOLD_EVERY = 1.0


class Diverged(TrainingError):
    """A loss or a weight is no longer a finite number."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        epoch: the epoch under way, or just finished, from 1.
        epochs: in all.
        step: steps done.
        steps: in all.
        steps_per_second: since this process began.
        remaining_seconds: at that rate.
        losses: mean of each term over that epoch so far.
        validated: the last validation, if there was one.
        stage: what the method calls this part of its training.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    steps_per_second: float
    remaining_seconds: float
    losses: Mapping[str, float]
    validated: Validated | None
    stage: str = ""


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Args:
        folder: of the run.
        epochs: trained.
        best_epoch: whose weights are kept in ``best.safetensors``, from 1; 0: those that the training began with.
        validated: the best epoch's figures.
        earlier: folders of the stages before the last, first to last.
        run: how it was run.
    """

    folder: Path
    epochs: int
    best_epoch: int
    validated: Validated
    earlier: tuple[Path, ...] = ()
    run: RunSettings = field(default_factory=RunSettings, compare=False)


@dataclass
class _State:
    """Where a run stands, in numbers that a checkpoint keeps."""

    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the epoch under way
    sums: dict[str, float] = field(default_factory=dict)  # of the losses over those batches
    best_epoch: int = 0
    best: dict[str, float] | None = None
    last: dict[str, float] | None = None
    averaged: int = 0  # steps in the moving average of the weights


def train(
    recipe: Recipe,
    settings: Any,  # noqa: ANN401 - the recipe's own Settings
    data: TrainingData,
    folder: Path,
    run: RunSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train from the beginning, or from where an earlier call in the same folder stopped, to the end.

    An interrupt (Ctrl-C) or a kill leaves the folder so that the same call goes on; a finished run is answered at once,
    or after the vectors of its networks were made once more, where these stay as they are.

    Args:
        recipe: the method.
        settings: its numbers.
        data: training and validation people.
        folder: of the run; made if need be.
        run: seed, device and the like.
        on_progress: told about once a second and after every epoch.

    Raises:
        RunMismatch: the folder's run has other settings or other people.
        RunHeld: another process trains there.
        Diverged: a loss or a weight is not finite; the checkpoint before it is kept.
        CheckpointError: the folder's checkpoints are damaged.
        TrainingError: networks that are to stay as they are have no weights to begin with.
    """
    run = run or RunSettings()
    stages = recipe.stages(settings, isinstance(data.training, Vectors))
    folder.mkdir(parents=True, exist_ok=True)
    run = replace(run, threads=recorded_threads(folder) or run.threads)
    given, key = given_of(data, run), ""
    before = networks_at_first(stages, given)
    earlier: tuple[Path, ...] = ()
    together = join_processes(run.processes, run.device)
    with _held(folder, together), reproducible(run):
        for stage in stages:
            if stage.on_vectors and before is not None:
                device = run.torch_device()
                data = TrainingData(*(as_vectors(before, one, key, device) for one in (data.training, data.validation)))
                before.to("cpu")
                given = given_of(data, run)
            described = describe_stage(stage, run, key) | describe_data(data)
            key = key_of(described)
            if stage is stages[-1]:
                break
            place = folder.parent / f"{stage.name}-{key}"
            place.mkdir(exist_ok=True)
            with _held(place, together):
                _run_stage(_Loop(stage, data, given, place, run, before), described, on_progress)
            before = _finished(stage, given, place, before)
            earlier = (*earlier, place)
        described["recipe"] = recipe_name(recipe)
        trained = _run_stage(_Loop(stages[-1], data, given, folder, run, before), described, on_progress)
    return replace(trained, earlier=earlier, run=run)


def finished_task(recipe: Recipe, settings: Any, data: TrainingData, trained: Trained) -> Task:  # noqa: ANN401
    """The task of a finished run with the weights that were kept, on the CPU, in evaluation.

    Where its last stage learned from vectors of the one before, it is that one's networks under its own head.
    """
    stages = recipe.stages(settings, isinstance(data.training, Vectors))
    given = given_of(data, trained.run if stages[0].on_vectors else RunSettings())
    before = networks_at_first(stages, given)
    for stage, place in zip(stages, (*trained.earlier, trained.folder), strict=True):
        if stage.on_vectors and before is not None:
            face, voice = (NetworkGiven(None, None, given.of(one).dimension) for one in Modality)
            task = _finished(stage, Given(given.people, given.sexes, face, voice), place, before)
            before = Assembled(before, task).eval()
        else:
            before = _finished(stage, given, place, before)
    if before is None:
        raise TrainingError("a method without stages trains nothing")
    return before


def read_best(folder: Path) -> dict[str, Tensor]:
    """The task's state at the best epoch of a run."""
    return read_weights(folder / BEST_FILE)


def _run_stage(loop: _Loop, described: Mapping[str, Any], on_progress: Callable[[Progress], None]) -> Trained:
    if loop.processes.first:
        claim(loop.folder, described)
    loop.processes.wait()
    loop.resume()
    loop.run(on_progress)
    loop.processes.wait()
    if not loop.processes.first:
        loop.resume()  # only the first has validated: the others read of it
    return loop.outcome()


def _held(folder: Path, processes: Processes) -> AbstractContextManager[None]:
    """Own the folder; of several processes that train together the first owns it."""
    return held(folder) if processes.first else nullcontext()


def _finished(stage: Stage, given: Given, folder: Path, before: Task | None) -> Task:
    task = stage.build(given, 0, before)
    task.load_state_dict(read_best(folder))
    return task.eval()


class _Loop:
    """A run under way: task, optimiser and state move together, one step at a time."""

    def __init__(
        self, stage: Stage, data: TrainingData, given: Given, folder: Path, run: RunSettings, before: Task | None
    ) -> None:
        self._stage, self._settings, self._data, self.folder, self._run = stage, stage.settings, data, folder, run
        self.processes = join_processes(run.processes, run.device)
        self._device = self.processes.device or run.torch_device()
        self._task = join_task(stage.build(given, run.seed, before).to(self._device), self.processes)
        self._optimiser = stage.optimiser(self._task)
        self._average = _averaging(self._task, stage.average) if stage.average else None
        self._curves = Curves(folder) if run.curves and self.processes.first else None
        try:
            self._per_epoch = len(self._plan(0))
        except ValueError as error:  # too many people turned out to be unusable
            raise TrainingError(str(error)) from error
        self._steps = self._settings.epochs * self._per_epoch
        self._state = _State()
        self._begun = False
        self._sums: Tensor | None = None  # (terms,) float64, on the device
        self._names: list[str] = []
        self._epoch_losses: Mapping[str, float] = {}  # of the last whole epoch

    def resume(self) -> None:
        """Go to where the newest whole checkpoint stands, or begin; the log forgets what came after it."""
        checkpoint = read_checkpoint(self.folder / CHECKPOINTS)
        if checkpoint is None:
            self._begin()
        else:
            own = {name: value for name, value in checkpoint.weights.items() if not name.startswith(AVERAGE)}
            self._task.load_state_dict(own)
            if self._average is not None:
                kept = {name: checkpoint.weights[f"{AVERAGE}{name}"] for name in own}
                self._average.module.load_state_dict(kept)
                self._average.n_averaged.fill_(checkpoint.state["averaged"])
            self._optimiser.load_state_dict(dict(checkpoint.optimiser))
            self._state = _State(**checkpoint.state)
            self._names = sorted(self._state.sums)
            sums = [self._state.sums[name] for name in self._names]
            self._sums = torch.tensor(sums, dtype=torch.float64, device=self._device) if sums else None
        if self.processes.first:
            trim_log(self.folder, -1 if checkpoint is None else self._state.epoch)

    def _begin(self) -> None:
        """Set the task's parameters by what it will learn from, where the stage knows how to."""
        begin, samples = self._stage.begin, self._data.training
        if begin is None or not isinstance(samples, Vectors):
            return
        try:
            begin(self._task, samples)
        except ValueError as error:
            raise TrainingError(f"the training has nothing to begin with: {error}") from error
        self.processes.copy_from_first(self._task.state_dict().values())
        self._begun = True
        if self._stage.average:
            self._average = _averaging(self._task, self._stage.average)

    def run(self, on_progress: Callable[[Progress], None]) -> None:
        """All steps that remain."""
        if self._begun and self.processes.first:
            self._judge(0, time.monotonic(), {})
        began, first = time.monotonic(), self._done
        saved = told = began

        def tell() -> None:
            rate = (self._done - first) / max(time.monotonic() - began, 1e-9)
            on_progress(self._progress(rate))

        while self._state.epoch < self._settings.epochs:
            epoch_began, gone_on_from = time.monotonic(), self._state.batch
            self._task.train()
            for batch in self._batches(self._state.epoch, self._state.batch):
                self._step(batch)
                now = time.monotonic()
                if now - told >= TOLD_EVERY:
                    tell()
                    told = now
                if now - saved >= self._run.checkpoint_seconds and self._stepped and self.processes.first:
                    self._save()
                    saved = time.monotonic()
            shown = (self._state.batch - gone_on_from) * self._settings.people_per_batch
            self._finish_epoch(epoch_began, shown / max(time.monotonic() - epoch_began, 1e-9) if shown else None)
            saved = told = time.monotonic()
            tell()

    def outcome(self) -> Trained:
        """What a finished run came to."""
        if self._state.best is None:
            raise TrainingError(f"{self.folder}: the run has no validation; remove the folder and train again")
        best = Validated(**self._state.best)
        return Trained(self.folder, self._state.epoch, self._state.best_epoch, best)

    @property
    def _done(self) -> int:
        return self._state.epoch * self._per_epoch + self._state.batch

    def _plan(self, epoch: int) -> Plan:
        return batch_plan(self._data.training, self._settings, self._run.seed, epoch)

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``first`` on, on the device.

        A GPU learns from one while a thread makes the next. On processors the thread would compete with the step for
        all of them, which costs more than to make the batch between two steps.
        """
        ahead = self._device.type != "cpu"
        for batch in make_batches(self._data.training, self._plan(epoch), first, ahead=ahead):
            yield batch.to(self._device)

    def _step(self, batch: Batch) -> None:
        state = self._state
        seed_step(step_seed(self._run.seed, state.epoch, state.batch), self._device)
        rate = self._learning_rate()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._run.bfloat16):
            losses = self._task.losses(batch)
        (losses["total"] / self._together).backward()  # type: ignore[no-untyped-call]
        self._count(losses)
        state.batch += 1
        if self._stepped:
            self.processes.average_gradients(self._task.parameters())
            self._optimiser.step()
            self._optimiser.zero_grad(set_to_none=True)
            if self._average is not None:
                self._average.update_parameters(self._task)
                state.averaged += 1

    @property
    def _stepped(self) -> bool:
        """Whether no gradient waits for further batches; what is left at the end of an epoch does not wait."""
        return self._state.batch % self._run.accumulate == 0 or self._state.batch == self._per_epoch

    @property
    def _together(self) -> int:
        """Of how many batches the next one's gradient is averaged: at the end of an epoch there may be fewer."""
        accumulate = self._run.accumulate
        return min(accumulate, self._per_epoch - self._state.batch // accumulate * accumulate)

    @property
    def _kept(self) -> Task:
        """What is validated and kept: the task, or the moving average of its weights."""
        return self._task if self._average is None else cast(Task, self._average.module)

    def _learning_rate(self) -> float:
        """A pure function of progress: 0 at the first step, 1 at the last."""
        return self._stage.learning_rate(self._done / max(1, self._steps - 1))

    def _count(self, losses: Mapping[str, Tensor]) -> None:
        if self._sums is None:
            self._names = sorted(losses)
            self._sums = torch.zeros(len(losses), dtype=torch.float64, device=self._device)
        terms = torch.stack([losses[name].detach().to(self._device, torch.float64) for name in self._names])
        self._sums += terms

    def _read_sums(self) -> dict[str, float]:
        """Sums of the losses over the epoch so far; waits for the device."""
        sums = {} if self._sums is None else dict(zip(self._names, self._sums.tolist(), strict=True))
        bad = [name for name, value in sums.items() if not math.isfinite(value)]
        if bad:
            raise Diverged(f"{', '.join(bad)} is not finite in epoch {self._state.epoch + 1}: {self._advice}")
        return sums

    def _require_finite(self, weights: Mapping[str, Tensor]) -> None:
        """The last step can ruin the weights without a loss that shows it."""
        bad = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
        if bad:
            raise Diverged(
                f"{len(bad)} of {len(weights)} weights are not finite in epoch {self._state.epoch + 1}, "
                f"{bad[0]} the first: {self._advice}"
            )

    @property
    def _advice(self) -> str:
        return f"train with a learning_rate below {self._settings.learning_rate}, or on more people"

    def _losses(self) -> dict[str, float]:
        return {name: value / max(1, self._state.batch) for name, value in self._read_sums().items()}

    def _progress(self, rate: float) -> Progress:
        between = self._state.batch == 0
        return Progress(
            epoch=self._state.epoch if between else self._state.epoch + 1,
            epochs=self._settings.epochs,
            step=self._done,
            steps=self._steps,
            steps_per_second=rate,
            remaining_seconds=(self._steps - self._done) / rate if rate else math.inf,
            losses=self._epoch_losses if between else self._losses(),
            validated=None if self._state.last is None else Validated(**self._state.last),
            stage=self._stage.name,
        )

    def _finish_epoch(self, began: float, people_per_second: float | None) -> None:
        """Validate, log, go to the next epoch, save: in this order, so that a resume repeats all or nothing."""
        losses = self._losses()
        if self.processes.first:
            self._judge(self._state.epoch + 1, began, losses, people_per_second)
        self._state.epoch, self._state.batch = self._state.epoch + 1, 0
        self._sums, self._epoch_losses = None, losses
        if self.processes.first:
            self._save()

    def _judge(self, epoch: int, began: float, losses: Mapping[str, float], pace: float | None = None) -> None:
        """Validate if it is time to, keep the weights if they are the best, and add to the log; 0: before all steps."""
        state = self._state
        rate = self._optimiser.param_groups[0]["lr"] if epoch else 0.0  # of the epoch's last step
        line: dict[str, Any] = {"epoch": epoch, "learning_rate": rate, "losses": losses}
        if epoch % self._run.validate_every == 0 or epoch == self._settings.epochs:
            asked = time.monotonic()
            self._require_finite(self._kept.state_dict())
            validated = validate(self._kept, self._data.validation, self._device)
            line["validation_seconds"] = round(time.monotonic() - asked, 3)
            state.last = line["validation"] = asdict(validated)
            if state.best is None or self._stage.keep == "last" or validated.mean > Validated(**state.best).mean:
                write_weights(self.folder / BEST_FILE, self._kept.state_dict())
                state.best, state.best_epoch = asdict(validated), epoch
        line["seconds"] = round(time.monotonic() - began, 3)
        append_log(self.folder, line)
        if self._curves is not None:
            self._curves.write(line, pace)

    def _save(self) -> None:
        self._state.sums = self._read_sums()
        weights = dict(self._task.state_dict())
        self._require_finite(weights)
        if self._average is not None:
            weights |= {f"{AVERAGE}{name}": value for name, value in self._kept.state_dict().items()}
        checkpoint = Checkpoint(weights, self._optimiser.state_dict(), asdict(self._state))
        write_checkpoint(self.folder / CHECKPOINTS, self._done, checkpoint)


def _averaging(task: Task, decay: float) -> AveragedModel:
    """A moving average of a task's weights and statistics, which forgets its beginning faster than its decay says."""

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        return averaged.lerp(current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(task, avg_fn=average, use_buffers=True)
