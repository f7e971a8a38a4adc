import pytest
import torch
from safetensors.torch import save

from encoders.backbones.backbone import folded, load_parameters, read_preparation
from encoders.backbones.ge2e import GE2EPreparation
from encoders.backbones.small_face import SmallFacePreparation


def small_network():
    """Two convolutions with normalisations that are not the identity."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Conv1d(3, 4, 3, bias=False), torch.nn.BatchNorm1d(4), torch.nn.ReLU()),
        torch.nn.Sequential(torch.nn.Conv1d(4, 2, 3), torch.nn.BatchNorm1d(2)),
    )
    for _ in range(3):
        network(torch.randn(16, 3, 20) * 3 + 1)
    return network.eval()


def test_folding_normalisations_into_convolutions_changes_no_answer():
    network, inputs = small_network(), torch.randn(5, 3, 12)
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(inputs), network(inputs), atol=1e-5, rtol=1e-5)


def test_folding_leaves_no_normalisation_and_spares_the_original():
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    served = folded(network)
    assert not [one for one in served.modules() if isinstance(one, torch.nn.BatchNorm1d)]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_parameters_come_back_as_they_were_saved(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(small_network().state_dict()))
    module = torch.nn.Sequential(*small_network())
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    load_parameters(module, path)
    assert all(torch.equal(value, small_network().state_dict()[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (save({"weight": torch.zeros(2, 2)}), r"does not hold the weights of Linear: .*bias"),
        (save({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}), r"does not hold the weights of Linear: .*size"),
        (save({name: torch.zeros(2, 2) for name in ("weight", "bias", "more")}), "does not hold the weights of Linear"),
        (b"no safetensors", "does not hold the weights of Linear"),
    ],
)
def test_a_file_of_other_parameters_is_refused_by_its_name(tmp_path, content, message):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"(?s)weights\.safetensors " + message):
        load_parameters(torch.nn.Linear(2, 2), path)


@pytest.mark.parametrize("preparation", [GE2EPreparation, SmallFacePreparation])
def test_an_unknown_preparation_parameter_is_refused_with_those_that_exist(preparation):
    with pytest.raises(ValueError, match=r"tiny has no preparation parameter colour; it has .*least_"):
        read_preparation("tiny", preparation, {"colour": 3})


def test_parameters_that_are_not_stated_have_their_defaults():
    assert read_preparation("tiny", SmallFacePreparation, {"side": 96}) == SmallFacePreparation(side=96)
