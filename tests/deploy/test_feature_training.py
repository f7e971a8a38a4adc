"""``visavox train RECIPE --features DIR``: vectors that were extracted once become an encoder that serves."""

from __future__ import annotations

import csv
import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.encoder import Embedding, Encoder, packaged_encoders
from encoders.folder import read_description
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from tests.deploy.drawings import run
from training.features import COLUMNS, DESCRIPTION_FILE, FORMAT, FeatureRow

SPLITS = {"train": 40, "validation": 10, "test": 10}


def write_features(folder: Path, splits: dict[str, int] = SPLITS, digest: str | None = None) -> Path:
    """Features of people whose face and voice vectors are two views of one direction."""
    random, tables = np.random.default_rng(4), {}
    folder.mkdir(parents=True)
    people = sorted((f"{split}{number:03d}", split) for split, count in splits.items() for number in range(count))
    likeness = random.normal(size=(len(people), 6))
    for modality in Modality:
        space = read_description(packaged_encoders()[f"{modality}_identity"]).make_space()
        view = random.normal(size=(6, space.dimension))
        rows, vectors = [], []
        for place, (person, split) in enumerate(people):
            for sample in range(3):
                vector = (likeness[place] + 0.3 * random.normal(size=6)) @ view
                vectors.append(vector / np.linalg.norm(vector))
                told = (
                    person,
                    "",
                    f"{person}/{sample}",
                    0.0,
                    1.0,
                    "",
                    split,
                    "fm"[place % 2],
                    "",
                    "",
                    1,
                    1,
                    f"{place}",
                )
                rows.append(FeatureRow(*told))
        np.save(folder / f"{modality}.npy", np.array(vectors, dtype=np.float32))
        with (folder / f"{modality}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([COLUMNS, *map(astuple, rows)])
        named = {"name": space.name, "dimension": space.dimension, "digest": digest or space.digest}
        tables[modality] = {"space": named, "vectors": f"{modality}.npy", "rows": f"{modality}.csv"}
    told = {"format": FORMAT, "corpus": "drawn", "domain": "drawn people", "split": "all", "tables": tables}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(home))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")


def trained(capsys: Any, home: Path, features: Path) -> tuple[int, dict[str, Any]]:
    (home / "quick.yaml").write_text("epochs: 10\nsteps_per_epoch: 10\nembedding: 16\nrun: {curves: false}\n")
    code, document = run(capsys, "train", "visavox", "--features", str(features), "--config", str(home / "quick.yaml"))
    return code, document


def test_it_ends_in_a_folder_of_the_networks_that_made_them_which_serves(capsys, home: Path, tmp_path: Path) -> None:
    code, document = trained(capsys, home, write_features(tmp_path / "features"))
    assert code == 0
    encoder = Encoder.load(Path(document["encoder"]))
    branches = encoder.description.branches
    assert (branches[Modality.FACE].backbone, branches[Modality.VOICE].backbone) == ("dlib_resnet_v1", "ge2e")
    assert encoder.domain == "drawn people" and len(encoder.identities) == 40
    assert encoder.verify_golden() > 0.99999
    for modality, sample in ((Modality.FACE, drawn_face(1)), (Modality.VOICE, drawn_voice(1, 0.7))):
        assert isinstance(encoder.encode(modality, [sample])[0], Embedding)
    report = document["report"]
    assert report["verification"]["auc"] > 0.75 and report["retrieval"]["voice_to_face"]["map"] > 0.3
    assert {"probes", "chance", "ci95"} <= set(report["retrieval"]["face_to_voice"])
    again = run(
        capsys, "train", "visavox", "--features", str(tmp_path / "features"), "--config", str(home / "quick.yaml")
    )
    assert again[1]["encoder"] == document["encoder"] and again[1]["report"] == report


def test_features_without_people_to_validate_on_are_refused(capsys, home: Path, tmp_path: Path) -> None:
    code, document = trained(capsys, home, write_features(tmp_path / "features", {"train": 5}))
    assert code == 3 and "0 people of validation, at least 2 are needed" in document["error"]["message"]


def test_features_of_a_space_that_no_encoder_here_makes_are_refused(capsys, home: Path, tmp_path: Path) -> None:
    code, document = trained(capsys, home, write_features(tmp_path / "features", digest="ab" * 32))
    assert code == 3 and "no encoder folder here makes them" in document["error"]["message"]


def test_a_folder_without_features_is_refused(capsys, home: Path, tmp_path: Path) -> None:
    code, document = trained(capsys, home, tmp_path)
    assert code == 3 and "holds no features" in document["error"]["message"]


@pytest.mark.parametrize(
    ("text", "told"), [("epoch: 3", "no setting epoch"), ("networks: thawed", "networks cannot be 'thawed'")]
)
def test_a_misspelt_configuration_is_a_wrong_usage(capsys, home: Path, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    code, document = run(capsys, "train", "visavox", "--features", "x", "--config", str(tmp_path / "wrong.yaml"))
    assert code == 2 and told in document["error"]["message"]
