"""A reader for the sandbox's tests that does what a file's own text says."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ingest.media import MediaError, read_frames
from ingest.track import Extraction, media_id

HOG = []


class ObedientReader:
    def extract(self, path: Path) -> Extraction:
        order, *words = path.read_text().split()
        honest = Extraction(media_id(path), "sound", 1.0, warnings=(f"{os.getpid()}",))
        return getattr(self, order)(path, honest, *words)

    def sleep(self, _path, honest, seconds):
        time.sleep(float(seconds))
        return honest

    def spin(self, _path, _honest):
        while True:
            pass

    def take(self, _path, honest, megabytes):
        HOG.append(np.ones(int(megabytes) * 1_000_000, np.uint8))
        return honest

    def creep(self, _path, _honest):
        while True:
            HOG.append(np.ones(20_000_000, np.uint8))
            time.sleep(0.02)

    def refuse(self, path, _honest):
        raise MediaError(path, "is not to our\x1b[31m taste")

    def fail(self, _path, _honest):
        raise KeyError("an index that is not there")

    def crash(self, _path, _honest):
        ctypes.string_at(8)

    def leave(self, _path, _honest):
        os._exit(7)

    def kill(self, _path, _honest):
        os.kill(os.getpid(), signal.SIGKILL)

    def lie(self, _path, honest):
        return replace(honest, media="0" * 64)

    def babble(self, _path, _honest, kind):
        channel = socket.socket(fileno=os.dup(int(sys.argv[1])))
        if kind == "noise":
            channel.sendall(os.urandom(1000))
        elif kind == "huge":
            text = b'{"body": {}, "arrays": [["float32", [4000000000]]]}'
            channel.sendall(len(text).to_bytes(4, "big") + text)
        time.sleep(60)

    def write(self, path, honest):
        return self._told(honest, lambda: path.with_suffix(".new").write_text("mine"))

    def program(self, _path, honest):
        return self._told(honest, lambda: subprocess.run(["/bin/true"], check=True))

    def connect(self, _path, honest, port):
        return self._told(honest, lambda: socket.create_connection(("127.0.0.1", int(port)), 2).close())

    def signal_parent(self, _path, honest):
        return self._told(honest, lambda: os.kill(os.getppid(), 0))

    def environment(self, _path, honest):
        return replace(honest, warnings=tuple(sorted(os.environ)))

    def print(self, _path, honest):
        os.write(2, b"a line for the log\n")
        print("a line for the log", flush=True)
        return honest

    @staticmethod
    def _told(honest, deed):
        try:
            deed()
        except OSError as error:
            return replace(honest, warnings=(f"refused: {error.strerror}",))
        return replace(honest, warnings=("done",))


def make_reader():
    return ObedientReader()


class PictureReader:
    """Reads all pictures of a film."""

    def extract(self, path: Path) -> Extraction:
        return Extraction(media_id(path), "film", max(time for time, _ in read_frames(path, 1.0)))


def make_picture_reader():
    return PictureReader()


def make_nothing():
    raise RuntimeError("the weights are not there")


def make_exit():
    os._exit(3)
