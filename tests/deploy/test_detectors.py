"""The face detector that a setting chooses reads for an installation, in its own process and in confined ones."""

from __future__ import annotations

from pathlib import Path

from deploy.settings import load_settings
from deploy.wiring import Installation


def chosen(home: Path, detector: str) -> Installation:
    given = {"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu", "VISAVOX_FACE_DETECTOR": detector}
    return Installation(load_settings(given))


def test_another_detector_reads_everything_again(tmp_path: Path) -> None:
    assert chosen(tmp_path, "mtcnn").reading != chosen(tmp_path, "dlib_hog").reading
    assert chosen(tmp_path, "dlib_hog").reading == Installation(load_settings({"VISAVOX_HOME": str(tmp_path)})).reading


def test_the_chosen_detector_finds_faces_here_and_in_confined_processes(tmp_path: Path, shared_media: Path) -> None:
    photo = next((shared_media / "faces/lfw/Ariel_Sharon").iterdir())
    opened = chosen(tmp_path, "mtcnn")
    try:
        (here,), (there,) = opened.extractor.extract(photo).faces, opened.sandbox.extract(photo).faces
    finally:
        opened.close()
    (usual,) = chosen(tmp_path, "dlib_hog").extractor.extract(photo).faces
    assert here.shots[0].box == there.shots[0].box != usual.shots[0].box
