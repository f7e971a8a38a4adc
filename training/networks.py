"""Networks as training has them: made anew or from a folder's weights, fed with what is kept of samples.

Serving (:mod:`encoders.encoder`) runs networks whose weights are fixed; here is what training needs of the same rows
of the tables ``encoders.face.BACKBONES`` and ``encoders.voice.BACKBONES``: how a sample is prepared without weights,
what of it is kept, and how the bare module is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from encoders.backbones.backbone import Unusable
from encoders.backbones.dimnet_voice import DimnetVoiceNetwork, DimnetVoicePreparation
from encoders.backbones.ecapa_tdnn import EcapaTdnnNetwork, EcapaTdnnPreparation
from encoders.backbones.inception_resnet_v1 import InceptionResnetPreparation, InceptionResnetV1
from encoders.backbones.inception_resnet_v1_voice import InceptionResnetVoicePreparation, prepare_spectrogram
from encoders.backbones.resnet34 import ResNet34FacePreparation, ResNet34Network, ResNet34VoicePreparation
from encoders.backbones.small_face import SPREAD as SMALL_SPREAD
from encoders.backbones.small_face import SmallFaceNetwork, SmallFacePreparation, prepare_chip
from encoders.backbones.small_picture import SmallPictureNetwork, SmallPictureVoicePreparation, prepare_picture
from encoders.backbones.small_voice import FEATURES as SMALL_FEATURES
from encoders.backbones.small_voice import SmallVoiceNetwork, SmallVoicePreparation, prepare_mel
from encoders.backbones.sound_pictures import picture_features
from encoders.backbones.spectral_voice import checked_sound
from encoders.backbones.speech_transformer import SpeechTransformerNetwork, SpeechTransformerPreparation
from encoders.backbones.upright_chips import upright_chip
from encoders.backbones.vit_face import VitFaceNetwork, VitFacePreparation
from encoders.chips import usable_window
from encoders.encoder import Encoder
from encoders.face import FaceCrop
from encoders.folder import FolderFile, backbone_row, read_description
from encoders.space import Modality
from encoders.spectra import EcapaBands, front_end
from encoders.voice import SAMPLE_RATE

GREY = 127.5
"""Every face network here takes pixels centred at this, and divided by a spread of its own."""

WAVEFORM_ROW = 160
"""Samples of a waveform that are kept as one row, as if they were a frame's bands: 10 ms."""

_ROWS_OWN: Mapping[str, Mapping[str, Any]] = {
    "hubert_base": {"architecture": "hubert"},
    "wavlm_base": {"architecture": "wavlm"},
}
"""What a row's preparation has that its kind of network has otherwise by default."""

_LEAST_VARIANCE = 1e-7  # of a waveform, as the speech transformers' preparation has it


@dataclass(frozen=True)
class Trainable:
    """How one kind of network is trained.

    Args:
        preparation: the frozen dataclass of its preparation.
        make: a preparation to the network, with parameters drawn from torch's generator.
        prepare: a sample and a preparation to what is kept of it, or why there is none: of a face its (side, side, 3)
            uint8 chip, of a voice (frames, values) float32.
        dimension: components of its output.
        run: calls the network: with (n, 3, side, side) faces; or with (n, frames, values) voices and (n,) frames that
            count or None.
        spread: of faces, what centred pixels are divided by.
    """

    preparation: Callable[..., Any]
    make: Callable[[Any], torch.nn.Module]
    prepare: Callable[[Any, Any], NDArray[Any] | Unusable]
    dimension: Callable[[Any], int]
    run: Callable[[torch.nn.Module, Tensor, Tensor | None], Tensor]
    spread: float = 1.0


@dataclass(frozen=True)
class NetworkGiven:
    """What stands in front of a task's head for one modality.

    Args:
        backbone: name of a row of the modality's BACKBONES; None for vectors that are frozen.
        preparation: of its samples; None for vectors.
        dimension: components of its features.
        initial: an encoder folder whose weights of the same backbone it begins with; None: drawn at random.
    """

    backbone: str | None
    preparation: Any
    dimension: int
    initial: Path | None = None


