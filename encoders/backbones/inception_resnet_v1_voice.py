"""Inception-ResNet-v1 over sounds: the network of :mod:`encoders.backbones.inception_resnet_v1`, shown spectrograms.

S1 trains one network for both modalities. Its voice is filtered by short-time energy and becomes a short-time
magnitude spectrogram, of which it gives neither window nor step nor size: here a Hamming window of 25 ms every 10 ms,
and as many of the lowest frequencies as a face has pixels, so that a picture of 256 x 256 shows 0 to 8 kHz and 2.56 s.
Each frequency of a sound has mean 0 and deviation 1, as in Nagrani et al., "VoxCeleb" (2017), which S1 follows for
its sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.backbones.backbone import Unusable, read_preparation
from encoders.backbones.inception_resnet_v1 import (
    DIMENSION,
    LEAST_SIDE,
    InceptionResnetV1,
    public_parameters,
    serving_copy,
)
from encoders.backbones.public_files import fill
from encoders.backbones.serving import quick_type
from encoders.backbones.sound_pictures import PicturedSound, PictureVoice, loud_part, picture_features
from encoders.spectra import WINDOW, Framing, Spectrogram, normalised


@dataclass(frozen=True)
class InceptionResnetVoicePreparation(PicturedSound):
    """How a waveform becomes a spectrogram; part of what determines the vectors.

    Args:
        dimension: components of a vector.
        unit_length: whether vectors are brought to unit length; see ``InceptionResnetPreparation``.
    """

    dimension: int = DIMENSION
    unit_length: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not LEAST_SIDE <= self.bands <= 512:
            raise ValueError(f"bands must lie between {LEAST_SIDE} and 512, got {self.bands}")
        if self.dimension < 1:
            raise ValueError(f"dimension must be at least 1, got {self.dimension}")


class InceptionResnetVoice(PictureVoice):
    """The network for spectrograms, with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: a public ``.pt`` file, or a safetensors file of :meth:`own_weights`.
        preparation: fields of :class:`InceptionResnetVoicePreparation`.
        device: a torch device.
        precision: ``auto`` is bfloat16 on processors that multiply it themselves, and float32 elsewhere.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        stated = read_preparation("inception_resnet_v1_voice", InceptionResnetVoicePreparation, preparation)
        place = torch.device(device)
        network = InceptionResnetV1(stated.dimension).eval().requires_grad_(False)
        fill(network, public_parameters(weights), weights)
        served = serving_copy(network, place, quick_type(precision, place))
        run = served if stated.unit_length else partial(picture_features, served.features)
        super().__init__(network, run, stated, prepare_spectrogram, place)


def prepare_spectrogram(
    waveform: NDArray[np.float32], preparation: InceptionResnetVoicePreparation
) -> Tensor | Unusable:
    """A sound to the magnitudes of its loud frames, or why not; needs no weights.

    Args:
        waveform: (samples,) float32 mono at 16 kHz.
        preparation: how.

    Returns:
        (kept samples // 160 + 1, bands) float32, each frequency at mean 0 and deviation 1; or :class:`Unusable`.

    Raises:
        ValueError: the waveform is not (samples,).
    """
    loud = loud_part(waveform, preparation)
    if isinstance(loud, Unusable):
        return loud
    with torch.no_grad():  # not inference_mode, whose tensors could not go into training
        # at one level, so that the least variance that a band is divided by means the same in every sound
        level = loud.square().mean().sqrt()
        magnitudes = _spectrogram(preparation.bands)(loud[None] / level)[:, :, : preparation.bands]
        return normalised(magnitudes, None, deviation=True)[0]


@cache
def _spectrogram(bands: int) -> Spectrogram:
    return Spectrogram(Framing(size=max(WINDOW, 2 * bands), power=1.0))
