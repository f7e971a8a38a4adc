"""ECAPA-TDNN against speechbrain's own numbers; what holds for every voice network is in test_spectral_voice.py."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from encoders import voice
from encoders.backbones.ecapa_tdnn import (
    EcapaTdnn,
    EcapaTdnnNetwork,
    EcapaTdnnPreparation,
    _reflected,
    public_parameters,
)
from encoders.packaging import drawn_voice
from encoders.weights import find_row
from tests.encoders.backbones.make_ecapa_golden import GOLDEN, SEED, SIZES, SOUNDS
from tests.encoders.backbones.seeded_weights import seed_weights


@pytest.mark.parametrize("size", SIZES)
def test_vectors_are_speechbrains_also_in_a_batch_of_different_lengths(size, tmp_path):
    network = seed_weights(EcapaTdnnNetwork(EcapaTdnnPreparation(**SIZES[size])), SEED)
    torch.save(network.state_dict(), tmp_path / "embedding_model.ckpt")  # as the public file is saved
    served, expected = EcapaTdnn(tmp_path / "embedding_model.ckpt", SIZES[size]), load_file(GOLDEN)[size].numpy()
    vectors = served.embed([served.prepare(drawn_voice(*sound)) for sound in SOUNDS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5 * np.abs(expected).max())
    for left, right in ((vectors, expected), (vectors - expected.mean(axis=0), expected - expected.mean(axis=0))):
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        assert ((left * right).sum(axis=1) / lengths).min() >= 0.99999


def test_parameters_have_speechbrains_names_in_its_order():
    with safe_open(GOLDEN, framework="pt") as golden:
        names = golden.metadata()["names"].split("\n")
    assert list(EcapaTdnnNetwork().state_dict()) == names and "blocks.0.conv.conv.weight" in names


def test_a_block_that_changes_its_width_has_a_shortcut():
    network = EcapaTdnnNetwork(EcapaTdnnPreparation(channels=(16, 32, 32, 32, 48)))
    assert network.blocks[1].shortcut.conv.weight.shape == (32, 16, 1) and network.blocks[2].shortcut is None


def test_public_parameters_are_read_from_a_checkpoint_and_from_safetensors(tmp_path):
    state = seed_weights(EcapaTdnnNetwork(EcapaTdnnPreparation(**SIZES["small"])), 1).state_dict()
    torch.save(state, tmp_path / "a")
    (tmp_path / "b").write_bytes(save(state))
    for name in ("a", "b"):
        found = public_parameters(tmp_path / name)
        assert set(found) == set(state) and all(torch.equal(found[one], state[one]) for one in state)


def test_a_sound_is_reflected_at_its_own_end():
    inputs = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]]).float()[:, None]
    rows = _reflected(inputs, 2, torch.tensor([5, 3]))[:, 0].tolist()
    assert rows[0] == [3, 2, 1, 2, 3, 4, 5, 4, 3]
    assert rows[1][:7] == [8, 7, 6, 7, 8, 7, 6]
    torch.testing.assert_close(_reflected(inputs[:1], 2, None), _reflected(inputs[:1], 2, torch.tensor([5])))


def test_its_row_names_the_public_file_and_no_hash_that_nobody_published():
    source = find_row(voice.BACKBONES, "ecapa_tdnn").sources[0]
    assert (source.repository, source.file) == ("speechbrain/spkrec-ecapa-voxceleb", "embedding_model.ckpt")
    assert source.sha256 is None


def test_it_learns_and_a_constant_sound_has_a_finite_gradient():
    network = EcapaTdnnNetwork(EcapaTdnnPreparation(**SIZES["small"])).train()
    inputs = torch.zeros(3, 30, 80, requires_grad=True)
    network(inputs).square().sum().backward()
    assert torch.isfinite(inputs.grad).all()
    assert all(torch.isfinite(one.grad).all() for one in network.parameters())


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (8, 8)},
        {"kernels": (4, 3, 3, 3, 1)},
        {"scale": 7},
        {"dilations": (1, 2)},
        {"bands": 0},
        {"squeeze": 0},
    ],
)
def test_impossible_sizes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EcapaTdnnPreparation(**wrong)
