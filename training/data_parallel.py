"""Several processes that train one model, each on a device of its own, by way of ``accelerate``.

All of them make the same batches. Of each batch a process runs its networks on its own part of the samples only; the
features of all parts are then put together, so that every loss still sees the whole batch: a contrast has as many
negatives, and pseudo-labels as many samples, as with one process. Gradients are averaged. So more processes make steps
quicker and change nothing else but the last digits, where no layer of a network has statistics over the batch or drops
components out: each process drops out others of its part than one process would, and batch normalisation is made to
have the statistics of all processes on CUDA devices, and keeps each process's own on CPUs.

The first process alone writes: run folder, checkpoints, published folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from training.reproducible import seed_step

if TYPE_CHECKING:
    from accelerate import Accelerator

    from training.recipe import MadeTask

# The others wait for the first to read a whole corpus.
PATIENCE = timedelta(days=7)


class Processes:
    """The processes of a training, as one of them sees them.

    Args:
        accelerator: which has joined them; None: there is only this one.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator

    def __deepcopy__(self, _memo: object) -> Processes:
        """Itself: the copy of a task, such as its moving average, is trained by the same processes."""
        return self

    @property
    def count(self) -> int:
        """How many there are, at least 1."""
        return 1 if self._accelerator is None else self._accelerator.num_processes

    @property
    def place(self) -> int:
        """Which this one is, from 0."""
        return 0 if self._accelerator is None else self._accelerator.process_index

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.place == 0

    @property
    def device(self) -> torch.device | None:
        """This process's device; None where there is only one process, which chooses for itself."""
        return None if self._accelerator is None else self._accelerator.device

    def wait(self) -> None:
        """Until all are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first does what is inside; then the others, who find what it made."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def divided(
        self, run: Callable[[Tensor, Tensor | None], Tensor], samples: Tensor, lengths: Tensor | None
    ) -> Tensor:
        """Features of all samples, of which each process computes its part.

        Args:
            run: a network: (n, …) samples and perhaps their (n,) lengths to (n, d) features.
            samples: (n, …), the same in all processes; n at least as many as they are.
            lengths: (n,) or None.

        Returns:
            (n, d), the same in all processes. Its gradient reaches this process's part only, times their number:
            averaged over the processes (:meth:`average_gradients`) it is the gradient of the whole.

        Raises:
            ValueError: fewer samples than processes.
        """
        if self.count == 1:
            return run(samples, lengths)
        if len(samples) < self.count:
            raise ValueError(
                f"{len(samples)} samples cannot be divided among {self.count} processes: enlarge the batch"
            )
        start, stop = (len(samples) * at // self.count for at in (self.place, self.place + 1))
        drawn = int(torch.randint(2**62, ()))  # the same in all: what is drawn behind the network stays so
        with torch.random.fork_rng(devices=[samples.device] if samples.device.type == "cuda" else []):
            seed_step(drawn + self.place, samples.device)
            own = run(samples[start:stop], None if lengths is None else lengths[start:stop])
        return cast(Tensor, _Joined.apply(own, len(samples), start, self))  # type: ignore[no-untyped-call]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        return tensor if self._accelerator is None else cast(Tensor, self._accelerator.reduce(tensor, "sum"))

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes what the first one has in these, bit for bit."""
        if self.count == 1:
            return
        for one in tensors:
            one.copy_(self.sum(one if self.first else torch.zeros_like(one)))

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give every parameter the mean of its gradients in all processes; a parameter has one in all or in none."""
        if self.count == 1:
            return
        gradients = [one.grad for one in parameters if one.grad is not None]
        sizes = [one.numel() for one in gradients]
        together = self.sum(torch.cat([one.reshape(-1).float() for one in gradients])) / self.count
        for gradient, mean in zip(gradients, torch.split(together, sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))


class _Joined(torch.autograd.Function):
    """Rows of this process, in the middle of those of all."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, total: int, start: int, processes: Processes) -> Tensor:  # noqa: ANN401
        ctx.span, ctx.count = (start, start + len(own)), processes.count
        rows = own.new_zeros((total, *own.shape[1:]))
        rows[start : start + len(own)] = own
        return processes.sum(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        start, stop = ctx.span
        return gradients[0][start:stop] * ctx.count, None, None, None


def join_task(task: MadeTask, processes: Processes) -> MadeTask:
    """A task whose networks are run by all processes together."""
    if processes.count > 1:
        task.processes = processes
        if processes.device is not None and processes.device.type == "cuda":
            task = torch.nn.SyncBatchNorm.convert_sync_batchnorm(task)  # type: ignore[no-untyped-call]
    return task


@cache
def join_processes(count: int, device: str) -> Processes:
    """The processes that a launcher has started, joined; once in a process.

    Args:
        count: how many the launcher says there are; 1: it is left alone.
        device: ``cpu``, or ``auto`` and ``cuda`` for a CUDA device each.
    """
    if count == 1:
        return Processes()
    from accelerate import Accelerator  # late: most trainings are of one process, and it takes seconds to load
    from accelerate.utils import InitProcessGroupKwargs

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    joined = InitProcessGroupKwargs(backend="gloo" if on_cpu else "nccl", timeout=PATIENCE)
    return Processes(Accelerator(cpu=on_cpu, kwargs_handlers=[joined]))
