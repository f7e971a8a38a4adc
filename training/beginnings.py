"""The encoder folders that a training begins with: whether their networks fit, and whom they know."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from encoders.folder import read_description, read_identities
from encoders.heads import SharedSpaceHead
from encoders.space import Modality
from training.networks import begin_with, begins_as, given_network, read_network_preparation
from training.reading import Preparation
from training.recipe import Batch, Given, Recipe, Stage, Task, shares_one_network
from training.runs import RunSettings, TrainingError

WEIGHTS_WANTED = (
    "networks that stay as they are need folders with all their weights (visavox train --initial, once for each "
    "network), or features that were extracted (--features)"
)


class NetworksAsGiven(Task):
    """Two networks with the weights of encoder folders, which stay as they are.

    Args:
        given: what they are, each with the folder of its weights.

    Raises:
        ValueError: a folder is not given, does not hold the whole network, or its network has learned to see samples
            that are prepared in another way; the message says what to do.
    """

    def __init__(self, given: Given) -> None:
        face, voice = (replace(given.of(one), initial=None) for one in Modality)
        super().__init__(replace(given, face=face, voice=voice))
        self.given = given
        for modality in Modality:
            network, wanted = self.get_submodule(str(modality)), given.of(modality)
            if wanted.backbone is None or wanted.initial is None:
                raise ValueError(f"nobody says where the weights of the {modality} network are: {WEIGHTS_WANTED}")
            if missing := begin_with(network, modality, wanted.backbone, wanted.initial):
                raise ValueError(
                    f"{wanted.initial} lacks {len(missing)} parameters of {wanted.backbone}, such as {missing[0]}: "
                    f"{WEIGHTS_WANTED}"
                )
            branch = read_description(wanted.initial).branches[modality]
            learned = read_network_preparation(modality, branch.backbone, branch.preparation)
            if learned != wanted.preparation:
                raise ValueError(
                    f"{wanted.initial} has learned from {modality}s as {learned} has them, not as "
                    f"{wanted.preparation}: set {modality}_preparation to that"
                )
        self.head = joining_nothing(given)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """There is nothing to train."""
        raise NotImplementedError("networks that stay as they are have no losses")


def fitting_folders(recipe: Recipe, settings: Any, folders: Iterable[Path]) -> dict[Modality, Path]:  # noqa: ANN401
    """Which folder each network of a method begins with: the last whose network of the modality can be its beginning.

    Args:
        recipe: the method; where one network serves both modalities, it is the face's that begins.
        settings: of the recipe's Settings, which name its networks.
        folders: encoder folders, of which each holds some of the networks.

    Raises:
        EncoderError: a folder is no encoder.
        ValueError: a folder holds none of the networks that learn by these settings.
    """
    learned = (Modality.FACE,) if shares_one_network(recipe) else tuple(Modality)
    wanted = {one: str(getattr(settings, f"{one}_backbone")) for one in learned}
    begun: dict[Modality, Path] = {}
    for folder in folders:
        held = {one: branch.backbone for one, branch in read_description(folder).branches.items()}
        fitting = [one for one in learned if one in held and begins_as(one, held[one], wanted[one])]
        if not fitting:
            held_told, learned_told = ", ".join(held.values()), " and ".join(wanted.values())
            raise ValueError(f"{folder} holds {held_told}: what learns by these settings is {learned_told}")
        begun |= dict.fromkeys(fitting, folder)
    return begun


def settings_begun(settings: Any, run: RunSettings) -> Any:  # noqa: ANN401 - any recipe's Settings
    """A method's settings for a run that begins with weights: what stands for weights that are given is left out."""
    begun = {Modality.FACE: run.initial_face, Modality.VOICE: run.initial_voice}
    given = [modality for modality, folder in begun.items() if folder is not None]
    return settings.begun_with(given) if given and hasattr(settings, "begun_with") else settings


def joining_nothing(given: Given) -> SharedSpaceHead:
    """A head only to be validated with: the features of the two modalities have nothing to do with each other yet."""
    widths = given.face.dimension, given.voice.dimension
    face, voice = ([["linear", one, min(widths)]] if one > min(widths) else [] for one in widths)
    return SharedSpaceHead(face, voice, [], *widths)


def networks_at_first(stages: Sequence[Stage], given: Given) -> Task | None:
    """What a method's first stage goes on from: nothing, or networks that it leaves as they are given.

    Raises:
        TrainingError: see :class:`NetworksAsGiven`.
    """
    if not stages[0].on_vectors:
        return None
    try:
        return NetworksAsGiven(given).eval()
    except ValueError as error:
        raise TrainingError(str(error)) from error


def require_weights(stages: Sequence[Stage], preparation: Preparation, run: RunSettings) -> None:
    """See that networks which stay as they are have their weights, before anything is read.

    Args:
        stages: of the method.
        preparation: of the samples.
        run: which says what folders the networks begin with.

    Raises:
        ValueError: they have not, or not for these samples; the message says what to do.
    """
    if not stages[0].on_vectors:
        return
    initial = {Modality.FACE: run.initial_face, Modality.VOICE: run.initial_voice}
    if None in initial.values():
        raise ValueError(WEIGHTS_WANTED)
    face, voice = (given_network(one, *preparation.backbone(one), initial[one]) for one in Modality)
    NetworksAsGiven(Given(2, ("", ""), face, voice))


def refuse_known(folders: Iterable[Path | None], judged: Collection[str], otherwise: str = "") -> None:
    """See that the networks of a beginning know nobody whom their result is chosen or measured by.

    Args:
        folders: encoder folders; None among them is nothing.
        judged: people who are validated or measured on.
        otherwise: what else can be done, for the message.

    Raises:
        TrainingError: one of the folders lists some of them.
    """
    for folder in dict.fromkeys(one for one in folders if one is not None):
        if known := sorted(read_identities(folder, read_description(folder)) & set(judged)):
            raise TrainingError(
                f"{folder.name} was trained on {len(known)} of the people that the result would be chosen or measured "
                f"by, such as {known[0]}: begin with networks that know none of them{otherwise}"
            )
