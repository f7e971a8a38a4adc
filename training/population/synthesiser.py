"""eSpeak NG, called as the library that a package carries: text and a voice to sound.

The library keeps global state, so one lock serves a process, and it is started at first use.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

_SYNCHRONOUS, _CHARS_UTF8, _POSITION_CHARACTER, _RATE = 2, 1, 1, 1
_Chunk = NDArray[np.int16]
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class SynthesiserError(Exception):
    """The speech synthesiser could not start, or refused a voice or a text."""


class _Synthesiser:
    """The library with its callback; use it through :func:`synthesise`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path()
        self.sample_rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0))
        if self.sample_rate <= 0:
            raise SynthesiserError(f"eSpeak NG did not start with its data in {data}: reinstall espeakng-loader")
        self._chunks: list[_Chunk] = []
        # Kept as an attribute: the library calls it long after this constructor returns.
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._folder = tempfile.TemporaryDirectory(prefix="visavox-voice-")
        self._lock = threading.Lock()

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text: str, voice: str, words_per_minute: int) -> _Chunk:
        with self._lock:
            # The library takes a voice's definition only from a file.
            path = Path(self._folder.name) / "voice"
            path.write_text(voice, encoding="utf-8")
            if self._library.espeak_SetVoiceByFile(str(path).encode()) != 0:
                raise SynthesiserError(f"eSpeak NG refused the voice:\n{voice}")
            self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
            self._chunks.clear()
            encoded = text.encode()
            size = ctypes.c_size_t(len(encoded) + 1)
            kind, flags = _POSITION_CHARACTER, _CHARS_UTF8
            failed = self._library.espeak_Synth(encoded, size, 0, kind, 0, flags, None, None)
            if failed or self._library.espeak_Synchronize() or not any(chunk.any() for chunk in self._chunks):
                raise SynthesiserError(f"eSpeak NG did not speak {text!r}: give it words")
            return np.concatenate(self._chunks)


@lru_cache(maxsize=1)
def _synthesiser() -> _Synthesiser:
    return _Synthesiser()


def synthesise(text: str, voice: str, words_per_minute: int) -> tuple[NDArray[np.float32], int]:
    """Speak a text.

    The same arguments give the same samples if the voice has ``flutter 0`` and ``roughness 0``: both
    run on from one text to the next inside the library.

    Args:
        text: what to say, in the language that the voice names.
        voice: a voice definition as eSpeak NG's voice files have it.
        words_per_minute: 80 to 450.

    Returns:
        (n,) float32 mono in [-1, 1], and its sample rate in Hz.

    Raises:
        SynthesiserError: if the library cannot start or refuses the voice or the text.
    """
    synthesiser = _synthesiser()
    samples = synthesiser.speak(text, voice, words_per_minute)
    return samples.astype(np.float32) / np.float32(32768), synthesiser.sample_rate
