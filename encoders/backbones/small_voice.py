"""A small convolutional network for voices, quick on a CPU: four layers over time on log-mel bands, 128 features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.acoustics import MelBands, MelFrontEnd, sound_level
from encoders.backbones.backbone import Unusable, load_parameters, read_preparation
from encoders.backbones.serving import quick_type, served
from encoders.backbones.windows import embed_windows
from encoders.voice import SAMPLE_RATE

FEATURES = 128
CHANNELS = 128
LAYERS = ((5, 2), (3, 2), (3, 1), (3, 1))
"""(kernel, stride) of each layer; kernels are odd, so that a layer gives ceil(frames / stride) frames."""

# log(energy + FLOOR), centred and scaled by numbers rounded from speech at the level sounds are brought to.
FLOOR, CENTRE, SPREAD = 1e-5, -8.0, 3.0

_POOLED = 4  # sounds pooled at a time: more of them would leave the cache between the passes over them
_LEAST_VARIANCE = 1e-5  # keeps the deviation's gradient finite where a channel is constant


@dataclass(frozen=True)
class SmallVoicePreparation:
    """How a waveform becomes mel bands; part of what determines the vectors.

    Args:
        bands: mel bands between 0 and 8 kHz.
        level_dbfs: every sound is brought to this level.
        least_seconds: shorter sounds are unusable.
        silence_dbfs: softer sounds are unusable.
        most_seconds: longer sounds are cut into windows of this length, whose features are averaged.
    """

    bands: int = 40
    level_dbfs: float = -24.0
    least_seconds: float = 0.4
    silence_dbfs: float = -60.0
    most_seconds: float = 8.0

    def __post_init__(self) -> None:
        if self.bands < 1:
            raise ValueError(f"bands must be at least 1, got {self.bands}")
        if self.least_seconds < 0.1:
            raise ValueError(f"least_seconds must be at least 0.1, got {self.least_seconds}")
        if self.most_seconds < self.least_seconds:
            raise ValueError(
                f"most_seconds must be at least least_seconds ({self.least_seconds}), got {self.most_seconds}"
            )


class SmallVoiceNetwork(torch.nn.Module):
    """Convolutions over time with batch normalisation; mean and deviation over time; a linear layer.

    Args:
        bands: mel bands of a frame.
    """

    def __init__(self, bands: int = SmallVoicePreparation.bands) -> None:
        super().__init__()
        before = (bands, *(CHANNELS for _ in LAYERS[1:]))
        self.layers = torch.nn.ModuleList(
            _layer(channels, kernel, stride) for channels, (kernel, stride) in zip(before, LAYERS, strict=True)
        )
        self.linear = torch.nn.Linear(2 * CHANNELS, FEATURES)

    def forward(self, mels: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features of sounds, before the head.

        In evaluation a row depends neither on its neighbours nor on padding. In training, batch normalisation
        takes its statistics over everything, padding included: train on sounds of one length.

        Args:
            mels: (n, frames, bands) float32 of :func:`prepare_mel`.
            lengths: (n,) int64 in 1 to frames, the frames that count; None when all do.

        Returns:
            (n, 128) float32.
        """
        hidden = mels.transpose(1, 2)  # (n, bands, frames)
        mask = None
        if lengths is not None:
            lengths = lengths.to(mels.device)
            # whatever padding holds, zeros are what an edge looks like
            hidden = hidden.masked_fill(_mask(lengths, hidden) == 0, 0.0)
        for layer, (_, stride) in zip(self.layers, LAYERS, strict=True):
            hidden = layer(hidden)
            if lengths is not None:
                lengths = (lengths + stride - 1) // stride
                mask = _mask(lengths, hidden)
                hidden = hidden * mask if torch.is_grad_enabled() else hidden.mul_(mask)
        features: Tensor = self.linear(_pool_all(hidden, mask))
        return features


