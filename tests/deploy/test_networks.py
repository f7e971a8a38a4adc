"""Pulling, listing and verifying networks by the command line, from a real server and from folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from deploy.networks import list_networks
from deploy.settings import load_settings
from encoders import face, folder, pulling
from encoders.backbones.inception_resnet_v1 import InceptionResnetV1
from encoders.backbones.small_face import SmallFacePreparation
from encoders.encoder import Encoder, packaged_encoders
from encoders.folder import GOLDEN_FILE, read_description
from encoders.golden import load_golden, save_golden
from encoders.packaging import drawn_face
from encoders.space import Modality
from encoders.weights import HubFile, NetworkRow, UrlFile, sha256_of
from tests.deploy.drawings import run
from tests.encoders.seeded import seed_network
from tests.encoders.shared_encoder import random_networks
from tests.encoders.weight_server import COMMIT, WeightServer, weight_server

FACENET = "20180402-114759-vggface2.pt"


@pytest.fixture(scope="module")
def weights() -> bytes:
    """Tiny weights of a network that gives vectors."""
    return save(random_networks()[0].state_dict())


@pytest.fixture
def server(weights: bytes) -> Iterator[WeightServer]:
    with weight_server() as running:
        running.files["/tiny.safetensors"] = weights
        running.serve_hub("people/net", "model.safetensors", weights)
        yield running


@pytest.fixture
def home(tmp_path: Path, server: WeightServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home whose tables have two more rows: ``tiny`` from an address, ``tiny_hub`` from the hub."""
    sources = (UrlFile(f"{server.url}/tiny.safetensors", "MIT"), HubFile("people/net", "model.safetensors", "MIT"))
    rows = tuple(
        NetworkRow(name, "small_face", (), 128, "random numbers", "a crop", (source,))
        for name, source in zip(("tiny", "tiny_hub"), sources, strict=True)
    )
    table = (*face.BACKBONES, *rows)
    monkeypatch.setattr(face, "BACKBONES", table)
    monkeypatch.setitem(folder.BACKBONES, Modality.FACE, table)
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISAVOX_HUB_URL", server.url)
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    monkeypatch.delenv("VISAVOX_OFFLINE", raising=False)
    return tmp_path / "home"


def listed(capsys: Any) -> dict[str, dict[str, Any]]:
    code, told = run(capsys, "models", "list")
    assert code == 0
    return {network["name"]: network for network in told["networks"]}


def test_models_and_models_list_say_the_same(home: Path, capsys: Any) -> None:
    assert run(capsys, "models") == run(capsys, "models", "list")
    assert not home.exists()


def test_every_row_is_listed_with_whence_and_on_whom(home: Path, capsys: Any) -> None:
    rows = listed(capsys)
    facenet = rows["inception_resnet_v1_vggface2"]
    assert facenet["sources"][0]["source"].endswith(FACENET) and facenet["dimension"] == 512
    assert (facenet["state"], facenet["pulled"], facenet["licence"]) == ("not_pulled", False, "MIT")
    assert "8,631 people" in facenet["trained_on"]
    assert rows["mtcnn"]["kind"] == "detector" and rows["mtcnn"]["pulled"] and rows["mtcnn"]["dimension"] == 0
    assert rows["ge2e"]["sources"][0]["sha256"] and rows["ge2e"]["modality"] == "voice"
    assert rows["small_face"]["state"] == "trained_here"


def test_a_pulled_network_is_an_encoder_folder_of_its_own_space(home: Path, capsys: Any, server: WeightServer) -> None:
    code, told = run(capsys, "models", "pull", "tiny")
    (pulled,) = told["pulled"]
    assert (code, pulled["fetched"], told["failed"]) == (0, 1, [])
    encoder = Encoder.load(home / "encoders" / "tiny")
    assert pulled["encoder"] == str(encoder.folder) and encoder.space.name == "tiny"
    assert encoder.verify_golden() > 0.9999 and encoder.encode(Modality.FACE, [drawn_face(3)])[0].vector.shape == (128,)
    card = (encoder.folder / "MODEL_CARD.md").read_text()
    assert f"{server.url}/tiny.safetensors" in card and "Random numbers" in card
    assert "tiny" in {model["name"] for model in run(capsys, "models")[1]["models"]}


