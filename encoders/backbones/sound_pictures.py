"""Sound as pictures, so that one network sees faces and voices: S1's single stream.

A spectrogram of ``bands`` frequencies is looked at through square windows of as many frames, each a grey picture in
three channels with time from left to right: of a face's size, so that faces and sounds go through a network in one
batch, whose normalisations then know one statistic for both. A shorter sound is repeated; a longer one is covered by
the fewest windows, evenly laid, and its features are their mean. S1 leaves the picture's size and channels out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from encoders.acoustics import sound_level
from encoders.backbones.backbone import Unusable
from encoders.backbones.small_voice import windows_of
from encoders.spectra import loud_or_whole

AT_ONCE = 32  # pictures that a network in evaluation is given at a time: bounds memory


@dataclass(frozen=True)
class PicturedSound:
    """Which sounds are usable, and what of them is seen; fields of every preparation here.

    Args:
        bands: frequencies of a frame, and frames of a window.
        quiet_below: decibels under the loudest frame; quieter frames are left out (S1 gives no threshold).
        least_seconds: shorter sounds are unusable.
        silence_dbfs: softer sounds are unusable.
    """

    bands: int = 256
    quiet_below: float = 40.0
    least_seconds: float = 0.4
    silence_dbfs: float = -60.0

    def __post_init__(self) -> None:
        if self.least_seconds < 0.1:
            raise ValueError(f"least_seconds must be at least 0.1, got {self.least_seconds}")
        if self.quiet_below <= 0:
            raise ValueError(f"quiet_below must be above 0, got {self.quiet_below}")


def loud_part(sample: NDArray[np.float32], limits: PicturedSound) -> Tensor | Unusable:
    """A sound less its quiet frames, or why it cannot be used.

    Args:
        sample: (samples,) float32 mono at 16 kHz.
        limits: see :class:`PicturedSound`.

    Returns:
        (kept samples,) float32, at least 0.1 s.

    Raises:
        ValueError: the sound is not (samples,).
    """
    waveform = np.asarray(sample, dtype=np.float32)
    level = sound_level(waveform, limits.least_seconds, limits.silence_dbfs)
    if isinstance(level, Unusable):
        return level
    return loud_or_whole(torch.from_numpy(waveform), limits.quiet_below)


def sounds_to_pictures(spectra: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Spectrograms as the pictures that a network of faces takes.

    Args:
        spectra: (n, frames, bands) float32.
        lengths: (n,) int64 in 1 to frames, frames that count; None when all do.

    Returns:
        ``(k, 3, bands, bands)`` float32, three times the same channel (a view, not copied), with the frequencies
        from top to bottom; and ``(k,)`` int64 whose sound each is of, rising.
    """
    side = spectra.shape[2]
    counts = [spectra.shape[1]] * len(spectra) if lengths is None else [int(one) for one in lengths]
    windows = [(owner, count, start) for owner, count in enumerate(counts) for start, _ in windows_of(count, side)]
    owners, whole, starts = torch.tensor(windows, device=spectra.device).reshape(-1, 3).T
    # of a sound that is shorter than a window the frames come round again
    frames = (starts[:, None] + torch.arange(side, device=spectra.device)) % whole[:, None]
    squares = spectra[owners[:, None], frames].transpose(1, 2)
    return squares[:, None].expand(-1, 3, -1, -1), owners


def mean_by_owner(rows: Tensor, owners: Tensor, count: int) -> Tensor:
    """(k, d) rows and (k,) whose each is -> (count, d): everybody's mean. Everybody owns a row."""
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, owners, rows)
    return sums / torch.bincount(owners, minlength=count)[:, None].to(rows.dtype)


def picture_features(network: Callable[[Tensor], Tensor], inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Features of pictures, or of sounds by their windows.

    Args:
        network: ``(k, 3, height, width)`` float32 to ``(k, d)``.
        inputs: (n, 3, height, width) pictures, or (n, frames, bands) spectrograms.
        lengths: of spectrograms, (n,) int64 frames that count; None when all do.

    Returns:
        (n, d) float32.
    """
    if inputs.dim() == 4:
        return network(inputs)
    pictures, owners = sounds_to_pictures(inputs, lengths)
    if torch.is_grad_enabled():
        return mean_by_owner(network(pictures), owners, len(inputs))
    rows = torch.cat([network(pictures[first : first + AT_ONCE]) for first in range(0, len(pictures), AT_ONCE)])
    return mean_by_owner(rows, owners, len(inputs))


class PictureVoice:
    """A network of pictures that hears. See :class:`~encoders.backbones.backbone.Backbone`.

    Args:
        network: whose parameters are kept, in evaluation.
        served: the same to be asked, on its device: ``(n, frames, bands)`` and lengths to ``(n, dimension)``.
        preparation: a :class:`PicturedSound` with a dimension.
        prepare: a sound to ``(frames, bands)`` float32, or why not; needs no weights.
        device: a torch device.
    """

    _BATCH = 16  # sounds per call

    def __init__(
        self,
        network: torch.nn.Module,
        served: Callable[[Tensor, Tensor | None], Tensor],
        preparation: Any,  # noqa: ANN401 - each network has its own
        prepare: Callable[[NDArray[np.float32], Any], Tensor | Unusable],
        device: torch.device,
    ) -> None:
        self.preparation = preparation
        self._network, self._served, self._prepare, self._device = network, served, prepare, device

    def prepare(self, sample: NDArray[np.float32]) -> Tensor | Unusable:
        """(samples,) float32 at 16 kHz to (frames, bands) float32 on the CPU, or why not."""
        return self._prepare(sample, self.preparation)

    def embed(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """(frames_i, bands) each to (samples, dimension) float32."""
        rows = [np.zeros((0, self.preparation.dimension), dtype=np.float32)]
        for first in range(0, len(prepared), self._BATCH):
            some = prepared[first : first + self._BATCH]
            lengths = torch.tensor([len(one) for one in some])
            spectra = pad_sequence(list(some), batch_first=True).to(self._device)
            with torch.inference_mode():
                rows.append(self._served(spectra, lengths).float().cpu().numpy())
        return np.concatenate(rows)

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters as they were loaded, on the CPU."""
        return cast(Mapping[str, Tensor], self._network.state_dict())
