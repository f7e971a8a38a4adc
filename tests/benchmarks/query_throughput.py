"""How much quicker sixteen clients with sounds are answered at once than one after another, and where time goes.

Run ``python -m tests.benchmarks.query_throughput [--json]``: a live search API on the embedded index with ten
invented people, asked ``POST /v1/who`` with their clips: by one client, then by sixteen. The shares of the stages
come from the server's own ``/metrics``.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.live import latencies, live_api, percentiles
from training.population.folder import InventedMedia, MediaSize, write_demo_media

CLIENTS = 16
STAGE = re.compile(r'^visavox_stage_seconds_sum\{stage="(\w+)"\} ([0-9.e+-]+)', re.MULTILINE)


def enrol(url: str, media: InventedMedia) -> list[bytes]:
    """Enrol everybody's films; gives their sounds, to ask with."""
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
        for one in media.people:
            identity = client.post("/v1/people", json={"name": one.person.name}).json()["id"]
            files = [("file", (clip.name, clip.read_bytes())) for clip in one.clips if clip.suffix == ".mp4"]
            client.post(f"/v1/people/{identity}/samples", files=files).raise_for_status()
    return [clip.read_bytes() for one in media.people for clip in one.clips if clip.suffix == ".wav"]


def asking(url: str, clips: list[bytes], offset: int) -> Callable[[int], object]:
    """One client."""
    client = httpx.Client(base_url=url, timeout=300, trust_env=False)

    def ask(number: int) -> None:
        clip = clips[(offset + number) % len(clips)]
        client.post("/v1/who", files={"file": ("clip.wav", clip)}).raise_for_status()

    return ask


def stages(url: str) -> dict[str, float]:
    """Seconds that the server has spent in each stage so far."""
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    return {name: float(seconds) for name, seconds in STAGE.findall(text)}


def run(questions: int) -> dict[str, Any]:
    """Measure both ways in turns."""
    with tempfile.TemporaryDirectory() as folder:
        media = write_demo_media(Path(folder) / "media", 5, MediaSize(people=10, strangers=0, films=0))
        with live_api(Path(folder) / "home") as url:
            clips = enrol(url, media)
            alone = asking(url, clips, 0)
            together = [asking(url, clips, number) for number in range(CLIENTS)]
            one_taken, one_seconds, many_taken, many_seconds = [], 0.0, [], 0.0
            before = stages(url)
            for _ in range(3):
                taken, seconds = latencies([alone], questions)
                one_taken, one_seconds = one_taken + taken, one_seconds + seconds
                taken, seconds = latencies(together, questions // CLIENTS)
                many_taken, many_seconds = many_taken + taken, many_seconds + seconds
            after = stages(url)
    rate_alone, rate_together = len(one_taken) / one_seconds, len(many_taken) / many_seconds
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    return {
        "clips_per_second_alone": rate_alone,
        "clips_per_second_together": rate_together,
        "ratio": rate_together / rate_alone,
        "alone_ms": percentiles(one_taken),
        "together_ms": percentiles(many_taken),
        "stage_seconds": {name: round(seconds, 3) for name, seconds in sorted(spent.items())},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=96, help="asked both ways, three times")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = run(options.questions)
    if options.json:
        print(json.dumps(measured))
        return
    print(
        f"one client {measured['clips_per_second_alone']:.1f} clips/s, {CLIENTS} clients "
        f"{measured['clips_per_second_together']:.1f} clips/s: {measured['ratio']:.2f} times as many"
    )
    print("median / 95th percentile: {:.0f} / {:.0f} ms alone,".format(*measured["alone_ms"]), end=" ")
    print("{:.0f} / {:.0f} ms together".format(*measured["together_ms"]))
    for name, seconds in measured["stage_seconds"].items():
        print(f"  {name}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
