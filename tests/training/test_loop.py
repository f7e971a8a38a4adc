from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.small_run import RUN, SETTINGS, small_data, small_given, small_people, small_train
from training import loop, recipe, runs
from training.batches import batch_plan, make_batch
from training.checkpoint import read_checkpoint
from training.correlation import correlate
from training.loop import (
    Diverged,
    Progress,
    RunHeld,
    RunMismatch,
    RunSettings,
    Trained,
    TrainingData,
    read_best,
    train,
)
from training.recipe import Batch, Stage
from training.recipes import bi_quintuple
from training.reproducible import step_seed
from training.validation import Validated, validate

STEPS = 12


def final(folder: Path) -> dict[str, Tensor]:
    read = read_checkpoint(folder / loop.CHECKPOINTS)
    assert read is not None
    return dict(read.weights)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / runs.LOG_FILE).read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("seconds")} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    small_train(folder)
    return folder


def killed_at(folder: Path, step: int) -> int:
    command = [sys.executable, "-m", "tests.training.small_run", str(folder), str(step)]
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode


def test_a_run_killed_twice_ends_in_the_same_weights_bit_for_bit(tmp_path: Path, undisturbed: Path) -> None:
    first = random.Random(8).randrange(1, STEPS - 3)
    second = random.Random(9).randrange(1, STEPS - first - 1)  # steps of the second life
    assert killed_at(tmp_path, first) == -signal.SIGKILL
    assert killed_at(tmp_path, second) == -signal.SIGKILL
    read = read_checkpoint(tmp_path / loop.CHECKPOINTS)
    assert read is not None and read.state["epoch"] * 4 + read.state["batch"] == first + second
    trained = small_train(tmp_path)
    assert same(final(tmp_path), final(undisturbed))
    assert same(read_best(tmp_path), read_best(undisturbed))
    assert log_of(tmp_path) == log_of(undisturbed)
    assert replace(trained, folder=undisturbed) == small_train(undisturbed)


@pytest.mark.parametrize(
    ("accumulate", "bfloat16"), [(1, False), (3, False), (1, True)], ids=["plain", "averaged gradients", "bfloat16"]
)
def test_a_run_is_the_plain_loop(tmp_path: Path, accumulate: int, bfloat16: bool) -> None:
    data, step = small_data(), 0
    task = bi_quintuple.build(SETTINGS, small_given(), RUN.seed).train()
    optimiser = torch.optim.SGD(
        task.parameters(), lr=1.0, momentum=SETTINGS.momentum, weight_decay=SETTINGS.weight_decay
    )
    for epoch in range(SETTINGS.epochs):
        plan = batch_plan(data.training, SETTINGS, RUN.seed, epoch)
        for first in range(0, len(plan), accumulate):
            group = range(first, min(first + accumulate, len(plan)))  # of four batches three, then the one that is left
            optimiser.zero_grad()
            for number in group:
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    loss = task.losses(make_batch(data.training, plan, number))["total"]
                (loss / len(group)).backward()
            step += len(group)
            optimiser.param_groups[0]["lr"] = bi_quintuple.learning_rate(SETTINGS, (step - 1) / (STEPS - 1))
            optimiser.step()
    assert step == STEPS
    small_train(tmp_path, accumulate=accumulate, bfloat16=bfloat16)
    assert same(dict(task.state_dict()), final(tmp_path))


@pytest.mark.parametrize("stop", [5, 7, 10])  # behind a whole epoch, between batches of one group, behind a group
def test_a_run_of_averaged_gradients_goes_on_to_the_same_weights(tmp_path: Path, stop: int) -> None:
    small_train(tmp_path / "whole", accumulate=2)
    with pytest.raises(_Stopped):
        train(
            bi_quintuple, SETTINGS, small_data(), tmp_path / "halves", replace(RUN, accumulate=2), stopped_after(stop)
        )
    small_train(tmp_path / "halves", accumulate=2)
    assert same(final(tmp_path / "halves"), final(tmp_path / "whole"))
    assert log_of(tmp_path / "halves") == log_of(tmp_path / "whole")


def changed_method(**changed: Any) -> Any:
    """The same method with a stage of which something is changed."""

    class Changed:
        __name__ = "changed"

        @staticmethod
        def stages(settings: bi_quintuple.Settings, frozen: bool) -> tuple[Stage, ...]:
            return tuple(replace(stage, **changed) for stage in bi_quintuple.stages(settings, frozen))

    return Changed


