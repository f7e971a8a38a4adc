"""What networks over spectra share when they serve: from a sound to frames, windows of long sounds, batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.acoustics import sound_level
from encoders.backbones.backbone import Unusable
from encoders.backbones.public_files import plain_parameters
from encoders.backbones.serving import exact_type
from encoders.backbones.small_voice import windows_of
from encoders.backbones.windows import embed_windows
from encoders.spectra import STEP, loud_or_whole
from encoders.voice import SAMPLE_RATE


@dataclass(frozen=True)
class SoundLimits:
    """Which sounds are usable, and what is done with long ones; fields of every preparation here.

    Args:
        least_seconds: shorter sounds are unusable.
        silence_dbfs: softer sounds are unusable.
        most_seconds: longer sounds are cut into the fewest windows of this length, whose vectors are averaged.
    """

    least_seconds: float = 0.4
    silence_dbfs: float = -60.0
    most_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.least_seconds < 0.1:
            raise ValueError(f"least_seconds must be at least 0.1, got {self.least_seconds}")
        if self.most_seconds < self.least_seconds:
            raise ValueError(
                f"most_seconds must be at least least_seconds ({self.least_seconds}), got {self.most_seconds}"
            )


class SizedPreparation(Protocol):
    """A preparation with limits that also says how wide the network's output is."""

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        ...

    @property
    def least_seconds(self) -> float:
        """See :class:`SoundLimits`."""
        ...

    @property
    def silence_dbfs(self) -> float:
        """See :class:`SoundLimits`."""
        ...

    @property
    def most_seconds(self) -> float:
        """See :class:`SoundLimits`."""
        ...


def checked_sound(sample: NDArray[np.float32], preparation: Any) -> NDArray[np.float32] | Unusable:  # noqa: ANN401
    """What counts of a sound as float32, or why it cannot be used by the preparation's limits.

    All of it, or where the preparation has a ``quiet_below``, its loud frames. Raises ValueError: it is not mono.
    """
    waveform = np.asarray(sample, dtype=np.float32)
    level = sound_level(waveform, preparation.least_seconds, preparation.silence_dbfs)
    if isinstance(level, Unusable):
        return level
    quiet_below = getattr(preparation, "quiet_below", None)
    return waveform if quiet_below is None else loud_or_whole(torch.from_numpy(waveform), quiet_below).numpy()


def embed_long(
    network: Callable[[Tensor, Tensor | None], Tensor], sounds: Sequence[Tensor], dimension: int, most: int, budget: int
) -> NDArray[np.float32]:
    """One row per sound: of a long one the mean of its windows'.

    Args:
        network: as :func:`embed_windows` takes it.
        sounds: (length_i, ...) each, on the network's device.
        dimension: of a row.
        most: length of the longest window.
        budget: length of all windows of one batch together, padding included; bounds memory. A window is never cut.

    Returns:
        (sounds, dimension) float32.
    """
    pieces, owners = [], []
    for owner, sound in enumerate(sounds):
        cut = windows_of(len(sound), most)
        pieces += [sound[start:end] for start, end in cut]
        owners += [owner] * len(cut)
    sums = np.zeros((len(sounds), dimension))
    order = sorted(range(len(pieces)), key=lambda place: len(pieces[place]))
    while order:
        count = max(1, budget // len(pieces[order[-1]]))
        places, order = order[-count:], order[:-count]
        rows = embed_windows(network, [pieces[place] for place in places], dimension=dimension, batch=count)
        np.add.at(sums, [owners[place] for place in places], rows)
    counts = np.bincount(owners, minlength=len(sounds))[:, None]
    means: NDArray[np.float32] = (sums / np.maximum(counts, 1)).astype(np.float32)
    return means


class SpectralVoice:
    """A network over the frames of a front end. See :class:`Backbone`.

    Args:
        network: in evaluation; ``(n, frames, bands)`` float32 and ``(n,)`` lengths or None to ``(n, dimension)``,
            where neither neighbours nor padding matter.
        features: ``(n, samples)`` to ``(n, frames, bands)``.
        preparation: its limits and dimension.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown precision.
    """

    _BUDGET = 6_000  # frames of one batch: a minute of sound

    def __init__(
        self,
        network: torch.nn.Module,
        features: torch.nn.Module,
        preparation: SizedPreparation,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self._preparation, self._device, self._dtype = preparation, torch.device(device), exact_type(precision)
        self._network, self._features = network.to(self._device).eval(), features.to(self._device).eval()

    @property
    def preparation(self) -> Any:  # noqa: ANN401 - each network has its own
        """See Backbone.preparation."""
        return self._preparation

    def prepare(self, sample: NDArray[np.float32]) -> Tensor | Unusable:
        """(samples,) float32 at 16 kHz to (frames, bands) float32 on the device, or why not."""
        waveform = checked_sound(sample, self._preparation)
        if isinstance(waveform, Unusable):
            return waveform
        with torch.no_grad():  # not inference_mode, whose tensors could not go into training
            return cast(Tensor, self._features(torch.from_numpy(waveform)[None].to(self._device))[0])

    def embed(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """(frames_i, bands) each to (samples, dimension) float32: the mean of each one's windows."""
        most = round(self._preparation.most_seconds * SAMPLE_RATE) // STEP + 1
        return embed_long(self._run, prepared, self._preparation.dimension, most, self._BUDGET)

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters under their public names, on the CPU."""
        return plain_parameters(self._network)

    def _run(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            return cast(Tensor, self._network(frames, lengths)).float()
