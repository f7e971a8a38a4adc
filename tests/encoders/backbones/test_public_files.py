import os
import pickle

import pytest
import torch
from safetensors.torch import save

from encoders.backbones.public_files import fill, plain_parameters, read_tensors

STATE = {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.zeros(3)}


def written(path, state):
    if path.suffix == ".safetensors":
        path.write_bytes(save(state))
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    "state", [STATE, {"state_dict": STATE, "epoch": 3}, {"model": {f"module.{k}": v for k, v in STATE.items()}}]
)
def test_parameters_are_found_in_a_checkpoint_and_inside_a_wrapper(tmp_path, state):
    found = read_tensors(written(tmp_path / "weights.ckpt", state))
    assert set(found) == set(STATE) and all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_the_content_decides_the_format_not_the_name(tmp_path):
    path = tmp_path / "5ae1b2"
    path.write_bytes(save(STATE))
    assert set(read_tensors(path)) == set(STATE)
    written(tmp_path / "x.pt", STATE).rename(path)
    assert set(read_tensors(path)) == set(STATE)


def test_a_checkpoint_of_the_old_format_is_read(tmp_path):
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(tmp_path / "old.pth")["weight"], STATE["weight"])


class Spy:
    def __reduce__(self):
        return os.mkdir, (os.environ["SPY"],)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SPY", str(tmp_path / "ran"))
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"weight": Spy()}, protocol=2))
    torch.save({"weight": Spy()}, tmp_path / "evil.pt")
    for name in ("evil.ckpt", "evil.pt"):
        with pytest.raises(ValueError, match=rf"{name} holds no weights that can be read safely"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut off", save(STATE)[:40]])
def test_a_file_that_is_none_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "broken.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.ckpt holds no"):
        read_tensors(tmp_path / "broken.ckpt")


def test_an_absent_file_and_a_file_without_tensors_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.pt holds no weights"):
        read_tensors(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="holds no tensors by name"):
        read_tensors(written(tmp_path / "numbers.pt", {"epoch": 3}))


def test_only_the_modules_own_parameters_fill_it(tmp_path):
    module = torch.nn.Linear(2, 3)
    fill(module, STATE, tmp_path)
    assert not module.training and torch.equal(plain_parameters(module)["weight"], STATE["weight"])
    for wrong in ({"weight": STATE["weight"]}, STATE | {"more": torch.zeros(1)}, STATE | {"bias": torch.zeros(2)}):
        with pytest.raises(ValueError, match="does not hold the weights of Linear"):
            fill(module, wrong, tmp_path)