class SmallVoice:
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: safetensors file of a :class:`SmallVoiceNetwork`.
        preparation: fields of :class:`SmallVoicePreparation`.
        device: a torch device.
        precision: ``auto`` is bfloat16 on processors that multiply it themselves, about twice as fast, and float32
            elsewhere; the cosine between the two is at least 0.9999.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    _BATCH = 16  # windows per call: enough to fill the processor, few enough to be of about one length

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        self.preparation = read_preparation("small_voice", SmallVoicePreparation, preparation)
        self._device = torch.device(device)
        self._network = SmallVoiceNetwork(self.preparation.bands)
        load_parameters(self._network, weights)
        self._served = served(self._network, self._device, quick_type(precision, self._device))

    def prepare(self, sample: NDArray[np.float32]) -> Tensor | Unusable:
        """(samples,) float32 at 16 kHz to (frames, bands) log-mel on the device, or why not."""
        return prepare_mel(sample, self.preparation, self._device)

    def embed(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """Log-mels (frames_i, bands) to (samples, 128) float32 features: the mean of each one's windows."""
        most = frames_of(self.preparation.most_seconds)
        pieces, owners = [], []
        for owner, mel in enumerate(prepared):
            cut = windows_of(len(mel), most)
            pieces += [mel[start:end] for start, end in cut]
            owners += [owner] * len(cut)
        rows = embed_windows(self._served, pieces, dimension=FEATURES, batch=self._BATCH)
        if len(pieces) == len(prepared):
            return rows
        sums = np.zeros((len(prepared), FEATURES))
        np.add.at(sums, owners, rows)
        counts = np.bincount(owners, minlength=len(prepared))[:, None]
        features: NDArray[np.float32] = (sums / counts).astype(np.float32)
        return features

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters as they were loaded, on the CPU."""
        return self._network.state_dict()


def prepare_mel(
    waveform: NDArray[np.float32], preparation: SmallVoicePreparation, device: str | torch.device = "cpu"
) -> Tensor | Unusable:
    """A sound to its log-mel bands, brought to one level, or why not; needs no weights.

    Args:
        waveform: (samples,) float32 mono at 16 kHz.
        preparation: how.
        device: where to compute, and where the answer lies.

    Returns:
        (samples // 160 + 1, bands) float32, about within [-1.2, 4], or :class:`Unusable`.

    Raises:
        ValueError: the waveform is not (samples,).
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    level = sound_level(waveform, preparation.least_seconds, preparation.silence_dbfs)
    if isinstance(level, Unusable):
        return level
    gain = np.float32(10.0 ** ((preparation.level_dbfs - level) / 20.0))
    with torch.no_grad():  # not inference_mode, whose tensors could not go into training
        energies = _front_end(preparation.bands, str(device))(torch.from_numpy(waveform * gain).to(device))
        return cast(Tensor, energies.add_(FLOOR).log_().sub_(CENTRE).div_(SPREAD))


def frames_of(seconds: float) -> int:
    """Mel frames of a sound of so many seconds."""
    return round(seconds * SAMPLE_RATE) // MelBands.step + 1


def windows_of(frames: int, most: int) -> list[tuple[int, int]]:
    """(start, end) of the fewest windows that cover ``frames``, none longer than ``most``, evenly laid.

    A sound of at most ``most`` frames is one window; windows of a longer one have ``most`` frames each and
    overlap by what they must.
    """
    if frames <= most:
        return [(0, frames)]
    starts = np.linspace(0, frames - most, num=-(-frames // most)).round().astype(int)
    return [(int(start), int(start) + most) for start in starts]


@cache
def _front_end(bands: int, device: str) -> MelFrontEnd:
    return MelFrontEnd(MelBands(sample_rate=SAMPLE_RATE, bands=bands)).to(device).eval()


def _layer(channels: int, kernel: int, stride: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv1d(channels, CHANNELS, kernel, stride=stride, padding=kernel // 2, bias=False),
        torch.nn.BatchNorm1d(CHANNELS),
        torch.nn.ReLU(inplace=True),
    )


def _mask(lengths: Tensor, hidden: Tensor) -> Tensor:
    """(n, 1, frames) of ``hidden``'s type: 1 where a frame of ``hidden`` (n, channels, frames) counts, 0 elsewhere."""
    counts = torch.arange(hidden.shape[2], device=hidden.device) < lengths[:, None]
    return counts[:, None].to(hidden.dtype)  # a product with truth values would be several times slower


def _pool_all(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """As :func:`_pool`; when it serves, a few sounds at a time, whose working memory stays in the processor's cache."""
    if torch.is_grad_enabled() or len(hidden) <= _POOLED:
        return _pool(hidden, mask)
    starts = range(0, len(hidden), _POOLED)
    some = [slice(start, start + _POOLED) for start in starts]
    return torch.cat([_pool(hidden[few], None if mask is None else mask[few]) for few in some])


def _pool(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """(n, channels, frames), zeros where the mask is not -> (n, 2·channels): mean and deviation over time."""
    hidden = hidden.float()
    mask = None if mask is None else mask.float()
    if mask is None:
        count, mean = hidden.shape[2], hidden.mean(dim=2)
        squares = (hidden - mean[:, :, None]).square()
        variance = squares.sum(dim=2) / count
    else:
        counts = mask.sum(dim=2)  # (n, 1)
        mean = hidden.sum(dim=2) / counts
        variance = ((hidden - mean[:, :, None]).square() * mask).sum(dim=2) / counts
    return torch.cat([mean, (variance + _LEAST_VARIANCE).sqrt()], dim=1)
