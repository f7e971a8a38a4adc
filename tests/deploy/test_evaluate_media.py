"""``evaluate --protocol --media``: published lists on a tree of media, from its files to the report, by an encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.cli import main
from deploy.training import sample_readers
from encoders.folder import read_description, write_description
from encoders.space import Modality
from ingest.samples import NoSample
from tests.encoders.shared_encoder import make_shared_encoder
from tests.search.small_lists import Cast, face, voice, write_small_lists
from training.population.folder import write_wav
from training.population.people import invent_people
from training.population.production import write_jpeg
from training.population.samples import draw_photo, draw_utterance

pytestmark = pytest.mark.long  # 384 files, most of them read and encoded six times

CLIP = 16_000  # of a clip, in samples: one second


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_lists(tmp_path_factory.mktemp("protocol") / "small")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented people under the names of the small lists, laid out as VoxCeleb1 is unpacked; validation people too."""
    root, cast, readable = tmp_path_factory.mktemp("media"), Cast(), sample_readers()[Modality.FACE]
    for name, person in zip(cast.names, invent_people(len(cast.names), seed=3), strict=True):
        said, photos = draw_utterance(person, 0).render(), (draw_photo(person, number) for number in count())
        clips = cast.voices(name)
        starts = np.linspace(0, max(0, len(said) - CLIP), len(clips)).astype(int)
        for clip, start in zip(clips, starts, strict=True):
            heard, seen = root / "wav" / voice(cast, name, *clip), root / "unzippedFaces" / face(name, *clip)
            for place in (heard, seen):
                place.parent.mkdir(parents=True, exist_ok=True)
            write_wav(heard, said[start : start + CLIP])
            for photo in photos:
                write_jpeg(seen, photo.render())
                with suppress(NoSample):  # one in fifty shows no face that is found
                    readable(seen)
                    break
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("model") / "first", 0, ["Somebody_Else"])


def encoder(folder: Path, seed: int, identities: Sequence[str] = ()) -> Path:
    """An encoder folder that may serve."""
    make_shared_encoder(folder, seed, identities)
    write_description(folder, replace(read_description(folder), space="shared"))
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    monkeypatch.delenv("VISAVOX_MODEL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def evaluate(lists: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = 0
        try:
            main(["evaluate", "--protocol", str(lists), "--no-intervals", "--json", *map(str, arguments)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, json.loads(capsys.readouterr().out)

    return ask


def test_media_are_encoded_and_the_report_is_that_of_their_vectors(
    evaluate: Any, corpus: Path, model: Path, tmp_path: Path
) -> None:
    page, out = tmp_path / "report.html", tmp_path / "out.npz"
    code, told = evaluate("--media", corpus, "--model", model, "--export", out, "--html", page)
    assert code == 0, told
    assert told["unusable"] == [] and told["model"]["space"] == "shared"
    assert told["retrieval"]["voice_to_face"]["gallery"] == told["retrieval"]["face_to_voice"]["probes"] == 96
    assert told["seen"]["stated"] and told["seen"]["people"] == 0
    assert told["threshold"]["people"] == 12 and told["threshold_note"] is None
    assert 'src="data:image/jpeg;base64,' in page.read_text()
    for words in ("The voices", "The faces", "Faces and voices together"):
        assert f"{words} of 3 people before and after training" in page.read_text()
    assert told["label_agreement"]["8"]["pairs"] == 96 and "clusters of one rank" in page.read_text()
    with np.load(out) as held:
        first = {path for path in held["path"].tolist() if path.startswith(("id10001/", "Person_00/"))}
        assert len(held["path"]) == 2 * 144 and "id10001/00video_x000/00001.wav" in first
    code, again = evaluate("--embeddings", out)
    assert code == 0
    for part in ("verification", "matching", "matching_1_to_n", "retrieval", "oracles"):
        assert again[part] == told[part]


def test_files_that_are_missing_or_cannot_be_read_are_named_and_only_their_trials_left_out(
    evaluate: Any, corpus: Path, model: Path, tmp_path: Path
) -> None:
    media, cast = tmp_path / "media", Cast()
    shutil.copytree(corpus, media)
    first, second = cast.voices("Person_00")[:2]
    (media / "wav" / voice(cast, "Person_00", *first)).unlink()
    code, told = evaluate("--media", media, "--model", model)
    assert code == 3 and told["error"]["type"] == "protocol" and "\n" not in told["error"]["message"]
    assert "lacks 1 of the 288 files" in told["error"]["message"] and "id10001/00video_x000/00001.wav" in str(told)
    (media / "wav" / voice(cast, "Person_00", *second)).write_bytes(b"no sound")
    dark = face("Person_01", *cast.voices("Person_01")[0])
    write_jpeg(media / "unzippedFaces" / dark, np.zeros((160, 160, 3), dtype=np.uint8))
    code, told = evaluate("--media", media, "--model", model, "--allow-missing")
    unusable = {one["path"]: one["readable"] for one in told["unusable"]}
    gone, silent = (voice(cast, "Person_00", *clip) for clip in (first, second))
    assert code == 1 and unusable == {gone: True, silent: False, dark: True}
    assert told["retrieval"]["voice_to_face"]["probes"] == 94 and told["retrieval"]["face_to_voice"]["gallery"] == 94
    assert told["retrieval"]["voice_to_face"]["gallery"] == 95
    assert told["verification"]["unseen_unheard"]["U"]["pairs"] < 288


def test_another_encoder_is_compared_on_the_same_media(
    evaluate: Any, corpus: Path, model: Path, tmp_path: Path
) -> None:
    other = encoder(tmp_path / "other", 5)
    code, told = evaluate("--media", corpus, "--model", model, "--compare", other)
    assert code == 0
    mine, theirs, apart = (
        one["retrieval"]["voice_to_face"]["map"]
        for one in (told, told["comparison"]["figures"], told["comparison"]["difference"])
    )
    assert apart["difference"] == pytest.approx(mine - theirs, abs=1e-12) and apart["difference"] != 0


def test_an_encoder_that_knows_test_people_is_refused_before_anything_is_read(
    evaluate: Any, corpus: Path, tmp_path: Path
) -> None:
    knowing = encoder(tmp_path / "knowing", 0, ["id10001", "Person_05"])
    code, told = evaluate("--media", tmp_path, "--model", knowing)
    assert code == 3 and told["error"]["type"] == "seen_in_training"
    assert "2 of the 24 test people of small (Person_00, Person_05)" in told["error"]["message"]
    code, told = evaluate("--media", corpus, "--model", knowing, "--allow-seen")
    assert code == 0 and told["seen"]["people"] == 2 and told["seen"]["allowed"]
