"""Networks as training makes and runs them give what serving gives of the weights that they end with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from encoders.backbones.vit_face import VitFacePreparation
from encoders.encoder import NETWORKS
from encoders.packaging import drawn_face
from encoders.space import Modality
from training.checkpoint import write_weights
from training.networks import GREY, given_network, make_network, run_network, trainable

SMALL = VitFacePreparation(side=32, dimension=16, layers=1, heads=2)


def test_a_vision_transformer_serves_the_vectors_that_training_saw(tmp_path: Path) -> None:
    row, given = trainable(Modality.FACE, "vit_face"), given_network(Modality.FACE, "vit_face", SMALL)
    network = make_network(Modality.FACE, given).eval()
    chip = row.prepare(drawn_face(1), SMALL)
    assert isinstance(chip, np.ndarray) and chip.shape == (32, 32, 3) and given.dimension == 16
    inputs = (torch.from_numpy(chip).permute(2, 0, 1)[None].float() - GREY) / row.spread
    with torch.no_grad():
        expected = run_network(Modality.FACE, given, network, inputs).numpy()
    write_weights(tmp_path / "face.safetensors", network.state_dict())
    served = NETWORKS["vit_face"](tmp_path / "face.safetensors", asdict(SMALL), "cpu", "float32")
    np.testing.assert_allclose(served.embed([served.prepare(drawn_face(1))]), expected, atol=1e-5)