class FrozenVectors(torch.nn.Module):
    """Stands where a network would: its input is the features already."""

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, d)."""
        return features


def trainable(modality: Modality, backbone: str) -> Trainable:
    """How the network of a row is trained.

    Raises:
        ValueError: there is no such row, or nothing to train in its network.
    """
    kind = backbone_row(modality, backbone).network
    if kind not in TRAINABLE:
        raise ValueError(f"the network {backbone} ({kind}) only serves; training has: {', '.join(sorted(TRAINABLE))}")
    return TRAINABLE[kind]


def given_network(
    modality: Modality,
    backbone: str,
    preparation: Any,  # noqa: ANN401 - each network has its own
    initial: Path | None = None,
) -> NetworkGiven:
    """A network of a row, with what its output's width is. Raises ValueError: see :func:`trainable`."""
    return NetworkGiven(backbone, preparation, trainable(modality, backbone).dimension(preparation), initial)


def make_network(modality: Modality, given: NetworkGiven) -> torch.nn.Module:
    """The network that is given, drawn from torch's generator or begun with a folder's weights.

    Raises:
        ValueError: the folder to begin with holds no weights of this backbone.
    """
    if given.backbone is None:
        return FrozenVectors()
    network = trainable(modality, given.backbone).make(given.preparation)
    if given.initial is not None:
        begin_with(network, modality, given.backbone, given.initial)
    return network


def begin_with(network: torch.nn.Module, modality: Modality, backbone: str, folder: Path) -> list[str]:
    """Fill a network with the weights that an encoder folder has of it, as far as names and shapes agree.

    Args:
        network: of that backbone; a layer of another width, such as the last one, keeps what it has.
        modality: of the branch.
        backbone: its row.
        folder: an encoder folder; every hash of it is checked.

    Returns:
        Names of the parameters that were not filled.

    Raises:
        ValueError: the folder has no such branch, or nothing of it fits.
    """
    branch = read_description(folder).branches.get(modality)
    if branch is None or not begins_as(modality, branch.backbone, backbone):
        held = "none" if branch is None else branch.backbone
        raise ValueError(f"{folder} holds {held} for {modality}s, not {backbone}: begin with a folder of that network")
    if isinstance(branch.weights, FolderFile):
        with safe_open(folder / branch.weights.file, framework="pt") as stream:
            found = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
    else:
        found = dict(Encoder.load(folder).backbones[modality].own_weights())
    own = network.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ValueError(f"{folder}: no parameter of its {modality} network fits {backbone}")
    network.load_state_dict(own | fitting)
    return sorted(set(own) - set(fitting))


def begins_as(modality: Modality, held: str, wanted: str) -> bool:
    """Whether weights of one row are weights of another: of the same, or of one network that has none of its own."""
    own, other = backbone_row(modality, wanted), backbone_row(modality, held)
    return held == wanted or (own.network == other.network and not own.sources)


