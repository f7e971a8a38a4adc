import pytest

from encoders.encoder import Encoder, packaged_encoders


@pytest.fixture(scope="session")
def face_encoder():
    """The packaged face encoder."""
    return Encoder.load(packaged_encoders()["face_identity"])


@pytest.fixture(scope="session")
def voice_encoder():
    """The packaged voice encoder."""
    return Encoder.load(packaged_encoders()["voice_identity"])
