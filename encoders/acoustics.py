"""From sound to mel bands, and the one door to torchaudio.

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

import torch


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

    Args:
        shape: see :class:`MelBands`.
    """

    def __init__(self, shape: MelBands) -> None:
        super().__init__()
        self.shape = shape
        self._mel: torch.nn.Module = torchaudio().transforms.MelSpectrogram(
            sample_rate=shape.sample_rate,
            n_fft=shape.window,
            hop_length=shape.step,
            n_mels=shape.bands,
            power=shape.power,
            norm="slaney",
            mel_scale="slaney",
        )

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """(samples,) float32, more than half a window -> (samples // step + 1, bands) float32."""
        mel: torch.Tensor = self._mel(waveform)  # (bands, frames)
        return mel.transpose(-1, -2)
