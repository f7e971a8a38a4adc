"""A training small enough for a test, and a process that dies in the middle of one.

``python -m tests.training.small_run FOLDER STEP`` trains in FOLDER and kills itself at step STEP.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.backbones.small_face import SmallFacePreparation
from encoders.backbones.small_voice import SmallVoicePreparation
from encoders.space import Modality
from training.loop import RunSettings, Trained, TrainingData, train
from training.networks import frame_values, given_network
from training.prepared import Prepared
from training.reading import Preparation
from training.recipe import Batch, Given
from training.recipes import bi_quintuple

SETTINGS = replace(
    bi_quintuple.POPULATION,
    epochs=3,
    steps_per_epoch=None,
    people_per_batch=4,
    samples_per_person=2,
    people_per_mining=None,
    learning_rate=0.05,
    warm_up=0.02,
    hidden=8,
    frames=30,
)
# a checkpoint after every step, so that a resume begins in the middle of an epoch
RUN = RunSettings(seed=5, checkpoint_seconds=0.0)


def small_people(name: str, people: int = 10, samples: int = 3, seed: int = 0) -> Prepared:
    """Noisy pictures and sounds; a person's have a colour and a loudest band in common."""
    random = np.random.default_rng([seed, people])
    colours, bands = random.integers(0, 256, (people, 3)), np.linspace(0, 39, people).round().astype(int)
    owners = np.repeat(np.arange(people), samples)
    faces = np.clip(colours[owners][:, None, None] + random.normal(0, 40, (len(owners), 64, 64, 3)), 0, 255)
    lengths = random.integers(25, 45, len(owners))
    mels = random.normal(0, 0.3, (int(lengths.sum()), 40))
    mels[np.arange(len(mels)), np.repeat(bands[owners], lengths)] += 2.0
    return Prepared(
        identities=tuple(f"{name}_{number:03d}" for number in range(people)),
        sexes=("f", "m") * (people // 2),
        faces=faces.astype(np.uint8),
        face_people=owners,
        mels=mels.astype(np.float16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        voice_people=owners,
        digest=f"{name} {people} {samples} {seed}",
    )


def small_data(preparation: Preparation | None = None) -> TrainingData:
    """Ten people to learn from, six to validate on; with the size of a preparation's pictures and frames."""
    parts = small_people("trained"), small_people("validated", people=6)
    if preparation is None:
        return TrainingData(*parts)
    side, values = preparation.face.side, frame_values(preparation.voice)
    learned, judged = (
        replace(
            part,
            faces=np.pad(part.faces, ((0, 0), (0, side - 64), (0, side - 64), (0, 0))),
            mels=np.pad(part.mels, ((0, 0), (0, values - 40))),
            preparation=preparation,
            digest=f"{part.digest} at {side} px, {values} values",
        )
        for part in parts
    )
    return TrainingData(learned, judged)


def small_given(people: int = 10) -> Given:
    """What tasks for so many such people are made for."""
    face = given_network(Modality.FACE, "small_face", SmallFacePreparation())
    return Given(
        people,
        ("f", "m") * (people // 2) + ("",) * (people % 2),
        face,
        given_network(Modality.VOICE, "small_voice", SmallVoicePreparation()),
    )


def small_train(folder: Path, **changed: Any) -> Trained:
    """Train to the end, or go on to it."""
    return train(bi_quintuple, SETTINGS, small_data(), folder, RunSettings(**(vars(RUN) | changed)))


class DyingTask(bi_quintuple.BiQuintupleTask):
    """Kills its process at a step of its life, in the middle of the step."""

    steps_left = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().losses(batch)
        DyingTask.steps_left -= 1
        if DyingTask.steps_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses


def main(folder: str, step: str) -> None:
    torch.set_num_threads(1)
    DyingTask.steps_left = int(step)
    bi_quintuple.BiQuintupleTask = DyingTask  # type: ignore[misc] # the same method, with a task that dies
    train(bi_quintuple, SETTINGS, small_data(), Path(folder), RUN)


if __name__ == "__main__":
    main(*sys.argv[1:])
