"""Concurrent callers share batches: what waits while a network works goes into its next batch, together.

A network takes about as long for one sample as for a few, so sixteen callers who ask at once are answered by a
few calls instead of sixteen. A caller alone waits for nobody.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.backbones.backbone import Backbone
from encoders.encoder import Encoder

WINDOW_SECONDS = 0.008
MOST_SAMPLES = 128


@dataclass(frozen=True)
class Batch:
    """One call of a network.

    Args:
        callers: whose samples it held.
        samples: in all.
        waited: seconds that the first of them had been waiting.
        seconds: that the network took.
    """

    callers: int
    samples: int
    waited: float
    seconds: float


@dataclass(eq=False)
class _Request:
    prepared: Sequence[Any]
    since: float = field(default_factory=time.monotonic)
    answer: Future[NDArray[np.float32]] = field(default_factory=Future)


class SharedNetwork:
    """A backbone whose ``embed`` may be called by many threads at once. See :class:`Backbone`.

    Args:
        backbone: the network; from now on only called by this object's own thread.
        window: seconds to wait for more callers, as long as there lately were several at a time.
        most: samples of one batch; a single caller with more is still one batch.
        on_batch: told of every batch, in this object's thread.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        window: float = WINDOW_SECONDS,
        most: int = MOST_SAMPLES,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        if window < 0 or most < 1:
            raise ValueError(f"a window is 0 s or more and a batch holds a sample or more, got {window} and {most}")
        self._backbone, self._window, self._most, self._on_batch = backbone, window, most, on_batch
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._held: _Request | None = None  # taken from the queue, but too many for the batch before
        self._several = False  # whether the last batch was of several callers
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def preparation(self) -> Any:  # noqa: ANN401 - each network has its own
        """See Backbone.preparation."""
        return self._backbone.preparation

    def prepare(self, sample: Any) -> Any:  # noqa: ANN401 - each network has its own prepared form
        """See Backbone.prepare: in the caller's own thread."""
        return self._backbone.prepare(sample)

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """See Backbone.embed. Raises RuntimeError after ``close``."""
        request = _Request(prepared)
        with self._lock:
            if self._closed:
                raise RuntimeError("this network has been closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="network", daemon=True)
                self._thread.start()
            self._waiting.put(request)
        return request.answer.result()

    def own_weights(self) -> Mapping[str, torch.Tensor]:
        """See Backbone.own_weights."""
        return self._backbone.own_weights()

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while (requests := self._collect()) is not None:
            self._answer(requests)

    def _collect(self) -> list[_Request] | None:
        """Those who are answered next; None at the end."""
        first = self._held or self._waiting.get()
        self._held = None
        if first is None:
            return None
        requests, samples = [first], len(first.prepared)
        deadline = time.monotonic() + (self._window if self._several else 0.0)
        while samples < self._most:
            try:
                request = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                self._waiting.put(None)  # the end, once these are answered
                break
            if samples + len(request.prepared) > self._most:
                self._held = request
                break
            requests.append(request)
            samples += len(request.prepared)
        self._several = len(requests) > 1
        return requests

    def _answer(self, requests: Sequence[_Request]) -> None:
        began = time.monotonic()
        try:
            rows = self._backbone.embed([one for request in requests for one in request.prepared])
        except Exception as error:  # noqa: BLE001 - whatever a network raises is its caller's, not this thread's
            if len(requests) == 1:
                requests[0].answer.set_exception(error)
                return
            for request in requests:  # one caller's sample must not fail the others
                self._answer([request])
            return
        ended, first = time.monotonic(), 0
        for request in requests:
            request.answer.set_result(rows[first : first + len(request.prepared)])
            first += len(request.prepared)
        self._on_batch(Batch(len(requests), first, began - requests[0].since, ended - began))


def shared_by_threads(encoder: Encoder, on_batch: Callable[[Batch], None] = lambda batch: None) -> Encoder:
    """The same encoder, to be asked by many threads at once.

    Args:
        encoder: not to be used by itself any more.
        on_batch: told of every batch of each of its networks.
    """
    networks = {
        modality: SharedNetwork(backbone, on_batch=on_batch) for modality, backbone in encoder.backbones.items()
    }
    return replace(encoder, backbones=networks)
