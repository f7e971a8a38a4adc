import json

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from encoders.heads import HEADS, Head, SharedSpaceHead, WeightedResidualHead, describe_head
from encoders.space import Modality


def random_head(eta, dimension=5, hidden=7):
    """A head with weights of order one, so that every part of the formula matters."""
    generator = torch.Generator().manual_seed(0)
    head = WeightedResidualHead(dimension, hidden)
    for parameter in (head.inner.weight, head.outer.weight):
        torch.nn.init.normal_(parameter, generator=generator)
    torch.nn.init.constant_(head.eta, eta)
    return head


FEATURES = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    """The weights of a head in a file."""
    path = tmp_path / "head.safetensors"
    path.write_bytes(save(random_head(0.7).state_dict()))
    return path


def plain_formula(head, x):
    inner, outer = head.inner.weight.detach().numpy(), head.outer.weight.detach().numpy()
    return np.tanh(x + head.eta.item() * (np.tanh(x @ inner.T) @ outer.T))


@pytest.mark.parametrize("eta", [0.3, 1.0, -2.0])
def test_the_head_computes_its_formula(eta):
    head = random_head(eta)
    actual = head(torch.from_numpy(FEATURES)).detach().numpy()
    np.testing.assert_allclose(actual, plain_formula(head, FEATURES), atol=1e-6)


def test_a_new_head_is_a_plain_tanh_because_eta_starts_at_zero():
    head = WeightedResidualHead(5, 7)
    assert head.eta.item() == 0.0 and head.eta.shape == ()
    np.testing.assert_array_equal(head(torch.from_numpy(FEATURES)).detach(), torch.tanh(torch.from_numpy(FEATURES)))


def test_eta_learns_from_the_first_step_although_it_starts_at_zero():
    head = WeightedResidualHead(5, 7)
    head(torch.from_numpy(FEATURES)).sum().backward()
    assert head.eta.grad.abs().item() > 1e-4


def test_the_gradient_is_right_for_features_and_every_parameter():
    head = random_head(0.7).double()
    names = [name for name, _ in head.named_parameters()]

    def run(features, *values):
        return torch.func.functional_call(head, dict(zip(names, values, strict=True)), (features,))

    features = torch.from_numpy(FEATURES).double().requires_grad_()
    values = [value.detach().requires_grad_() for _, value in head.named_parameters()]
    assert set(names) == {"eta", "inner.weight", "outer.weight"}
    assert torch.autograd.gradcheck(run, (features, *values))


def test_a_served_head_gives_what_the_module_gives_row_by_row(saved):
    served = Head("weighted_residual", {"dimension": 5, "hidden": 7}, saved)
    together = served.apply(FEATURES, Modality.FACE)
    assert together.shape == (6, served.output_dimension) and together.dtype == np.float32
    np.testing.assert_allclose(together, plain_formula(random_head(0.7), FEATURES), atol=1e-6)
    alone = np.concatenate([served.apply(row[None], Modality.VOICE) for row in FEATURES])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_a_head_says_what_it_takes_and_gives(saved):
    served = Head("weighted_residual", {"dimension": 5, "hidden": 7}, saved)
    assert (served.input_of(Modality.FACE), served.output_dimension) == (5, 5)


def test_an_unknown_kind_is_refused_with_the_kinds_there_are(saved):
    assert set(HEADS) == {"weighted_residual", "layers"}
    with pytest.raises(ValueError, match="no head 'gate'; choose one of: layers, weighted_residual"):
        Head("gate", {}, saved)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dimension": 5}, "cannot be made with"),
        ({"dimension": 5, "hidden": 7, "depth": 2}, "cannot be made with"),
        ({"dimension": 5, "hidden": 0}, "hidden 0"),
        ({"dimension": 5, "hidden": 8}, "does not hold the weights of WeightedResidualHead"),
    ],
)
def test_impossible_parameters_and_weights_of_another_size_are_refused(saved, parameters, message):
    with pytest.raises(ValueError, match=message):
        Head("weighted_residual", parameters, saved)


def layered() -> SharedSpaceHead:
    torch.manual_seed(2)
    own = [["linear", 3, 4], ["tanh"], ["unit"]], [["linear_no_bias", 5, 4], ["batch_norm", 4], ["relu"]]
    shared = [["dropout", 0.5], ["weighted_residual", 4, 6], ["residual", 4, 2]]
    return SharedSpaceHead(*own, shared, 3, 5)


def test_a_head_of_layers_treats_faces_and_voices_apart_before_what_they_share(tmp_path):
    head = layered().eval()
    kind, parameters, dimension = describe_head(head)
    assert (kind, dimension) == ("layers", 4)
    save_file(dict(head.state_dict()), tmp_path / "head.safetensors")
    served = Head(kind, json.loads(json.dumps(parameters)), tmp_path / "head.safetensors")
    for modality, width in ((Modality.FACE, 3), (Modality.VOICE, 5)):
        features = np.random.default_rng(width).normal(size=(6, width)).astype(np.float32)
        assert served.input_of(modality) == width
        own = head.face if modality is Modality.FACE else head.voice
        expected = head.shared(own(torch.from_numpy(features))).detach()
        np.testing.assert_allclose(served.apply(features, modality), expected, atol=1e-6)


def test_a_residual_share_that_is_fixed_is_1_and_learns_nothing():
    head = SharedSpaceHead([], [], [["residual", 4, 2]], 4, 4)
    assert float(head.shared[0].eta) == 1.0
    assert "shared.0.eta" in head.state_dict() and "shared.0.eta" not in dict(head.named_parameters())


@pytest.mark.parametrize(
    ("face", "shared", "told"),
    [
        ([["gate", 3]], [], "no layer 'gate'"),
        ([["linear", 3]], [], "linear takes 2 numbers"),
        ([["linear", 9, 5]], [], "comes behind 3 components"),
        ([], [], "one width"),
        ([["linear", 3, 5]], [["weighted_residual", 3, 2]], "comes behind 5 components"),
    ],
)
def test_layers_that_do_not_follow_from_each_other_are_refused(face, shared, told):
    with pytest.raises(ValueError, match=told):
        SharedSpaceHead(face, [], shared, 3, 5)