def test_files_beside_the_weights_say_how_samples_are_prepared(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(folder: Path) -> SmallFacePreparation:
        assert (folder / "tiny.safetensors").is_file()
        return SmallFacePreparation(padding=0.4)

    monkeypatch.setattr(pulling, "PREPARATIONS", {"small_face": read})
    assert run(capsys, "models", "pull", "tiny")[0] == 0
    branch = read_description(home / "encoders/tiny").branches[Modality.FACE]
    assert branch.preparation["padding"] == 0.4


def test_pulling_again_does_nothing(home: Path, capsys: Any, server: WeightServer) -> None:
    run(capsys, "models", "pull", "tiny")
    digest, asked = read_description(home / "encoders/tiny").digest(), len(server.asked)
    code, told = run(capsys, "models", "pull", "tiny", "tiny")
    assert (code, [one["fetched"] for one in told["pulled"]], len(server.asked)) == (0, [0], asked)
    assert read_description(home / "encoders/tiny").digest() == digest


def test_a_pull_from_a_hub_pins_the_commit_and_the_list_shows_it(home: Path, capsys: Any) -> None:
    assert listed(capsys)["tiny_hub"]["sources"][0]["revision"] == "main"
    assert run(capsys, "models", "pull", "tiny_hub")[0] == 0
    network = listed(capsys)["tiny_hub"]
    assert (network["state"], network["sources"][0]["revision"]) == ("pulled", COMMIT)
    assert len(network["sources"][0]["sha256"]) == 64


def test_some_failed_is_exit_code_1_and_all_failed_3(home: Path, capsys: Any, server: WeightServer) -> None:
    del server.files["/tiny.safetensors"]
    code, told = run(capsys, "models", "pull", "tiny", "tiny_hub")
    assert (code, [one["name"] for one in told["pulled"]]) == (1, ["tiny_hub"])
    assert told["failed"][0]["name"] == "tiny" and "was not found" in told["failed"][0]["reason"]
    code, told = run(capsys, "models", "pull", "tiny", "small_face")
    assert (code, told["error"]["type"]) == (3, "weights") and "no weights to fetch" in told["error"]["message"]
    code, told = run(capsys, "models", "pull", "tiny")
    assert (code, told["error"]["type"]) == (3, "weights")


def test_offline_only_local_files_are_taken(
    home: Path, capsys: Any, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_OFFLINE", "1")
    code, told = run(capsys, "models", "pull", "tiny")
    assert code == 3 and "offline" in told["error"]["message"]
    (tmp_path / "tiny.safetensors").write_bytes(weights)
    assert run(capsys, "models", "pull", "tiny", "--from", str(tmp_path))[0] == 0
    assert run(capsys, "models", "pull", "tiny")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pull", "unheard-of"], "choose one of"),
        (["pull"], "NAME"),
        (["pull", "tiny", "tiny_hub", "--from", "https://example.org/"], "one by one"),
        (["verify", "unheard-of"], "unheard-of"),
    ],
)
def test_wrong_usage_is_exit_code_2(home: Path, capsys: Any, arguments: list[str], words: str) -> None:
    code, told = run(capsys, "models", *arguments)
    assert code == 2 and words in told["error"]["message"]


def nan_weights() -> dict[str, torch.Tensor]:
    return {name: value * torch.nan for name, value in random_networks()[0].state_dict().items()}


@pytest.mark.parametrize("parameters", [{"weight": torch.zeros(3)}, nan_weights()], ids=["foreign", "nan"])
def test_a_file_of_another_network_is_neither_an_encoder_nor_pinned(
    home: Path, capsys: Any, tmp_path: Path, parameters: dict[str, torch.Tensor]
) -> None:
    (tmp_path / "tiny.safetensors").write_bytes(save(parameters))
    code, told = run(capsys, "models", "pull", "tiny", "--from", str(tmp_path))
    assert (code, told["error"]["type"]) == (3, "foreign_weights") and "as tiny" in told["error"]["message"]
    assert list((home / "encoders").iterdir()) == []
    assert run(capsys, "models", "pull", "tiny")[0] == 0


