"""How many faces and voices a shared encoder embeds in a second, beside plain eager code.

Run ``python -m tests.benchmarks.encode_speed [--samples 256] [--encoder FOLDER] [--device cpu] [--json]``. The
reference prepares the same samples in the same way and runs the bare networks on one after the other. Both take
turns in one process on one thread, and the best round of each counts, so trust the ratios rather than the rates.
``networks only`` leaves the preparation out of both. The weights are random unless a folder is given.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from encoders.backbones.small_face import SmallFaceNetwork, chips_to_input
from encoders.backbones.small_voice import SmallVoiceNetwork
from encoders.encoder import Encoder, Sample
from encoders.heads import HEADS
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Embedding, Modality
from tests.encoders.shared_encoder import make_shared_encoder

ROUNDS, DRAWINGS = 5, 32


@dataclass(frozen=True)
class Measured:
    """One line of the table: items a second by ``Encoder.encode`` and by plain eager code, and their ratio.

    ``mean_size`` is pixels of a crop's side, or seconds of a sound.
    """

    modality: str
    part: str
    samples: int
    mean_size: float
    encoder: float
    eager: float
    ratio: float
    least_cosine: float


class Eager:
    """The bare networks of a shared encoder's folder, one sample at a time."""

    def __init__(self, encoder: Encoder, device: str) -> None:
        self._encoder, self._device = encoder, torch.device(device)
        head = encoder.description.head
        if head is None or encoder.modalities != set(Modality):
            raise ValueError(f"{encoder.folder} is no shared encoder; give one of both modalities with a head")
        faces = encoder.backbones[Modality.FACE].preparation
        voices = encoder.backbones[Modality.VOICE].preparation
        self._networks: dict[Modality, torch.nn.Module] = {
            Modality.FACE: self._filled(SmallFaceNetwork(faces.side), "face.safetensors"),
            Modality.VOICE: self._filled(SmallVoiceNetwork(voices.bands), "voice.safetensors"),
        }
        self._head = self._filled(HEADS[head.kind](**head.parameters), head.weights.file)

    def embed(self, modality: Modality, prepared: Any) -> NDArray[np.float32]:
        """(dimension,) float32 of unit length."""
        with torch.inference_mode():
            inputs = prepared[None]
            if modality is Modality.FACE:
                inputs = chips_to_input(torch.from_numpy(inputs).to(self._device))
            features: Tensor = self._head(self._networks[modality](inputs))
            vector: NDArray[np.float32] = torch.nn.functional.normalize(features, dim=1)[0].cpu().numpy()
        return vector

    def embed_singly(self, modality: Modality, prepared: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Prepared samples, one after the other."""
        return [self.embed(modality, one) for one in prepared]

    def embed_together(self, modality: Modality, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """The same prepared samples as the encoder embeds them, without its checks of every vector."""
        head, features = self._encoder.head, self._encoder.backbones[modality].embed(prepared)
        return features if head is None else head.apply(features)

    def encode(self, modality: Modality, samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
        """Each sample prepared and embedded before the next."""
        prepare = self._encoder.backbones[modality].prepare
        return [self.embed(modality, prepare(sample)) for sample in samples]

    def _filled(self, module: torch.nn.Module, file: str) -> torch.nn.Module:
        module.load_state_dict(load_file(self._encoder.folder / file))
        return module.to(self._device).eval()


def drawn_samples(modality: Modality, count: int) -> tuple[list[Sample], float]:
    """Samples of sizes as an archive holds them, and their mean size (a few drawings over and over)."""
    random = np.random.default_rng(0)
    if modality is Modality.FACE:
        sides = random.integers(96, 257, size=DRAWINGS)
        drawings: list[Sample] = [drawn_face(number, int(side)) for number, side in enumerate(sides)]
        return [drawings[number % DRAWINGS] for number in range(count)], float(sides.mean())
    seconds = random.uniform(1.0, 6.0, size=DRAWINGS)
    drawings = [drawn_voice(number, float(length)) for number, length in enumerate(seconds)]
    return [drawings[number % DRAWINGS] for number in range(count)], float(seconds.mean())


def rates(count: int, first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Items a second of two ways that take turns: each one's best round after one to warm up."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for way, times in zip((first, second), spent, strict=True):
            started = time.perf_counter()
            way()
            times.append(time.perf_counter() - started)
    return count / min(spent[0][1:]), count / min(spent[1][1:])


def measure(encoder: Encoder, device: str, count: int) -> list[Measured]:
    """Both modalities, with and without preparation."""
    eager, table = Eager(encoder, device), []
    for modality in Modality:
        samples, size = drawn_samples(modality, count)
        backbone = encoder.backbones[modality]
        prepared = [backbone.prepare(sample) for sample in samples]
        answers = encoder.encode(modality, samples)
        pairs = zip(answers, eager.encode(modality, samples), strict=True)
        cosine = min(float(one.vector @ other) for one, other in pairs if isinstance(one, Embedding))
        ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "encode": (partial(encoder.encode, modality, samples), partial(eager.encode, modality, samples)),
            "networks only": (
                partial(eager.embed_together, modality, prepared),
                partial(eager.embed_singly, modality, prepared),
            ),
        }
        for part, (batched, single) in ways.items():
            rate, reference = rates(count, batched, single)
            table.append(Measured(modality, part, count, size, rate, reference, rate / reference, cosine))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=256, help="faces, and voices, of one call")
    parser.add_argument("--encoder", type=Path, help="folder of a shared encoder; without it weights are random")
    parser.add_argument("--device", default="cpu", help="a torch device")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = options.encoder or make_shared_encoder(Path(home) / "encoder").folder
        table = measure(Encoder.load(folder, device=options.device), options.device, options.samples)
    if options.json:
        print(json.dumps([asdict(line) for line in table]))
        return
    print("modality  part           samples  mean size  encoder /s   eager /s   × eager  least cosine")
    for line in table:
        print(
            f"{line.modality:<10}{line.part:<15}{line.samples:>7}{line.mean_size:>11.1f}{line.encoder:>12.0f}"
            f"{line.eager:>11.0f}{line.ratio:>10.2f}{line.least_cosine:>14.6f}"
        )


if __name__ == "__main__":
    main()
