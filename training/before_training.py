"""The networks of a published encoder as they were before its method trained them, ready to embed samples.

For pictures of what training changed (S3, figure 4). The stage that trained the networks last is begun anew from what
stands in the folder of its run: the stage before it, which taught them to tell people apart, the weights that they
began with, or the seed that they were drawn by. Where the run is not there any more, it is a network of that kind with
weights drawn at random. One that was not trained at all is what it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from encoders.backbones.backbone import Backbone
from encoders.encoder import NETWORKS, Encoder
from encoders.folder import EncoderError, FolderFile, backbone_row, read_description
from encoders.space import Modality
from training.checkpoint import write_weights
from training.configuration import read_configuration
from training.loop import BEST_FILE, read_best
from training.networks import TRAINABLE, NetworkGiven, given_network, make_network, read_network_preparation
from training.pretraining import identity_stage
from training.publish import CONFIGURATION_FILE
from training.recipe import Given, Stage, Task, load_recipe, shares_one_network
from training.runs import RUN_FILE

NOT_TRAINED = "the same network, which was not trained"
IDENTITY = "as the identity stage left it"
UNTRAINED = "untrained"
# No run, a damaged one, or one of another version of the method.
_NOT_UNDERSTOOD = (OSError, ValueError, RuntimeError, EncoderError, SafetensorError)


@dataclass(frozen=True, eq=False)
class Before:
    """A network as it was.

    Args:
        network: ready to embed.
        stood: what it was, in words.
    """

    network: Backbone
    stood: str


def networks_before(encoder: Encoder, run: Path | None, beginnings: Sequence[Path] = ()) -> dict[Modality, Before]:
    """The network of each modality before training.

    Args:
        encoder: that was published.
        run: the folder of its run; None: it is not there any more.
        beginnings: encoder folders among which the one is looked for whose weights a network began with.
    """
    places = _stages(run) if run is not None else []
    return {modality: _before(encoder, modality, places, beginnings) for modality in Modality}


def _before(encoder: Encoder, modality: Modality, places: Sequence[Path], beginnings: Sequence[Path]) -> Before:
    branch = encoder.description.branches[modality]
    kind = backbone_row(modality, branch.backbone).network
    if kind not in TRAINABLE or not isinstance(branch.weights, FolderFile):
        return Before(encoder.backbones[modality], NOT_TRAINED)
    try:
        if places and not any(map(_holds_networks, places)):
            return Before(encoder.backbones[modality], NOT_TRAINED)
        state, stood = _at_the_beginning(encoder, modality, places, beginnings)
    except _NOT_UNDERSTOOD:
        state, stood = _drawn(modality, _given(encoder, modality)), UNTRAINED
    with TemporaryDirectory() as place:
        path = Path(place) / f"{modality}.safetensors"
        write_weights(path, state)
        return Before(NETWORKS[kind](path, branch.preparation, "cpu", "float32"), stood)


def _at_the_beginning(
    encoder: Encoder, modality: Modality, places: Sequence[Path], beginnings: Sequence[Path]
) -> tuple[Mapping[str, Tensor], str]:
    """The weights with which the last stage that trained a network began, and what they were.

    Raises:
        ValueError: there is no run, or its settings are none of the method's. RuntimeError: weights of another shape.
    """
    if not places:
        raise ValueError(f"the run of {encoder.folder.name} is not there")
    told = _described(places[-1])
    recipe = load_recipe(str(told.get("recipe")))
    settings = read_configuration(recipe, encoder.folder / CONFIGURATION_FILE, "paper").settings
    stages = [stage for stage in recipe.stages(settings, frozen=False) if not stage.on_vectors]
    initial = {one: _beginning(told.get(f"initial_{one}"), beginnings) for one in Modality}
    given = {one: _given(encoder, one, initial[one]) for one in Modality}
    people = int(told["people"])
    made_for, before = Given(people, ("",) * people, given[Modality.FACE], given[Modality.VOICE]), None
    for stage, place in zip(stages[:-1], places, strict=False):
        before = stage.build(made_for, 0, before)
        before.load_state_dict(read_best(place))
    state = _network(stages[-1].build(made_for, int(told["seed"]), before), modality)
    if before is not None and _teaches(stages[-2], modality) and _same(state, _network(before, modality)):
        earlier = stages[-2].name
        return state, IDENTITY if earlier == identity_stage().name else f"as the stage {earlier} left it"
    begun = initial[Modality.FACE if shares_one_network(recipe) else modality]
    return state, UNTRAINED if begun is None else f"as it is in {begun.name}"


def _teaches(stage: Stage, modality: Modality) -> bool:
    return modality is Modality.FACE or getattr(stage.settings, "voices", True)


def _given(encoder: Encoder, modality: Modality, initial: Path | None = None) -> NetworkGiven:
    branch = encoder.description.branches[modality]
    preparation = read_network_preparation(modality, branch.backbone, branch.preparation)
    return given_network(modality, branch.backbone, preparation, initial)


def _drawn(modality: Modality, given: NetworkGiven) -> Mapping[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_network(modality, given).state_dict()


def _network(task: Task, modality: Modality) -> Mapping[str, Tensor]:
    return task.get_submodule(str(modality)).state_dict()


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _stages(run: Path) -> list[Path]:
    """Folders of a run's stages, first to last, as far as they are there."""
    found = [run]
    while key := str(_described(found[-1]).get("before", "")):
        earlier = sorted(run.parent.glob(f"*-{key}"))
        if not earlier:
            break
        found.append(earlier[0])
    return [folder for folder in reversed(found) if (folder / BEST_FILE).is_file()]


def _described(folder: Path) -> Mapping[str, Any]:
    try:
        told = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, Mapping) else {}


def _holds_networks(folder: Path) -> bool:
    """Whether a stage kept networks: on frozen vectors it has none; one for both modalities is kept as the face's."""
    with safe_open(folder / BEST_FILE, framework="pt") as stream:
        return any(name.startswith(("face.", "voice.")) for name in stream.keys())  # noqa: SIM118 - not a mapping


def _beginning(digest: object, folders: Sequence[Path]) -> Path | None:
    """The encoder folder with this digest, if a digest is given.

    Raises:
        ValueError: it is not among them.
    """
    if digest is None:
        return None
    for folder in folders:
        if _digest(folder) == digest:
            return folder
    raise ValueError("the folder whose weights a network began with is not there")


def _digest(folder: Path) -> str:
    try:
        return read_description(folder).digest()
    except EncoderError:
        return ""