def test_a_folder_of_that_name_that_is_another_encoder_is_left_alone(home: Path, capsys: Any) -> None:
    run(capsys, "models", "pull", "tiny")
    (home / "encoders/tiny").rename(home / "encoders/tiny_hub")
    weights = json.loads((home / "encoders/tiny_hub/weights.json").read_text())
    code, told = run(capsys, "models", "pull", "tiny_hub")
    assert code == 3 and "move it away" in told["error"]["message"]
    assert json.loads((home / "encoders/tiny_hub/weights.json").read_text()) == weights


def test_verify_finds_nothing_wrong_with_what_was_pulled(home: Path, capsys: Any) -> None:
    run(capsys, "models", "pull", "tiny")
    code, told = run(capsys, "models", "verify")
    kinds = {(one["name"], one["kind"]) for one in told["verified"]}
    assert (code, told["failed"]) == (0, 0) and all(one["ok"] for one in told["verified"])
    assert {("tiny", "fetched"), ("tiny", "encoder"), ("mtcnn", "packaged"), ("face_identity", "encoder")} <= kinds
    assert {name for name, kind in kinds if kind == "encoder"} == {*packaged_encoders(), "tiny"}


@pytest.mark.parametrize(
    ("damaged", "kind"), [("weights/tiny/tiny.safetensors", "fetched"), ("encoders/tiny/face.safetensors", "encoder")]
)
def test_verify_names_a_damaged_file(home: Path, capsys: Any, damaged: str, kind: str) -> None:
    run(capsys, "models", "pull", "tiny")
    content = bytearray((home / damaged).read_bytes())
    content[-1] ^= 1
    (home / damaged).write_bytes(content)
    code, told = run(capsys, "models", "verify", "tiny")
    assert (code, told["failed"]) == (1, 1)
    (bad,) = (one for one in told["verified"] if not one["ok"])
    assert bad["kind"] == kind and "SHA-256" in bad["problem"]


def test_verify_finds_an_encoder_that_gives_other_vectors_than_it_must(home: Path, capsys: Any) -> None:
    run(capsys, "models", "pull", "tiny")
    made = home / "encoders" / "tiny"
    samples, vectors = load_golden(made / GOLDEN_FILE, Modality.FACE)
    save_golden(made / GOLDEN_FILE, {Modality.FACE: samples}, {Modality.FACE: np.roll(vectors, 1, axis=1)})
    description = json.loads((made / "encoder.json").read_text())
    description["files"][GOLDEN_FILE] = sha256_of(made / GOLDEN_FILE)
    (made / "encoder.json").write_text(json.dumps(description))
    code, told = run(capsys, "models", "verify", "tiny")
    assert code == 1 and any("golden samples" in (one["problem"] or "") for one in told["verified"])


def test_verify_says_of_a_network_that_it_was_not_pulled(home: Path, capsys: Any) -> None:
    code, told = run(capsys, "models", "verify", "tiny")
    assert code == 1 and "visavox models pull tiny" in told["verified"][0]["problem"]


def test_a_packaged_network_needs_no_pull(home: Path, capsys: Any) -> None:
    code, told = run(capsys, "models", "pull", "mtcnn")
    assert (code, told["pulled"][0]["fetched"], told["pulled"][0]["encoder"]) == (0, 0, None)
    assert len(told["pulled"][0]["files"]) == 4


@pytest.mark.long
def test_a_file_as_facenet_pytorch_publishes_it_becomes_an_encoder(home: Path, capsys: Any, tmp_path: Path) -> None:
    network = InceptionResnetV1()
    seed_network(network, 1)
    torch.save(network.state_dict() | {"logits.weight": torch.zeros(2, 512)}, tmp_path / FACENET)
    name = "inception_resnet_v1_vggface2"
    code, _ = run(capsys, "models", "pull", name, "--from", str(tmp_path / FACENET))
    assert code == 0 and read_description(home / "encoders" / name).make_space().dimension == 512
    row = next(one for one in list_networks(load_settings()) if one.name == name)
    assert row.pulled and row.sources[0]["sha256"]
    assert run(capsys, "models", "verify", name)[0] == 0
