"""Golden samples: a few inputs stored with the vectors they must give, so that a drift is noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from encoders.face import FaceCrop
from encoders.space import Modality

Sample = FaceCrop | NDArray[np.float32]
"""A face crop, or a waveform (samples,) float32 mono at 16 kHz."""


def save_golden(
    path: Path,
    samples: Mapping[Modality, Sequence[Sample]],
    vectors: Mapping[Modality, NDArray[np.float32]],
) -> None:
    """Write samples and their vectors, (samples, dimension) float32 per modality, as safetensors."""
    tensors: dict[str, NDArray[np.generic]] = {}
    for modality, group in samples.items():
        tensors[f"{modality}.vectors"] = vectors[modality]
        for number, sample in enumerate(group):
            if isinstance(sample, FaceCrop):
                tensors[f"{modality}.{number}.pixels"] = sample.pixels
                tensors[f"{modality}.{number}.landmarks"] = sample.landmarks
            else:
                tensors[f"{modality}.{number}.waveform"] = sample
    # not save_file: it makes files that only their owner may read
    path.write_bytes(save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))


def load_golden(path: Path, modality: Modality) -> tuple[list[Sample], NDArray[np.float32]]:
    """Samples of one modality and their vectors, (samples, dimension) float32.

    Raises:
        KeyError: there are none of this modality, or the file is incomplete.
        safetensors.SafetensorError: the file is no safetensors file.
    """
    tensors = load_file(path)
    vectors = tensors[f"{modality}.vectors"]
    samples: list[Sample] = []
    for number in range(len(vectors)):
        prefix = f"{modality}.{number}"
        if modality is Modality.FACE:
            samples.append(FaceCrop(tensors[f"{prefix}.pixels"], tensors[f"{prefix}.landmarks"]))
        else:
            samples.append(tensors[f"{prefix}.waveform"])
    return samples, vectors
