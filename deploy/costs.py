"""What an encoder costs to serve: parameters, multiply-adds, latency."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
from safetensors import safe_open

from encoders.encoder import Encoder
from encoders.folder import GOLDEN_FILE, FolderFile
from encoders.golden import load_golden
from encoders.space import Modality
from training.networks import multiply_adds

ROUNDS = 20
VOICE_SECONDS = 2.0
RATE = 16_000


@dataclass(frozen=True)
class Costs:
    """Of one sample at a time.

    Args:
        parameters: of networks and head; weights that faces and voices share count once.
        face_multiply_adds: of the network, for one face.
        voice_multiply_adds: likewise, for a voice of :data:`VOICE_SECONDS`.
        face_ms: median milliseconds from a face crop to its vector.
        voice_ms: likewise from a waveform.
    """

    parameters: int
    face_multiply_adds: int
    voice_multiply_adds: int
    face_ms: float
    voice_ms: float


def costs_of(encoder: Encoder) -> Costs:
    """What an encoder of both modalities costs whose networks lie in its folder.

    Raises:
        ValueError: it lacks a modality, or its networks are not among those that are trained.
    """
    branches = encoder.description.branches
    if set(branches) != set(Modality):
        raise ValueError(f"{encoder.folder} encodes {', '.join(sorted(branches))} only")
    files = {branch.weights.sha256: branch.weights for branch in branches.values()}
    if encoder.description.head is not None:
        files[encoder.description.head.weights.sha256] = encoder.description.head.weights
    names = [one.file for one in files.values() if isinstance(one, FolderFile)]
    adds = {
        modality: multiply_adds(modality, branch.backbone, branch.preparation, VOICE_SECONDS)
        for modality, branch in branches.items()
    }
    return Costs(
        parameters=sum(_parameters(encoder, name) for name in names),
        face_multiply_adds=adds[Modality.FACE],
        voice_multiply_adds=adds[Modality.VOICE],
        face_ms=_latency(encoder, Modality.FACE),
        voice_ms=_latency(encoder, Modality.VOICE),
    )


def _parameters(encoder: Encoder, name: str) -> int:
    with safe_open(encoder.folder / name, framework="numpy") as stream:
        return sum(int(np.prod(stream.get_slice(one).get_shape())) for one in stream.keys())  # noqa: SIM118


def _latency(encoder: Encoder, modality: Modality) -> float:
    """Median milliseconds of one sample after a few that warm up."""
    sample = load_golden(encoder.folder / GOLDEN_FILE, modality)[0][0]
    if modality is Modality.VOICE:
        sample = np.resize(np.asarray(sample), round(VOICE_SECONDS * RATE)).astype(np.float32)
    times = []
    for _ in range(ROUNDS + 3):
        began = time.perf_counter()
        encoder.encode(modality, [sample])
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[3:])
