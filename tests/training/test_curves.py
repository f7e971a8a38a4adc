from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.small_run import RUN, SETTINGS, small_data, small_train
from training import loop
from training.curves import FOLDER, Curves
from training.loop import Progress, train
from training.recipe import Batch
from training.recipes import bi_quintuple
from training.validation import Validated

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def curves_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = event_accumulator.EventAccumulator(str(folder / FOLDER))
    read.Reload()
    return {name: [(one.step, one.value) for one in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_a_run_leaves_curves_of_losses_figures_rate_and_throughput_one_point_an_epoch(tmp_path: Path) -> None:
    trained = small_train(tmp_path, curves=True)
    curves = curves_of(tmp_path)
    wanted = {"loss/total", "loss/identity", "validation/voice_to_face_map", "learning_rate", "people_per_second"}
    assert wanted <= set(curves)
    assert all([step for step, _ in points] == [1, 2, 3] for points in curves.values())
    best = dict(curves["validation/voice_to_face_map"])[trained.best_epoch]
    assert best == pytest.approx(trained.validated.voice_to_face, rel=1e-6)
    right = dict(curves["validation/face_to_voice_of_two"])[trained.best_epoch]
    assert right == pytest.approx(trained.validated.face_to_voice_of_two, rel=1e-6)
    assert all(value > 0 for _, value in curves["people_per_second"])


def test_an_epoch_that_is_written_again_after_a_kill_has_one_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Curves.write

    def killed(curves: Curves, line: Mapping[str, Any], pace: float | None) -> None:
        write(curves, line, pace)
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Curves, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        small_train(tmp_path, curves=True)
    monkeypatch.setattr(Curves, "write", write)
    small_train(tmp_path, curves=True)
    curves = curves_of(tmp_path)
    # what was learned from in epoch 2 was learned from before the kill
    assert [step for step, _ in curves.pop("people_per_second")] == [1, 3]
    assert all([step for step, _ in points] == [1, 2, 3] for points in curves.values())


@pytest.mark.parametrize("between", [True, False])
def test_throughput_counts_what_was_learned_from_while_it_was_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: bool
) -> None:
    """By a clock on which a batch takes a second and a validation a hundred.

    Stopped and gone on with in epoch 2: between two batches, or in the validation behind its last one.
    """
    clock, told = [0.0], []
    batches, judge = loop.make_batches, loop.validate

    def passing(*arguments: Any, **named: Any) -> Iterator[Batch]:
        for batch in batches(*arguments, **named):
            clock[0] += 1
            yield batch

    def slowly(*arguments: Any) -> Validated:
        clock[0] += 100
        if not between and clock[0] == 208:  # two epochs of four batches, and the second validation
            raise KeyboardInterrupt
        return judge(*arguments)

    def stop(progress: Progress) -> None:
        if between and progress.step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop, "make_batches", passing)
    monkeypatch.setattr(loop, "validate", slowly)
    monkeypatch.setattr(Curves, "write", lambda _self, line, rate: told.append((line["epoch"], rate)))
    run = replace(RUN, curves=True)
    with pytest.raises(KeyboardInterrupt):
        train(bi_quintuple, SETTINGS, small_data(), tmp_path, run, stop)
    train(bi_quintuple, SETTINGS, small_data(), tmp_path, run)
    pace = SETTINGS.people_per_batch
    assert told == [(1, pace), (2, pace if between else None), (3, pace)]


def test_a_run_leaves_no_curves_unless_they_are_wanted(tmp_path: Path) -> None:
    small_train(tmp_path)
    assert not (tmp_path / FOLDER).exists()
