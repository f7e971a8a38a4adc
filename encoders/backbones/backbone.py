"""What every network offers: prepare one sample, embed many prepared ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=torch.nn.Module)
Preparation = TypeVar("Preparation")


class UnusableReason(StrEnum):
    """Why a sample has no vector."""

    TOO_SHORT = "too_short"
    SILENT = "silent"
    NOT_FINITE = "not_finite"
    NO_FACE = "no_face"
    TOO_SMALL = "too_small"
    FLAT = "flat"
    NO_DIRECTION = "no_direction"


@dataclass(frozen=True)
class Unusable:
    """The answer for a sample that cannot be encoded.

    Args:
        reason: for programs.
        detail: a sentence for people, with the offending number.
    """

    reason: UnusableReason
    detail: str


class ChannelScale(torch.nn.Module):
    """A factor and an offset per channel: a batch normalisation whose training is over.

    Args:
        channels: how many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))
        self.bias = torch.nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) -> the same shape."""
        return inputs * self.weight[:, None, None] + self.bias[:, None, None]


class Backbone(Protocol):
    """A network with its preparation.

    Its class is made with ``(weights, preparation, device, precision)``: the checked weight file (the public one,
    or the safetensors file that :meth:`own_weights` became), the preparation parameters of encoder.json, the
    device's name, and one of ``serving.PRECISIONS``. ``preparation`` is a frozen dataclass of all those parameters.
    It may be used by several threads at once.
    """

    @property
    def preparation(self) -> Any:  # noqa: ANN401 - each network has its own
        """The preparation parameters, complete."""
        ...

    def prepare(self, sample: Any) -> Any:  # noqa: ANN401 - each network has its own prepared form
        """One sample as the network takes it, or :class:`Unusable`."""
        ...

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """(samples, dimension) float32, in order; a row does not depend on its neighbours."""
        ...

    def own_weights(self) -> Mapping[str, torch.Tensor]:
        """The weights by name, on the CPU."""
        ...


def read_preparation(network: str, made: Callable[..., Preparation], given: Mapping[str, Any]) -> Preparation:
    """The preparation parameters of encoder.json, complete.

    Args:
        network: its name, for the message.
        made: the frozen dataclass of its parameters.
        given: those that encoder.json states.

    Raises:
        ValueError: one that the network does not have, or an impossible value.
    """
    known = {one.name for one in fields(made)}  # type: ignore[arg-type]
    if unknown := sorted(set(given) - known):
        raise ValueError(
            f"{network} has no preparation parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    return made(**given)


def load_parameters(module: torch.nn.Module, path: Path) -> None:
    """Fill a module with the parameters of a safetensors file, which must be exactly its own.

    Raises:
        ValueError: the file is none, lacks a parameter, or holds one of another name or shape.
    """
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of {type(module).__name__}: {error}") from error


def folded(network: Network) -> Network:
    """A copy for serving: every normalisation or scale behind a convolution becomes part of it.

    The answers are the same to rounding; a small network takes about two thirds of the time.

    Args:
        network: its convolutions stand in ``torch.nn.Sequential`` directly before their normalisation.
    """
    copied = copy.deepcopy(network).eval()
    for layer in [one for one in copied.modules() if isinstance(one, torch.nn.Sequential)]:
        for place in range(len(layer) - 1):
            first, second = layer[place], layer[place + 1]
            if not isinstance(first, torch.nn.Conv1d | torch.nn.Conv2d):
                continue
            if isinstance(second, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                layer[place], layer[place + 1] = fuse_conv_bn_eval(first, second), torch.nn.Identity()
            elif isinstance(second, ChannelScale):
                layer[place], layer[place + 1] = _scaled(first, second), torch.nn.Identity()
    return copied


def _scaled(convolution: torch.nn.Conv1d | torch.nn.Conv2d, scale: ChannelScale) -> torch.nn.Conv1d | torch.nn.Conv2d:
    """The convolution with the scale behind it."""
    product = copy.deepcopy(convolution)
    factor, offset = scale.weight.detach(), scale.bias.detach()
    bias = torch.zeros_like(offset) if convolution.bias is None else convolution.bias.detach()
    outermost = (-1, *(1,) * (convolution.weight.dim() - 1))
    product.weight = torch.nn.Parameter(convolution.weight.detach() * factor.reshape(outermost))
    product.bias = torch.nn.Parameter(bias * factor + offset)
    return product
