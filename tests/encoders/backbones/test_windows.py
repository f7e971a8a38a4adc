import numpy as np
import pytest
import torch

from encoders.backbones.windows import embed_windows

PIECES = [torch.randn(frames, 3, generator=torch.Generator().manual_seed(frames)) for frames in (7, 2, 7, 4, 2, 9)]


def mean_of_valid(mels, lengths):
    """(n, frames, 3) -> (n, 3): what a network gives whose rows do not depend on padding."""
    if lengths is None:
        return mels.mean(dim=1)
    return torch.stack([mel[:length].mean(dim=0) for mel, length in zip(mels, lengths, strict=True)])


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_rows_come_in_the_order_of_the_windows_whatever_the_batch(batch):
    rows = embed_windows(mean_of_valid, PIECES, dimension=3, batch=batch)
    np.testing.assert_allclose(rows, torch.stack([piece.mean(dim=0) for piece in PIECES]), rtol=1e-5)


def test_windows_of_like_length_share_a_batch_and_need_no_lengths():
    calls = []

    def network(mels, lengths):
        calls.append((tuple(mels.shape), lengths is None))
        return mean_of_valid(mels, lengths)

    embed_windows(network, PIECES, dimension=3, batch=2)
    assert calls == [((2, 2, 3), True), ((2, 7, 3), False), ((2, 9, 3), False)]


def test_no_windows_make_no_rows():
    assert embed_windows(mean_of_valid, [], dimension=3, batch=4).shape == (0, 3)
