"""Each method as its paper has it, from VoxCeleb1's layout to a model that serves: tiny in people and steps only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deploy.models import ENCODERS
from encoders.encoder import Encoder
from encoders.space import Modality
from tests.deploy.drawings import run, space_of
from tests.training.corpus_trees import write_lists_p, write_voxceleb1_people
from training.population.folder import InventedMedia, MediaSize, write_demo_media
from training.recipe import load_recipe, recipes

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

METHODS = tuple(recipes())
FEW = {"epochs": 1, "steps_per_epoch": 2, "people_per_batch": 2}
# as few steps of what goes before, and batches that fit two people
BEFORE: dict[str, dict[str, Any]] = {
    "single_stream": {"stream": {"epochs": 1, "steps_per_epoch": 2, "people_per_batch": 2}},
    "bi_pseudo_label": {"cluster_counts": [2, 3, 4], "samples_per_person": 2},
    "prior_transport": {"identity": FEW},
    # trained on: the differences between two people in networks that know nothing are within what bfloat16 rounds off
    "visavox": {
        "networks": "trained",
        "face_preparation": dict(load_recipe("bi_quintuple").Settings().face_preparation),
    },
}
BEGUN_WITH = {"visavox": ("bi_quintuple", "prior_transport")}  # one has the network of faces, the other that of voices
NETWORKS = {
    "bi_quintuple": ("inception_resnet_v1", "dimnet_voice"),
    "single_stream": ("inception_resnet_v1", "inception_resnet_v1_voice"),
    "bi_pseudo_label": ("resnet34_face", "dimnet_voice"),
    "prior_transport": ("resnet34_face", "ecapa_tdnn"),
    "joint_embedding": ("inception_resnet_v1", "dimnet_voice"),
    "visavox": ("inception_resnet_v1", "ecapa_tdnn"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces that are found and sounds, of six people, where VoxCeleb1 has them."""
    root = tmp_path_factory.mktemp("voxceleb1")
    write_voxceleb1_people(root)
    return write_lists_p(root)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> InventedMedia:
    """A film of one person to ingest, and a photo and a sound of the same one to ask with."""
    size = MediaSize(people=3, strangers=0, films=1, film_seconds=8.0)
    return write_demo_media(tmp_path_factory.mktemp("media"), 5, size)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the six are trained."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(home))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    monkeypatch.delenv("VISAVOX_MODEL", raising=False)


def train(capsys: pytest.CaptureFixture[str], name: str, root: Path, folder: Path, **changed: Any) -> Path:
    """The encoder folder of a method that has taken two steps in its paper's setting; at once if it is there."""
    chosen = folder / f"{name}.yaml"
    chosen.write_text(yaml.safe_dump(FEW | BEFORE.get(name, {}) | changed))
    before = [train(capsys, one, root, folder).name for one in BEGUN_WITH.get(name, ())]
    begun = [told for one in before for told in ("--initial", one)]
    asked = ("--corpus", "voxceleb1", "--root", str(root), "--config", str(chosen), *begun)
    code, told = run(capsys, "train", name, *asked)
    assert code == 0, told
    return Path(told["encoder"])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_in_its_paper_s_setting_and_is_measured_through_the_index(capsys, name, root, tmp_path) -> None:
    folder = train(capsys, name, root, tmp_path)
    encoder, paper = Encoder.load(folder), load_recipe(name).Settings()
    assert (paper.face_backbone, paper.voice_backbone) == NETWORKS[name]
    kept = yaml.safe_load((folder / "configuration.yaml").read_text())
    assert (kept["face_backbone"], kept["voice_backbone"], kept["epochs"]) == (*NETWORKS[name], 1)
    assert encoder.domain == "VoxCeleb1" and encoder.identities == {"A.J._Buckley", "Aaron_Tveit"}
    assert encoder.verify_golden() > 0.99999
    report = json.loads((folder / "report.json").read_text())
    assert report["index"] == "MilvusStore" and report["retrieval"]["voice_to_face"]["probes"] >= 2


def test_a_vision_transformer_for_faces_takes_the_place_of_the_paper_s_network(capsys, root, tmp_path) -> None:
    sizes = {"side": 48, "dimension": 32, "layers": 2, "heads": 2}
    folder = train(capsys, "prior_transport", root, tmp_path, face_backbone="vit_face", face_preparation=sizes)
    encoder = Encoder.load(folder)
    assert encoder.description.branches[Modality.FACE].backbone == "vit_face"
    assert encoder.description.branches[Modality.FACE].preparation["side"] == 48
    assert encoder.verify_golden() > 0.99999
    assert json.loads((folder / "report.json").read_text())["retrieval"]["face_to_voice"]["probes"] >= 2


def test_networks_of_other_methods_stay_as_they_are_under_a_head_that_learns(capsys, root, tmp_path) -> None:
    folder = train(capsys, "visavox", root, tmp_path, networks="frozen")
    encoder, others = Encoder.load(folder), [train(capsys, one, root, tmp_path) for one in BEGUN_WITH["visavox"]]
    for modality, other in zip((Modality.FACE, Modality.VOICE), others, strict=True):
        own, theirs = (dict(one.backbones[modality].own_weights()) for one in (encoder, Encoder.load(other)))
        assert own.keys() == theirs.keys() and all((own[name] == theirs[name]).all() for name in own)
        assert other.name in encoder.trained_on
    assert encoder.verify_golden() > 0.99999
    assert json.loads((folder / "report.json").read_text())["retrieval"]["face_to_voice"]["probes"] >= 2


@pytest.mark.parametrize("name", METHODS)
def test_it_serves_and_hands_over_to_the_next(capsys, name, root, media, home, tmp_path, monkeypatch) -> None:
    after = METHODS[(METHODS.index(name) + 1) % len(METHODS)]
    mine, next_one = (train(capsys, one, root, tmp_path) for one in (name, after))
    shutil.copytree(home / ENCODERS, tmp_path / "home" / ENCODERS)
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))

    code, told = run(capsys, "models", "use", mine.name)
    assert code == 0, told
    code, told = run(capsys, "ingest", str(media.films[0].path))
    assert (code, told["done"], told["failed"]) == (0, 1, []), told
    first = found_both_ways(capsys, media)
    code, told = run(capsys, "reencode", "--model", str(tmp_path / "home" / ENCODERS / next_one.name))
    assert code == 0 and told["switched"] and told["rows"] == told["written"] > 1
    assert told["digest"] == space_of(next_one).digest != space_of(mine).digest
    second = found_both_ways(capsys, media)
    for way, hits in first.items():  # the same tracks and turns, perhaps by other looks at them
        assert hits.keys() == second[way].keys()
        assert not np.allclose([*hits.values()], [second[way][place] for place in hits])


def found_both_ways(capsys: pytest.CaptureFixture[str], media: InventedMedia) -> dict[str, dict[Any, float]]:
    """Where in which film a photo and a sound find voices and faces, and how well these go with them."""
    person, found = media.people[0], {}
    sound = next(clip for clip in person.clips if clip.suffix == ".wav")
    for asked, wanted in ((person.photos[0], Modality.VOICE), (sound, Modality.FACE)):
        code, told = run(capsys, "find", str(asked), "--want", str(wanted))
        assert code == 0, told
        assert told["hits"] and {hit["modality"] for hit in told["hits"]} == {str(wanted)}
        found[str(wanted)] = {(hit["media"], hit["start"], hit["end"]): hit["score"] for hit in told["hits"]}
    return found
