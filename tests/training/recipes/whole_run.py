"""A whole small training of any recipe: cut off in the middle, gone on with, published and loaded again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.backbones.small_face import SmallFacePreparation, chips_to_input, prepare_chip
from encoders.backbones.small_voice import SmallVoicePreparation, prepare_mel
from encoders.encoder import Embedding, Encoder
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from tests.training.small_run import RUN, small_data
from training.batches import OrderSettings, batch_plan, make_batch
from training.checkpoint import read_checkpoint
from training.loop import CHECKPOINTS, Trained, finished_task, train
from training.publish import Origin, publish
from training.reading import Preparation
from training.recipe import Batch, Task

PEOPLE, SAMPLES = 4, 2


def drawn_batch(people: int = PEOPLE, samples: int = SAMPLES, seed: int = 0) -> Batch:
    """Noise, of so many people with so many pairs each."""
    random = torch.Generator().manual_seed(seed)
    owners = torch.arange(people).repeat_interleave(samples)
    faces = torch.randn(len(owners), 3, 64, 64, generator=random)
    return Batch(faces, owners, torch.randn(len(owners), 48, 40, generator=random), None, owners)


def small_batch(settings: OrderSettings) -> Batch:
    """People who can be told apart: the first batch of the small training people."""
    people = small_data().training
    return make_batch(people, batch_plan(people, settings, 0, 0), 0)


def small_training(
    recipe: ModuleType,
    settings: Any,
    folder: Path,
    checkpoint_seconds: float = 60.0,
    preparation: Preparation | None = None,
) -> Trained:
    """To the end, or on to it."""
    run = replace(RUN, checkpoint_seconds=checkpoint_seconds)
    return train(recipe, settings, small_data(preparation), folder, run)  # type: ignore[arg-type]


def final(trained: Trained) -> dict[str, Tensor]:
    read = read_checkpoint(trained.folder / CHECKPOINTS)
    assert read is not None
    return dict(read.weights)


def cut_off(
    recipe: ModuleType, settings: Any, folder: Path, task: type[Task], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train with a checkpoint after every step, and stop in the middle of a step of the last stage."""
    left, losses = [steps], task.losses

    def dying(self: Task, batch: Batch) -> dict[str, Tensor]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return losses(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(task, "losses", dying)
        with pytest.raises(KeyboardInterrupt):
            small_training(recipe, settings, folder, checkpoint_seconds=0)


def worst_agreement(recipe: ModuleType, settings: Any, trained: Trained, encoders: Path) -> float:
    """Publish a run and load its folder: the least cosine between what that and the trained task make of samples."""
    golden = {Modality.FACE: [drawn_face(1)], Modality.VOICE: [drawn_voice(1, 0.7)]}
    origin = Origin("invented people", "10 invented people", "6 other invented people", Preparation(), golden)
    folder = publish(recipe, settings, small_data(), trained, origin, encoders)  # type: ignore[arg-type]
    encoder, task = Encoder.load(folder), finished_task(recipe, settings, small_data(), trained)  # type: ignore[arg-type]
    found = []
    for number in range(2, 5):
        samples: dict[Modality, Any] = {
            Modality.FACE: drawn_face(number),
            Modality.VOICE: drawn_voice(number, 0.5 + number / 3),
        }
        chip = prepare_chip(samples[Modality.FACE], SmallFacePreparation())
        mel = prepare_mel(samples[Modality.VOICE], SmallVoicePreparation())
        assert isinstance(chip, np.ndarray) and isinstance(mel, Tensor)
        inputs = {Modality.FACE: chips_to_input(torch.from_numpy(chip)[None]), Modality.VOICE: mel[None]}
        for modality, sample in samples.items():
            (point,) = encoder.encode(modality, [sample])
            assert isinstance(point, Embedding)
            with torch.inference_mode():
                wanted = task.embed(modality, inputs[modality])[0]
            found.append(float(np.dot(point.vector, torch.nn.functional.normalize(wanted, dim=0).numpy())))
    return min(found)


def taught(task: Task, optimiser: torch.optim.Optimizer, batch: Batch, steps: int) -> list[dict[str, float]]:
    """The terms of so many steps on one batch."""
    log = []
    task.train()
    for _ in range(steps):
        terms = task.losses(batch)
        optimiser.zero_grad()
        terms["total"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        log.append({name: float(value.detach()) for name, value in terms.items()})
    return log
