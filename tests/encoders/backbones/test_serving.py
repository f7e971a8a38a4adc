import pytest
import torch

from encoders.backbones import serving
from encoders.backbones.backbone import ChannelScale
from encoders.backbones.serving import ServedConvolution, exact_type, quick_type, served

CPU = torch.device("cpu")
CONVOLUTIONS = {
    "over a picture": (torch.nn.Conv2d(3, 8, 3, padding=1), (2, 3, 9, 7)),
    "by halves": (torch.nn.Conv2d(8, 16, 3, stride=2), (1, 8, 11, 11)),
    "of a large kernel": (torch.nn.Conv2d(3, 32, 7, stride=2), (2, 3, 30, 21)),
    "of the whole picture": (torch.nn.Conv2d(8, 5, 4), (3, 8, 4, 4)),
    "dilated, in groups": (torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2, bias=False), (2, 8, 10, 10)),
    "over time": (torch.nn.Conv1d(40, 16, 5, stride=2, padding=2, bias=False), (2, 40, 33)),
    "over one frame": (torch.nn.Conv1d(40, 16, 3, padding=1), (1, 40, 1)),
}


@pytest.fixture(params=["oneDNN", "plain"])
def operators(request, monkeypatch):
    """Both ways to convolve."""
    if request.param == "plain":
        monkeypatch.setattr(serving, "_has_onednn", lambda: False)
    elif not serving._has_onednn():
        pytest.skip("this torch has no oneDNN")


@pytest.fixture(params=list(CONVOLUTIONS))
def case(request):
    """A convolution and an input for it."""
    convolution, shape = CONVOLUTIONS[request.param]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in convolution.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return convolution, torch.randn(shape)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("rectified", [False, True])
def test_a_served_convolution_answers_as_the_plain_one(case, rectified):
    convolution, inputs = case
    with torch.inference_mode():
        expected = convolution(inputs)
        actual = ServedConvolution(convolution, rectified=rectified)(inputs)
        torch.testing.assert_close(actual, expected.relu() if rectified else expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("rectified", [False, True])
def test_what_is_added_comes_before_the_rectifier(case, rectified):
    convolution, inputs = case
    with torch.inference_mode():
        plain = convolution(inputs)
        added = torch.randn(plain.shape)
        actual = ServedConvolution(convolution, rectified=rectified)(inputs, added=added.clone())
        expected = plain + added
        torch.testing.assert_close(actual, expected.relu() if rectified else expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("operators")
def test_bfloat16_takes_and_gives_numbers_of_two_bytes(case):
    convolution, inputs = case
    with torch.inference_mode():
        actual = ServedConvolution(convolution, rectified=False, dtype=torch.bfloat16)(inputs)
        expected = convolution(inputs)
    assert actual.dtype == torch.bfloat16
    assert float((actual.float() - expected).norm() / expected.norm()) < 0.01


@pytest.mark.usefixtures("operators")
def test_an_inputs_layout_in_memory_does_not_matter():
    convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
    convolve, pixels = ServedConvolution(convolution, rectified=True), torch.rand(2, 9, 7, 3)
    with torch.inference_mode():
        rows = pixels.permute(0, 3, 1, 2)
        torch.testing.assert_close(convolve(rows), convolve(rows.contiguous()))


def scaled_network():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), ChannelScale(4), torch.nn.ReLU()),
        torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3), torch.nn.BatchNorm2d(4)),
        torch.nn.Sequential(torch.nn.Conv2d(4, 2, 3, bias=False), ChannelScale(2)),
    )
    for module in network.modules():
        if isinstance(module, ChannelScale):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    network(torch.randn(16, 3, 9, 9) * 3 + 1)
    return network.eval()


@pytest.mark.usefixtures("operators")
def test_a_served_network_answers_the_same_and_spares_the_original():
    network, inputs = scaled_network(), torch.randn(5, 3, 12, 12)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network(inputs)
        torch.testing.assert_close(served(network, CPU)(inputs), expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_served_network_has_only_convolutions_left():
    kinds = {type(one).__name__ for one in served(scaled_network(), CPU).modules()}
    assert kinds == {"Sequential", "Identity", "ServedConvolution"}


def test_auto_is_bfloat16_only_where_the_processor_multiplies_it(monkeypatch):
    monkeypatch.setattr(serving, "_has_bfloat16", lambda: True)
    assert quick_type("auto", CPU) == torch.bfloat16
    assert quick_type("auto", torch.device("cuda")) == torch.float32
    monkeypatch.setattr(serving, "_has_bfloat16", lambda: False)
    assert quick_type("auto", CPU) == torch.float32


def test_a_precision_that_is_asked_for_is_used():
    assert quick_type("float32", CPU) == exact_type("float32") == exact_type("auto") == torch.float32
    assert quick_type("bfloat16", CPU) == exact_type("bfloat16") == torch.bfloat16


@pytest.mark.parametrize("choose", [lambda name: quick_type(name, CPU), exact_type])
def test_an_unknown_precision_is_refused_with_those_there_are(choose):
    with pytest.raises(ValueError, match="no precision 'half'; choose one of: auto, float32, bfloat16"):
        choose("half")
