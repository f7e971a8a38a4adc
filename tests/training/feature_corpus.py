"""A small corpus of invented faces and tones, and an encoder of random weights: real parts, quickly read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.encoders.shared_encoder import make_shared_encoder
from training.population.faces import draw_view, render_face
from training.population.folder import write_photo, write_wav
from training.population.people import invent_people

PEOPLE = ("Ada", "Bel", "Cid")


def tone(pitch: float) -> np.ndarray:
    """Half a second."""
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(8000) / 16_000)).astype(np.float32)


def write_corpus(root: Path) -> Path:
    """Two photos and two tones of each of three people, of two videos; one for each split."""
    for number, (name, person, split) in enumerate(
        zip(PEOPLE, invent_people(3, 0), ("train", "validation", "test"), strict=True)
    ):
        random = np.random.default_rng(person.seed)
        for video in ("may", "june"):
            folder = root / split / name / video
            folder.mkdir(parents=True)
            write_photo(folder / "face.png", render_face(person, draw_view(random), 160, seed=1))
            write_wav(folder / "voice.wav", tone(200 + 50 * number + len(video)))
    return root


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """An encoder folder of both modalities."""
    make_shared_encoder(folder, seed)
    return folder
