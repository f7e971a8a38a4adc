from __future__ import annotations

import pytest
import torch

from encoders.devices import count_devices, device_of


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_gpus")
def test_processes_of_one_machine_share_its_gpus_evenly() -> None:
    assert count_devices("auto") == count_devices("cuda") == 3
    assert [device_of("auto", number) for number in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("wanted", ["cpu", "cuda:2"])
def test_a_device_that_is_named_is_everybodys(wanted: str) -> None:
    assert count_devices(wanted) == 1
    assert device_of(wanted, 1) == wanted


def test_without_a_gpu_there_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert count_devices("auto") == 1 and device_of("auto", 5) == "auto"
