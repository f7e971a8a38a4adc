"""What reads files into tracks: chosen here, and kept light, for each process of the sandbox loads it."""

from __future__ import annotations

from collections.abc import Mapping

from encoders.encoder import Encoder, packaged_encoders
from encoders.face import load_face_detector
from encoders.voice import load_speech_detector
from ingest.pipeline import ExtractionSettings, Extractor

# Rows of the tables in encoders.face and encoders.voice.
FACE_DETECTOR = "dlib_hog"
SPEECH_DETECTOR = "silero"
EXTRACTION = ExtractionSettings()
"""How files are read: everybody who reads for an installation does it alike."""


def make_extractor(encoders: Mapping[str, Encoder]) -> Extractor:
    """An extractor with the detectors that serve.

    Args:
        encoders: the identity encoders by the name of their space, and perhaps others.
    """
    return Extractor(
        load_face_detector(FACE_DETECTOR),
        load_speech_detector(SPEECH_DETECTOR),
        encoders["face_identity"],
        encoders["voice_identity"],
        EXTRACTION,
    )


def sandboxed_extractor() -> Extractor:
    """The same with encoders of its own, on the CPU: called inside the sandbox, by name."""
    return make_extractor({name: Encoder.load(folder) for name, folder in packaged_encoders().items()})
