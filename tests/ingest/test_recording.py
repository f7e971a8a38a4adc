"""What we write ourselves: FLAC that comes back bit for bit. Films are written and read in test_media."""

from __future__ import annotations

import io

import numpy as np
import pytest

from ingest.media import MediaError
from ingest.recording import read_flac, write_flac
from tests.ingest.test_media import tone


def test_flac_gives_back_the_sixteen_bits_exactly(tmp_path):
    wave = np.random.default_rng(0).uniform(-1, 1, 20_001).astype(np.float32)
    write_flac(tmp_path / "one.flac", wave)
    found = read_flac(tmp_path / "one.flac")
    expected = np.clip(np.round(wave.astype(np.float64) * 32768), -32768, 32767) / 32768
    assert found.dtype == np.float32
    assert (found == expected).all()


def test_flac_written_again_from_what_was_read_is_the_same_file():
    first, second = io.BytesIO(), io.BytesIO()
    write_flac(first, tone(1.0))
    write_flac(second, read_flac(io.BytesIO(first.getvalue())))
    assert first.getvalue() == second.getvalue()


@pytest.mark.parametrize("count", [0, 1, 15, 4096, 4097])
def test_flac_of_any_length_keeps_its_length(tmp_path, count):
    write_flac(tmp_path / "short.flac", tone(1.0)[:count])
    assert len(read_flac(tmp_path / "short.flac")) == count


def test_a_damaged_flac_is_refused(tmp_path):
    (tmp_path / "bad.flac").write_bytes(b"fLaC" + bytes(50))
    with pytest.raises(MediaError, match=r"bad\.flac: cannot be decoded as FLAC"):
        read_flac(tmp_path / "bad.flac")


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 100, np.random.default_rng(0).bytes(20_000)])
def test_a_flac_of_garbage_is_refused(tmp_path, garbage):
    (tmp_path / "bad.flac").write_bytes(garbage)
    with pytest.raises(MediaError, match=r"bad\.flac: cannot be decoded as FLAC"):
        read_flac(tmp_path / "bad.flac")


def test_a_flac_that_is_cut_off_is_refused(tmp_path):
    write_flac(tmp_path / "cut.flac", tone(2.0))
    whole = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(MediaError, match="cannot be decoded as FLAC"):
        read_flac(tmp_path / "cut.flac")
