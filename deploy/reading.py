"""What reads files into tracks: chosen here, and kept light, for each process of the sandbox loads it."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.settings import load_settings
from encoders.devices import device_name
from encoders.encoder import Encoder, packaged_encoders
from encoders.face import load_face_detector
from encoders.voice import load_speech_detector
from ingest.pipeline import ExtractionSettings, Extractor

# Rows of the tables in encoders.face and encoders.voice; the first is the one by default, and reads for training.
FACE_DETECTOR = "dlib_hog"
SPEECH_DETECTOR = "silero"
EXTRACTION = ExtractionSettings()
"""How files are read: everybody who reads for an installation does it alike."""


def make_extractor(
    encoders: Mapping[str, Encoder], face_detector: str = FACE_DETECTOR, device: str = "cpu"
) -> Extractor:
    """An extractor with the detectors that serve.

    Args:
        encoders: the identity encoders by the name of their space, and perhaps others.
        face_detector: a row of the table.
        device: where it runs, if it is one that a GPU can run.

    Raises:
        EncoderError: there is no such device. WeightsError: the detector's weights are not there.
    """
    return Extractor(
        load_face_detector(face_detector, device_name(device)),
        load_speech_detector(SPEECH_DETECTOR),
        encoders["face_identity"],
        encoders["voice_identity"],
        EXTRACTION,
    )


def sandboxed_extractor() -> Extractor:
    """The same with encoders of its own, on the CPU: called inside the sandbox, by name."""
    encoders = {name: Encoder.load(folder) for name, folder in packaged_encoders().items()}
    return make_extractor(encoders, load_settings().face_detector)
