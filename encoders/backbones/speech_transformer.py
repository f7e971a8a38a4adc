"""wav2vec 2.0, HuBERT and WavLM: transformers over the waveform itself, averaged over time.

Baevski et al., "wav2vec 2.0" (2020); Hsu et al., "HuBERT" (2021); Chen et al., "WavLM" (2022). The layers are those of
the package ``transformers``, which is imported when a network is made, and so are the parameters' names. A vector is
the mean of one hidden layer over the frames that a sound really has, as S3 averages them.

The base networks normalise the first convolution's channels over the whole length of a batch, so that in
``transformers`` a padded sound's vector depends on how long its neighbours are. Here padding counts for nothing there
either: in any batch a sound has the vector that it has alone.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.acoustics import torchaudio
from encoders.backbones.backbone import Unusable, read_preparation
from encoders.backbones.public_files import fill, plain_parameters, read_tensors
from encoders.backbones.serving import exact_type
from encoders.backbones.spectral_voice import SoundLimits, checked_sound, embed_long
from encoders.spectra import counts_mask
from encoders.voice import SAMPLE_RATE

ARCHITECTURES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
"""``model_type`` of config.json, and what the classes of ``transformers`` are called."""

_SHARED_SIZES: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": [512, 512, 512, 512, 512, 512, 512],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
}
BASE_SIZES: dict[str, dict[str, Any]] = {
    "wav2vec2": _SHARED_SIZES,
    "hubert": _SHARED_SIZES | {"feat_proj_layer_norm": True, "conv_pos_batch_norm": False},
    "wavlm": _SHARED_SIZES | {"num_buckets": 320, "max_bucket_distance": 800},
}
"""What of config.json decides the numbers, as the public base networks have it, by architecture."""

_MASK_EMBEDDING = "masked_spec_embed"  # what stands for a masked frame in pre-training; not every file has it
_LEAST_VARIANCE = 1e-7  # of a waveform, as the package's feature extractor has it


@dataclass(frozen=True)
class SpeechTransformerPreparation(SoundLimits):
    """The network's kind and sizes, and which sounds it takes.

    Args:
        architecture: of :data:`ARCHITECTURES`.
        sizes: entries of config.json, those of :data:`BASE_SIZES`; what is not given is the base network's.
        layer: which hidden layer is averaged: 0 is what enters the transformer, ``num_hidden_layers`` its output.
        normalised: whether a waveform is brought to mean 0 and deviation 1, ``do_normalize`` of
            preprocessor_config.json.
        most_seconds: 20 by default, for attention costs by the square of the length.
    """

    most_seconds: float = 20.0
    architecture: str = "wav2vec2"
    sizes: Mapping[str, Any] = field(default_factory=dict)
    layer: int = 12
    normalised: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"there is no architecture {self.architecture!r}; choose one of: {known}")
        base = BASE_SIZES[self.architecture]
        if unknown := sorted(set(self.sizes) - set(base)):
            raise ValueError(f"sizes of {self.architecture} have no {', '.join(unknown)}; they have {', '.join(base)}")
        object.__setattr__(self, "sizes", {name: _plain(value) for name, value in (base | dict(self.sizes)).items()})
        if not 0 <= self.layer <= self.sizes["num_hidden_layers"]:
            raise ValueError(f"layer must be in 0 to {self.sizes['num_hidden_layers']}, got {self.layer}")

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self.sizes["hidden_size"])


class SpeechTransformerNetwork(torch.nn.Module):
    """The network itself; its parameters have the names that ``transformers`` gives those of the bare model.

    Args:
        preparation: its kind, sizes and layer.

    Raises:
        ValueError: sizes that ``transformers`` cannot make a network of.
    """

    def __init__(self, preparation: SpeechTransformerPreparation | None = None) -> None:
        super().__init__()
        self.preparation = SpeechTransformerPreparation() if preparation is None else preparation
        model = _bare_model(self.preparation)
        for name, part in model.named_children():
            self.add_module(name, part)
        self.masked_spec_embed = model.masked_spec_embed
        # The convolutions are run here, where padding can be left out; the model gets what they came to. It is kept
        # aside, or every parameter would be there under two names.
        model.feature_extractor = torch.nn.Identity()
        object.__setattr__(self, "_model", model)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed sounds; a row depends neither on its neighbours nor on padding.

        Args:
            waveforms: (n, samples) float32 as :class:`SpeechTransformer` prepares them.
            lengths: (n,) int64, samples that count; None when all do.

        Returns:
            (n, hidden size) float32.
        """
        mask = None
        if lengths is not None:
            lengths = lengths.to(waveforms.device)
            mask = counts_mask(lengths, waveforms.shape[1])
            waveforms = waveforms.masked_fill(~mask, 0.0)
        features, counts = self._convolved(waveforms, lengths)
        model: Any = self._model
        with warnings.catch_warnings():
            # WavLM's attention hands torch a mask of truth values beside a bias of numbers, which torch will not take
            # for ever; the two mean what they should.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask", category=UserWarning)
            given = None if mask is None else mask.long()
            outputs = model(features, attention_mask=given, output_hidden_states=True)
        last = self.preparation.layer == self.preparation.sizes["num_hidden_layers"]
        hidden: Tensor = outputs.last_hidden_state if last else outputs.hidden_states[self.preparation.layer]
        if counts is None:
            return hidden.mean(dim=1)
        weights = counts_mask(counts, hidden.shape[1])[:, :, None].to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / counts[:, None].to(hidden.dtype)

    def _convolved(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(n, samples) -> (n, channels, frames) and how many of them count."""
        hidden = waveforms[:, None]
        for layer in cast(Any, self.feature_extractor).conv_layers:
            if lengths is None:
                hidden = layer(hidden)
                continue
            lengths = (lengths - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, torch.nn.GroupNorm):
                hidden = layer.activation(_normalised_over_time(layer.conv(hidden), norm, lengths))
            else:
                hidden = layer(hidden)
        return hidden, lengths


class SpeechTransformer:
    """The network with its preparation, batching and device. See :class:`Backbone`.

    Args:
        weights: ``model.safetensors`` or ``pytorch_model.bin`` of a network that ``transformers`` reads, or a file of
            :meth:`own_weights`.
        preparation: fields of :class:`SpeechTransformerPreparation`; :func:`public_preparation` reads them from the
            files beside the weights.
        device: a torch device.
        precision: ``bfloat16`` computes in it; else float32.

    Raises:
        ValueError: an unknown or impossible preparation parameter or precision, or weights of another network.
        ImportError: ``transformers`` is not installed.
    """

    _BUDGET = 40 * SAMPLE_RATE  # samples of one batch: the first convolution makes of them 260 MB

    def __init__(
        self, weights: Path, preparation: Mapping[str, Any], device: str = "cpu", precision: str = "float32"
    ) -> None:
        sizes = read_preparation("speech_transformer", SpeechTransformerPreparation, preparation)
        self.preparation: SpeechTransformerPreparation = sizes
        self._device, self._dtype = torch.device(device), exact_type(precision)
        network = SpeechTransformerNetwork(sizes)
        parameters = public_parameters(weights)
        parameters.setdefault(_MASK_EMBEDDING, network.masked_spec_embed.detach())
        fill(network, parameters, weights)
        self._network = network.to(self._device).eval()

    def prepare(self, sample: NDArray[np.float32]) -> Tensor | Unusable:
        """(samples,) float32 at 16 kHz to (samples,) on the device, or why not."""
        waveform = checked_sound(sample, self.preparation)
        if isinstance(waveform, Unusable):
            return waveform
        if self.preparation.normalised:
            waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + _LEAST_VARIANCE)
        return torch.from_numpy(waveform).to(self._device)

    def embed(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """(samples_i,) each to (sounds, hidden size) float32: the mean of each one's windows."""
        most = round(self.preparation.most_seconds * SAMPLE_RATE)
        return embed_long(self._run, prepared, self.preparation.dimension, most, self._BUDGET)

    def own_weights(self) -> Mapping[str, Tensor]:
        """The network's parameters under the names of ``transformers``, on the CPU."""
        return plain_parameters(self._network)

    def _run(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            return cast(Tensor, self._network(waveforms, lengths)).float()


def public_parameters(path: Path) -> dict[str, Tensor]:
    """The bare network's parameters from a file of ``transformers``.

    What only pre-training or recognition needed (quantiser, projections, classifiers) is left out, the prefix that
    such models have too; the two parts of a normalised weight get the names that today's torch gives them.

    Args:
        path: ``model.safetensors`` or ``pytorch_model.bin``, or the folder that holds one of them.

    Raises:
        ValueError: there is no such file, or it holds no tensors by name.
    """
    if path.is_dir():
        held = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
        if not held:
            raise ValueError(f"{path} holds neither model.safetensors nor pytorch_model.bin; pull the network again")
        path = held[0]
    tensors = read_tensors(path)
    for prefix in (f"{architecture}." for architecture in ARCHITECTURES):
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
    parts = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    renamed = {}
    for name, tensor in tensors.items():
        stem, _, ending = name.rpartition(".")
        renamed[f"{stem}.{parts[ending]}" if ending in parts else name] = tensor
    return renamed


def public_preparation(folder: Path) -> SpeechTransformerPreparation:
    """The preparation that a network's own files ask for; its last layer is averaged.

    Args:
        folder: holds ``config.json``, and perhaps ``preprocessor_config.json``, without which waveforms are
            normalised.

    Raises:
        ValueError: a file cannot be read, or describes a network that cannot be made here.
    """
    settings = _read_json(folder / "config.json")
    architecture = str(settings.get("model_type"))
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"{folder / 'config.json'} is of a {architecture!r}; this reads one of: {known}")
    if settings.get("add_adapter"):
        raise ValueError(f"{folder / 'config.json'} has an adapter behind the network; choose one without")
    sizes = {name: settings[name] for name in BASE_SIZES[architecture] if name in settings}
    processing = folder / "preprocessor_config.json"
    normalised = bool(_read_json(processing).get("do_normalize", True)) if processing.is_file() else True
    layers = sizes.get("num_hidden_layers", BASE_SIZES[architecture]["num_hidden_layers"])
    return SpeechTransformerPreparation(
        architecture=architecture, sizes=sizes, layer=int(layers), normalised=normalised
    )


def _bare_model(preparation: SpeechTransformerPreparation) -> Any:  # noqa: ANN401 - a class of a lazy import
    """The model of ``transformers`` with random weights."""
    torchaudio()  # transformers imports it, which fails on CPU builds unless it was imported by this door before
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError("transformers is not installed; install it with: pip install transformers") from error
    name = ARCHITECTURES[preparation.architecture]
    try:
        config = getattr(transformers, f"{name}Config")(**preparation.sizes, apply_spec_augment=False)
        return getattr(transformers, f"{name}Model")(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"no {preparation.architecture} can be made of these sizes: {error}") from error


def _normalised_over_time(hidden: Tensor, norm: torch.nn.GroupNorm, lengths: Tensor) -> Tensor:
    """(n, channels, frames) as ``norm``, which has a group per channel, would make of each sound alone."""
    mask = counts_mask(lengths, hidden.shape[2])[:, None].to(hidden.dtype)
    counts = lengths[:, None, None].to(hidden.dtype)
    centred = hidden - (hidden * mask).sum(dim=2, keepdim=True) / counts
    variance = (centred.square() * mask).sum(dim=2, keepdim=True) / counts
    scaled = centred * (variance + norm.eps).rsqrt()
    return scaled * norm.weight[:, None] + norm.bias[:, None]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(held).__name__}")
    return held


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Tuples as the lists that they come back as from JSON."""
    return list(value) if isinstance(value, tuple) else value
