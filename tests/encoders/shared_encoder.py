"""A small shared encoder with random weights, for tests of any room; nothing was trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from encoders.backbones.backbone import Unusable
from encoders.backbones.small_face import SmallFaceNetwork, SmallFacePreparation, chips_to_input, prepare_chip
from encoders.backbones.small_voice import SmallVoiceNetwork, SmallVoicePreparation, prepare_mel
from encoders.encoder import Encoder, Sample
from encoders.folder import (
    PROBES_FILE,
    Branch,
    Description,
    FolderFile,
    HeadDescription,
    read_description,
    write_description,
)
from encoders.heads import WeightedResidualHead
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from encoders.weights import sha256_of

DIMENSION, HIDDEN = 128, 64
ETA = 0.4  # not 0, which would leave the head's other weights without effect
GOLDEN: Mapping[Modality, Sequence[Sample]] = {
    Modality.FACE: [drawn_face(1), drawn_face(2, side=200)],
    Modality.VOICE: [drawn_voice(1, 0.7)],
}


def random_networks(seed: int = 0) -> tuple[SmallFaceNetwork, SmallVoiceNetwork, WeightedResidualHead]:
    """Networks of the seed, in evaluation, normalised over a few drawings so that samples differ."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        face, voice, head = SmallFaceNetwork(), SmallVoiceNetwork(), WeightedResidualHead(DIMENSION, HIDDEN)
        head.eta.fill_(ETA)
        chips = [prepare_chip(drawn_face(number), SmallFacePreparation()) for number in range(8)]
        mels = [prepare_mel(drawn_voice(number, 1.0), SmallVoicePreparation()) for number in range(8)]
        faces = torch.from_numpy(np.stack([chip for chip in chips if not isinstance(chip, Unusable)]))
        voices = torch.stack([mel for mel in mels if not isinstance(mel, Unusable)])
        for network, inputs in ((face, chips_to_input(faces)), (voice, voices)):
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                    module.momentum = None  # statistics of the one batch that follows
            network.train()(inputs)
            network.eval()
    return face, voice, head.eval()


def shared_description(folder: Path, domain: str = "invented people") -> Description:
    """What a folder with ``face.safetensors``, ``voice.safetensors`` and ``head.safetensors`` holds."""
    face, voice, head = (
        FolderFile(f"{part}.safetensors", sha256_of(folder / f"{part}.safetensors"))
        for part in ("face", "voice", "head")
    )
    return Description(
        name="shared_test",
        space="shared_test",
        dimension=DIMENSION,
        domain=domain,
        trained_on="nothing: its weights are random",
        branches={
            Modality.FACE: Branch("small_face", asdict(SmallFacePreparation()), face),
            Modality.VOICE: Branch("small_voice", asdict(SmallVoicePreparation()), voice),
        },
        head=HeadDescription("weighted_residual", {"dimension": DIMENSION, "hidden": HIDDEN}, head),
    )


def make_shared_encoder(
    folder: Path,
    seed: int = 0,
    identities: Iterable[str] = (),
    domain: str = "invented people",
    calibration: Mapping[str, Any] | None = None,
) -> Encoder:
    """Write an encoder folder of both modalities, one head and random weights, and load it.

    Args:
        folder: new or empty.
        seed: of the weights; another seed is another space.
        identities: whom it claims to have been trained on; ``identities.txt`` is written where there are any.
        domain: whom it claims to be for.
        calibration: content of ``calibration.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part, network in zip(("face", "voice", "head"), random_networks(seed), strict=True):
        (folder / f"{part}.safetensors").write_bytes(save(network.state_dict()))
    lines = [f"{identity}\n" for identity in sorted(set(identities))]
    if lines:
        (folder / "identities.txt").write_text("".join(lines), encoding="utf-8")
    if calibration is not None:
        (folder / "calibration.json").write_text(json.dumps(calibration))
    files = ["identities.txt"] if lines else []
    return Encoder.create(folder, shared_description(folder, domain), GOLDEN, "# random weights\n", files)


def say_of_probes(folder: Path, document: Any) -> Path:
    """Give an encoder folder a ``probes.json``; its vectors and its space stay as they are."""
    description, text = read_description(folder), json.dumps(document)
    (folder / PROBES_FILE).write_text(text)
    files = {**description.files, PROBES_FILE: sha256(text.encode()).hexdigest()}
    write_description(folder, replace(description, files=files))
    return folder
