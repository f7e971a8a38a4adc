"""Batches of windows of sound: those of like length together, so that little is padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def embed_windows(
    network: Callable[[Tensor, Tensor | None], Tensor], pieces: Sequence[Tensor], *, dimension: int, batch: int
) -> NDArray[np.float32]:
    """One row per window, in the order given.

    Args:
        network: ``(n, frames, bands)`` float32 and ``(n,)`` int64 lengths on the CPU, None when all are full, to
            ``(n, dimension)``; a row may depend neither on its neighbours nor on padding.
        pieces: (frames_i, bands) float32 windows, all on the network's device.
        dimension: of a row.
        batch: windows per call, at most.

    Returns:
        (windows, dimension) float32.
    """
    rows = np.zeros((len(pieces), dimension), dtype=np.float32)
    order = sorted(range(len(pieces)), key=lambda place: len(pieces[place]))
    for first in range(0, len(order), batch):
        places = order[first : first + batch]
        some = [pieces[place] for place in places]
        lengths = None
        if len(some[0]) == len(some[-1]):
            together = torch.stack(some)
        else:
            lengths, together = torch.tensor([len(one) for one in some]), pad_sequence(some, batch_first=True)
        with torch.inference_mode():
            rows[places] = network(together, lengths).cpu().numpy()
    return rows
