"""Which of several streams of sound of one film is listened to: the one that players choose, unless it is silent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# An unplugged microphone, as a share of full scale: -60 dB.
SILENT_PEAK = 1e-3
# How much of the streams is listened to before the chosen one counts as silent. Seconds.
LISTEN_SECONDS = 600.0
# Streams beyond these, in order of preference, are not tried.
MOST_LISTENED_TO = 8


class Levels:
    """How loud the streams of one film are as far as they were heard.

    The first is chosen as soon as anything is heard in it. If it is silent for ten minutes, or throughout, the
    loudest is chosen; if all are, the first. So the choice depends on the file alone, never on the part that is
    wanted of it, and costs next to nothing unless the first is silent.

    Args:
        names: of the streams, in order of preference, at least one; only the first eight are tried.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if not names:
            raise ValueError("no stream of sound to choose from: ask only where there is one")
        self._names = tuple(names)
        self.tried = min(len(names), MOST_LISTENED_TO)
        """Number of streams that are worth decoding."""
        self._energy = np.zeros(self.tried)
        self._seconds = np.zeros(self.tried)
        self._peak = np.zeros(self.tried)

    def add(self, place: int, samples: NDArray[np.generic], seconds: float) -> None:
        """Hear a piece of the stream at a place of the order: samples of any integer or float type and shape."""
        heard = _scaled(samples)
        self._peak[place] = max(self._peak[place], np.abs(heard).max(initial=0.0))
        self._energy[place] += float(np.square(heard).mean()) * seconds if heard.size else 0.0
        self._seconds[place] += seconds

    @property
    def decided(self) -> bool:
        """Whether more of the streams would change nothing, or costs too much."""
        return bool(self._peak[0] > SILENT_PEAK or self._seconds.max() >= LISTEN_SECONDS)

    @property
    def chosen(self) -> int:
        """Place of the stream to use."""
        loudest = int(self._energy.argmax())
        return 0 if self._peak[0] > SILENT_PEAK or self._peak[loudest] <= SILENT_PEAK else loudest

    def sentence(self) -> str:
        """What was chosen, for people."""
        first, used = self._names[0], self._names[self.chosen]
        if self.chosen:
            return f"holds {len(self._names)} streams of sound: {used} was used, because {first} is silent"
        return f"holds {len(self._names)} streams of sound: {used} was used, the others were left out"


def _scaled(samples: NDArray[np.generic]) -> NDArray[np.float64]:
    """Samples of any type as shares of full scale; what is no number is silence."""
    heard = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        return heard / 128 - 1
    if samples.dtype.kind == "i":
        return heard / 2.0 ** (8 * samples.itemsize - 1)
    return np.nan_to_num(heard, nan=0.0, posinf=0.0, neginf=0.0)
