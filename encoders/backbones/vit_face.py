"""A vision transformer for faces: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021).

S3 tried one for faces, found it poor, and says neither its size nor its weights. The layers are those of
``ViTModel`` of the package ``transformers``, which is imported when a network is made, and so are the parameters'
names; a vector is what stands at the class token behind the last normalisation. By default it is small: six layers of
192 components; weights are drawn at random unless ``--initial`` names some. Pixels come to lie in [−1, 1].
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from encoders.acoustics import torchaudio
from encoders.backbones.backbone import read_preparation
from encoders.backbones.public_files import fill, read_tensors
from encoders.backbones.upright_chips import ChipNetwork


@dataclass(frozen=True)
class VitFacePreparation:
    """How a crop becomes a chip, and the network's sizes.

    Args:
        side: pixels of the chip, a multiple of ``patch``.
        padding: room around the mean face, as a fraction of its side.
        least_eye_distance: pixels between the centres of the eyes, below which a crop is unusable.
        least_contrast: standard deviation of the face's grey levels, below which it is unusable.
        patch: pixels of a side of what becomes one token.
        dimension: components of a token, and of a vector; a multiple of ``heads``.
        layers: of the transformer.
        heads: of each layer's attention.
    """

    side: int = 112
    padding: float = 0.3
    least_eye_distance: float = 8.0
    least_contrast: float = 2.0
    patch: int = 16
    dimension: int = 192
    layers: int = 6
    heads: int = 3

    def __post_init__(self) -> None:
        if min(self.patch, self.dimension, self.layers, self.heads) < 1:
            raise ValueError(
                f"patch, dimension, layers and heads must be at least 1, got {self.patch}, {self.dimension}, "
                f"{self.layers}, {self.heads}"
            )
        if self.side < self.patch or self.side % self.patch:
            raise ValueError(f"side must be a multiple of patch, got {self.side} and {self.patch}")
        if self.dimension % self.heads:
            raise ValueError(f"dimension must be a multiple of heads, got {self.dimension} and {self.heads}")


class VitFaceNetwork(torch.nn.Module):
    """The network itself; its parameters have the names that ``transformers`` gives those of the bare model.

    Args:
        preparation: its sizes.
    """

    def __init__(self, preparation: VitFacePreparation | None = None) -> None:
        super().__init__()
        model = _bare_model(preparation or VitFacePreparation())
        for name, part in model.named_children():
            self.add_module(name, part)
        # kept aside, or every parameter would be there under two names
        object.__setattr__(self, "_model", model)

    def forward(self, faces: Tensor) -> Tensor:
        """(n, 3, side, side) float32 in [−1, 1] -> (n, dimension) float32."""
        model: Any = self._model
        return cast(Tensor, model(faces).last_hidden_state[:, 0])


class VitFace(ChipNetwork):
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: a file of a :class:`VitFaceNetwork`.
        preparation: fields of :class:`VitFacePreparation`.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
        ImportError: ``transformers`` is not installed.
    """

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        sizes = read_preparation("vit_face", VitFacePreparation, preparation)
        network = VitFaceNetwork(sizes)
        fill(network, read_tensors(weights), weights)
        super().__init__(network, sizes, device, precision)


def _bare_model(wanted: VitFacePreparation) -> Any:  # noqa: ANN401 - a class of a lazy import
    """The model of ``transformers`` with random weights, without what it has behind its last normalisation."""
    torchaudio()  # transformers imports it, which fails on CPU builds unless it was imported by this door before
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError("transformers is not installed; install it with: pip install transformers") from error
    config = transformers.ViTConfig(
        hidden_size=wanted.dimension, num_hidden_layers=wanted.layers, num_attention_heads=wanted.heads,
        intermediate_size=4 * wanted.dimension, image_size=wanted.side, patch_size=wanted.patch,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.ViTModel(config, add_pooling_layer=False)
