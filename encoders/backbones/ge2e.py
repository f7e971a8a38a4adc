"""GE2E voice network: three LSTM layers over mel bands, averaged over overlapping windows.

Wan, Wang, Papir and Lopez Moreno, "Generalized End-to-End Loss for Speaker Verification" (2018). The
parameter names are those of Resemblyzer's public weights, so that they load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pack_padded_sequence

from encoders.acoustics import MelBands, MelFrontEnd, sound_level
from encoders.backbones.backbone import Unusable, read_preparation
from encoders.backbones.serving import check_precision
from encoders.backbones.windows import embed_windows
from encoders.voice import SAMPLE_RATE

BANDS = 40
HIDDEN = 256
LAYERS = 3


@dataclass(frozen=True)
class GE2EPreparation:
    """How a waveform becomes windows; part of what determines the vectors.

    Args:
        window_frames: mel frames of one window (10 ms each).
        step_frames: mel frames from one window to the next.
        level_dbfs: softer sounds are raised to this level; louder ones stay, as in training.
        least_seconds: shorter sounds are unusable.
        silence_dbfs: softer sounds are unusable.
    """

    window_frames: int = 160
    step_frames: int = 80
    level_dbfs: float = -30.0
    least_seconds: float = 0.4
    silence_dbfs: float = -60.0

    def __post_init__(self) -> None:
        if not 0 < self.step_frames <= self.window_frames:
            raise ValueError(
                f"step_frames must be in 1 to window_frames ({self.window_frames}), got {self.step_frames}"
            )
        if self.least_seconds < 0.1:
            raise ValueError(f"least_seconds must be at least 0.1, got {self.least_seconds}")


class GE2ENetwork(torch.nn.Module):
    """The network itself: (batch, frames, 40) mel energies to (batch, 256) unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(BANDS, HIDDEN, LAYERS, batch_first=True)
        self.linear = torch.nn.Linear(HIDDEN, HIDDEN)

    def forward(self, mels: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Embed windows.

        Args:
            mels: (batch, frames, 40) float32.
            lengths: (batch,) int64 on the CPU, valid frames of each; None when all are full.

        Returns:
            (batch, 256) float32 of unit length, made from the state after each last valid frame.
        """
        inputs: Any = mels
        if lengths is not None:
            inputs = pack_padded_sequence(mels, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(inputs)  # hidden: (layers, batch, 256)
        return normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def window_starts(frames: int, window: int, step: int) -> list[int]:
    """First frames of windows that together cover ``frames``; the last one ends with the sound.

    A sound no longer than a window is one window.
    """
    if frames <= window:
        return [0]
    starts = list(range(0, frames - window + 1, step))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return starts


class GE2E:
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: Resemblyzer's ``pretrained.pt``, or a safetensors file of :meth:`own_weights`.
        preparation: fields of :class:`GE2EPreparation`.
        device: a torch device.
        precision: accepted for the sake of the interface; a recurrent network always computes in float32.

    Raises:
        ValueError: an unknown or impossible preparation parameter, an unknown precision, or weights of another network.
    """

    _BATCH = 128  # windows per call: 128 x 160 frames keep the LSTM's working memory below 0.5 GB

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        check_precision(precision)
        self.preparation = read_preparation("ge2e", GE2EPreparation, preparation)
        self._device = torch.device(device)
        self._mel = MelFrontEnd(MelBands(sample_rate=SAMPLE_RATE, bands=BANDS)).to(self._device).eval()
        self._network = GE2ENetwork()
        self._network.load_state_dict(_read_weights(weights, set(self._network.state_dict())))
        self._network.to(self._device).eval()

    def prepare(self, sample: NDArray[np.float32]) -> torch.Tensor | Unusable:
        """(samples,) float32 at 16 kHz to (frames, 40) mel energies on the device, or why not."""
        waveform = np.asarray(sample, dtype=np.float32)
        level = sound_level(waveform, self.preparation.least_seconds, self.preparation.silence_dbfs)
        if isinstance(level, Unusable):
            return level
        gain = 10.0 ** (max(0.0, self.preparation.level_dbfs - level) / 20.0)
        with torch.inference_mode():
            tensor = torch.from_numpy(waveform * np.float32(gain)).to(self._device)
            return cast(torch.Tensor, self._mel(tensor))

    def embed(self, prepared: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Mel energies (frames_i, 40) to (samples, 256): the mean direction of each one's windows."""
        window, step = self.preparation.window_frames, self.preparation.step_frames
        pieces, owners = [], []
        for owner, mel in enumerate(prepared):
            for start in window_starts(len(mel), window, step):
                pieces.append(mel[start : start + window])
                owners.append(owner)
        vectors = embed_windows(self._network, pieces, dimension=HIDDEN, batch=self._BATCH).astype(np.float64)
        sums = np.zeros((len(prepared), HIDDEN))
        np.add.at(sums, owners, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A vector of zeros stays zeros; the encoder reports it as having no direction.
        unit: NDArray[np.float32] = (sums / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit

    def own_weights(self) -> Mapping[str, torch.Tensor]:
        """The network's parameters under their public names, on the CPU."""
        return {name: value.cpu().contiguous() for name, value in self._network.state_dict().items()}


def _read_weights(path: Path, wanted: set[str]) -> dict[str, torch.Tensor]:
    """The parameters named ``wanted`` from the public checkpoint or from a safetensors file."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    except (safetensors.SafetensorError, UnpicklingError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of ge2e: {error}") from error
    missing = wanted - set(state)
    if missing:
        raise ValueError(f"{path} lacks the parameters {', '.join(sorted(missing))} of ge2e")
    # The checkpoint also holds the loss's scale and bias, which only training uses.
    return {name: state[name] for name in wanted}
