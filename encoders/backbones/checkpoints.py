"""Reading public weight files of torch without running anything that lies in them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The parameters of a ``.pt``, ``.pth`` or ``.ckpt`` file, by name, on the CPU.

    Only tensors and plain containers are read: a file that would run code is refused.

    Raises:
        ValueError: the file is no such file, is cut off, would run code, or holds something else than named tensors.
        OSError: it cannot be opened.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} does not hold weights that can be read safely: {first}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} does not hold named tensors, but {type(state).__name__}")
    return {str(name): value for name, value in state.items()}


def fill(module: torch.nn.Module, parameters: Mapping[str, Tensor], path: Path) -> None:
    """Fill a module with parameters that must be exactly its own, or raise ValueError naming the file."""
    try:
        module.load_state_dict(dict(parameters))
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {type(module).__name__}: {error}") from error
