"""Encoder: samples of faces or voices in, points of one space out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save

from encoders.backbones.backbone import Backbone, Unusable, UnusableReason
from encoders.backbones.dimnet_voice import DimnetVoice
from encoders.backbones.dlib_resnet import DlibResnet
from encoders.backbones.ecapa_tdnn import EcapaTdnn
from encoders.backbones.ge2e import GE2E
from encoders.backbones.inception_resnet_v1 import InceptionResnet
from encoders.backbones.inception_resnet_v1_voice import InceptionResnetVoice
from encoders.backbones.resnet34 import ResNet34Face, ResNet34Voice
from encoders.backbones.small_face import SmallFace
from encoders.backbones.small_picture import SmallPicture, SmallPictureVoice
from encoders.backbones.small_voice import SmallVoice
from encoders.backbones.speech_transformer import SpeechTransformer
from encoders.backbones.vit_face import VitFace
from encoders.devices import device_name
from encoders.folder import (
    CALIBRATION_FILE,
    CARD_FILE,
    GOLDEN_FILE,
    Branch,
    Description,
    EncoderError,
    FolderFile,
    HeadDescription,
    backbone_row,
    check_file,
    read_description,
    read_identities,
    read_json,
    read_probe_centres,
    weights_path,
    write_description,
)
from encoders.golden import Sample, load_golden, save_golden
from encoders.heads import Head
from encoders.probe_centres import ProbeCentres
from encoders.space import Embedding, Modality, Space
from encoders.weights import sha256_of

__all__ = ["Encoder", "EncoderError", "Sample", "Unusable", "UnusableReason", "packaged_encoders"]

NETWORKS: dict[str, Callable[[Path, Mapping[str, Any], str, str], Backbone]] = {
    "dimnet_voice": DimnetVoice,
    "dlib_resnet": DlibResnet,
    "ecapa_tdnn": EcapaTdnn,
    "ge2e": GE2E,
    "inception_resnet_v1": InceptionResnet,
    "inception_resnet_v1_voice": InceptionResnetVoice,
    "resnet34_face": ResNet34Face,
    "resnet34_voice": ResNet34Voice,
    "small_face": SmallFace,
    "small_picture": SmallPicture,
    "small_picture_voice": SmallPictureVoice,
    "small_voice": SmallVoice,
    "speech_transformer": SpeechTransformer,
    "vit_face": VitFace,
}
"""Which class runs which kind of network; rows of the BACKBONES tables name the kind."""

_CHUNK = 512  # samples prepared at a time: bounds memory for lists of any length


@dataclass(frozen=True, eq=False)
class Encoder:
    """Networks with their preparation, and perhaps a head that both modalities share, loaded from a folder.

    Args:
        space: what its vectors live in.
        folder: where it was loaded from.
        description: what the folder says about it.
        calibration: from scores to probabilities, if the folder has it.
        backbones: the network of each modality.
        head: what comes behind the networks; None where their output is the vector.
        identities: whom it was trained on, where the folder says so.
        probe_centres: what is taken from a probe that asks for the other modality.
    """

    space: Space
    folder: Path
    description: Description
    calibration: Mapping[str, Any] | None
    backbones: Mapping[Modality, Backbone]
    head: Head | None = None
    identities: frozenset[str] = frozenset()
    probe_centres: ProbeCentres = field(default_factory=dict)

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it can encode."""
        return frozenset(self.backbones)

    @property
    def domain(self) -> str:
        """Whom it is for, such as ``real people``."""
        return self.description.domain

    @property
    def trained_on(self) -> str:
        """What and whom its networks were trained on."""
        return self.description.trained_on

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", threads: int = 1, precision: str = "float32") -> Encoder:
        """Load an encoder folder after checking every hash.

        Args:
            folder: an encoder folder.
            device: ``cpu``, ``cuda``, ``cuda:1`` ..., or ``auto`` for CUDA where there is one.
            threads: CPU threads that torch may use in this whole process.
            precision: ``float32``, ``bfloat16``, or ``auto`` for what each network serves best in on this device: the
                small networks bfloat16 where the processor multiplies it, the identity networks float32.

        Raises:
            EncoderError: the folder or the weights it names cannot be used; the message says why.
        """
        # One by default: beside another busy process, torch's threads spend their time waiting for each other
        # (an LSTM over 15 s of sound took 0.09 s with one thread and 4.5 s with two, on two busy cores).
        torch.set_num_threads(threads)
        description = read_description(folder)
        backbones, head = _load_networks(folder, description, device, precision)
        has_calibration = (folder / CALIBRATION_FILE).is_file()
        calibration = read_json(folder, CALIBRATION_FILE) if has_calibration else None
        identities = read_identities(folder, description)
        centres = read_probe_centres(folder, description)
        return cls(description.make_space(), folder, description, calibration, backbones, head, identities, centres)

    @classmethod
    def create(
        cls,
        folder: Path,
        description: Description,
        golden: Mapping[Modality, Sequence[Sample]],
        card: str,
        files: Sequence[str] = (),
    ) -> Encoder:
        """Turn a folder into an encoder folder: golden vectors, card, description.

        Args:
            folder: exists; already holds the weight files that the description names as its own.
            description: its ``files`` are filled in here.
            golden: a few small samples per modality.
            card: text of the model card (Markdown).
            files: names of further files that are already in the folder, whose content must never change, such as
                ``identities.txt``.

        Raises:
            EncoderError: weights or a further file cannot be used, or a golden sample has no vector.
        """
        backbones, head = _load_networks(folder, description, "cpu", "float32")
        encoder = cls(description.make_space(), folder, description, None, backbones, head)
        vectors = {modality: encoder._golden_vectors(modality, samples) for modality, samples in golden.items()}
        save_golden(folder / GOLDEN_FILE, golden, vectors)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        try:
            hashes = {name: sha256_of(folder / name) for name in (GOLDEN_FILE, *files)}
        except OSError as error:
            raise EncoderError(f"{folder}: write the further files before creating the encoder: {error}") from error
        write_description(folder, replace(description, files=hashes))
        return cls.load(folder)

    def save(self, folder: Path, *, own_weights: bool = False) -> Encoder:
        """Write this encoder to a new folder and load it from there.

        Packaged weights stay a reference to their package. With ``own_weights`` the parameters are
        written into the folder as safetensors: the vectors are the same, but as the weight file is
        another one, so is the space's digest.

        Raises:
            EncoderError: the folder exists.
        """
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise EncoderError(f"{folder} exists already; choose a new folder for the encoder") from error
        branches = {modality: self._save_branch(folder, modality, own_weights) for modality in self.backbones}
        golden = {modality: self._load_golden(modality)[0] for modality in self.backbones}
        card = (self.folder / CARD_FILE).read_text(encoding="utf-8")
        further = [name for name in self.description.files if name != GOLDEN_FILE]
        head = [] if self.description.head is None else [self.description.head.weights.file]
        calibration = [] if self.calibration is None else [CALIBRATION_FILE]
        for name in (*further, *head, *calibration):
            shutil.copyfile(self.folder / name, folder / name)
        return Encoder.create(folder, replace(self.description, branches=branches), golden, card, further)

    def encode(self, modality: Modality, samples: Sequence[Sample]) -> list[Embedding | Unusable]:
        """Embed samples; the answer for one does not depend on the others.

        Args:
            modality: what the samples show.
            samples: face crops, or waveforms (n,) float32 mono at 16 kHz.

        Returns:
            In the same order, an Embedding each, or Unusable where a sample has no vector.

        Raises:
            ValueError: the encoder lacks this modality, or a sample has the wrong shape or type.
        """
        if modality not in self.backbones:
            raise ValueError(f"{self.description.name} encodes {', '.join(sorted(self.modalities))}, not {modality}")
        answers: list[Embedding | Unusable] = []
        for first in range(0, len(samples), _CHUNK):
            answers += self._encode_chunk(modality, samples[first : first + _CHUNK])
        return answers

    def verify_golden(self) -> float:
        """The least cosine between the stored golden vectors and those that come out now.

        Raises:
            EncoderError: the golden samples cannot be read, or no longer have vectors.
        """
        least = 1.0
        for modality in self.backbones:
            samples, expected = self._load_golden(modality)
            actual = self._golden_vectors(modality, samples)
            least = min(least, float((actual.astype(np.float64) * expected).sum(axis=1).min()))
        return least

    def _encode_chunk(self, modality: Modality, samples: Sequence[Sample]) -> list[Embedding | Unusable]:
        backbone = self.backbones[modality]
        prepared = [backbone.prepare(sample) for sample in samples]
        usable = [one for one in prepared if not isinstance(one, Unusable)]
        vectors = iter(self._embed(modality, usable)) if usable else iter(())
        return [one if isinstance(one, Unusable) else self._embedding(modality, next(vectors)) for one in prepared]

    def _embed(self, modality: Modality, prepared: Sequence[Any]) -> NDArray[np.float32]:
        features = self.backbones[modality].embed(prepared)
        return features if self.head is None else self.head.apply(features, modality)

    def _embedding(self, modality: Modality, vector: NDArray[np.float32]) -> Embedding | Unusable:
        try:
            return Embedding.of(self.space, modality, vector)
        except ValueError as error:
            return Unusable(UnusableReason.NO_DIRECTION, f"the network found nothing to go by: {error}")

    def _golden_vectors(self, modality: Modality, samples: Sequence[Sample]) -> NDArray[np.float32]:
        vectors = []
        for answer in self.encode(modality, samples):
            if isinstance(answer, Unusable):
                raise EncoderError(f"{self.folder}: a golden {modality} has no vector: {answer.detail}")
            vectors.append(answer.vector)
        if not vectors:
            raise EncoderError(f"{self.folder}: there is no golden {modality}; give at least one")
        return np.stack(vectors)

    def _load_golden(self, modality: Modality) -> tuple[list[Sample], NDArray[np.float32]]:
        try:
            return load_golden(self.folder / GOLDEN_FILE, modality)
        except (OSError, KeyError, SafetensorError) as error:
            raise EncoderError(f"{self.folder}: cannot read {GOLDEN_FILE} for {modality}: {error}") from error

    def _save_branch(self, folder: Path, modality: Modality, own_weights: bool) -> Branch:
        branch = self.description.branches[modality]
        if isinstance(branch.weights, FolderFile):
            shutil.copyfile(self.folder / branch.weights.file, folder / branch.weights.file)
            return branch
        if not own_weights:
            return branch
        path = folder / f"{modality}.safetensors"
        path.write_bytes(save(dict(self.backbones[modality].own_weights())))
        return replace(branch, weights=FolderFile(path.name, sha256_of(path)))


