"""Which shared-space encoder serves: by VISAVOX_MODEL, else the folder that was chosen last.

The choice is a small file in the home (:mod:`deploy.choice`), so that every process of an installation makes the
same one. The identity encoders come with Visavox and always serve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.choice import CHOOSE_ANOTHER, Choice, read_choices, write_choices
from deploy.settings import Settings
from encoders.encoder import Encoder, EncoderError, packaged_encoders
from encoders.folder import DESCRIPTION_FILE, read_description, read_identities, read_probe_centres
from encoders.space import Modality
from search.store import SHARED

ENCODERS = "encoders"
REPORT_FILE = "report.json"
# Golden vectors may differ by the arithmetic of another device, not by more.
LEAST_GOLDEN_COSINE = 0.999
# What of a report tells at a glance how good a model is.
_FIGURES = {
    "retrieval": ("map", "map_exact", "chance", "ceiling"),
    "verification": ("auc", "eer", "ceiling_auc"),
}


@dataclass(frozen=True)
class Model:
    """An encoder folder as ``visavox models`` lists it.

    Args:
        folder: where it is.
        name: of the encoder; "" where the folder cannot be read.
        space: name of its space.
        digest: of its space.
        domain: whom it is for.
        trained_on: what and whom it was trained on.
        people: number of people it was trained on, where the folder lists them.
        centred_probes: modalities whose probes ask for the other one without their mean.
        figures: what was measured when it was published; None without a report.
        serving: whether this installation uses it.
        kept: whether its rows are kept all the same: to go back to it, or because it is being brought in.
        problem: why it cannot be used, if that can be told without loading it.
    """

    folder: str
    name: str = ""
    space: str = ""
    digest: str = ""
    domain: str = ""
    trained_on: str = ""
    people: int | None = None
    centred_probes: tuple[str, ...] = ()
    figures: Mapping[str, Any] | None = None
    serving: bool = False
    kept: bool = False
    problem: str | None = None


def serving_folder(settings: Settings) -> Path | None:
    """The folder of the shared-space encoder that is to serve, or None. Raises EncoderError (a damaged choice)."""
    return settings.model or read_choice(settings.home)


def read_choice(home: Path) -> Path | None:
    """The folder chosen last, or None. Raises EncoderError if the file that says so cannot be read."""
    return read_choices(home).serving


def write_choice(home: Path, folder: Path | None) -> None:
    """Record a choice for every later process; None: no shared-space encoder. Nothing is kept to go back to."""
    write_choices(home, Choice(folder))


def load_serving(settings: Settings, folder: Path) -> Encoder:
    """The shared-space encoder that is to serve.

    Args:
        settings: of the installation.
        folder: as ``serving_folder`` gave it.

    Raises:
        EncoderError: its folder is not there, was changed or is none; the message says who named it and what to do.
    """
    try:
        return load_shared(folder, settings.device)
    except EncoderError as error:
        if settings.model:
            advice = "VISAVOX_MODEL names it: set that to the folder of a shared-space encoder, or unset it"
        else:
            advice = f"it is the model chosen last: {CHOOSE_ANOTHER}"
        raise EncoderError(f"{error} ({advice})") from error


def kept_digests(settings: Settings) -> frozenset[str]:
    """Digests of the spaces whose rows are not to be dropped, though perhaps they do not serve.

    A model that was chosen and that VISAVOX_MODEL overrules is not among them. Raises EncoderError (a damaged choice).
    """
    choice = read_choices(settings.home)
    chosen = choice.serving if settings.model is None else None
    digests = set()
    for folder in (chosen, choice.previous, choice.filling):
        if folder is not None:
            with suppress(EncoderError):  # what is not there any more cannot be gone back to
                digests.add(read_description(folder).digest())
    return frozenset(digests)


def models_that_learned_from(settings: Settings, identity: str) -> tuple[str, ...]:
    """Names of encoder folders that list an identity, sorted: the home's, those it has chosen, VISAVOX_MODEL's."""
    folders = {*(settings.home / ENCODERS).glob("*"), settings.model}
    with suppress(EncoderError):  # a damaged choice is told by whoever asks what serves
        choice = read_choices(settings.home)
        folders |= {choice.serving, choice.previous, choice.filling}
    found = set()
    for folder in filter(None, folders):
        with suppress(EncoderError, OSError):  # a damaged one cannot serve either
            if identity in read_identities(folder, read_description(folder)):
                found.add(folder.name)
    return tuple(sorted(found))


def load_shared(folder: Path, device: str) -> Encoder:
    """Load a shared-space encoder with its hashes checked. Raises EncoderError, also if it is of another kind."""
    encoder = Encoder.load(folder, device=device, precision="auto")
    if encoder.space.name != SHARED or encoder.modalities != set(Modality):
        kinds = " and ".join(sorted(encoder.modalities))
        raise EncoderError(
            f"{folder}: makes vectors of {kinds} in the space {encoder.space.name}, and a model that can be chosen "
            f"makes those of face and voice in the space {SHARED}"
        )
    return encoder


def check_model(folder: Path, device: str) -> Encoder:
    """Load a shared-space encoder and see that it still gives its golden vectors. Raises EncoderError."""
    encoder = load_shared(folder, device)
    cosine = encoder.verify_golden()
    if not cosine >= LEAST_GOLDEN_COSINE:
        raise EncoderError(
            f"{folder}: its golden samples come out at cosine {cosine:.4f} to the vectors they must give, below "
            f"{LEAST_GOLDEN_COSINE}: copy the folder again as a whole; if nobody has copied it, its networks tell "
            "people apart by less than this machine rounds off: train it for longer"
        )
    return encoder


def find_folder(given: str, home: Path) -> Path:
    """The folder that a person means: a path, or the name of one in the home. Raises EncoderError if there is none."""
    for folder in (Path(given).expanduser().absolute(), home / ENCODERS / given):
        if (folder / DESCRIPTION_FILE).is_file():
            return folder
    raise EncoderError(f"{given} is not an encoder folder: `visavox models` lists those that are in {home / ENCODERS}")


def list_models(settings: Settings) -> list[Model]:
    """The packaged encoders, those of the home, and the one that serves, wherever it is; without loading them.

    Raises EncoderError (a damaged choice).
    """
    packaged = list(packaged_encoders().values())
    trained = sorted(path.parent for path in (settings.home / ENCODERS).glob(f"*/{DESCRIPTION_FILE}"))
    folders = [*packaged, *trained]
    chosen = serving_folder(settings)
    if chosen is not None and chosen.resolve() not in {folder.resolve() for folder in folders}:
        folders.append(chosen)
    serving = {folder.resolve() for folder in (*packaged, *([chosen] if chosen else []))}
    choice = read_choices(settings.home)
    kept = {folder.resolve() for folder in (choice.previous, choice.filling) if folder} - serving
    return [_described(folder, folder.resolve() in serving, folder.resolve() in kept) for folder in folders]


def _described(folder: Path, serving: bool, kept: bool) -> Model:
    try:
        description = read_description(folder)
        people = len(read_identities(folder, description))
        centred = tuple(sorted(map(str, read_probe_centres(folder, description))))
    except EncoderError as error:
        return Model(str(folder), serving=serving, kept=kept, problem=str(error))
    return Model(
        folder=str(folder), name=description.name, space=description.space, digest=description.digest(),
        domain=description.domain, trained_on=description.trained_on, people=people or None,
        centred_probes=centred, figures=_figures(folder), serving=serving, kept=kept,
    )  # fmt: skip


def _figures(folder: Path) -> dict[str, Any] | None:
    """The main figures of the report beside an encoder; None where there is none that can be read."""
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        told = {
            direction: {name: figures[name] for name in _FIGURES["retrieval"] if name in figures}
            for direction, figures in report.get("retrieval", {}).items()
        }
        verification = report.get("verification", {})
        told["verification"] = {name: verification[name] for name in _FIGURES["verification"] if name in verification}
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return told
