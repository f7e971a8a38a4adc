"""What makes a run come out the same twice: the randomness of a step, and deterministic kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from training.runs import RunSettings


def step_seed(seed: int, epoch: int, batch: int) -> int:
    """Seed of the networks' own randomness in one step: 63 bits, different for every step."""
    digest = hashlib.sha256(f"step {seed} {epoch} {batch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_step(seed: int, device: torch.device) -> None:
    """Set the randomness of a step's device, and of the CPU.

    ``torch.manual_seed`` does this for every kind of device there might be, and writes the whole stack of callers down
    for those that are not there: a tenth of a millisecond and more in every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def reproducible(run: RunSettings) -> Iterator[None]:
    """The same numbers again: deterministic kernels where there are any; the caller's torch is left as it was."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads, device = torch.get_num_threads(), run.torch_device()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    # every result of every layer would first be filled, to show who reads what nobody wrote: a good part of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(run.threads)
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.set_num_threads(threads)
