"""A run's log as curves for TensorBoard: one point an epoch, written over when a resumed run repeats it.

Of what a training began with, where that is validated, the point is at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
ONE_OF_TWO = "_of_two"
"""Ends the names of accuracies in a line's validation; the others are mean average precisions."""


class Curves:
    """Writes the curves of a run: losses, validation, learning rate and throughput by epoch.

    Args:
        folder: of the run; the curves go to its subfolder ``tensorboard``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def write(self, line: Mapping[str, Any], people_per_second: float | None) -> None:
        """Add the points of an epoch.

        Args:
            line: of ``log.jsonl``.
            people_per_second: learned from, validation apart; of an epoch that was gone on with, since then; None:
                nobody was.
        """
        # TensorBoard takes a second to load: only who wants curves waits for it
        from torch.utils.tensorboard import SummaryWriter

        epoch = int(line["epoch"])
        values: dict[str, float] = {}
        if epoch:  # before the first one nothing is learned
            values["learning_rate"] = line["learning_rate"]
        if people_per_second is not None:
            values["people_per_second"] = people_per_second
        values |= {f"loss/{name}": value for name, value in line["losses"].items()}
        for name, value in line.get("validation", {}).items():
            values[f"validation/{name}" if name.endswith(ONE_OF_TWO) else f"validation/{name}_map"] = value
        # what a killed run wrote of this epoch and later ones is void
        with SummaryWriter(str(self._folder), purge_step=epoch) as writer:
            for name, value in values.items():
                writer.add_scalar(name, value, epoch)