def test_the_learning_rate_goes_from_the_first_share_of_progress_to_the_last(tmp_path: Path) -> None:
    seen: list[float] = []

    def learning_rate(progress: float) -> float:
        seen.append(progress)
        return 0.01

    train(changed_method(learning_rate=learning_rate), SETTINGS, small_data(), tmp_path, RUN)
    assert seen == [step / (STEPS - 1) for step in range(STEPS)]


def test_the_best_checkpoint_is_chosen_on_validation_people(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, figures = [], iter([(0.2, 0.4), (0.9, 0.1), (0.3, 0.6)])  # means 0.3, 0.5, 0.45: the loss falls on

    def told(task: Any, prepared: Any, device: Any) -> Validated:
        asked.append((prepared.identities, {name: value.clone() for name, value in task.state_dict().items()}))
        return Validated(*next(figures), 0.5, 0.5)

    monkeypatch.setattr(loop, "validate", told)
    trained = small_train(tmp_path)
    assert trained == Trained(tmp_path, 3, 2, Validated(0.9, 0.1, 0.5, 0.5))
    assert {identities for identities, _ in asked} == {small_data().validation.identities}
    assert same(read_best(tmp_path), asked[1][1]) and not same(read_best(tmp_path), final(tmp_path))


@pytest.mark.parametrize(("keep", "means", "kept"), [("last", (0.6, 0.5, 0.4), 3), ("best", (0.4, 0.5, 0.5), 2)])
def test_kept_is_the_last_epoch_or_the_earliest_of_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, means: tuple[float, ...], kept: int
) -> None:
    judged, figures = [], iter(means)

    def told(task: Any, *_: Any) -> Validated:
        judged.append({name: value.clone() for name, value in task.state_dict().items()})
        return Validated(mean := next(figures), mean, 0.5, 0.5)

    monkeypatch.setattr(loop, "validate", told)
    trained = train(changed_method(keep=keep), SETTINGS, small_data(), tmp_path, RUN)
    mean = means[kept - 1]
    assert (trained.best_epoch, trained.validated) == (kept, Validated(mean, mean, 0.5, 0.5))
    assert [same(read_best(tmp_path), one) for one in judged] == [epoch == kept for epoch in (1, 2, 3)]


def test_the_average_of_the_weights_forgets_its_beginning_faster_than_its_decay_says(tmp_path: Path) -> None:
    before: list[dict[str, Tensor]] = []

    class Remembering(bi_quintuple.BiQuintupleTask):
        def losses(self, batch: Batch) -> dict[str, Tensor]:
            before.append({name: value.clone() for name, value in self.state_dict().items()})
            return super().losses(batch)

    settings = replace(SETTINGS, epochs=1, steps_per_epoch=3)
    train_with(Remembering, settings, small_data(), tmp_path, RUN, method=changed_method(average=0.2))
    (_, first, second), third, average = before, final(tmp_path), read_best(tmp_path)
    for name, value in average.items():
        if value.is_floating_point():
            after_two = 2 / 11 * first[name] + 9 / 11 * second[name]
            torch.testing.assert_close(value, 0.2 * after_two + 0.8 * third[name])


def test_the_figures_are_those_of_the_weights_that_are_kept(undisturbed: Path) -> None:
    task = bi_quintuple.build(SETTINGS, small_given(), 0)
    task.load_state_dict(read_best(undisturbed))
    assert validate(task, small_data().validation) == small_train(undisturbed).validated


def test_validation_comes_as_often_as_asked_and_at_the_end(tmp_path: Path) -> None:
    small_train(tmp_path, validate_every=2)
    assert ["validation" in line for line in log_of(tmp_path)] == [False, True, True]


def test_the_log_has_every_epoch_and_the_settings_lie_beside_it(undisturbed: Path) -> None:
    log = log_of(undisturbed)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert {"total", "bi_quintuple", "identity", "triplets_same_same"} <= set(log[0]["losses"])
    assert log[-1]["losses"]["total"] < log[0]["losses"]["total"]
    assert log[-1]["learning_rate"] == pytest.approx(SETTINGS.final_learning_rate)
    kept = json.loads((undisturbed / runs.RUN_FILE).read_text())
    assert kept["settings"] == vars(SETTINGS) and kept["seed"] == RUN.seed and kept["recipe"] == "bi_quintuple"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"settings": replace(SETTINGS, margin=0.7)}, "margin was 0.6, is 0.7"),
        ({"run": replace(RUN, seed=6)}, "seed was 5, is 6"),
        ({"run": replace(RUN, bfloat16=True)}, "bfloat16 was False, is True"),
        ({"data": replace(small_data(), training=small_people("others"))}, "training was 'trained"),
        ({"data": replace(small_data(), validation=small_people("others"))}, "validation was 'validated"),
    ],
)
def test_a_folder_goes_on_only_with_what_it_was_begun_with(
    undisturbed: Path, changed: dict[str, Any], told: str
) -> None:
    arguments = {"settings": SETTINGS, "data": small_data(), "run": RUN} | changed
    before = final(undisturbed)
    with pytest.raises(RunMismatch, match=f"{undisturbed}.*{told}.*in another folder, or remove"):
        train(bi_quintuple, folder=undisturbed, **arguments)
    assert same(final(undisturbed), before)


