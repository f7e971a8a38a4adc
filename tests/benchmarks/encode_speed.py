"""How many faces and voices the convolutional encoders embed in a second, beside plain eager code and ONNX Runtime.

Run ``python -m tests.benchmarks.encode_speed [--samples 256] [--encoder FOLDER] [--device cpu] [--json]``. Everything
takes turns in one process on one thread, and the median round of each counts, in seconds of the processor, so trust
the ratios rather than the rates. Two tables come out:

- networks: the same prepared samples through the bare float32 network run eagerly, through what serves (in float32 and
  in bfloat16), through ONNX Runtime in float32, and for the identity network through dlib; one sample a call and 32.
- whole: ``Encoder.encode`` of a shared encoder with its preparation, beside the same one sample after the other.

The shared encoder's weights are random unless a folder is given.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dlib
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from encoders import face
from encoders.backbones.backbone import Backbone
from encoders.backbones.dlib_format import CHIP_SIDE, read_face_network
from encoders.backbones.dlib_resnet import DlibResnet, FaceResnet
from encoders.backbones.dlib_resnet import chips_to_input as identity_input
from encoders.backbones.serving import quick_type
from encoders.backbones.small_face import SmallFace, SmallFaceNetwork, chips_to_input
from encoders.backbones.small_voice import SmallVoice, SmallVoiceNetwork
from encoders.chips import face_chip
from encoders.encoder import Encoder, Sample
from encoders.heads import HEADS
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Embedding, Modality
from encoders.weights import packaged_path
from tests.encoders.shared_encoder import make_shared_encoder

ROUNDS, DRAWINGS, TOGETHER, VOICE_SECONDS = 9, 32, 32, 3.5

Way = Callable[[Sequence[Any]], NDArray[np.float32]]
"""Prepared samples to (samples, features)."""


@dataclass(frozen=True)
class NetworkSpeed:
    """One line of the first table: a network, one way to run it, one size of batch.

    ``per_second`` items a second; ``times_eager`` that over the plain eager float32 network at the same batch size;
    ``times_singly`` that over the same network at one sample a call; ``least_cosine`` to its vectors.
    """

    network: str
    way: str
    batch: int
    per_second: float
    times_eager: float
    times_singly: float
    least_cosine: float


@dataclass(frozen=True)
class Measured:
    """One line of the second table: items a second by ``Encoder.encode`` and by plain eager code, and their ratio.

    ``mean_size`` is pixels of a crop's side, or seconds of a sound.
    """

    modality: str
    samples: int
    mean_size: float
    encoder: float
    eager: float
    ratio: float
    least_cosine: float


class Eager:
    """The bare networks of a shared encoder's folder."""

    def __init__(self, encoder: Encoder, device: str) -> None:
        self._encoder, self._device = encoder, torch.device(device)
        head = encoder.description.head
        if head is None or encoder.modalities != set(Modality):
            raise ValueError(f"{encoder.folder} is no shared encoder; give one of both modalities with a head")
        faces = encoder.backbones[Modality.FACE].preparation
        voices = encoder.backbones[Modality.VOICE].preparation
        self.networks: dict[Modality, torch.nn.Module] = {
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
            features: Tensor = self._head(self.networks[modality](inputs), modality)
            vector: NDArray[np.float32] = torch.nn.functional.normalize(features, dim=1)[0].cpu().numpy()
        return vector

    def encode(self, modality: Modality, samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
        """Each sample prepared and embedded before the next."""
        prepare = self._encoder.backbones[modality].prepare
        return [self.embed(modality, prepare(sample)) for sample in samples]

    def _filled(self, module: torch.nn.Module, file: str) -> torch.nn.Module:
        module.load_state_dict(load_file(self._encoder.folder / file))
        return module.to(self._device).eval()


class OnnxRuntime:
    """A network exported by torch and run by ONNX Runtime in float32 on one thread."""

    def __init__(self, network: torch.nn.Module, inputs: Tensor, home: Path) -> None:
        path = home / f"{type(network).__name__}.onnx"
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # the exporter warns of its own insides
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            count = torch.export.Dim("count", max=4096)
            torch.onnx.export(
                network.cpu(), (inputs.cpu(),), path, dynamo=True, verbose=False, dynamic_shapes=({0: count},)
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, inputs: Tensor) -> NDArray[np.float32]:
        """The network's answer, (samples, features)."""
        answer: NDArray[np.float32] = self._session.run(None, {self._input: inputs.numpy()})[0]
        return answer


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to measure: how it is written, how it serves, and what it is given."""

    name: str
    network: torch.nn.Module
    serving: Mapping[str, Backbone]
    prepared: Sequence[Any]
    inputs: Callable[[Sequence[Any]], Tensor]
    further: Mapping[str, Way]

    def ways(self, home: Path) -> dict[str, Way]:
        """All ways by name, the plain eager one first."""
        found: dict[str, Way] = {"eager float32": self._eager}
        found |= {f"serving {precision}": backbone.embed for precision, backbone in self.serving.items()}
        if self.prepared and next(self.network.parameters()).device.type == "cpu":
            exported = OnnxRuntime(self.network, self.inputs(self.prepared[:2]), home)
            found["ONNX Runtime float32"] = lambda prepared: exported(self.inputs(prepared))
        return found | dict(self.further)

    def _eager(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: NDArray[np.float32] = self.network(self.inputs(prepared)).cpu().numpy()
        return answer


def subjects(encoder: Encoder, device: str) -> list[Subject]:
    """The identity network and both networks of a shared encoder."""
    place, bare = torch.device(device), Eager(encoder, device).networks
    weights = packaged_path(face.BACKBONES[0].files[0])
    identity = FaceResnet().eval()
    identity.load_state_dict(read_face_network(weights))
    original = dlib.face_recognition_model_v1(str(weights))
    drawings = [drawn_face(number, 96 + 5 * number) for number in range(TOGETHER)]
    sounds = [drawn_voice(number, VOICE_SECONDS) for number in range(TOGETHER)]
    precisions = ("float32", "bfloat16")

    def serving(made: Callable[..., Backbone], path: Path, given: Mapping[str, Any]) -> dict[str, Backbone]:
        return {precision: made(path, given, device, precision) for precision in precisions}

    faces, voices = (asdict(encoder.backbones[one].preparation) for one in (Modality.FACE, Modality.VOICE))
    small_face = serving(SmallFace, encoder.folder / "face.safetensors", faces)
    small_voice = serving(SmallVoice, encoder.folder / "voice.safetensors", voices)
    return [
        Subject(
            "dlib_resnet",
            identity.to(place),
            serving(DlibResnet, weights, {}),
            [face_chip(crop, 0.25, CHIP_SIDE) for crop in drawings],
            lambda chips: identity_input(torch.from_numpy(np.stack(chips)).to(place)),
            {"dlib": lambda chips: np.array([original.compute_face_descriptor(chip) for chip in chips], np.float32)},
        ),
        Subject(
            "small_face",
            bare[Modality.FACE],
            small_face,
            [small_face["float32"].prepare(crop) for crop in drawings],
            lambda chips: chips_to_input(torch.from_numpy(np.stack(chips)).to(place)),
            {},
        ),
        Subject(
            "small_voice",
            bare[Modality.VOICE],
            small_voice,
            [small_voice["float32"].prepare(sound) for sound in sounds],
            lambda mels: torch.stack(list(mels)),
            {},
        ),
    ]


def measure_networks(encoder: Encoder, device: str, home: Path) -> list[NetworkSpeed]:
    """The first table."""
    table = []
    for subject in subjects(encoder, device):
        ways, singly = subject.ways(home), 0.0
        reference = unit(ways["eager float32"](subject.prepared))
        for batch in (1, TOGETHER):
            runs = {
                name: partial(way, subject.prepared[:batch])
                for name, way in ways.items()
                if batch == 1 or name != "dlib"  # which takes one face after the other anyway
            }
            seconds = medians(runs, device, calls=8 if batch == 1 else 4)
            eager = seconds["eager float32"]
            singly = singly or eager
            for name in runs:
                cosine = float((unit(ways[name](subject.prepared)) * reference).sum(axis=1).min())
                rate = batch / seconds[name]
                table.append(
                    NetworkSpeed(subject.name, name, batch, rate, eager / seconds[name], rate * singly, cosine)
                )
    return table


def measure(encoder: Encoder, device: str, count: int) -> list[Measured]:
    """The second table: both modalities, with preparation."""
    eager, table = Eager(encoder, device), []
    for modality in Modality:
        samples, size = drawn_samples(modality, count)
        answers = encoder.encode(modality, samples)
        pairs = zip(answers, eager.encode(modality, samples), strict=True)
        cosine = min(float(one.vector @ other) for one, other in pairs if isinstance(one, Embedding))
        seconds = medians(
            {"ours": partial(encoder.encode, modality, samples), "eager": partial(eager.encode, modality, samples)},
            device,
        )
        rate, reference = count / seconds["ours"], count / seconds["eager"]
        table.append(Measured(modality, count, size, rate, reference, rate / reference, cosine))
    return table


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


def medians(ways: Mapping[str, Callable[[], object]], device: str, calls: int = 1) -> dict[str, float]:
    """Seconds of one call of each way: the median of rounds in which all take turns, after one to warm up.

    On a processor they are seconds of this process alone, so that others on the machine count for less.
    """
    clock = time.perf_counter if device != "cpu" else time.process_time
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            started = clock()
            for _ in range(calls):
                way()
            spent[name].append((clock() - started) / calls)
    return {name: float(np.median(times[1:])) for name, times in spent.items()}


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows at unit length."""
    rows = vectors.astype(np.float64)
    scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def show(networks: Sequence[NetworkSpeed], whole: Sequence[Measured]) -> None:
    """Print both tables."""
    print("network      way                   batch     items/s   × eager, same batch   × eager, singly   least cosine")
    for one in networks:
        print(
            f"{one.network:<13}{one.way:<22}{one.batch:>5}{one.per_second:>12.1f}{one.times_eager:>22.2f}"
            f"{one.times_singly:>18.2f}{one.least_cosine:>15.6f}"
        )
    print("\nmodality  samples  mean size  encoder /s   eager /s   × eager  least cosine")
    for line in whole:
        print(
            f"{line.modality:<10}{line.samples:>7}{line.mean_size:>11.1f}{line.encoder:>12.0f}"
            f"{line.eager:>11.0f}{line.ratio:>10.2f}{line.least_cosine:>14.6f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256, help="faces, and voices, of one call of the second table")
    parser.add_argument("--encoder", type=Path, help="folder of a shared encoder; without it weights are random")
    parser.add_argument("--device", default="cpu", help="a torch device")
    parser.add_argument("--precision", default="auto", help="of the second table: auto, float32 or bfloat16")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the tables")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = options.encoder or make_shared_encoder(Path(home) / "encoder").folder
        encoder = Encoder.load(folder, device=options.device, precision=options.precision)
        networks = measure_networks(encoder, options.device, Path(home))
        whole = measure(encoder, options.device, options.samples)
    chosen = str(quick_type("auto", torch.device(options.device))).removeprefix("torch.")
    if options.json:
        document = {"auto": chosen, "networks": [asdict(one) for one in networks], "whole": [asdict(x) for x in whole]}
        print(json.dumps(document))
        return
    show(networks, whole)
    print(f"\nOn this machine the precision auto of the small networks is {chosen}; dlib_resnet's is float32.")


if __name__ == "__main__":
    main()
