"""Voices: the sound that encoders take, the tables of speech detectors and networks, the detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from encoders.weights import HubFile, NetworkRow, PackagedFile, find_row, packaged_path

SAMPLE_RATE = 16_000
"""Samples per second of every waveform in Visavox: mono, float32, within [-1, 1]."""


class SpeechDetector(Protocol):
    """Says where in a sound somebody speaks.

    ``frame_seconds`` is the length of a frame: probability i is about the seconds from
    ``i * frame_seconds`` to ``(i + 1) * frame_seconds``.
    """

    frame_seconds: float

    def probabilities(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of speech per frame.

        Args:
            waveform: (samples,) float32 mono at 16 kHz, within [-1, 1], finite.

        Returns:
            (frames,) float32 in [0, 1]; the last frame may reach past the end of the sound.
        """
        ...


_SILERO = PackagedFile(
    package="silero_vad",
    distribution="silero-vad",
    version="6.2.3",
    file="data/silero_vad_16k_sequence.onnx",
    sha256="9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
    licence="MIT",
)
_GE2E = PackagedFile(
    package="resemblyzer",
    distribution="resemblyzer",
    version="0.1.4",
    file="pretrained.pt",
    sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    licence="Apache-2.0",
)


def _of_transformers(repository: str, licence: str) -> tuple[HubFile, ...]:
    """The files of a network of the package ``transformers``: weights, sizes, and what is done to a waveform."""
    names = ("pytorch_model.bin", "config.json", "preprocessor_config.json")
    return tuple(HubFile(repository, name, licence) for name in names)


DETECTORS = (
    NetworkRow(
        name="silero",
        network="silero_sequence",
        files=(_SILERO,),
        dimension=0,
        trained_on="speech in more than 6,000 languages with background noise; its corpora are not published",
        input_contract="float32 mono at 16 kHz of any length, judged in frames of 512 samples (32 ms)",
    ),
)

BACKBONES = (
    NetworkRow(
        name="ge2e",
        network="ge2e",
        files=(_GE2E,),
        dimension=256,
        trained_on="LibriSpeech train-other, VoxCeleb1 and VoxCeleb2: about 8,400 people, mostly English",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; 40 mel bands of 25 ms every 10 ms",
    ),
    NetworkRow(
        name="small_voice",
        network="small_voice",
        files=(),
        dimension=128,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; 40 log-mel bands of 25 ms every 10 ms at one level",
    ),
    NetworkRow(
        name="small_picture_voice",
        network="small_picture_voice",
        files=(),
        dimension=128,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; without its quiet frames, 64 log-mel bands every 30 "
        "ms at one level, in square pictures",
    ),
    NetworkRow(
        name="inception_resnet_v1_voice",
        network="inception_resnet_v1_voice",
        files=(),
        dimension=512,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; without its quiet frames, 256 magnitudes (0 to 8 kHz) "
        "of 25 ms every 10 ms, mean 0 and deviation 1, in square pictures",
    ),
    NetworkRow(
        name="ecapa_tdnn",
        network="ecapa_tdnn",
        files=(),
        dimension=192,
        trained_on="VoxCeleb1 and VoxCeleb2, development parts: 7,205 people, so VoxCeleb1's test splits for faces and "
        "voices (P and D) hold people that it knows",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; 80 log-mel bands of 25 ms every 10 ms, mean 0",
        sources=(HubFile("speechbrain/spkrec-ecapa-voxceleb", "embedding_model.ckpt", "Apache-2.0"),),
    ),
    NetworkRow(
        name="wav2vec2_base",
        network="speech_transformer",
        files=(),
        dimension=768,
        trained_on="LibriSpeech: 960 h of read English of about 2,300 people, without labels; never on who speaks",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; the waveform at mean 0 and deviation 1",
        sources=_of_transformers("facebook/wav2vec2-base", "Apache-2.0"),
    ),
    NetworkRow(
        name="hubert_base",
        network="speech_transformer",
        files=(),
        dimension=768,
        trained_on="LibriSpeech: 960 h of read English of about 2,300 people, without labels; never on who speaks",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; the waveform as preprocessor_config.json says",
        sources=_of_transformers("facebook/hubert-base-ls960", "Apache-2.0"),
    ),
    NetworkRow(
        name="wavlm_base",
        network="speech_transformer",
        files=(),
        dimension=768,
        trained_on="LibriSpeech: 960 h of read English of about 2,300 people, mixed with one another, without labels; "
        "never on who speaks",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; the waveform as preprocessor_config.json says",
        sources=_of_transformers("microsoft/wavlm-base", "MIT, as torchaudio's documentation says"),
    ),
    NetworkRow(
        name="resnet34_voice",
        network="resnet34_voice",
        files=(),
        dimension=256,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; 64 log-mel bands (or mel cepstra, or magnitudes) of "
        "25 ms every 10 ms, mean 0 and deviation 1",
    ),
    NetworkRow(
        name="dimnet_voice",
        network="dimnet_voice",
        files=(),
        dimension=256,
        trained_on="nothing by itself: an encoder folder holds its weights and says on whom they were trained",
        input_contract="float32 mono at 16 kHz, at least 0.4 s; 64 log-mel bands (or mel cepstra) of 25 ms every "
        "10 ms, mean 0 and deviation 1",
    ),
)


