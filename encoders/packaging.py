"""Builds the encoder folders that come with Visavox: ``python -m encoders.packaging``.

They hold no weights, only references to the packages that carry them. Run this after a change to a
table row, a preparation parameter or a model card, and commit what it writes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders import face, voice
from encoders.backbones.dlib_resnet import DlibResnetPreparation
from encoders.backbones.ge2e import GE2EPreparation
from encoders.chips import MEAN_LANDMARKS
from encoders.encoder import Encoder
from encoders.face import FaceCrop
from encoders.folder import Branch, Description
from encoders.golden import Sample
from encoders.space import Modality
from encoders.voice import SAMPLE_RATE
from encoders.weights import NetworkRow, find_row

HOME = Path(__file__).resolve().parent / "identity"


@dataclass(frozen=True)
class _Recipe:
    """What one packaged encoder is made of."""

    name: str
    modality: Modality
    row: NetworkRow
    preparation: Mapping[str, Any]
    golden: Sequence[Sample]
    source: str
    measured: str
    trusted: str


def drawn_face(seed: int, side: int = 128) -> FaceCrop:
    """A shaded, face-like drawing with its landmarks: the same for the same seed.

    Args:
        seed: which drawing.
        side: pixels of the crop; the face fills half of it.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    skin = generator.uniform(120, 220, size=3)
    shade = 1.0 + generator.uniform(-0.5, 0.5) * x + generator.uniform(-0.5, 0.5) * y
    head = np.clip((0.09 - x**2 / 0.8 - y**2) * 60, 0, 1)
    pixels = generator.uniform(20, 90, size=3) * (1 - head)[..., None] + (skin * shade[..., None]) * head[..., None]
    landmarks = (side * (0.25 + 0.5 * MEAN_LANDMARKS)).astype(np.float32)
    canvas = np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8))
    unit = side / 128
    for outer, inner in ((0, 1), (2, 3)):
        centre = landmarks[[outer, inner]].mean(axis=0)
        cv2.circle(canvas, (int(centre[0]), int(centre[1])), max(1, round(4 * unit)), (30, 25, 25), -1)
    mouth = (side // 2, int(side * 0.67))
    width = int(generator.integers(8, 16) * unit)
    cv2.ellipse(canvas, mouth, (width, max(1, round(3 * unit))), 0, 0, 360, (140, 50, 50), -1)
    return FaceCrop(canvas, landmarks)


def drawn_voice(seed: int, seconds: float) -> NDArray[np.float32]:
    """A buzz with formants and syllables, (samples,) float32 at 16 kHz: the same for the same seed."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = generator.uniform(90, 220) * (1 + 0.05 * np.sin(2 * np.pi * 2.1 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = generator.uniform((300, 900, 2200), (800, 1900, 3000))
    sound = np.zeros_like(time)
    for harmonic in range(1, 30):
        gain = np.exp(-np.square((harmonic * pitch[:, None] - formants) / 180)).sum(axis=1) + 0.02
        sound += gain * np.sin(harmonic * phase)
    sound *= 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time)
    sound += generator.normal(0, 0.01, size=time.size)
    waveform: NDArray[np.float32] = (0.3 * sound / np.abs(sound).max()).astype(np.float32)
    return waveform


def _recipes() -> tuple[_Recipe, ...]:
    return (
        _Recipe(
            name="face_identity",
            modality=Modality.FACE,
            row=find_row(face.BACKBONES, "dlib_resnet_v1"),
            preparation=asdict(DlibResnetPreparation()),
            golden=[drawn_face(1), drawn_face(2, side=200)],
            source=FACE_SOURCE,
            measured=FACE_MEASURED,
            trusted=FACE_TRUSTED,
        ),
        _Recipe(
            name="voice_identity",
            modality=Modality.VOICE,
            row=find_row(voice.BACKBONES, "ge2e"),
            preparation=asdict(GE2EPreparation()),
            golden=[drawn_voice(1, 0.7), drawn_voice(2, 2.5)],
            source=VOICE_SOURCE,
            measured=VOICE_MEASURED,
            trusted=VOICE_TRUSTED,
        ),
    )


FACE_SOURCE = """\
dlib's face network `dlib_face_recognition_resnet_model_v1` by Davis E. King: a residual network of 29
layers trained with a metric loss. Its author reports 99.38 % on Labeled Faces in the Wild."""

FACE_MEASURED = """\
Measured 2026-11 with the detector `dlib_hog` on 171 photographs of 38 people (Labeled Faces in the Wild, ORL,
television stills, press photographs); a face was found in 170. Every photograph asks, all the others are
the gallery, plain cosine:

| condition | mAP | equal error rate | strangers accepted where 95 % of pairs of one person are |
|---|---|---|---|
| crop of twice the face box, at most 512 px | 0.994 | 0.6 % | 0.04 % |
| the same, crop at most 96 px (a face of about 48 px) | 0.994 | 0.8 % | 0.02 % |

Averaging each chip with its mirror image did not help (mAP 0.993)."""

FACE_TRUSTED = """\
May be trusted with: ranking clear photographs and film faces of at least about 40 px, frontal to half
profile, by likeness; proposing a name among enrolled people for a person to confirm.

May not be trusted with: deciding about a person on its own; profiles, covered or very small faces;
children, whom it was hardly trained on; telling relatives or look-alikes apart. Some of the public
figures measured above may be among the people it was trained on. How well it does for groups of people
(by skin colour, age, sex) has not been measured here."""

VOICE_SOURCE = """\
The GE2E speaker encoder of Resemblyzer (Resemble AI, after C. Jemine's Real-Time-Voice-Cloning): three
LSTM layers of 256 cells over 40 mel bands, a linear layer with ReLU, unit length; the directions of 1.6 s
windows with half overlap are averaged."""

VOICE_MEASURED = """\
Measured 2026-11 on 88 recordings of 23 people (LibriSpeech readers, speech-synthesis prompts, read sentences)
with 40 further LibriSpeech readers in the gallery. Every recording asks, all the others are the gallery,
plain cosine:

| condition | mAP | equal error rate | strangers accepted where 95 % of pairs of one person are |
|---|---|---|---|
| whole recording | 0.997 | 0.7 % | 0.24 % |
| first 3 s of speech | 0.994 | 1.2 % | 0.09 % |
| first 1.2 s of speech | 0.974 | 2.6 % | 1.4 % |

Naming one of the 23 after enrolling one to three recordings each (49 probes): the right name was first every
time, and at the score that 95 % of these probes reach, none of the 40 strangers was named."""

VOICE_TRUSTED = """\
May be trusted with: ranking turns of at least 2 to 3 s of one speaker by likeness; proposing a name among
enrolled people for a person to confirm.

May not be trusted with: deciding about a person on its own; one-word turns, several people at once,
singing, whispering, strong noise or music; imitated or synthesised voices, which it takes for the person.
It was trained mostly on English; other languages have not been measured here. Cosines are high throughout
(two strangers often reach 0.6): read the calibrated probability, not the cosine."""


def card(recipe: _Recipe) -> str:
    """The model card of a packaged encoder, Markdown."""
    weights = recipe.row.files[0]
    return f"""# {recipe.name}

Turns a {recipe.modality} into a vector of {recipe.row.dimension} numbers; two vectors of one person point the
same way. It answers questions within one modality, for real people.

## Source and licence
{recipe.source}

Weights: `{weights.file}` of the Python package `{weights.distribution}` {weights.version}, licence
{weights.licence}, SHA-256 `{weights.sha256}`. They are read from the package; this folder holds none.

## Trained on
{recipe.row.trained_on[0].upper()}{recipe.row.trained_on[1:]}.

## Input
{recipe.row.input_contract}

## Measured
{recipe.measured}

## What it may and may not be trusted with
{recipe.trusted}
"""


def build(home: Path) -> dict[str, float]:
    """Write the packaged encoder folders under ``home``; returns each one's least golden cosine."""
    agreement = {}
    for recipe in _recipes():
        folder = home / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        description = Description(
            name=recipe.name,
            space=recipe.name,
            dimension=recipe.row.dimension,
            domain="real people",
            trained_on=recipe.row.trained_on,
            branches={recipe.modality: Branch(recipe.row.name, recipe.preparation, recipe.row.files[0])},
        )
        golden = {recipe.modality: recipe.golden}
        agreement[recipe.name] = Encoder.create(folder, description, golden, card(recipe)).verify_golden()
    return agreement


if __name__ == "__main__":
    for encoder_name, cosine in build(HOME).items():
        sys.stdout.write(f"{HOME / encoder_name}: least golden cosine {cosine:.6f}\n")
