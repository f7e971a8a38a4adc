"""Small networks of every kind that the field uses for voices, with weights of a seed, and folders that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from encoders.backbones.dimnet_voice import DimnetVoice, DimnetVoiceNetwork, DimnetVoicePreparation
from encoders.backbones.ecapa_tdnn import EcapaTdnn, EcapaTdnnNetwork, EcapaTdnnPreparation
from encoders.backbones.resnet34 import ResNet34Network, ResNet34Voice, ResNet34VoicePreparation
from encoders.backbones.speech_transformer import (
    SpeechTransformer,
    SpeechTransformerNetwork,
    SpeechTransformerPreparation,
)
from encoders.encoder import Encoder
from encoders.folder import Branch, Description, FolderFile
from encoders.packaging import drawn_voice
from encoders.space import Modality
from encoders.weights import sha256_of
from tests.encoders.backbones.seeded_weights import seed_weights

TRANSFORMER_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}


@dataclass(frozen=True)
class FieldVoice:
    """A kind of network, small.

    Args:
        row: its row's name.
        make: the backbone's class.
        preparation: small sizes.
        network: the bare network of a preparation.
    """

    row: str
    make: Callable[..., Any]
    preparation: Any
    network: Callable[[Any], torch.nn.Module]

    def write(self, path: Path) -> Path:
        """Write its weights, of a seed, as safetensors."""
        path.write_bytes(save(seed_weights(self.network(self.preparation), 3).state_dict()))
        return path

    def stated(self, **changes: Any) -> Mapping[str, Any]:
        """Its preparation as encoder.json states it."""
        return asdict(self.preparation) | changes

    def folder(self, folder: Path) -> Encoder:
        """Write an encoder folder around it and load that."""
        folder.mkdir()
        weights = self.write(folder / "voice.safetensors")
        description = Description(
            name=self.row,
            space=self.row,
            dimension=self.preparation.dimension,
            domain="nobody",
            trained_on="nothing: its weights are random",
            branches={Modality.VOICE: Branch(self.row, self.stated(), FolderFile(weights.name, sha256_of(weights)))},
        )
        return Encoder.create(folder, description, {Modality.VOICE: [drawn_voice(1, 0.7)]}, "# random weights\n")


def _transformer(architecture: str, row: str, **sizes: Any) -> FieldVoice:
    preparation = SpeechTransformerPreparation(
        architecture=architecture, sizes=TRANSFORMER_SIZES | sizes, layer=2, normalised=architecture != "wavlm"
    )
    return FieldVoice(row, SpeechTransformer, preparation, SpeechTransformerNetwork)


FIELD_VOICES = (
    FieldVoice(
        "ecapa_tdnn",
        EcapaTdnn,
        EcapaTdnnPreparation(channels=(16, 32, 32, 48), kernels=(5, 3, 3, 1), dilations=(1, 2, 4, 1), scale=4),
        EcapaTdnnNetwork,
    ),
    FieldVoice("dimnet_voice", DimnetVoice, DimnetVoicePreparation(channels=(16, 24, 36)), DimnetVoiceNetwork),
    FieldVoice(
        "resnet34_voice",
        ResNet34Voice,
        ResNet34VoicePreparation(width=4, features="mfcc", bands=40),
        lambda one: ResNet34Network(1, one.dimension, one.width),
    ),
    _transformer("wav2vec2", "wav2vec2_base"),
    _transformer("hubert", "hubert_base", feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
    _transformer("wavlm", "wavlm_base"),
)
