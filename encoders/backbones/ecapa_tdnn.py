"""ECAPA-TDNN: dilated convolutions over time with squeeze and excitation, pooled by attention, 192 components.

Desplanques, Thienpondt and Demuynck, "ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in TDNN
Based Speaker Verification" (2020). Parameter names, front end and numbers are those of speechbrain's public weights
``speechbrain/spkrec-ecapa-voxceleb`` (``embedding_model.ckpt``), which load as they are.

One thing differs on purpose: speechbrain reflects the padding of a batch at the end of the longest sound, so there a
vector depends a little on its neighbours. Here every sound is reflected at its own end, so that in any batch it has
the vector that it has alone, in speechbrain too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from encoders.backbones.backbone import read_preparation
from encoders.backbones.public_files import fill, read_tensors
from encoders.backbones.spectral_voice import SoundLimits, SpectralVoice
from encoders.spectra import EcapaBands, counts_mask

_LEAST_VARIANCE = 1e-12  # the reference's


@dataclass(frozen=True)
class EcapaTdnnPreparation(SoundLimits):
    """The network's sizes and which sounds it takes; the sizes' defaults are the public network's.

    Args:
        bands: mel bands of :class:`EcapaBands`.
        channels: of the first layer, of each block behind it, and of their aggregation; at least three.
        kernels: frames that each of these looks at, odd.
        dilations: frames between those.
        attention: channels of the pooling's attention.
        squeeze: channels that the blocks' gates are squeezed to.
        scale: parts that a block's channels are cut into; divides the blocks' channels.
        dimension: components of a vector.
    """

    bands: int = 80
    channels: tuple[int, ...] = (1024, 1024, 1024, 1024, 3072)
    kernels: tuple[int, ...] = (5, 3, 3, 3, 1)
    dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    attention: int = 128
    squeeze: int = 128
    scale: int = 8
    dimension: int = 192

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "kernels", "dilations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.channels) < 3 or not len(self.channels) == len(self.kernels) == len(self.dilations):
            raise ValueError(
                "channels, kernels and dilations need as many entries each, at least 3, got "
                f"{len(self.channels)}, {len(self.kernels)} and {len(self.dilations)}"
            )
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd, got {self.kernels}")
        if self.scale < 2 or any(width % self.scale for width in self.channels[1:-1]):
            raise ValueError(f"scale ({self.scale}) must be at least 2 and divide the channels {self.channels[1:-1]}")
        sizes = (self.bands, *self.channels, *self.dilations, self.attention, self.squeeze, self.dimension)
        if min(sizes) < 1:
            raise ValueError(
                f"bands, channels, dilations, attention, squeeze and dimension must be at least 1, got {sizes}"
            )


class _Convolution(torch.nn.Module):
    """A convolution over time whose input is reflected at each sound's ends, so that no frame is lost."""

    def __init__(self, channels: int, width: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(channels, width, kernel, dilation=dilation)
        self._margin = dilation * (kernel - 1) // 2

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.conv(_reflected(inputs, self._margin, lengths)))


