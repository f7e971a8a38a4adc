"""Files that name what they show, so that no detector is needed, and shared-space encoders with random weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import main
from encoders.folder import read_description, write_description
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Space
from ingest.track import Extraction, FaceShot, FaceTrack, Span, SpeechTurn, media_id
from tests.encoders.shared_encoder import make_shared_encoder

NUMBERS = {kind: {"threshold": 0.0, "slope": 5.0} for kind in ("cosine", "euclidean", "correlation")}
CALIBRATION = {
    "face-voice": {"verify": NUMBERS, "identify": NUMBERS},
    "provenance": {"domain": "invented people"},
}


class Drawings:
    """Reads files such as ``face 3 voice 5``: a drawn face of one second, a drawn voice of one second."""

    def extract(self, path: Path, _on_progress: object = None) -> Extraction:
        shown = {kind: int(number) for kind, number in re.findall(r"(face|voice) (\d+)", path.read_text())}
        span = Span(0.0, 1.0)
        faces, turns = [], []
        if "face" in shown:
            crop = drawn_face(shown["face"])
            shot = FaceShot(0.5, crop.pixels, crop.landmarks, (32, 32, 64, 64), 0.9)
            faces.append(FaceTrack(0, span, (shot,), 0.2, (span,)))
        if "voice" in shown:
            turns.append(SpeechTurn(span, 0, drawn_voice(shown["voice"], 1.0)))
        return Extraction(media_id(path), "film", 1.0, tuple(faces), tuple(turns))


def make_models(folder: Path, *names: str) -> Path:
    """A folder with shared-space encoder folders of these names, each of other weights."""
    for seed, name in enumerate(names):
        make_shared_encoder(folder / name, seed, ["Ada_Bel_00000001", "Cid_Dor_00000002"], calibration=CALIBRATION)
        write_description(folder / name, replace(read_description(folder / name), space="shared"))
    return folder


def space_of(folder: Path) -> Space:
    """The space of an encoder folder."""
    return read_description(folder).make_space()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Exit code and JSON of a command."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)
