"""An installation on a GPU gives what one on the processor gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.devices import count_devices
from tests.deploy.test_topologies import assert_same_rows
from training.population.folder import InventedMedia, MediaSize, write_demo_media


@pytest.fixture
def media(tmp_path: Path) -> InventedMedia:
    """A film, photos and a clip that we make ourselves."""
    return write_demo_media(tmp_path / "media", 3, MediaSize(people=3, strangers=0, films=1, film_seconds=8.0))


def rows(home: Path, device: str, files: list[Path]) -> dict[str, np.ndarray]:
    """Vectors by key of files read on a device."""
    opened = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": device}))
    for path in files:
        assert opened.archive.ingest_file(path, "gpu").state == "done"
    held = [row for encoder in opened.encoders.values() for row in opened.store.rows(encoder.space)]
    opened.close()
    return {row.key: row.embedding.vector for row in held}


@pytest.mark.cuda
def test_a_gpu_gives_the_keys_and_vectors_of_the_processor(tmp_path: Path, media: InventedMedia) -> None:
    person = media.people[0]
    files = [media.films[0].path, person.photos[0], person.clips[0]]
    there, here = rows(tmp_path / "gpu", "cuda:0", files), rows(tmp_path / "cpu", "cpu", files)
    assert there.keys() == here.keys() and len(here) > 0
    assert min(float(there[key] @ here[key]) for key in here) >= 0.999


@pytest.mark.cuda
@pytest.mark.timeout(600)
def test_workers_on_gpus_give_the_rows_of_an_in_process_run(
    tmp_path: Path, redis_url: str, milvus_server: str, media: InventedMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.deploy.test_topologies.DEVICE", "auto")
    assert count_devices("auto") >= 1
    assert_same_rows(tmp_path, redis_url, milvus_server, [media.films[0].path, media.people[0].photos[0]])


@pytest.fixture(scope="session", autouse=True)
def _a_gpu() -> None:
    """Only where there is one; asked before any server is started."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
