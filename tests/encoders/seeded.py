"""Networks with weights of a seed, the same on every machine, for tests that compare numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def seed_network(network: torch.nn.Module, seed: int) -> None:
    """Fill a network with numbers of NumPy's generator, so scaled that signals neither vanish nor explode."""
    generator = np.random.default_rng(seed)

    def drawn(like: Tensor, low: float, high: float) -> Tensor:
        return torch.from_numpy(generator.uniform(low, high, size=tuple(like.shape)).astype(np.float32))

    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                value.copy_(drawn(value, 0.5, 1.5))
            elif value.dim() > 1:
                reach = (3.0 / value[0].numel()) ** 0.5 * 1.4  # rectifiers halve the variance
                value.copy_(drawn(value, -reach, reach))
            elif name.endswith("weight"):
                value.copy_(drawn(value, 0.6, 1.4))
            else:
                value.copy_(drawn(value, -0.2, 0.2))
