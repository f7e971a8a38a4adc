"""What training made of three unseen people: their voices and faces before it and after (S3, figure 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.models import ENCODERS
from deploy.training import PUBLISHED_FILE, RUNS, sample_readers
from encoders.backbones.backbone import Backbone, Unusable
from encoders.encoder import Encoder, packaged_encoders
from encoders.folder import DESCRIPTION_FILE
from encoders.space import Modality
from search.figures import chosen_people
from search.report_pictures import Picture, before_and_after
from training.before_training import networks_before

PEOPLE, SAMPLES = 3, 10
"""How many people, and of each the first so many voices and faces: S3 draws three people."""


Locate = Callable[[Modality, int], Path]
"""The file of a modality's sample, by its row."""


def pictures_of_training(
    encoder: Encoder,
    vectors: Mapping[Modality, NDArray[np.floating]],
    people: Mapping[Modality, Sequence[str]],
    locate: Locate,
    home: Path,
) -> list[Picture]:
    """The same samples as the networks laid them out before training, and as they serve.

    Args:
        encoder: that was measured.
        vectors: by modality (n, dimension) what it made of samples.
        people: by modality (n,) whom each shows.
        locate: where their files lie.
        home: of the installation, in which the encoder's run is looked for.

    Raises:
        ValueError: a network cannot be made as it was. MediaError, NoSample, OSError: a file cannot be read any more.
    """
    chosen = chosen_people(people, PEOPLE)
    rows = {modality: _rows(people[modality], chosen) for modality in Modality}
    before = networks_before(encoder, find_run(encoder, home), _beginnings(home))
    readers = sample_readers()
    kept: dict[Modality, NDArray[np.intp]] = {}
    earlier: dict[Modality, NDArray[np.float32]] = {}
    for modality, was in before.items():
        samples = [readers[modality](locate(modality, row)) for row in rows[modality].tolist()]
        kept[modality], earlier[modality] = _embedded(was.network, samples)
    places = {modality: rows[modality][kept[modality]] for modality in Modality}
    return before_and_after(
        earlier,
        {modality: vectors[modality][mine] for modality, mine in places.items()},
        {modality: [people[modality][row] for row in mine] for modality, mine in places.items()},
        {modality: was.stood for modality, was in before.items()},
    )


def find_run(encoder: Encoder, home: Path) -> Path | None:
    """The folder of the run that became an encoder of this home; None where it is not there."""
    for told in sorted((home / RUNS).glob(f"*/{PUBLISHED_FILE}")):
        if _published(told).get("encoder") == encoder.folder.name:
            return told.parent
    return None


def _published(path: Path) -> Mapping[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, Mapping) else {}


def _beginnings(home: Path) -> list[Path]:
    """Encoder folders that a network may have begun with."""
    own = sorted(path.parent for path in (home / ENCODERS).glob(f"[!.]*/{DESCRIPTION_FILE}"))
    return [*packaged_encoders().values(), *own]


def _rows(people: Sequence[str], chosen: tuple[str, ...]) -> NDArray[np.intp]:
    of_whom = np.array(people, dtype=str)
    return np.concatenate([np.zeros(0, np.intp), *(np.flatnonzero(of_whom == one)[:SAMPLES] for one in chosen)])


def _embedded(network: Backbone, samples: list[Any]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Which samples have a vector, and (those, dimension)."""
    prepared = {row: network.prepare(sample) for row, sample in enumerate(samples)}
    usable = {row: one for row, one in prepared.items() if not isinstance(one, Unusable)}
    if not usable:
        return np.zeros(0, np.intp), np.zeros((0, 1), np.float32)
    return np.array(list(usable), dtype=np.intp), network.embed(list(usable.values()))
