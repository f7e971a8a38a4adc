"""From a network as it was trained to the same network as it serves: fewer passes over memory, same answers.

A scale behind a convolution becomes part of it, the addition and the rectifier behind it happen while its output is
still in the processor's registers, and the weights are laid out beforehand as oneDNN wants them. The operators that
do so are those that torch's own compiler emits for CPUs; unlike that compiler they need no seconds to start. Where
they are missing (CUDA, other builds) plain operators give the same answers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from encoders.backbones.backbone import folded

Network = TypeVar("Network", bound=torch.nn.Module)

PRECISIONS = ("auto", "float32", "bfloat16")
"""What networks compute in; ``auto`` lets each network decide, knowing the device."""


class ServedConvolution(torch.nn.Module):
    """A convolution, an addition if there is one, and a rectifier if there is one, in one pass.

    Args:
        convolution: over one or two dimensions; its weights are copied.
        rectified: whether negative values become 0.
        dtype: what to compute in and to answer in, float32 or bfloat16; inputs are converted.
    """

    def __init__(
        self, convolution: torch.nn.Conv1d | torch.nn.Conv2d, *, rectified: bool, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self._flat = isinstance(convolution, torch.nn.Conv1d)
        ones, zeros = ([1], [0]) if self._flat else ([], [])  # sound is a picture one pixel high
        self._padding = [*zeros, *(int(one) for one in convolution.padding)]
        self._stride, self._dilation = [*ones, *convolution.stride], [*ones, *convolution.dilation]
        self._groups, self._dtype, self._rectified = convolution.groups, dtype, rectified
        weight, bias = convolution.weight.detach().to(dtype), convolution.bias
        weight = weight[:, :, None] if self._flat else weight
        self._bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().to(dtype)
        self._onednn = weight.device.type == "cpu" and _has_onednn() and (dtype == torch.float32 or _takes_bfloat16())
        if self._onednn:
            # The layout suits inputs of every size; it only must be made for some size.
            typical = [32, convolution.in_channels, *(max(16, one) for one in weight.shape[2:])]
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight.contiguous(), self._padding, self._stride, self._dilation, self._groups, typical
            )
        self._weight = weight

    def forward(self, inputs: Tensor, added: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            inputs: (n, channels, frames) or (n, channels, height, width), any real type.
            added: what is added to the convolution before it is rectified, of the output's shape and type. It may be
                overwritten.

        Returns:
            (n, out, frames) or (n, out, height, width) with channels side by side in memory.
        """
        if self._flat:
            inputs, added = inputs[:, :, None], None if added is None else added[:, :, None]
        inputs = inputs.to(self._dtype).contiguous(memory_format=torch.channels_last)
        outputs = self._fused(inputs, added) if self._onednn else self._plain(inputs, added)
        return outputs[:, :, 0] if self._flat else outputs

    def _fused(self, inputs: Tensor, added: Tensor | None) -> Tensor:
        operators: Any = torch.ops.mkldnn
        given = (inputs, self._weight, self._bias, self._padding, self._stride, self._dilation, self._groups)
        if added is None:
            return cast(Tensor, operators._convolution_pointwise(*given, "relu" if self._rectified else "none", [], ""))
        then = "relu" if self._rectified else None
        return cast(Tensor, operators._convolution_pointwise_.binary(added, *given, "add", 1.0, then, [], ""))

    def _plain(self, inputs: Tensor, added: Tensor | None) -> Tensor:
        outputs = torch.conv2d(
            inputs, self._weight, self._bias, self._stride, self._padding, self._dilation, self._groups
        )
        if added is not None:
            outputs = outputs.add_(added)
        return outputs.relu_() if self._rectified else outputs


def served(network: Network, device: torch.device, dtype: torch.dtype = torch.float32) -> Network:
    """A copy for serving: folded, on its device, with every convolution in one pass.

    Args:
        network: its convolutions stand in ``torch.nn.Sequential``, before their normalisation and rectifier.
        device: where it will run.
        dtype: what its convolutions compute in; everything else stays as it is.
    """
    copied = folded(network).to(device)
    for layer in [one for one in copied.modules() if isinstance(one, torch.nn.Sequential)]:
        kept = [one for one in layer if not isinstance(one, torch.nn.Identity)]
        for place, one in enumerate(kept):
            if isinstance(one, torch.nn.Conv1d | torch.nn.Conv2d):
                rectified = place + 1 < len(kept) and isinstance(kept[place + 1], torch.nn.ReLU)
                kept[place] = ServedConvolution(one, rectified=rectified, dtype=dtype)
                if rectified:
                    kept[place + 1] = torch.nn.Identity()
        for place in range(len(layer)):
            layer[place] = kept[place] if place < len(kept) else torch.nn.Identity()
    return copied


def quick_type(precision: str, device: torch.device) -> torch.dtype:
    """What a network that bears bfloat16 computes in.

    Args:
        precision: one of :data:`PRECISIONS`; ``auto`` is bfloat16 on processors that multiply it themselves.
        device: where it will run.

    Raises:
        ValueError: there is no such precision.
    """
    check_precision(precision)
    if precision == "auto":
        return torch.bfloat16 if device.type == "cpu" and _has_bfloat16() else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def exact_type(precision: str) -> torch.dtype:
    """What a network computes in that is bfloat16 only on demand.

    Raises:
        ValueError: there is no such precision.
    """
    check_precision(precision)
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def check_precision(precision: str) -> None:
    """Raises ValueError unless it is one of :data:`PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}; choose one of: {', '.join(PRECISIONS)}")


@cache
def _has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16; others take longer for it than for float32."""
    able = torch.cpu.get_capabilities()
    return _has_onednn() and _takes_bfloat16() and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@cache
def _takes_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor at all; some it refuses."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _has_onednn() -> bool:
    """Whether this torch has oneDNN's fused convolutions (internal operators, so asked for by name)."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")
    available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return available and all(hasattr(torch.ops.mkldnn, name) for name in names)
