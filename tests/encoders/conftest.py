import pytest
import torch

from encoders.encoder import Encoder, packaged_encoders
from tests.encoders.shared_encoder import make_shared_encoder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Beside another busy process, several threads wait for each other for seconds."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def face_encoder():
    """The packaged face encoder."""
    return Encoder.load(packaged_encoders()["face_identity"])


@pytest.fixture(scope="session")
def voice_encoder():
    """The packaged voice encoder."""
    return Encoder.load(packaged_encoders()["voice_identity"])


@pytest.fixture(scope="session")
def shared_encoder(tmp_path_factory):
    """A shared encoder of random weights; treat its folder as read-only."""
    return make_shared_encoder(
        tmp_path_factory.mktemp("shared") / "encoder", identities=("Sonasa_Torian_1a2b3c4d", "Ada_Brun_00000001")
    )
