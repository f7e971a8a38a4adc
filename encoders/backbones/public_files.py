"""Files of public weights, read as plain tensors by name; nothing in them is ever run.

Each network's own file turns these into its parameters, in a function ``public_parameters(path)``: what was pulled
from a hub, what a recipe published and what :meth:`Backbone.own_weights` gave are all read by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
"""What checkpoints call the parameters when they hold more than those."""
_PARALLEL = "module."  # stands before every name where several devices trained together


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a torch checkpoint, whatever the file is called.

    Args:
        path: a checkpoint is loaded with ``weights_only``; parameters inside a wrapper such as ``state_dict`` are
            found, and the prefix ``module.`` is left out where every name has it.

    Returns:
        Tensors on the CPU, by name; at least one.

    Raises:
        ValueError: the file is absent, or holds no tensors by name.
    """
    try:
        held = load_file(path) if _is_safetensors(path) else torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        SafetensorError,
        UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        BadZipFile,
    ) as error:
        # torch's own words would say how to load what must not be loaded
        raise ValueError(
            f"{path} holds no weights that can be read safely ({type(error).__name__}): give a safetensors file, or a "
            "checkpoint of plain tensors"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    tensors = {}
    if isinstance(held, Mapping):
        tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; give the file of weights that its source names")
    if all(name.startswith(_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_PARALLEL): value for name, value in tensors.items()}
    return tensors


def fill(module: torch.nn.Module, parameters: Mapping[str, Tensor], path: Path) -> None:
    """Fill a module with parameters, which must be exactly its own.

    Args:
        module: is left in evaluation.
        parameters: by name.
        path: where they came from, for the message.

    Raises:
        ValueError: a parameter is missing, has another shape, or is not the module's.
    """
    try:
        module.load_state_dict(dict(parameters))
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {type(module).__name__}: {error}") from error
    module.eval()


def plain_parameters(module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's parameters and statistics by name, on the CPU, each in memory of its own."""
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do: the header's length in 8 bytes, then its opening brace."""
    with path.open("rb") as stream:
        begin = stream.read(9)
    return begin[8:] == b"{" and int.from_bytes(begin[:8], "little") <= path.stat().st_size
