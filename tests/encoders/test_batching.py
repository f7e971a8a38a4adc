from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from encoders.batching import Batch, SharedNetwork, shared_by_threads
from encoders.space import Embedding, Modality


class Doubling:
    """Rows are twice the samples; it may be slow, and it fails on a negative one."""

    preparation = "doubling"

    def __init__(self, seconds=0.0):
        self.seconds, self.calls, self.threads = seconds, [], set()

    def prepare(self, sample):
        return float(sample)

    def embed(self, prepared):
        self.threads.add(threading.get_ident())
        self.calls.append(len(prepared))
        time.sleep(self.seconds)
        if min(prepared) < 0:
            raise ValueError("a negative sample")
        return np.array([[2 * one] for one in prepared], dtype=np.float32)

    def own_weights(self):
        return None


@pytest.fixture
def network():
    shared = SharedNetwork(Doubling(0.02))
    yield shared
    shared.close()


def asked_at_once(network, requests):
    with ThreadPoolExecutor(len(requests)) as callers:
        return list(callers.map(network.embed, requests))


def test_everybody_gets_their_own_rows_in_order(network):
    requests = [[float(10 * caller + one) for one in range(caller % 4 + 1)] for caller in range(16)]
    for request, rows in zip(requests, asked_at_once(network, requests), strict=True):
        assert rows.tolist() == [[2 * one] for one in request]


def test_those_who_wait_share_a_batch():
    backbone, batches = Doubling(0.02), []
    network = SharedNetwork(backbone, on_batch=batches.append)
    asked_at_once(network, [[float(one)] for one in range(16)])
    network.close()
    assert sum(backbone.calls) == 16 and len(backbone.calls) <= 6
    assert sum(batch.callers for batch in batches) == 16 and all(isinstance(batch, Batch) for batch in batches)
    assert max(batch.callers for batch in batches) > 1 and all(batch.seconds >= 0.019 for batch in batches)


def test_a_caller_alone_waits_for_nobody():
    waits = []
    network = SharedNetwork(Doubling(), window=30.0, on_batch=lambda batch: waits.append(batch.waited))
    for number in range(3):
        network.embed([float(number)])
    network.close()
    assert len(waits) == 3 and max(waits) < 1.0


def test_a_batch_holds_no_more_than_it_may_unless_one_caller_has_more():
    backbone = Doubling(0.02)
    network = SharedNetwork(backbone, most=4)
    requests = [[1.0, 2.0, 3.0]] * 5 + [[float(one) for one in range(9)]]
    assert [len(rows) for rows in asked_at_once(network, requests)] == [3, 3, 3, 3, 3, 9]
    network.close()
    assert sorted(backbone.calls) == [3, 3, 3, 3, 3, 9]


def test_one_bad_sample_fails_only_its_own_caller(network):
    def tried(request):
        try:
            return network.embed(request).tolist()
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(tried, [[float(one) if one != 5 else -1.0] for one in range(8)]))
    assert answers == [[[2.0 * one]] if one != 5 else "a negative sample" for one in range(8)]


def test_only_one_thread_ever_calls_the_network(network):
    asked_at_once(network, [[1.0]] * 16)
    assert len(network._backbone.threads) == 1


def test_closing_answers_what_waits_and_takes_no_more():
    network = SharedNetwork(Doubling(0.05))
    with ThreadPoolExecutor(4) as callers:
        waiting = [callers.submit(network.embed, [float(one)]) for one in range(4)]
        time.sleep(0.02)
        network.close()
        assert [one.result().tolist() for one in waiting] == [[[0.0]], [[2.0]], [[4.0]], [[6.0]]]
    with pytest.raises(RuntimeError, match="closed"):
        network.embed([1.0])


def test_impossible_batches_are_refused():
    with pytest.raises(ValueError, match="a sample or more"):
        SharedNetwork(Doubling(), most=0)


def test_a_shared_encoder_gives_the_vectors_of_the_encoder_itself(voice_encoder):
    random = np.random.default_rng(3)
    sounds = [random.normal(0, 0.1, 16_000 + 4_000 * (one % 3)).astype(np.float32) for one in range(6)]
    alone = voice_encoder.encode(Modality.VOICE, sounds)
    shared = shared_by_threads(voice_encoder)
    with ThreadPoolExecutor(6) as callers:
        together = list(callers.map(lambda sound: shared.encode(Modality.VOICE, [sound])[0], sounds))
    assert shared.space == voice_encoder.space
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Embedding) and isinstance(other, Embedding)
        assert float(one.vector @ other.vector) > 0.99999
