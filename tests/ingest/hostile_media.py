"""Files that mean harm, made small: each is a few bytes that ask for much, or that are not what they say."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ingest.media import write_film


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """A black PNG of one bit a pixel, with all of its rows or fewer."""
    squeeze, data = zlib.compressobj(9), b""
    for _ in range(height if rows is None else rows):
        data += squeeze.compress(bytes(1 + (width + 7) // 8))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data + squeeze.flush()))
    body = b"".join(
        struct.pack(">I", len(one)) + kind + one + struct.pack(">I", zlib.crc32(kind + one))
        for kind, one in (*parts, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body


def bmp(width: int, height: int) -> bytes:
    """A BMP that packs runs of pixels: each line a few bytes."""
    lines = b"".join(b"\xff\0" * 4 + b"\0\0" for _ in range(50)) + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(lines), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(lines), 0, 0, 54 + 1024) + header + bytes(1024) + lines


def webp(width: int, height: int) -> bytes:
    """A lossless WebP; it has 14 bits for a side."""
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(40)
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def gif(width: int, height: int, pictures: int = 1) -> bytes:
    """A GIF whose pictures are as large as its screen."""
    one = b"\x21\xf9\x04\0\x02\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + one * pictures + b";"


def jpeg_of_many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each goes over all of the picture."""
    stream = io.BytesIO()
    Image.new("L", (width, height), 90).save(stream, format="jpeg", progressive=True, quality=50)
    whole = stream.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + b"\xff\xd9"


def wav(rate: int, data: bytes, *, said: int | None = None, channels: int = 1, form: int = 1, bits: int = 16) -> bytes:
    """A WAV with any header; ``said`` is the number of bytes of sound that it claims."""
    step = channels * bits // 8
    bytes_a_second = (rate * step) & 0xFFFFFFFF
    head = struct.pack("<HHIIHH", form, channels, rate, bytes_a_second, step & 0xFFFF, bits)
    claimed = len(data) if said is None else said
    return (
        b"RIFF" + struct.pack("<I", (claimed + 36) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + head
        + b"data" + struct.pack("<I", claimed) + data
    )  # fmt: skip


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    value, top = 0, 1 << (bits - 1)
    for one in data:
        value ^= one << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ polynomial if value & top else value << 1) & ((1 << bits) - 1)
    return value


def _coded(number: int) -> bytes:
    """The number of a FLAC frame, as UTF-8 codes characters."""
    return chr(number).encode("utf-8", "surrogatepass")


def silent_flac(hours: float, *, said: float | None = None) -> bytes:
    """Hours of silence at 8 kHz, 14 bytes for each 8 s; the header claims ``said`` hours, or nothing at all."""
    block = 65535
    total = 0 if said is None else round(said * 3600 * 8000)
    bits = (8000 << 44) | (0 << 41) | (15 << 36) | total
    info = struct.pack(">HH", block, block) + bytes(6) + bits.to_bytes(8, "big") + bytes(16)
    frames = []
    for number in range(round(hours * 3600 * 8000 / block)):
        head = b"\xff\xf8\x74\x08" + _coded(number) + struct.pack(">H", block - 1)
        frame = head + bytes([_crc(head, 0x07, 8)]) + b"\0\0\0"
        frames.append(frame + struct.pack(">H", _crc(frame, 0x8005, 16)))
    return b"fLaC\x80" + len(info).to_bytes(3, "big") + info + b"".join(frames)


def film(path: Path, pictures: int = 25, side: int = 64) -> bytes:
    """A plain short film."""
    write_film(path, (np.full((side, side, 3), shade % 250, np.uint8) for shade in range(pictures)), 25, None)
    return path.read_bytes()


def _boxes(content: bytes, begin: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Where the MP4 boxes in a stretch begin and end; of several of one kind the last."""
    found = {}
    while begin < end:
        size = int.from_bytes(content[begin : begin + 4], "big")
        found[content[begin + 4 : begin + 8]] = (begin, begin + size)
        begin += size
    return found


def claiming(path: Path, seconds: float) -> bytes:
    """A Matroska film of a second whose header says that it lasts this long, any number."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8))))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    place = content.index(b"\x44\x89\x88") + 3
    return content[:place] + struct.pack(">d", seconds * 1000) + content[place + 8 :]


def edited(content: bytes, times: int) -> bytes:
    """A film whose list of edits shows all of it again and again."""
    moov = _boxes(content, 0, len(content))[b"moov"]
    trak = _boxes(content, moov[0] + 8, moov[1])[b"trak"]
    inner = _boxes(content, trak[0] + 8, trak[1])
    edits = inner[b"edts"]
    mvhd = _boxes(content, moov[0] + 8, moov[1])[b"mvhd"][0]
    length = content[mvhd + 24 : mvhd + 28]
    entries = (length + struct.pack(">iHH", 0, 1, 0)) * times
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, times) + entries
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    longer = len(edts) - (edits[1] - edits[0])
    changed = bytearray(content[: edits[0]] + edts + content[edits[1] :])
    for begin, end in (moov, trak):  # the index lies behind the pictures, whose places stay
        changed[begin : begin + 4] = (end - begin + longer).to_bytes(4, "big")
    return bytes(changed)


