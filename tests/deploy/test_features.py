"""``visavox features``: one document, the exit codes, a folder of its own for each corpus, split and encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli import main
from tests.deploy.drawings import run
from tests.training.feature_corpus import write_corpus, write_encoder
from training.corpora import CORPORA
from training.features import Features


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A corpus, and a home with an encoder folder in it."""
    folder = tmp_path_factory.mktemp("features")
    write_corpus(folder / "corpus")
    write_encoder(folder / "home/encoders/mine")
    return folder


@pytest.fixture(autouse=True)
def home(made, monkeypatch) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(made / "home"))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")


def arguments(made: Path, *more: str, corpus: str = "folder", root: str = "corpus") -> tuple[str, ...]:
    there = ("features", "--corpus", corpus, "--root", str(made / root))
    return (*there, "--encoder", "mine", "--workers", "0", *more)


def test_the_document_says_what_there_is(made, capsys) -> None:
    code, document = run(capsys, *arguments(made))
    assert code == 0
    assert (document["people"], document["faces"], document["voices"], document["unchanged"]) == (3, 6, 6, 0)
    assert document["unusable"] == document["missing"] == document["notes"] == []
    assert document["spaces"]["face"]["digest"] == document["spaces"]["voice"]["digest"]
    assert Path(document["features"]).parent == made / "home/features"
    assert Features.open(Path(document["features"])).split == "all"
    assert run(capsys, *arguments(made))[1]["unchanged"] == 12


def test_a_split_has_a_folder_of_its_own(made, capsys) -> None:
    code, document = run(capsys, *arguments(made, "--split", "validation"))
    assert code == 0 and document["people"] == 1 and "folder-validation-" in document["features"]


def test_people_see_a_summary_and_what_was_left_out(made, tmp_path, capsys) -> None:
    write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus/train/Ada/may/face.png").write_bytes(b"no photo")
    with pytest.raises(SystemExit) as ended:
        main([*arguments(tmp_path, "--output", str(tmp_path / "out"))])
    shown = capsys.readouterr()
    assert ended.value.code == 1
    assert f"5 faces and 6 voices of 3 people: {tmp_path / 'out'}" in shown.out
    assert "left out: train/Ada/may/face.png: begins like" in shown.out
    assert "encoding voices: 6 of 6, " in shown.err and "/s" in shown.err


def test_people_left_out_are_a_failure(made, tmp_path, capsys) -> None:
    write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus/train/Dora").mkdir()
    code, document = run(capsys, *arguments(tmp_path, "--output", str(tmp_path / "out"), "--allow-missing", "0.5"))
    assert code == 1 and document["missing"][-1].startswith("Dora has no face and no voice")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"corpus": "voxceleb9"}, "no corpus 'voxceleb9'"),
        ({"more": ("--split", "dev")}, "--split is train, validation, test, all, not 'dev'"),
        ({"more": ("--workers", "-1")}, "workers"),
        ({"more": ("--allow-missing", "2")}, "allow-missing"),
    ],
)
def test_wrong_usage_exits_2(made, capsys, changed, told) -> None:
    code, document = run(capsys, *arguments(made, *changed.pop("more", ()), **changed))
    assert code == 2 and document["error"]["type"] == "usage" and told in document["error"]["message"]


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"root": "nowhere"}, "corpus"),
        ({"corpus": "csv"}, "corpus"),
        ({"more": ("--encoder", "gone")}, "encoder"),
        ({"more": ("--encoder", "mine")}, "features"),
    ],
)
def test_what_cannot_be_done_exits_3_with_its_kind(made, capsys, changed, kind) -> None:
    code, document = run(capsys, *arguments(made, *changed.pop("more", ()), **changed))
    assert code == 3 and document["error"]["type"] == kind and document["error"]["message"]


def test_an_output_of_another_corpus_is_left_alone(made, tmp_path, capsys) -> None:
    output = ("--output", str(tmp_path / "out"))
    assert run(capsys, *arguments(made, *output))[0] == 0
    write_corpus(tmp_path / "others")
    code, document = run(capsys, *arguments(tmp_path, *output, root="others"))
    assert code == 3 and "features of another corpus" in document["error"]["message"]


def test_help_names_every_corpus(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["features", "--help"])
    shown = "".join(capsys.readouterr().out.split())
    assert all(name in shown for name in CORPORA)


@pytest.mark.long
def test_the_identity_encoders_are_the_default_and_worker_processes_work(made, tmp_path, capsys) -> None:
    there = ("features", "--corpus", "folder", "--root", str(made / "corpus"), "--output", str(tmp_path / "out"))
    code, document = run(capsys, *there, "--workers", "2")
    assert code == 0 and document["spaces"]["face"]["name"] == "face_identity"
    assert document["spaces"]["voice"]["name"] == "voice_identity" and document["faces"] == 6
