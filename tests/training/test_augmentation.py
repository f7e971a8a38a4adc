import numpy as np
import pytest
import torch

from training.augmentation import SpecAugment, spec_augment


def blanked(settings, seed=0, shape=(400, 50, 80), lengths=None):
    """(n, frames, bands) bool: what is blanked out of ones."""
    return spec_augment(torch.ones(shape), settings, np.random.default_rng(seed), lengths) == 0


def widths(mask):
    """Of a row of truth values each: how many are true; and whether those stand side by side."""
    joined = all(np.diff(np.flatnonzero(row)).max(initial=1) == 1 for row in mask.numpy())
    return mask.sum(dim=1), joined


def test_stretches_of_frames_are_0_to_5_wide_each_width_as_often_and_go_through_all_bands():
    mask = blanked(SpecAugment(bands=0))
    wide, joined = widths(mask[:, :, 0])
    assert joined and torch.equal(mask, mask[:, :, :1].expand_as(mask))
    counts = np.bincount(wide.numpy(), minlength=6)
    assert len(counts) == 6 and counts.min() > 40  # 67 of each are expected


def test_stretches_of_bands_are_0_to_10_wide_and_go_through_all_frames():
    mask = blanked(SpecAugment(frames=0))
    wide, joined = widths(mask[:, 0])
    assert joined and torch.equal(mask, mask[:, :1].expand_as(mask))
    assert set(wide.tolist()) == set(range(11))


def test_both_are_drawn_and_every_place_can_be_blanked_out():
    mask = blanked(SpecAugment())
    assert mask.any(dim=2).any(dim=0).all() and mask.any(dim=1).any(dim=0).all()
    assert float(mask.float().mean()) == pytest.approx(2.5 / 50 + 5 / 80 - 2.5 / 50 * 5 / 80, abs=0.01)


def test_the_same_seed_blanks_out_the_same_and_sounds_differ():
    first = blanked(SpecAugment(), seed=4)
    assert torch.equal(first, blanked(SpecAugment(), seed=4))
    assert not torch.equal(first, blanked(SpecAugment(), seed=5)) and not torch.equal(first[0], first[1])


def test_several_stretches_blank_out_more():
    one, two = (blanked(SpecAugment(frame_stretches=count, bands=0)).float().mean() for count in (1, 3))
    assert two > 2 * one


def test_no_stretch_of_frames_reaches_behind_a_sounds_end_or_is_wider_than_it():
    lengths = torch.tensor([1, 3, 20, 50] * 100)
    mask = blanked(SpecAugment(bands=0), lengths=lengths)[:, :, 0]
    behind = torch.arange(50) >= lengths[:, None]
    assert not (mask & behind).any() and mask[1::4, :3].any() and mask[2::4, 15:20].any()


def test_what_is_not_blanked_out_stays_and_the_original_too():
    features = torch.randn(3, 20, 40)
    before = features.clone()
    varied = spec_augment(features, SpecAugment(value=-7.0), np.random.default_rng(1))
    assert torch.equal(features, before)
    assert torch.equal(varied[varied != -7.0], features[varied != -7.0]) and (varied == -7.0).any()


def test_spectra_narrower_than_a_stretch_are_no_problem():
    assert blanked(SpecAugment(frames=9, bands=9), shape=(50, 2, 3)).any()


def test_negative_widths_are_refused():
    with pytest.raises(ValueError, match=r"at least 0, got \(-1"):
        SpecAugment(frames=-1)
