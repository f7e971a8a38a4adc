"""From sound to the spectra that the field's networks were trained on, in batches with lengths.

Every front end takes (n, samples) waveforms at 16 kHz and gives (n, frames, bands): a frame every 10 ms, centred on
its time, ``samples // 160 + 1`` of them. Outside a sound there are zeros, so a row of a padded batch has the frames
that the sound has alone; frames behind its end are zeros. Nothing here brings sounds to one level: each front end
has its own normalisation, by which level cancels out or, as where it was trained, nearly so.

- :class:`EcapaBands`: what speechbrain's recipe for ECAPA-TDNN does (``Fbank`` and sentence normalisation).
- :class:`LogMel`: DIMNet-Voice's input (Wen et al., "Disjoint Mapping Network", 2019), and S3's log-mel with 80 bands.
  Neither states its filters; these are the usual ones (HTK scale, 0 to 8 kHz, transform of 512 points).
- :class:`Cepstra`: the normalised mel cepstra of 25/10 ms that S2 and S3 name; S3 takes 80, S2 does not say.
- :class:`Magnitudes`: S1's spectrogram, whose sizes S1 leaves out; here those of Nagrani et al., "VoxCeleb" (2017):
  transform of 1,024 points, Hamming window of 25 ms every 10 ms, each bin at mean 0 and deviation 1; 512 bins by 100
  frames a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.acoustics import torchaudio
from encoders.voice import SAMPLE_RATE

STEP = SAMPLE_RATE // 100
"""Samples from one frame to the next: 10 ms."""
WINDOW = SAMPLE_RATE // 40
"""Samples that a frame looks at: 25 ms."""
_LEAST_LOUD = 4 * WINDOW  # samples

_TAPERS: dict[str, Callable[[int], Tensor]] = {"hamming": torch.hamming_window, "hann": torch.hann_window}
_LEAST_VARIANCE = 1e-5  # a band that never changes becomes 0, not noise blown up


def frame_counts(samples: Tensor) -> Tensor:
    """(n,) samples -> (n,) frames."""
    return samples // STEP + 1


def counts_mask(counts: Tensor, places: int) -> Tensor:
    """(n,) how many count -> (n, places) bool: which do, on the counts' device."""
    return torch.arange(places, device=counts.device) < counts[:, None]


@dataclass(frozen=True)
class Framing:
    """How sound is cut into frames and transformed.

    Args:
        size: points of the Fourier transform, at least :data:`WINDOW`; the window stands in its middle.
        taper: ``hamming`` or ``hann``, both periodic.
        power: 2 for energies, 1 for magnitudes.
    """

    size: int = WINDOW
    taper: str = "hamming"
    power: float = 2.0

    def __post_init__(self) -> None:
        if self.taper not in _TAPERS:
            raise ValueError(f"there is no taper {self.taper!r}; choose one of: {', '.join(_TAPERS)}")
        if self.size < WINDOW or self.size % 2:
            raise ValueError(f"size must be even and at least {WINDOW}, got {self.size}")