def run_network(
    modality: Modality, given: NetworkGiven, network: torch.nn.Module, samples: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Features of samples: (n, dimension) float32.

    Args:
        modality: of the samples.
        given: what the network is.
        network: itself.
        samples: as it takes them.
        lengths: of voices, (n,) frames that count; None when all do.
    """
    if given.backbone is None:
        return cast(Tensor, network(samples))
    return trainable(modality, given.backbone).run(network, samples, lengths)


def multiply_adds(modality: Modality, backbone: str, told: Mapping[str, Any], seconds: float) -> int:
    """Multiplications with addition that a row's network takes for one sample.

    Args:
        modality: of the sample.
        backbone: the row.
        told: fields of its preparation.
        seconds: length of a voice.

    Raises:
        ValueError: see :func:`trainable` and :func:`read_network_preparation`.
    """
    preparation = read_network_preparation(modality, backbone, told)
    given = given_network(modality, backbone, preparation)
    network = make_network(modality, given).eval()
    if modality is Modality.FACE:
        sample = torch.zeros(1, 3, preparation.side, preparation.side)
    else:
        sample = torch.zeros(1, round(seconds * 16_000) // WAVEFORM_ROW, frame_values(preparation))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        run_network(modality, given, network, sample)
    return int(counter.get_total_flops()) // 2


def read_network_preparation(modality: Modality, backbone: str, told: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """The preparation of a row's network from some of its fields; the others have the row's defaults.

    Raises:
        ValueError: an unknown field or an impossible value.
    """
    made = trainable(modality, backbone).preparation
    known = {one.name for one in fields(made)}  # type: ignore[arg-type]
    if unknown := sorted(set(told) - known):
        raise ValueError(f"{backbone} has no preparation {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return made(**{**_ROWS_OWN.get(backbone, {}), **told})


def frame_values(preparation: Any) -> int:  # noqa: ANN401 - each network has its own
    """Numbers of one frame of what is kept of a voice: bands, or samples of a waveform."""
    return int(getattr(preparation, "bands", WAVEFORM_ROW))


def longest_piece(preparation: Any) -> int | None:  # noqa: ANN401 - each network has its own
    """Frames of the longest piece of a voice that serving gives a network at once, of what is kept of voices.

    A longer voice is cut (:func:`encoders.backbones.small_voice.windows_of`). None: the network cuts by itself.
    """
    seconds = getattr(preparation, "most_seconds", None)
    if seconds is None:
        return None
    return round(float(seconds) * SAMPLE_RATE) // WAVEFORM_ROW + int(hasattr(preparation, "bands"))


def _window_chip(crop: FaceCrop, wanted: InceptionResnetPreparation) -> NDArray[np.uint8] | Unusable:
    return usable_window(crop, wanted.window, wanted.side, wanted.least_eye_distance, wanted.least_contrast)


def _sound_picture(
    waveform: NDArray[np.float32], wanted: SmallPictureVoicePreparation
) -> NDArray[np.float32] | Unusable:
    mels = prepare_picture(waveform, wanted)
    return mels if isinstance(mels, Unusable) else cast("NDArray[np.float32]", mels.numpy())


def _spectrogram(
    waveform: NDArray[np.float32], wanted: InceptionResnetVoicePreparation
) -> NDArray[np.float32] | Unusable:
    spectrum = prepare_spectrogram(waveform, wanted)
    return spectrum if isinstance(spectrum, Unusable) else cast("NDArray[np.float32]", spectrum.numpy())


def _small_mel(waveform: NDArray[np.float32], wanted: SmallVoicePreparation) -> NDArray[np.float32] | Unusable:
    mel = prepare_mel(waveform, wanted)
    return mel if isinstance(mel, Unusable) else cast("NDArray[np.float32]", mel.numpy())


def _spectrum(waveform: NDArray[np.float32], wanted: Any) -> NDArray[np.float32] | Unusable:  # noqa: ANN401
    """(frames, bands) of the front end that a preparation names."""
    sound = checked_sound(waveform, wanted)
    if isinstance(sound, Unusable):
        return sound
    with torch.no_grad():
        features = _front_end(getattr(wanted, "features", None), wanted.bands)(torch.from_numpy(sound)[None])[0]
    return cast("NDArray[np.float32]", features.numpy())


@cache
def _front_end(kind: str | None, bands: int) -> torch.nn.Module:
    return EcapaBands(bands).eval() if kind is None else front_end(kind, bands)


def _waveform(waveform: NDArray[np.float32], wanted: SpeechTransformerPreparation) -> NDArray[np.float32] | Unusable:
    """(frames, 160): the waveform as the transformer takes it, 10 ms a row; what does not fill a row is left out."""
    sound = checked_sound(waveform, wanted)
    if isinstance(sound, Unusable):
        return sound
    if wanted.normalised:
        sound = (sound - sound.mean()) / np.sqrt(sound.var() + _LEAST_VARIANCE)
    rows = len(sound) // WAVEFORM_ROW
    return sound[: rows * WAVEFORM_ROW].reshape(rows, WAVEFORM_ROW).astype(np.float32)


def _run_faces(network: torch.nn.Module, faces: Tensor, lengths: Tensor | None) -> Tensor:
    return cast(Tensor, network(faces))


def _run_inception(network: torch.nn.Module, samples: Tensor, lengths: Tensor | None) -> Tensor:
    """Of faces or of sounds."""
    if network.unit_length:
        return cast(Tensor, network(samples, lengths))
    return picture_features(cast(InceptionResnetV1, network).features, samples, lengths)


def _make_inception(wanted: InceptionResnetPreparation | InceptionResnetVoicePreparation) -> torch.nn.Module:
    network = InceptionResnetV1(wanted.dimension)
    network.unit_length = wanted.unit_length  # type: ignore[assignment]
    return network


def _run_voices(network: torch.nn.Module, voices: Tensor, lengths: Tensor | None) -> Tensor:
    return cast(Tensor, network(voices, lengths))


def _run_pictures_of_voices(network: torch.nn.Module, voices: Tensor, lengths: Tensor | None) -> Tensor:
    return cast(Tensor, network(voices[:, None], lengths))  # (n, 1, frames, bands)


def _run_waveforms(network: torch.nn.Module, voices: Tensor, lengths: Tensor | None) -> Tensor:
    return cast(Tensor, network(voices.flatten(1), None if lengths is None else lengths * WAVEFORM_ROW))


def _own_dimension(wanted: Any) -> int:  # noqa: ANN401
    return int(wanted.dimension)


TRAINABLE: Mapping[str, Trainable] = {
    "small_face": Trainable(
        preparation=SmallFacePreparation,
        make=lambda wanted: SmallFaceNetwork(wanted.side),
        prepare=prepare_chip,
        dimension=lambda wanted: SMALL_FEATURES,
        run=_run_faces,
        spread=SMALL_SPREAD,
    ),
    "inception_resnet_v1": Trainable(
        preparation=InceptionResnetPreparation,
        make=_make_inception,
        prepare=_window_chip,
        dimension=_own_dimension,
        run=_run_inception,
        spread=128.0,
    ),
    "resnet34_face": Trainable(
        preparation=ResNet34FacePreparation,
        make=lambda wanted: ResNet34Network(3, wanted.dimension, wanted.width),
        prepare=upright_chip,
        dimension=_own_dimension,
        run=_run_faces,
        spread=127.5,
    ),
    "vit_face": Trainable(
        preparation=VitFacePreparation,
        make=VitFaceNetwork,
        prepare=upright_chip,
        dimension=_own_dimension,
        run=_run_faces,
        spread=127.5,
    ),
    "inception_resnet_v1_voice": Trainable(
        preparation=InceptionResnetVoicePreparation,
        make=_make_inception,
        prepare=_spectrogram,
        dimension=_own_dimension,
        run=_run_inception,
    ),
    "small_picture": Trainable(
        preparation=SmallFacePreparation,
        make=lambda wanted: SmallPictureNetwork(),
        prepare=prepare_chip,
        dimension=lambda wanted: SMALL_FEATURES,
        run=_run_faces,
        spread=SMALL_SPREAD,
    ),
    "small_picture_voice": Trainable(
        preparation=SmallPictureVoicePreparation,
        make=lambda wanted: SmallPictureNetwork(),
        prepare=_sound_picture,
        dimension=_own_dimension,
        run=_run_voices,
    ),
    "small_voice": Trainable(
        preparation=SmallVoicePreparation,
        make=lambda wanted: SmallVoiceNetwork(wanted.bands),
        prepare=_small_mel,
        dimension=lambda wanted: SMALL_FEATURES,
        run=_run_voices,
    ),
    "dimnet_voice": Trainable(
        preparation=DimnetVoicePreparation,
        make=DimnetVoiceNetwork,
        prepare=_spectrum,
        dimension=_own_dimension,
        run=_run_voices,
    ),
    "ecapa_tdnn": Trainable(
        preparation=EcapaTdnnPreparation,
        make=EcapaTdnnNetwork,
        prepare=_spectrum,
        dimension=_own_dimension,
        run=_run_voices,
    ),
    "resnet34_voice": Trainable(
        preparation=ResNet34VoicePreparation,
        make=lambda wanted: ResNet34Network(1, wanted.dimension, wanted.width),
        prepare=_spectrum,
        dimension=_own_dimension,
        run=_run_pictures_of_voices,
    ),
    "speech_transformer": Trainable(
        preparation=SpeechTransformerPreparation,
        make=SpeechTransformerNetwork,
        prepare=_waveform,
        dimension=_own_dimension,
        run=_run_waveforms,
    ),
}
"""By the kind of network that a row of the tables names."""