def packaged_encoders() -> dict[str, Path]:
    """The encoder folders that come with Visavox, by name: ``face_identity`` and ``voice_identity``."""
    home = Path(__file__).resolve().parent / "identity"
    return {path.parent.name: path.parent for path in sorted(home.glob("*/encoder.json"))}


def _load_networks(
    folder: Path, description: Description, device: str, precision: str
) -> tuple[dict[Modality, Backbone], Head | None]:
    """The network of each modality and the head, after every size was checked against the space's."""
    device = device_name(device)
    head = None if description.head is None else _load_head(folder, description.head, device)
    if head is not None and head.output_dimension != description.dimension:
        raise EncoderError(
            f"{folder}: the head gives {head.output_dimension} components, the space has {description.dimension}"
        )
    backbones = {}
    for modality, branch in description.branches.items():
        backbones[modality], given = _load_backbone(folder, modality, branch, (device, precision))
        expected = description.dimension if head is None else head.input_of(modality)
        if given != expected:
            taker = f"the space has {expected}" if head is None else f"the head takes {expected}"
            raise EncoderError(f"{folder}: {branch.backbone} gives {given} components, {taker}")
    return backbones, head


def _load_backbone(folder: Path, modality: Modality, branch: Branch, running: tuple[str, str]) -> tuple[Backbone, int]:
    """A network that runs on a device in a precision, and how many components it gives."""
    path = weights_path(folder, branch.weights)
    try:
        row = backbone_row(modality, branch.backbone)
        backbone = NETWORKS[row.network](path, branch.preparation, *running)
    except (ValueError, TypeError) as error:
        raise EncoderError(f"{folder}: the {modality} network cannot be loaded: {error}") from error
    # A parameter left to its default would change the vectors, but not the digest, with the code.
    missing = set(asdict(backbone.preparation)) - set(branch.preparation)
    if missing:
        raise EncoderError(f"{folder}: the {modality} branch lacks preparation {', '.join(sorted(missing))}")
    # a network that was trained here may have another width than its row's
    return backbone, getattr(backbone.preparation, "dimension", row.dimension)


def _load_head(folder: Path, head: HeadDescription, device: str) -> Head:
    path = check_file(folder, head.weights.file, head.weights.sha256)
    try:
        return Head(head.kind, head.parameters, path, device)
    except ValueError as error:
        raise EncoderError(f"{folder}: the head cannot be loaded: {error}") from error
