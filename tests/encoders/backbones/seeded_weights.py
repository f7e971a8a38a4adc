"""Networks whose weights come from a seed, the same on every machine and with every version of torch."""

from __future__ import annotations

import numpy as np
import torch


def seed_weights(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fill a network, statistics of normalisations included, so that signals keep their size; returns it, evaluating.

    Parameters are filled in the order of their names, so two classes with the same names get the same numbers.
    """
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in sorted(network.state_dict().items()):
            if not value.is_floating_point():
                continue
            drawn = generator.uniform(-1, 1, tuple(value.shape))
            if name.endswith("running_var"):
                drawn = 1.0 + 0.5 * drawn
            elif value.dim() > 1:
                drawn *= (6.0 / value[0].numel()) ** 0.5
            elif name.endswith("weight"):
                drawn = 1.0 + 0.3 * drawn
            else:
                drawn *= 0.1
            value.copy_(torch.from_numpy(drawn))
    return network.eval()
