from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_run import small_train
from training.curves import FOLDER

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


def test_a_run_leaves_no_curves_unless_they_are_wanted(tmp_path: Path) -> None:
    small_train(tmp_path)
    assert not (tmp_path / FOLDER).exists()
