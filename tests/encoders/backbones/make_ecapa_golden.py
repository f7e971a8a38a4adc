"""How ``golden/ecapa_tdnn.safetensors`` was made: by speechbrain 1.1.2's own classes, with weights of a seed.

speechbrain is no dependency of the tests. With a copy of it on the path (``pip install --no-deps --target FOLDER
speechbrain hyperpyyaml ruamel.yaml``, then ``PYTHONPATH=.:FOLDER``) this module writes the file again:

    python -m tests.encoders.backbones.make_ecapa_golden

The file holds speechbrain's features of one sound and its vectors of three sounds, each run alone, from a small
network and from one of the public sizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from encoders.acoustics import torchaudio
from encoders.packaging import drawn_voice
from tests.encoders.backbones.seeded_weights import seed_weights

GOLDEN = Path(__file__).parent / "golden" / "ecapa_tdnn.safetensors"
SOUNDS = ((1, 0.5), (2, 1.3), (3, 2.2))
"""Seed and seconds of each drawn voice."""
SEED = 7
SIZES: dict[str, dict[str, Any]] = {
    "small": {"channels": (32, 64, 64, 64, 96), "attention": 16, "squeeze": 24, "scale": 4},
    "public": {},
}
"""Preparations that differ from the defaults."""


def main() -> None:
    """Write the file."""
    torchaudio()  # before speechbrain imports it, which fails on CPU builds
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    bands, centre = Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False)
    tensors = {}
    with torch.no_grad():
        sounds = [torch.from_numpy(drawn_voice(seed, seconds))[None] for seed, seconds in SOUNDS]
        features = [centre(bands(sound), torch.ones(1)) for sound in sounds]
        tensors["features"] = features[0][0]
        for name, sizes in SIZES.items():
            network = ECAPA_TDNN(
                80,
                channels=list(sizes.get("channels", (1024, 1024, 1024, 1024, 3072))),
                kernel_sizes=[5, 3, 3, 3, 1],
                dilations=[1, 2, 3, 4, 1],
                attention_channels=sizes.get("attention", 128),
                se_channels=sizes.get("squeeze", 128),
                res2net_scale=sizes.get("scale", 8),
                lin_neurons=192,
            )
            seed_weights(network, SEED)
            tensors[name] = torch.cat([network(one, torch.ones(1))[:, 0] for one in features])
            print(name, torch.corrcoef(tensors[name]), tensors[name].abs().mean())
    GOLDEN.write_bytes(save(tensors, metadata={"names": "\n".join(network.state_dict())}))


if __name__ == "__main__":
    main()
