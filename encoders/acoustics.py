"""From sound to mel bands, what makes a sound unusable, and the one door to torchaudio.

torchaudio's compiled extension is linked against CUDA. With a CPU build of torch it cannot be loaded and
``import torchaudio`` raises OSError, although nothing used here needs the extension. :func:`torchaudio`
imports it all the same and changes nothing where the extension loads.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from encoders.backbones.backbone import Unusable, UnusableReason
from encoders.voice import SAMPLE_RATE


@cache
def torchaudio() -> ModuleType:
    """The torchaudio package, imported so that an extension that cannot be loaded is left out.

    Raises:
        ImportError: torchaudio is not installed.
    """
    name = "torchaudio._extension.utils"
    package = importlib.util.find_spec("torchaudio")
    if package is None or package.origin is None:
        raise ImportError("torchaudio is not installed; install it with: pip install torchaudio")
    if name not in sys.modules:
        # torchaudio loads its extension while it is imported, so the loader must be in place before.
        path = Path(package.origin).parent / "_extension" / "utils.py"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is missing; reinstall torchaudio")
        utils = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(utils)
        load_library = utils._load_lib

        def load_library_if_possible(library: str) -> bool:
            try:
                return bool(load_library(library))
            except OSError:
                return False

        utils.__dict__["_load_lib"] = load_library_if_possible
        sys.modules[name] = utils
    return importlib.import_module("torchaudio")


@dataclass(frozen=True)
class MelBands:
    """How sound becomes mel bands: slaney scale and norm, Hann window, frames centred on their time.

    Args:
        sample_rate: samples per second.
        window: samples a frame looks at, also the size of the transform.
        step: samples between frames.
        bands: number of mel bands between 0 Hz and half the sample rate.
        power: 2 for energies, 1 for amplitudes.
    """

    sample_rate: int = 16_000
    window: int = 400
    step: int = 160
    bands: int = 40
    power: float = 2.0


class MelFrontEnd(torch.nn.Module):
    """Mel bands of a waveform, not logarithmic.

    It gives what torchaudio's ``MelSpectrogram`` gives, to rounding, in about 0.6 of the time: the power of a
    frame is taken without the square root that torchaudio takes and squares again.

    Args:
        shape: see :class:`MelBands`.
    """

    _BLOCK = 1024  # frames transformed at a time: they stay in the processor's cache

    def __init__(self, shape: MelBands) -> None:
        super().__init__()
        self.shape = shape
        bins, half = shape.window // 2 + 1, shape.sample_rate / 2
        filters = torchaudio().functional.melscale_fbanks(
            bins, 0.0, half, shape.bands, shape.sample_rate, norm="slaney", mel_scale="slaney"
        )  # (bins, bands)
        self._window: torch.Tensor
        self._filters: torch.Tensor
        self.register_buffer("_window", torch.hann_window(shape.window), persistent=False)
        self.register_buffer("_filters", filters, persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(samples,) float32, more than half a window -> (samples // step + 1, bands) float32."""
        half = self.shape.window // 2
        padded = pad(waveform[None], (half, half), mode="reflect")[0]
        frames = padded.unfold(0, self.shape.window, self.shape.step)  # a view, (frames, window)
        blocks = range(0, len(frames), self._BLOCK)
        return torch.cat([self._bands(frames[first : first + self._BLOCK]) for first in blocks])

    def _bands(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, window) -> (frames, bands)."""
        spectrum = torch.fft.rfft(frames * self._window)
        power: torch.Tensor = spectrum.real.square() + spectrum.imag.square()
        if self.shape.power != 2.0:
            power = power ** (self.shape.power / 2.0)
        return power @ self._filters


def sound_level(waveform: NDArray[np.float32], least_seconds: float, silence_dbfs: float) -> float | Unusable:
    """How loud a sound is, or why it cannot be used.

    Args:
        waveform: (samples,) float32 mono at 16 kHz.
        least_seconds: shorter sounds are unusable.
        silence_dbfs: softer sounds are unusable.

    Returns:
        The root mean square in decibels below full scale, or :class:`Unusable`.

    Raises:
        ValueError: the waveform is not (samples,).
    """
    if waveform.ndim != 1:
        raise ValueError(f"a waveform is (samples,) float32 mono at 16 kHz, got shape {waveform.shape}")
    seconds = waveform.size / SAMPLE_RATE
    if seconds < least_seconds:
        detail = f"the sound lasts {seconds:.2f} s, at least {least_seconds} s are needed"
        return Unusable(UnusableReason.TOO_SHORT, detail)
    if not np.isfinite(waveform).all():
        return Unusable(UnusableReason.NOT_FINITE, "the sound holds values that are not finite numbers")
    level = 20.0 * np.log10(max(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))), 1e-12))
    if level < silence_dbfs:
        return Unusable(UnusableReason.SILENT, f"the sound is silent: its level is {level:.0f} dBFS")
    return float(level)
