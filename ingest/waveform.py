"""Sound as it grows while it is decoded: one block of memory, or of a file if it is long."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 600 * 16_000
"""Samples (ten minutes) up to which a sound is held in memory; hours would be gigabytes."""
_BLOCK = 2**22


class Waveform:
    """Samples that are appended, in one array that grows in place.

    A pile of pieces that is joined at the end would need the memory twice. A long sound lies in a temporary file
    without a name, mapped into memory: the system keeps of it what there is room for, and it is gone with the array.
    Where no file can be written (in the sandbox) it stays in memory.

    Args:
        expected: number of samples that will probably be added; more are no error, and room that is not
            used costs no memory.
        in_memory: number of samples above which they lie in a file.
    """

    def __init__(self, expected: int, in_memory: int = IN_MEMORY) -> None:
        self._room = np.empty(max(expected, 1), np.float32)
        self._count = 0
        self._in_memory = in_memory
        self._mapped = False

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

    def finish(self, warnings: list[str]) -> NDArray[np.float32]:
        """Everything added, finite and within [-1, 1]; it can be called once, as the last.

        Args:
            warnings: sentences about what was odd are added here.

        Returns:
            (samples,) float32.
        """
        whole, self._room = self._room, np.empty(0, np.float32)
        if self._mapped:
            whole = whole[: self._count]
        else:
            whole.resize(self._count, refcheck=False)
        low, high = _range(whole)
        if not np.isfinite([low, high]).all():
            warnings.append("the sound holds values that are no numbers: they were taken as silence")
            for start in range(0, len(whole), _BLOCK):
                np.nan_to_num(whole[start : start + _BLOCK], copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            low, high = _range(whole)
        if low < -1.0 or high > 1.0:
            np.clip(whole, -1.0, 1.0, out=whole)
        return whole

    def _grow(self, count: int) -> int:
        """Make room for more samples; returns where they begin."""
        start = self._count
        self._count += count
        room = max(self._count, len(self._room) * 5 // 4) if self._count > len(self._room) else len(self._room)
        if self._count > self._in_memory and (not self._mapped or room > len(self._room)):
            self._map(room, start)
        elif room > len(self._room):
            self._room.resize(room, refcheck=False)
        return start

    def _map(self, room: int, filled: int) -> None:
        """Move what there is into a file with room for ``room`` samples; or into more memory, if no file can be."""
        try:
            larger = _file_of(room)
        except OSError:
            self._in_memory = 2**62
            larger, self._mapped = np.empty(room, np.float32), False
        else:
            self._mapped = True
        larger[:filled] = self._room[:filled]
        self._room = larger


def is_mapped(samples: NDArray[np.float32]) -> bool:
    """Whether samples, or what they are a part of, lie in a file."""
    return _mapping_of(samples) is not None


def let_go(samples: NDArray[np.float32]) -> None:
    """Tell the system that samples in a file will not be read soon: they need not stay in memory, and are not lost."""
    mapping = _mapping_of(samples)
    if mapping is not None and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _file_of(room: int) -> NDArray[np.float32]:
    """(room,) float32 in a file without a name; raises OSError."""
    with tempfile.TemporaryFile(prefix="visavox-sound-") as file:
        # Reserved, not only announced: writing to what the disk has no room for would kill the process.
        os.posix_fallocate(file.fileno(), 0, room * 4)
        return np.frombuffer(mmap.mmap(file.fileno(), room * 4), np.float32)


def _mapping_of(samples: NDArray[np.float32]) -> mmap.mmap | None:
    owner: object = samples
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, mmap.mmap) else None


def _range(whole: NDArray[np.float32]) -> tuple[float, float]:
    """Least and greatest of the samples and 0, NaN if one of them is; no array is made on the way."""
    with np.errstate(invalid="ignore"):
        return float(whole.min(initial=0.0)), float(whole.max(initial=0.0))
