"""SpecAugment: stretches of frames and of bands blanked out of spectra that a network trains on.

Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition" (2019), without their
warping of time. The widths of the defaults are S3's: 0 to 5 frames and 0 to 10 bands, one stretch of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class SpecAugment:
    """How much is blanked out; each width is drawn evenly from 0 to the most, both included.

    Args:
        frames: most frames of a stretch.
        bands: most bands of a stretch.
        frame_stretches: how many stretches of frames, perhaps over one another.
        band_stretches: how many stretches of bands.
        value: what is there instead; 0 is the mean where each band of a sound has mean 0.
    """

    frames: int = 5
    bands: int = 10
    frame_stretches: int = 1
    band_stretches: int = 1
    value: float = 0.0

    def __post_init__(self) -> None:
        counts = (self.frames, self.bands, self.frame_stretches, self.band_stretches)
        if min(counts) < 0:
            raise ValueError(f"widths and numbers of stretches are at least 0, got {counts}")


def spec_augment(
    features: Tensor,
    settings: SpecAugment,
    random: np.random.Generator,
    lengths: Tensor | None = None,
) -> Tensor:
    """A copy of the spectra with stretches blanked out, other ones in each sound.

    What is drawn depends on the generator, on the number of sounds and on their lengths alone, so that the same
    generator gives the same stretches on every device.

    Args:
        features: (n, frames, bands) float32.
        settings: how much.
        random: where the stretches are drawn from.
        lengths: (n,) frames that count, 1 or more; no stretch of frames reaches behind them. None when all do.

    Returns:
        (n, frames, bands), on the features' device.
    """
    count, frames, bands = features.shape
    most = np.full(count, frames) if lengths is None else lengths.cpu().numpy().astype(np.int64)
    blank = torch.zeros(features.shape, dtype=torch.bool)
    for _ in range(settings.frame_stretches):
        blank |= _stretches(most, settings.frames, frames, random)[:, :, None]
    for _ in range(settings.band_stretches):
        blank |= _stretches(np.full(count, bands), settings.bands, bands, random)[:, None, :]
    return features.masked_fill(blank.to(features.device), settings.value)


def _stretches(lengths: NDArray[np.int64], widest: int, places: int, random: np.random.Generator) -> Tensor:
    """(n, places) bool: one stretch of 0 to ``widest`` places for each, within its first ``lengths`` ones."""
    wide, begin = random.random((2, len(lengths)))
    widths = (wide * (np.minimum(widest, lengths) + 1)).astype(np.int64)
    starts = (begin * (lengths - widths + 1)).astype(np.int64)
    place = np.arange(places)
    return torch.from_numpy((place >= starts[:, None]) & (place < (starts + widths)[:, None]))
