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
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
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
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _end(pair)

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
            try:
                pair = near, socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                wanted = self._listener is listener
                if wanted:
                    self._pairs.add(pair)
            if not wanted:
                _end(pair)
                return
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(source, sink, pair), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._passing.wait()
                sink.sendall(data)
        with self._lock:
            mine = pair in self._pairs
            self._pairs.discard(pair)
        if mine:
            _end(pair)


def _end(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it
        end.close()