def test_how_often_it_saves_may_change(undisturbed: Path) -> None:
    small_train(undisturbed, checkpoint_seconds=99.0)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    def other(_progress: Progress) -> None:
        with pytest.raises(RunHeld, match=str(tmp_path)):
            small_train(tmp_path)
        told.append(True)

    told: list[bool] = []
    train(bi_quintuple, SETTINGS, small_data(), tmp_path, RUN, other)
    assert told


def test_people_of_validation_are_not_trained_on() -> None:
    with pytest.raises(ValueError, match="4 people are in training and in validation, such as same_000"):
        TrainingData(small_people("same", people=8), small_people("same", people=4))


class Interrupting(bi_quintuple.BiQuintupleTask):
    """Sends its process an interrupt in the middle of a step, as Ctrl-C does."""

    at = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        Interrupting.at -= 1
        if Interrupting.at == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().losses(batch)


def train_with(task: type[bi_quintuple.BiQuintupleTask], *arguments: Any, method: Any = bi_quintuple) -> Trained:
    """The same method with another task."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bi_quintuple, "BiQuintupleTask", task)
        return train(method, *arguments)


def test_an_interrupt_stops_within_a_step_and_leaves_a_run_that_goes_on(tmp_path: Path, undisturbed: Path) -> None:
    Interrupting.at = 6
    with pytest.raises(KeyboardInterrupt):
        train_with(Interrupting, SETTINGS, small_data(), tmp_path, RUN)
    assert Interrupting.at == 0
    small_train(tmp_path)
    assert same(final(tmp_path), final(undisturbed))


@pytest.mark.parametrize(("device", "ahead"), [("cpu", False), ("cuda", True)])
def test_only_beside_a_device_of_its_own_a_thread_makes_batches(device: str, ahead: bool, monkeypatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "make_batches", lambda *_, **told: asked.append(told) or iter(()))
    running: Any = object.__new__(loop._Loop)
    running._device, running._data, running._plan = torch.device(device), small_data(), lambda epoch: epoch
    assert list(running._batches(0, 0)) == [] and asked == [{"ahead": ahead}]


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path: Path) -> None:
    class Diverging(bi_quintuple.BiQuintupleTask):
        calls = 0

        def losses(self, batch: Batch) -> dict[str, Tensor]:
            Diverging.calls += 1
            losses = super().losses(batch)
            return losses | ({"total": losses["total"] * torch.nan} if Diverging.calls == 6 else {})

    with pytest.raises(Diverged, match=r"total is not finite in epoch 2: train with a learning_rate below 0.05"):
        train_with(Diverging, SETTINGS, small_data(), tmp_path, RUN)
    assert all(torch.isfinite(value).all() for value in final(tmp_path).values())


def test_a_step_that_ruins_the_weights_is_never_saved_though_its_loss_looked_well(tmp_path: Path) -> None:
    class Ruining(bi_quintuple.BiQuintupleTask):
        calls = 0

        def losses(self, batch: Batch) -> dict[str, Tensor]:
            Ruining.calls += 1
            losses = super().losses(batch)
            if Ruining.calls == STEPS:  # nothing is trained after it that could tell
                losses["total"].register_hook(lambda gradient: gradient * torch.nan)
            return losses

    with pytest.raises(Diverged, match=r"of \d+ weights are not finite in epoch 3, .*: train with a learning_rate"):
        train_with(Ruining, SETTINGS, small_data(), tmp_path, RUN)
    assert all(torch.isfinite(value).all() for value in final(tmp_path).values())


def test_dropout_is_the_same_in_a_resumed_run(tmp_path: Path) -> None:
    class Dropping(bi_quintuple.BiQuintupleTask):
        def losses(self, batch: Batch) -> dict[str, Tensor]:
            dropped = torch.nn.functional.dropout(batch.faces, 0.5, training=self.training)
            return super().losses(replace(batch, faces=dropped))

    train_with(Dropping, SETTINGS, small_data(), tmp_path / "whole", RUN)
    with pytest.raises(_Stopped):
        train_with(Dropping, SETTINGS, small_data(), tmp_path / "halves", RUN, stopped_after(7))
    train_with(Dropping, SETTINGS, small_data(), tmp_path / "halves", RUN)
    assert same(final(tmp_path / "halves"), final(tmp_path / "whole"))


class _Stopped(Exception):
    pass


def stopped_after(steps: int) -> Any:
    def on_progress(progress: Progress) -> None:
        if progress.step >= steps:
            raise _Stopped

    return on_progress


@pytest.fixture(autouse=True)
def _told_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TOLD_EVERY", 0.0)


def test_progress_says_how_far_how_fast_and_how_well(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(bi_quintuple, SETTINGS, small_data(), tmp_path, RUN, seen.append)
    assert [one.step for one in seen] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 12]
    assert [one.epoch for one in seen] == [1] * 5 + [2] * 5 + [3] * 5
    assert {(one.steps, one.epochs) for one in seen} == {(STEPS, 3)}
    assert seen[0].validated is None and seen[4].validated is not None
    assert seen[-1].remaining_seconds == 0 and all(one.steps_per_second > 0 for one in seen)
    assert seen[4].losses == log_of(tmp_path)[0]["losses"]


def test_another_method_in_the_same_file_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, sources = tmp_path / "bi_quintuple.py", recipe.stage_sources
    copy.write_text(Path(bi_quintuple.__file__).read_text())
    small_train(tmp_path / "run")
    method = Path(bi_quintuple.__file__)
    monkeypatch.setattr(
        recipe, "stage_sources", lambda stage: [copy if one == method else one for one in sources(stage)]
    )
    small_train(tmp_path / "run")
    copy.write_text(copy.read_text().replace("margin", "marge"))
    with pytest.raises(RunMismatch, match="code was"):
        small_train(tmp_path / "run")


def test_what_decides_a_run_is_the_method_and_what_it_imports_of_training() -> None:
    (stage,) = bi_quintuple.stages(SETTINGS, frozen=False)
    names = {path.name for path in recipe.stage_sources(stage)}
    assert {"bi_quintuple.py", "schedules.py", "batches.py", "loop.py", "small_face.py"} <= names
    assert "correlation.py" not in names
    begun = replace(stage, begin=partial(correlate, shrinkage=0.9, dimensions=4))
    assert recipe.source_digest(begun) != recipe.source_digest(stage)
    assert {path.name for path in recipe.stage_sources(begun)} >= {*names, "correlation.py"}


def test_a_finished_run_is_answered_without_a_step(undisturbed: Path) -> None:
    seen: list[Progress] = []
    train(bi_quintuple, SETTINGS, small_data(), undisturbed, RUN, seen.append)
    assert not seen


def test_half_a_line_in_the_log_is_forgotten(tmp_path: Path, undisturbed: Path) -> None:
    with pytest.raises(_Stopped):
        train(bi_quintuple, SETTINGS, small_data(), tmp_path, RUN, stopped_after(6))
    with (tmp_path / runs.LOG_FILE).open("a") as log:
        log.write('{"epoch": 2, "lear')
    small_train(tmp_path)
    assert log_of(tmp_path) == log_of(undisturbed)


def test_the_callers_random_state_and_mode_stay_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected, threads = torch.random.get_rng_state(), torch.get_num_threads()
    small_train(tmp_path, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_step_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(seed, epoch, batch) for seed in range(5) for epoch in range(20) for batch in range(20)}
    assert len(seeds) == 5 * 20 * 20 and all(0 <= seed < 2**63 for seed in seeds)


def test_validation_cannot_be_switched_off() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        RunSettings(validate_every=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_cuda_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    run = replace(RUN, device="cuda")
    train(bi_quintuple, SETTINGS, small_data(), tmp_path / "whole", run)
    with pytest.raises(_Stopped):
        train(bi_quintuple, SETTINGS, small_data(), tmp_path / "halves", run, stopped_after(6))
    train(bi_quintuple, SETTINGS, small_data(), tmp_path / "halves", run)
    assert same(final(tmp_path / "halves"), final(tmp_path / "whole"))