class _Normalisation(torch.nn.Module):
    """A batch normalisation under the name that the public weights have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.norm(inputs))


class _Layer(torch.nn.Module):
    """Convolution, rectifier, normalisation."""

    def __init__(self, channels: int, width: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _Convolution(channels, width, kernel, dilation)
        self.norm = _Normalisation(width)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.norm(torch.relu(self.conv(inputs, lengths))))


class _Cascade(torch.nn.Module):
    """Res2Net: the channels in parts, each part's layer also seeing what the part before came to."""

    def __init__(self, channels: int, kernel: int, dilation: int, scale: int) -> None:
        super().__init__()
        width = channels // scale
        self.blocks = torch.nn.ModuleList(_Layer(width, width, kernel, dilation) for _ in range(scale - 1))

    def forward(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        parts = inputs.chunk(len(self.blocks) + 1, dim=1)
        results = [parts[0]]
        for number, (part, layer) in enumerate(zip(parts[1:], self.blocks, strict=True)):
            results.append(layer(part if number == 0 else part + results[-1], lengths))
        return torch.cat(results, dim=1)


class _Gate(torch.nn.Module):
    """Squeeze and excitation: every channel weighed by what the whole sound is like."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.conv1 = _Convolution(channels, squeeze)
        self.conv2 = _Convolution(squeeze, channels)

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        mean = (inputs * weights).sum(dim=2, keepdim=True)
        return inputs * torch.sigmoid(self.conv2(torch.relu(self.conv1(mean))))


class _Block(torch.nn.Module):
    """SE-Res2Net block: what a layer, a cascade, another layer and a gate come to, added to what came in."""

    def __init__(
        self, channels: int, width: int, kernel: int, dilation: int, preparation: EcapaTdnnPreparation
    ) -> None:
        super().__init__()
        self.tdnn1 = _Layer(channels, width)
        self.res2net_block = _Cascade(width, kernel, dilation, preparation.scale)
        self.tdnn2 = _Layer(width, width)
        self.se_block = _Gate(width, preparation.squeeze)
        self.shortcut = _Convolution(channels, width) if channels != width else None

    def forward(self, inputs: Tensor, lengths: Tensor | None, weights: Tensor) -> Tensor:
        kept = inputs if self.shortcut is None else self.shortcut(inputs)
        hidden = self.tdnn2(self.res2net_block(self.tdnn1(inputs), lengths))
        return cast(Tensor, kept + self.se_block(hidden, weights))


class _AttentivePooling(torch.nn.Module):
    """Mean and deviation over time, each channel by weights of its own that see the plain mean and deviation."""

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.tdnn = _Layer(3 * channels, attention)
        self.conv = _Convolution(attention, channels)

    def forward(self, inputs: Tensor, mask: Tensor | None, weights: Tensor) -> Tensor:
        context = torch.cat([one[:, :, None].expand_as(inputs) for one in _statistics(inputs, weights)], dim=1)
        scores = self.conv(torch.tanh(self.tdnn(torch.cat([inputs, context], dim=1))))
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return torch.cat(_statistics(inputs, scores.softmax(dim=2)), dim=1)[:, :, None]


class EcapaTdnnNetwork(torch.nn.Module):
    """The network itself.

    Args:
        preparation: its sizes.
    """

    def __init__(self, preparation: EcapaTdnnPreparation | None = None) -> None:
        super().__init__()
        sizes = EcapaTdnnPreparation() if preparation is None else preparation
        widths, shapes = sizes.channels, tuple(zip(sizes.kernels, sizes.dilations, strict=True))
        self.blocks = torch.nn.ModuleList([_Layer(sizes.bands, widths[0], *shapes[0])])
        for place in range(1, len(widths) - 1):
            self.blocks.append(_Block(widths[place - 1], widths[place], *shapes[place], sizes))
        self.mfa = _Layer(sum(widths[1:-1]), widths[-1], *shapes[-1])
        self.asp = _AttentivePooling(widths[-1], sizes.attention)
        self.asp_bn = _Normalisation(2 * widths[-1])
        self.fc = _Convolution(2 * widths[-1], sizes.dimension)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed sounds.

        In evaluation a row depends neither on its neighbours nor on padding. In training, batch normalisation takes
        its statistics over everything, padding included: train on sounds of one length.

        Args:
            features: (n, frames, bands) float32 of :class:`EcapaBands`, more frames than any reflection takes (4
                with the public sizes).
            lengths: (n,) int64, frames that count; None when all do.

        Returns:
            (n, dimension) float32, not normalised.
        """
        hidden, mask = features.transpose(1, 2), None
        weights = torch.full_like(hidden[:1, :1], 1.0 / hidden.shape[2])  # of a plain mean over time
        if lengths is not None:
            lengths = lengths.to(features.device)
            mask = counts_mask(lengths, hidden.shape[2])[:, None]
            hidden = hidden.masked_fill(~mask, 0.0)
            weights = mask.to(hidden.dtype) / lengths[:, None, None].to(hidden.dtype)
        first, *blocks = self.blocks
        hidden, outputs = first(hidden, lengths), []
        for block in blocks:
            hidden = block(hidden, lengths, weights)
            outputs.append(hidden)
        pooled = self.asp(self.mfa(torch.cat(outputs, dim=1), lengths), mask, weights)
        return cast(Tensor, self.fc(self.asp_bn(pooled))[:, :, 0])


class EcapaTdnn(SpectralVoice):
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: speechbrain's ``embedding_model.ckpt``, or a file of :meth:`own_weights`.
        preparation: fields of :class:`EcapaTdnnPreparation`.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        sizes = read_preparation("ecapa_tdnn", EcapaTdnnPreparation, preparation)
        network = EcapaTdnnNetwork(sizes)
        fill(network, public_parameters(weights), weights)
        super().__init__(network, EcapaBands(sizes.bands), sizes, device, precision)


def public_parameters(path: Path) -> dict[str, Tensor]:
    """The network's parameters from speechbrain's ``embedding_model.ckpt`` or a safetensors file of the same names.

    Raises:
        ValueError: the file holds no tensors by name.
    """
    return read_tensors(path)


def _reflected(inputs: Tensor, margin: int, lengths: Tensor | None) -> Tensor:
    """(n, channels, frames) -> (n, channels, margin + frames + margin), mirrored at the first and last frame.

    The mirror image goes on behind each sound's own last frame; what is further behind means nothing.
    """
    if margin == 0:
        return inputs
    if lengths is None:
        return pad(inputs, (margin, margin), mode="reflect")
    frames, last = inputs.shape[2], lengths[:, None] - 1
    places = torch.arange(-margin, frames + margin, device=inputs.device).abs().expand(len(inputs), -1)
    places = torch.where(places > last, 2 * last - places, places).clamp(min=0)
    return inputs.gather(2, places[:, None].expand(-1, inputs.shape[1], -1))


def _statistics(inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(n, channels, frames) and weights that sum to 1 over time -> mean and deviation, (n, channels) each."""
    mean = (weights * inputs).sum(dim=2)
    variance = (weights * (inputs - mean[:, :, None]).square()).sum(dim=2)
    return mean, variance.clamp(min=_LEAST_VARIANCE).sqrt()