class Spectrogram(torch.nn.Module):
    """Energies or magnitudes by frequency.

    Args:
        framing: see :class:`Framing`.
    """

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        self.framing = framing
        self._window: Tensor
        self.register_buffer("_window", _TAPERS[framing.taper](WINDOW), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Transform sounds.

        Args:
            waveforms: (n, samples) float32.
            lengths: (n,) int64, samples that count; None when all do.

        Returns:
            (n, samples // 160 + 1, size // 2 + 1) float32, 0 or more; frames behind a sound's end mean nothing.
        """
        if lengths is not None:
            waveforms = waveforms.masked_fill(~counts_mask(lengths.to(waveforms.device), waveforms.shape[1]), 0.0)
        spectrum = torch.stft(
            waveforms,
            self.framing.size,
            hop_length=STEP,
            win_length=WINDOW,
            window=self._window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        energies: Tensor = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
        return energies if self.framing.power == 2.0 else energies ** (self.framing.power / 2.0)


def normalised(features: Tensor, lengths: Tensor | None, *, deviation: bool) -> Tensor:
    """Each band of each sound brought to mean 0, and to deviation 1 if asked for.

    Args:
        features: (n, frames, bands) float32.
        lengths: (n,) int64, frames that count; None when all do.
        deviation: whether the deviation becomes 1.

    Returns:
        The same shape; frames that do not count are 0.
    """
    if lengths is None:
        mask, counts = torch.ones_like(features[:, :, :1]), features.new_tensor(float(features.shape[1]))
    else:
        lengths = lengths.to(features.device)
        mask = counts_mask(lengths, features.shape[1])[:, :, None].to(features.dtype)
        counts = lengths[:, None, None].to(features.dtype)
    features = features.masked_fill(mask == 0, 0.0)
    centred = (features - features.sum(dim=1, keepdim=True) / counts) * mask
    if not deviation:
        return centred
    variance = centred.square().sum(dim=1, keepdim=True) / counts
    return centred / (variance + _LEAST_VARIANCE).sqrt()


class EcapaBands(torch.nn.Module):
    """speechbrain's ``Fbank`` followed by its sentence normalisation: what its ECAPA-TDNN was trained on.

    Energies of a Hamming window; triangles on the HTK mel scale from 0 to 8 kHz, whose flanks are both as wide as the
    distance to the centre below, and as high as 1; decibels not below 80 under the sound's loudest; mean 0.

    Args:
        bands: mel bands; the public network takes 80.
    """

    _LEAST_ENERGY = 1e-10
    _RANGE = 80.0  # decibels

    def __init__(self, bands: int = 80) -> None:
        super().__init__()
        self.bands = bands
        self._spectrogram = Spectrogram(Framing())
        self._filters: Tensor
        self.register_buffer("_filters", _ecapa_filters(bands), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(n, samples) float32, (n,) samples that count -> (n, frames, bands) float32, zeros behind each end."""
        energies = self._spectrogram(waveforms, lengths) @ self._filters
        decibels = 10.0 * energies.clamp(min=self._LEAST_ENERGY).log10()
        counted, counts = decibels, None
        if lengths is not None:
            counts = frame_counts(lengths.to(decibels.device))
            counted = decibels.masked_fill(~counts_mask(counts, decibels.shape[1])[:, :, None], -math.inf)
        floor = counted.amax(dim=(1, 2), keepdim=True) - self._RANGE
        return normalised(torch.maximum(decibels, floor), counts, deviation=False)


class LogMel(torch.nn.Module):
    """Logarithms of mel energies, each band brought to mean 0 and deviation 1 over the sound.

    Args:
        bands: on the HTK mel scale, from 0 to 8 kHz.
        centred: False leaves the logarithms as they are.
    """

    _FLOOR = 1e-6  # added to energies: about those of a sound of -90 dBFS

    def __init__(self, bands: int = 64, *, centred: bool = True) -> None:
        super().__init__()
        self.bands, self._centred = bands, centred
        self._spectrogram = Spectrogram(Framing(size=512))
        filters = torchaudio().functional.melscale_fbanks(257, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE)
        self._filters: Tensor
        self.register_buffer("_filters", filters, persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(n, samples) float32, (n,) samples that count -> (n, frames, bands) float32, zeros behind each end."""
        logarithms = (self._spectrogram(waveforms, lengths) @ self._filters + self._FLOOR).log()
        return _finished(logarithms, lengths, self._centred)


class Cepstra(torch.nn.Module):
    """Mel-frequency cepstral coefficients, the first included, each brought to mean 0 and deviation 1.

    Args:
        coefficients: how many, at most 128; of as many log-mel bands, but at least 64.
    """

    def __init__(self, coefficients: int = 64) -> None:
        super().__init__()
        if not 1 <= coefficients <= 128:
            raise ValueError(f"there are 1 to 128 coefficients, got {coefficients}")
        self.bands = coefficients
        between = max(64, coefficients)
        self._log_mel = LogMel(between, centred=False)
        self._cosines: Tensor
        cosines = torchaudio().functional.create_dct(coefficients, between, norm="ortho")
        self.register_buffer("_cosines", cosines, persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(n, samples) float32, (n,) samples that count -> (n, frames, coefficients), zeros behind each end."""
        return _finished(self._log_mel(waveforms, lengths) @ self._cosines, lengths, True)


class Magnitudes(torch.nn.Module):
    """Short-time magnitudes, each frequency brought to mean 0 and deviation 1: a picture one channel deep.

    Args:
        bins: the lowest this many of 513 frequencies, 15.625 Hz apart.
    """

    def __init__(self, bins: int = 512) -> None:
        super().__init__()
        if not 1 <= bins <= 513:
            raise ValueError(f"there are 1 to 513 frequencies, got {bins}")
        self.bands = bins
        self._spectrogram = Spectrogram(Framing(size=1024, power=1.0))

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(n, samples) float32, (n,) samples that count -> (n, frames, bins) float32, zeros behind each end."""
        return _finished(self._spectrogram(waveforms, lengths)[:, :, : self.bands], lengths, True)


FRONT_ENDS: dict[str, Callable[[int], torch.nn.Module]] = {
    "ecapa": EcapaBands,
    "log_mel": LogMel,
    "mfcc": Cepstra,
    "magnitude": Magnitudes,
}
"""By the name that preparations use; each is made with its number of bands."""


def front_end(kind: str, bands: int) -> torch.nn.Module:
    """The front end of this name. Raises ValueError naming those there are."""
    if kind not in FRONT_ENDS:
        raise ValueError(f"there are no features {kind!r}; choose one of: {', '.join(FRONT_ENDS)}")
    if bands < 1:
        raise ValueError(f"bands must be at least 1, got {bands}")
    return FRONT_ENDS[kind](bands).eval()


def loud_or_whole(waveform: Tensor, below: float) -> Tensor:
    """A sound less its quiet frames (:func:`without_quiet_frames`); whole where less than 0.1 s of it is loud."""
    kept = without_quiet_frames(waveform, below)
    return kept if len(kept) >= _LEAST_LOUD else waveform


def without_quiet_frames(waveform: Tensor, below: float = 40.0) -> Tensor:
    """The stretches of a sound whose frames are loud enough, joined: S1's silence removal.

    A frame of 25 ms every 10 ms stands for the 10 ms that it begins with; its energy is the sum of its squares.

    Args:
        waveform: (samples,) float32.
        below: decibels under the loudest frame; frames that are quieter go. The paper gives no threshold.

    Returns:
        (kept samples,) float32; all of a sound shorter than a frame or silent throughout.
    """
    if len(waveform) < WINDOW:
        return waveform
    energies = waveform.unfold(0, WINDOW, STEP).square().sum(dim=1)
    loud = energies >= energies.max() * 10.0 ** (-below / 10.0)
    kept = loud.repeat_interleave(STEP)
    tail = len(waveform) - len(kept)  # the last frame stands for the rest too
    return waveform[torch.cat([kept, loud[-1:].expand(tail)])]


def _finished(features: Tensor, lengths: Tensor | None, centred: bool) -> Tensor:
    """Features normalised if asked for, and zeros behind each sound's end."""
    counts = None if lengths is None else frame_counts(lengths.to(features.device))
    if centred:
        return normalised(features, counts, deviation=True)
    if counts is None:
        return features
    return features.masked_fill(~counts_mask(counts, features.shape[1])[:, :, None], 0.0)


def _ecapa_filters(bands: int) -> Tensor:
    """(201, bands) float32 triangles."""
    highest = 2595.0 * math.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    corners = 700.0 * (10.0 ** (torch.linspace(0.0, highest, bands + 2) / 2595.0) - 1.0)
    centres, widths = corners[1:-1], corners[1:-1] - corners[:-2]
    slopes = (torch.linspace(0, SAMPLE_RATE // 2, WINDOW // 2 + 1)[:, None] - centres) / widths
    return (1.0 - slopes.abs()).clamp(min=0.0)
