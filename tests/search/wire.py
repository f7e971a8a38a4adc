"""A wire between a client and a server that can be cut, held still and mended: outages without waiting for restarts."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal

State = Literal["open", "silent", "refusing"]


class Wire:
    """Forwards connections to a server.

    Open, it passes everything on. Silent, it takes connections and passes nothing on. Refusing, it cuts
    what there is and takes no connection.

    Args:
        port: of the server, on loopback.
        state: at the begin.
    """

    def __init__(self, port: int, state: State = "open") -> None:
        self._target = port
        self._pairs: list[socket.socket] = []
        self._passing = threading.Event()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._port = 0
        self.set(state)

    @property
    def uri(self) -> str:
        """Where to connect to."""
        return f"http://127.0.0.1:{self._port}"

    def set(self, state: State) -> None:
        """Change what it does."""
        if state == "silent":
            self._passing.clear()
        else:
            self._passing.set()
        if state == "refusing":
            self._stop_listening()
            self.cut()
        elif self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), reuse_port=True)
            self._port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Cut every connection there is."""
        with self._lock:
            ends, self._pairs = self._pairs, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """End it."""
        self._passing.set()
        self._stop_listening()
        self.cut()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._passing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
