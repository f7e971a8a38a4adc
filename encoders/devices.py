"""Which accelerators there are, and which one is whose."""

from __future__ import annotations

import torch

from encoders.folder import EncoderError


def device_name(device: str) -> str:
    """The name of a torch device that is there; ``auto`` is CUDA where there is one.

    Raises:
        EncoderError: it is no device, or none that is here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise EncoderError(f"{device!r} is no torch device; use cpu, cuda, cuda:1 or auto") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise EncoderError(f"{device!r} was asked for, but there is no CUDA device here; use cpu or auto")
    return device


def count_devices(wanted: str) -> int:
    """On how many devices a machine's networks can run: as many children of a worker make sense.

    The driver's management library is asked; CUDA itself is not begun in this process.

    Args:
        wanted: ``auto`` and ``cuda`` mean any GPU; everything else is one device.
    """
    return max(1, torch.cuda.device_count()) if wanted in ("auto", "cuda") else 1


def device_of(wanted: str, number: int) -> str:
    """The device of one of several processes that share a machine.

    Args:
        wanted: as in ``count_devices``; a device that is named is everybody's.
        number: of the process, from 0.
    """
    there = torch.cuda.device_count() if wanted in ("auto", "cuda") else 0
    return f"cuda:{number % there}" if there else wanted
