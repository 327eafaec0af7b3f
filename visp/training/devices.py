"""Where a run computes."""

from __future__ import annotations

import torch
from torch import nn


def move(module: nn.Module, device: str | torch.device | None) -> None:
    """Move a module to a device, or leave it where it is.

    Raises:
        ValueError: If the device cannot be used, or none is given and the module's parameters are on several.
    """
    if device is None:
        there = {parameter.device for parameter in module.parameters()}
        if len(there) > 1:
            raise ValueError(
                f"the parameters are on several devices, {', '.join(sorted(map(str, there)))}: move the module to one, "
                "or give device"
            )
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
    module.to(device)