class _SileroDetector:
    """Silero's recurrent detector; one call of the network judges many frames."""

    _FRAME = 512  # samples judged at a time
    _CONTEXT = 64  # samples of the previous frame that the network sees in front of them
    _BLOCK = 512  # frames per call: bounds memory for films of hours

    frame_seconds = _FRAME / SAMPLE_RATE

    def __init__(self, row: NetworkRow) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the network is tiny: more threads only wait for each other
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # it warns of initialisers that the exporter left unused
        path = packaged_path(row.files[0])
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )

    def probabilities(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`SpeechDetector`. Raises ValueError unless the waveform is finite (n,) numbers."""
        samples = np.asarray(waveform, dtype=np.float32)
        # Of a sound of hours no copy is made, not even to look for what is no number.
        if samples.ndim != 1 or not np.isfinite([samples.min(initial=0.0), samples.max(initial=0.0)]).all():
            raise ValueError(f"a waveform is (samples,) finite numbers, got shape {samples.shape}")
        frames = -(-samples.size // self._FRAME)
        hidden = np.zeros((1, 1, 128), dtype=np.float32)
        cell = np.zeros((1, 1, 128), dtype=np.float32)
        found = [np.zeros(0, dtype=np.float32)]
        for start in range(0, frames, self._BLOCK):
            count = min(self._BLOCK, frames - start)
            padded = np.zeros(self._CONTEXT + count * self._FRAME, dtype=np.float32)
            begin = start * self._FRAME - self._CONTEXT
            piece = samples[max(0, begin) : (start + count) * self._FRAME]
            padded[max(0, -begin) : max(0, -begin) + piece.size] = piece
            # (block, 576): every frame behind the end of the one before it
            starts = np.arange(count)[:, None] * self._FRAME
            block = padded[starts + np.arange(self._CONTEXT + self._FRAME)]
            inputs = {"input": block, "h": hidden, "c": cell}
            values, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
            found.append(np.asarray(values, dtype=np.float32).reshape(-1))
        return np.concatenate(found)


_DETECTOR_CLASSES: dict[str, Callable[[NetworkRow], SpeechDetector]] = {"silero_sequence": _SileroDetector}


def load_speech_detector(name: str = "silero") -> SpeechDetector:
    """Load a detector of the table :data:`DETECTORS`; it keeps no state between calls.

    Raises:
        ValueError: there is no such detector.
        WeightsError: its weights are missing or not the expected ones.
    """
    row = find_row(DETECTORS, name)
    return _DETECTOR_CLASSES[row.network](row)
