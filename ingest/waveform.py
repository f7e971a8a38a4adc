"""Sound as it grows while it is decoded: one block of memory, however long the sound is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Waveform:
    """Samples that are appended, in one array that grows in place.

    A pile of pieces that is joined at the end would need the memory twice, and hours of sound are
    gigabytes.

    Args:
        expected: number of samples that will probably be added; more are no error, and room that is not
            used costs no memory.
    """

    def __init__(self, expected: int) -> None:
        self._room = np.empty(max(expected, 1), np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, samples: NDArray[np.float32]) -> None:
        """Add (n,) samples at the end."""
        start = self._grow(len(samples))
        self._room[start : self._count] = samples

    def pad(self, count: int) -> None:
        """Make it ``count`` samples long with silence; one that is as long already stays."""
        if count > self._count:
            start = self._grow(count - self._count)
            self._room[start : self._count] = 0.0

    def finish(self, channels: int, warnings: list[str]) -> NDArray[np.float32]:
        """Everything added, finite and within [-1, 1]; it can be called once, as the last.

        Args:
            channels: number of channels that were mixed.
            warnings: sentences about what was odd are added here.

        Returns:
            (samples,) float32.
        """
        whole, self._room = self._room, np.empty(0, np.float32)
        whole.resize(self._count, refcheck=False)
        low, high = _range(whole)
        if not np.isfinite([low, high]).all():
            warnings.append("the sound holds values that are no numbers: they were taken as silence")
            np.nan_to_num(whole, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            low, high = _range(whole)
        peak = max(-low, high)
        if peak > 1.0 and channels > 2:
            whole /= np.float32(peak)  # the mix of many channels is louder than each: no clipping
        elif peak > 1.0:
            np.clip(whole, -1.0, 1.0, out=whole)
        return whole

    def _grow(self, count: int) -> int:
        """Make room for more samples; returns where they begin."""
        start = self._count
        self._count += count
        if self._count > len(self._room):
            self._room.resize(max(self._count, len(self._room) * 5 // 4), refcheck=False)
        return start


def _range(whole: NDArray[np.float32]) -> tuple[float, float]:
    """Least and greatest of the samples and 0, NaN if one of them is; no array is made on the way."""
    with np.errstate(invalid="ignore"):
        return float(whole.min(initial=0.0)), float(whole.max(initial=0.0))
