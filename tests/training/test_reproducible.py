"""The randomness of a step, and torch as it was before and after a training."""

from __future__ import annotations

import pytest
import torch

from training.reproducible import reproducible, seed_step
from training.runs import RunSettings


def test_a_step_is_seeded_as_torch_itself_does_it_without_a_word_to_devices_that_are_not_there() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2**62 + 7)
        wanted, noted = torch.rand(3), torch.cuda._lazy_seed_tracker.manual_seed_all_cb
        seed_step(2**62 + 7, torch.device("cpu"))
        assert torch.equal(torch.rand(3), wanted)
        assert torch.cuda._lazy_seed_tracker.manual_seed_all_cb is noted


@pytest.mark.parametrize("before", [True, False])
def test_torch_is_deterministic_within_fills_no_memory_and_is_left_as_it_was(before: bool) -> None:
    settings, threads = torch.utils.deterministic, torch.get_num_threads()
    was = settings.fill_uninitialized_memory  # type: ignore[attr-defined]
    settings.fill_uninitialized_memory = before  # type: ignore[attr-defined]
    try:
        with reproducible(RunSettings(threads=1)):
            assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
            assert not settings.fill_uninitialized_memory  # type: ignore[attr-defined]
        assert settings.fill_uninitialized_memory is before  # type: ignore[attr-defined]
        assert not torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == threads
    finally:
        settings.fill_uninitialized_memory = was  # type: ignore[attr-defined]
