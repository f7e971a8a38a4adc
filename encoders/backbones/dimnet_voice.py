"""DIMNet-Voice, reconstructed: residual convolutions over time on spectra, averaged over time, 256 components.

S0 and S2 name the voice network of Wen et al., "Disjoint Mapping Network for Cross-modal Matching of Voices and Faces"
(ICLR 2019, arXiv 1807.04836), and give neither its layers nor weights. No weights of it are published, so nothing
here can be compared with the original; do not take its numbers for the paper's.

Stated by the papers: a convolutional network of its own for voices; log-mel bands (DIMNet) or mel cepstra of 25 ms
every 10 ms, normalised (S2); 256 components (S0 and S2); sounds of different lengths, 10 s in S2.

Reconstructed: convolutions over time alone, kernel 3 and stride 2, of 256, 384, 576 and 864 channels (each 1.5 times
the one before), with batch normalisation and rectifier, a residual block of two convolutions behind all but the
first, a last convolution of stride 2 to the vector, and a plain average over time; 64 bands, each brought to mean 0
and deviation 1 over the sound. Bands, widths and strides are those of the voice network that the same authors later
published as code (with "Face Reconstruction from Voice using Generative Adversarial Networks", 2019), which has no
residual blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders.backbones.backbone import read_preparation
from encoders.backbones.public_files import fill, read_tensors
from encoders.backbones.spectral_voice import SoundLimits, SpectralVoice
from encoders.spectra import counts_mask, front_end


@dataclass(frozen=True)
class DimnetVoicePreparation(SoundLimits):
    """What the network sees of a sound, its sizes, and which sounds it takes.

    Args:
        features: of ``encoders.spectra.FRONT_ENDS``: ``log_mel`` as DIMNet has it, ``mfcc`` as S2.
        bands: how many the front end gives.
        channels: of the convolutions before the last.
        dimension: components of a vector.
        most_seconds: 10 by default: S2 trains on 10 s.
        quiet_below: decibels under the loudest frame, in (0, inf); quieter frames are left out, as S2's detection of
            voice activity leaves them out. None: nothing is.
    """

    most_seconds: float = 10.0
    features: str = "log_mel"
    bands: int = 64
    channels: tuple[int, ...] = (256, 384, 576, 864)
    dimension: int = 256
    quiet_below: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quiet_below is not None and self.quiet_below <= 0:
            raise ValueError(f"quiet_below must be above 0, or nothing, got {self.quiet_below}")
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or min(*self.channels, self.dimension) < 1:
            raise ValueError(f"channels and dimension must be at least 1, got {self.channels} and {self.dimension}")
        front_end(self.features, self.bands)  # says itself what it does not have


class _Halving(torch.nn.Module):
    """A convolution over half as many frames, normalised and rectified."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(channels, width, 3, stride=2, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm1d(width)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(inputs)))


class _Residual(torch.nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = torch.nn.BatchNorm1d(channels)
        self.conv2 = torch.nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = torch.nn.BatchNorm1d(channels)

    def forward(self, inputs: Tensor, counts: Tensor | None) -> Tensor:
        hidden = _only(torch.relu(self.norm1(self.conv1(inputs))), counts)
        return torch.relu(self.norm2(self.conv2(hidden)) + inputs)


class DimnetVoiceNetwork(torch.nn.Module):
    """The network itself.

    Args:
        preparation: its sizes.
    """

    def __init__(self, preparation: DimnetVoicePreparation | None = None) -> None:
        super().__init__()
        sizes = DimnetVoicePreparation() if preparation is None else preparation
        before = (sizes.bands, *sizes.channels[:-1])
        self.halvings = torch.nn.ModuleList(_Halving(*pair) for pair in zip(before, sizes.channels, strict=True))
        self.residuals = torch.nn.ModuleList(_Residual(width) for width in sizes.channels[1:])
        self.last = torch.nn.Conv1d(sizes.channels[-1], sizes.dimension, 3, stride=2, padding=1)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed sounds.

        In evaluation a row depends neither on its neighbours nor on padding. In training, batch normalisation takes
        its statistics over everything, padding included: train on sounds of one length.

        Args:
            features: (n, frames, bands) float32 of the front end.
            lengths: (n,) int64, frames that count; None when all do.

        Returns:
            (n, dimension) float32, not normalised.
        """
        counts = None if lengths is None else lengths.to(features.device)
        hidden = _only(features.transpose(1, 2), counts)
        for place, halving in enumerate(self.halvings):
            counts = _halved(counts)
            hidden = _only(halving(hidden), counts)
            if place:
                hidden = _only(self.residuals[place - 1](hidden, counts), counts)
        counts = _halved(counts)
        hidden = _only(self.last(hidden), counts)
        if counts is None:
            return hidden.mean(dim=2)
        return hidden.sum(dim=2) / counts[:, None].to(hidden.dtype)


class DimnetVoice(SpectralVoice):
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: a file of a :class:`DimnetVoiceNetwork`.
        preparation: fields of :class:`DimnetVoicePreparation`.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        sizes = read_preparation("dimnet_voice", DimnetVoicePreparation, preparation)
        network = DimnetVoiceNetwork(sizes)
        fill(network, public_parameters(weights), weights)
        super().__init__(network, front_end(sizes.features, sizes.bands), sizes, device, precision)


def public_parameters(path: Path) -> dict[str, Tensor]:
    """The network's parameters from a checkpoint or safetensors file of a :class:`DimnetVoiceNetwork`.

    Raises:
        ValueError: the file holds no tensors by name.
    """
    return read_tensors(path)


def _only(hidden: Tensor, counts: Tensor | None) -> Tensor:
    """(n, channels, frames) with zeros behind each sound's own frames, which is what an edge looks like."""
    if counts is None:
        return hidden
    return hidden.masked_fill(~counts_mask(counts, hidden.shape[2])[:, None], 0.0)


def _halved(counts: Tensor | None) -> Tensor | None:
    """How many frames count behind a stride of 2."""
    return None if counts is None else (counts + 1) // 2