def film_without_a_clock(path: Path, pictures: int, side: int = 16) -> bytes:
    """A film whose pictures are a millionth of a second apart."""
    rate = Fraction(1_000_000)
    with av.open(str(path), "w", format="mp4", options={"video_track_timescale": "1000000"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(pictures):
            picture = av.VideoFrame.from_ndarray(np.full((side, side, 3), number % 200, np.uint8))
            picture.pts = number
            for packet in stream.encode(picture):
                packet.pts = packet.dts = number
                packet.time_base = 1 / rate
                container.mux(packet)
    return path.read_bytes()


def many_streams(path: Path, count: int) -> bytes:
    """A Matroska film of so many streams of sound."""
    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(count)]
        for stream in streams:
            block = av.AudioFrame.from_ndarray(np.zeros((1, 80), np.int16), format="s16", layout="mono")
            block.sample_rate = 8000
            container.mux(stream.encode(block))
    return path.read_bytes()


def zip_bomb(megabytes: int = 50) -> bytes:
    """Zeros that are a thousandth of what they become."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("film.mp4", bytes(megabytes * 1_000_000))
    return stream.getvalue()


def pointers(target: Path, address: str) -> dict[str, bytes]:
    """Texts that name other files and addresses, in the forms that players follow."""
    here = f"file://{target}"
    return {
        "list.m3u8": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{here}\n#EXTINF:2,\n"
        f"{address}\n#EXT-X-ENDLIST\n".encode(),
        "list.mp4": f"#EXTM3U\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n".encode(),
        "concat.mp4": f"ffconcat version 1.0\nfile '{target}'\nfile {address}\n".encode(),
        "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "drawing.svg": f'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="99" height="99">'
        f'<image href="{here}" width="99" height="99"/><image href="{address}"/></svg>'.encode(),
        "manifest.mpd": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f"<AdaptationSet><Representation><BaseURL>{here}</BaseURL></Representation></AdaptationSet></Period>"
        f"</MPD>".encode(),
        "list.asx": f'<asx version="3.0"><entry><ref href="{address}"/></entry></asx>'.encode(),
    }


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """A medium with one kind of damage, or several: what broken disks, cables and people do to files."""
    for _ in range(int(random.integers(1, 4))):
        content = MUTATIONS[int(random.integers(len(MUTATIONS)))](bytearray(content), random)
    return content


def _place(content: bytearray, random: np.random.Generator, longest: int) -> slice:
    """Some stretch; half of all lie in the first kilobyte, where headers are."""
    last = min(len(content), 1024) if random.random() < 0.5 else len(content)
    begin = int(random.integers(0, max(1, last)))
    return slice(begin, min(len(content), begin + int(random.integers(1, longest + 1))))


def _flip_bits(content: bytearray, random: np.random.Generator) -> bytes:
    for _ in range(int(random.integers(1, 60))):
        for place in range(*_place(content, random, 1).indices(len(content))):
            content[place] ^= 1 << int(random.integers(8))
    return bytes(content)


def _overwrite(content: bytearray, random: np.random.Generator) -> bytes:
    there = _place(content, random, 400)
    content[there] = random.bytes(len(content[there]))
    return bytes(content)


def _blank(content: bytearray, random: np.random.Generator) -> bytes:
    there = _place(content, random, 400)
    content[there] = (b"\0", b"\xff")[int(random.integers(2))] * len(content[there])
    return bytes(content)


def _cut_off(content: bytearray, random: np.random.Generator) -> bytes:
    return bytes(content[: int(random.integers(0, len(content) + 1))])


def _cut_out(content: bytearray, random: np.random.Generator) -> bytes:
    del content[_place(content, random, 2000)]
    return bytes(content)


def _repeat(content: bytearray, random: np.random.Generator) -> bytes:
    there = _place(content, random, 2000)
    content[there.stop : there.stop] = content[there] * int(random.integers(1, 9))
    return bytes(content)


def _move(content: bytearray, random: np.random.Generator) -> bytes:
    there = _place(content, random, 2000)
    piece = bytes(content[there])
    del content[there]
    begin = int(random.integers(0, len(content) + 1))
    content[begin:begin] = piece
    return bytes(content)


def _wrong_number(content: bytearray, random: np.random.Generator) -> bytes:
    """A length or count that is zero, the greatest, negative, or nearly right."""
    begin, size = _place(content, random, 1).start, int(random.choice((1, 2, 4, 8)))
    order = ("little", "big")[int(random.integers(2))]
    there = int.from_bytes(content[begin : begin + size], order)  # type: ignore[arg-type]
    new = (0, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), there + 1, there - 1, there * 2)[int(random.integers(6))]
    content[begin : begin + size] = (new % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(content)


def _swap_names(content: bytearray, random: np.random.Generator) -> bytes:
    """Two of the four letters that name boxes, chunks and codecs, for one another."""
    names = [found.start() for found in re.finditer(rb"[A-Za-z][A-Za-z0-9 _]{3}", bytes(content))]
    if len(names) > 1:
        one, other = (names[int(random.integers(len(names)))] for _ in range(2))
        content[one : one + 4], content[other : other + 4] = content[other : other + 4], content[one : one + 4]
    return bytes(content)


MUTATIONS = (
    _flip_bits, _overwrite, _blank, _cut_off, _cut_out, _repeat, _move, _wrong_number, _swap_names,
)  # fmt: skip
"""Kinds of damage: content and a source of chance in, damaged content out."""
