"""From fetched weights to an encoder folder: the network loaded as its authors published it, checked, with its card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from encoders.backbones.speech_transformer import public_preparation
from encoders.encoder import NETWORKS, Encoder, EncoderError
from encoders.fetching import FetchedFile
from encoders.folder import Branch, Description, FolderFile, read_description, read_json
from encoders.golden import Sample
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Modality
from encoders.weights import NetworkRow, sha256_of

WEIGHTS_FILE = "weights.json"
"""In a pulled encoder's folder: which public files its weights are."""

PREPARATIONS: Mapping[str, Callable[[Path], Any]] = {"speech_transformer": public_preparation}
"""Who reads the preparation from the files beside the weights, by kind of network; elsewhere its defaults are meant.

A function is given the folder of the fetched files and gives the network's preparation, or raises ValueError.
"""


class ForeignWeights(EncoderError):
    """Fetched files are not the weights of the network that they were fetched for."""


def make_encoder(row: NetworkRow, modality: Modality, fetched: Sequence[FetchedFile], home: Path) -> Path:
    """The encoder folder of a network's public weights; the one that is there already, if it is of the same files.

    Args:
        row: gives vectors.
        modality: of what.
        fetched: its files, the main one first.
        home: folder of encoders; the network's own, named as its row, is made in it.

    Raises:
        ForeignWeights: the files are of another network, damaged, or give no vectors.
        EncoderError: a folder of this name holds something else.
    """
    folder = home / row.name
    public = {one.path.name: asdict(one.locked) for one in fetched}
    if folder.exists():
        try:
            made_of = read_json(folder, WEIGHTS_FILE) if WEIGHTS_FILE in read_description(folder).files else {}
        except EncoderError as error:
            raise EncoderError(f"{error} (or remove {folder} and pull again)") from error
        if {name: entry["sha256"] for name, entry in made_of.items()} != {
            name: entry["sha256"] for name, entry in public.items()
        }:
            raise EncoderError(f"{folder} holds another encoder: move it away, then pull again")
        return folder
    new = home / f".{row.name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        _write(row, modality, fetched, new, public)
        os.replace(new, folder)
    except (ValueError, EncoderError) as error:
        raise ForeignWeights(f"{fetched[0].path.name} cannot serve as {row.name}: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _write(
    row: NetworkRow, modality: Modality, fetched: Sequence[FetchedFile], folder: Path, public: Mapping[str, Any]
) -> None:
    main = fetched[0].path
    reader = PREPARATIONS.get(row.network)
    preparation = {} if reader is None else asdict(reader(main.parent))
    backbone = NETWORKS[row.network](main, preparation, "cpu", "float32")
    weights = folder / f"{modality}.safetensors"
    weights.write_bytes(save(dict(backbone.own_weights())))
    (folder / WEIGHTS_FILE).write_text(json.dumps(public, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    description = Description(
        name=row.name,
        space=row.name,
        dimension=getattr(backbone.preparation, "dimension", row.dimension),
        domain="real people",
        trained_on=row.trained_on,
        branches={
            modality: Branch(row.name, asdict(backbone.preparation), FolderFile(weights.name, sha256_of(weights)))
        },
    )
    Encoder.create(
        folder, description, {modality: _golden(modality)}, _card(row, description, modality, public), [WEIGHTS_FILE]
    )


def _golden(modality: Modality) -> list[Sample]:
    if modality is Modality.FACE:
        return [drawn_face(1), drawn_face(2, side=200)]
    return [drawn_voice(1, 0.7), drawn_voice(2, 2.5)]


def _card(row: NetworkRow, description: Description, modality: Modality, public: Mapping[str, Any]) -> str:
    """The model card, Markdown."""
    files = "\n".join(
        f"- `{name}` from {entry['source']}"
        + (f", revision `{entry['revision']}`" if entry["revision"] else "")
        + f", {entry['size']} bytes, SHA-256 `{entry['sha256']}`"
        for name, entry in public.items()
    )
    licences = ", ".join(sorted({source.licence for source in row.sources}))
    return f"""# {row.name}

Turns a {modality} into a vector of {description.dimension} numbers; two vectors of one person point the same way.

## Source and licence
Public weights, fetched and pinned:

{files}

Licence as their source states it: {licences}. The people they were trained on were photographed or recorded under
other terms: read those of the data before you use the network commercially.

## Trained on
{row.trained_on[0].upper()}{row.trained_on[1:]}.

## Input
{row.input_contract}

## Measured
Nothing here: `visavox evaluate --model` measures it.

## What it may and may not be trusted with
May not be trusted with deciding about a person on its own, or with people it was trained on as if it had never seen
them.
"""
