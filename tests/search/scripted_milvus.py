"""A gRPC server that speaks Milvus's protocol and refuses requests with given codes: what a full server would say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import message_factory
from pymilvus.grpc_gen import milvus_pb2

_METHODS = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name


class ScriptedMilvus(grpc.GenericRpcHandler):
    """Answers connecting and asking for its version; every other method as it is told.

    Attributes:
        refusals: (code, words, how often) of a method's refusals, by its name; after those it answers empty.
        asked: how often each method was called.
    """

    def __init__(self) -> None:
        self.refusals: dict[str, tuple[int, str, int]] = {}
        self.asked: Counter[str] = Counter()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """See grpc.GenericRpcHandler."""
        name = details.method.rpartition("/")[2]
        if name not in _METHODS:
            return None
        request, response = (
            message_factory.GetMessageClass(kind) for kind in (_METHODS[name].input_type, _METHODS[name].output_type)
        )

        def answer(_request: Any, _context: grpc.ServicerContext) -> Any:
            self.asked[name] += 1
            given = response()
            code, words, times = self.refusals.get(name, (0, "", 0))
            if self.asked[name] <= times:
                status = given.status if "status" in response.DESCRIPTOR.fields_by_name else given
                status.code, status.reason, status.error_code = code, words, 1
            return given

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )


@contextmanager
def scripted_milvus() -> Iterator[tuple[str, ScriptedMilvus]]:
    """A running one, and its URI."""
    script = ScriptedMilvus()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[script])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", script
    finally:
        server.stop(0).wait()
