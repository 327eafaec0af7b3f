"""What one step of :class:`visp.ViSPPretrainer` gives: the loss, and the figures that explain it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visp.contrastive import Recognition
from visp.regularizers import Reduction, size_penalty

SATURATED_LOGIT = 8.0
"""A logit beyond plus or minus this counts as saturated: the sigmoid's slope is below 0.00034."""


class ViSPOutput(NamedTuple):
    """What one step of :class:`ViSPPretrainer` gives; scalars, all but ``loss`` for reading only."""

    loss: Tensor
    """What to minimise, Eq. 10."""
    info_nce: Tensor
    """L_N of Eq. 3 in nats, mean over what is compared whatever the reduction; of several contrasts the sum."""
    mi_lower_bound: Tensor
    """log N - L_N of Eq. 2, in nats."""
    mi_ceiling: Tensor
    """log N, in nats, which the bound cannot exceed; N is the number of videos or windows that are compared."""
    size_penalty: Tensor
    """R_size before its weight."""
    binary_penalty: Tensor
    """R_binary before its weight."""
    keep_ratio: Tensor
    """Mean of the relaxed selection over frames, then videos, in (0, 1)."""
    size_weight: Tensor
    """beta_size at this step."""
    saturated_share: Tensor
    """Share of the batch's logits beyond plus or minus ``SATURATED_LOGIT``, in [0, 1]."""


def explain(
    loss: Tensor,
    recognised: Sequence[Recognition],
    logits: Sequence[Tensor],
    selections: Sequence[Tensor],
    *,
    binary: Tensor,
    size_weight: Tensor,
    reduction: Reduction,
) -> ViSPOutput:
    """Return the loss of a batch with the figures that explain it.

    Args:
        loss: Scalar, Eq. 10.
        recognised: How well the summaries were recognised, under each contrast.
        logits: (T_i,) logits of every video of the union batch.
        selections: (T_i,) selections of every video of the union batch.
        binary: R_binary, a scalar.
        size_weight: beta_size, a scalar.
        reduction: As in :class:`ViSPPretrainer`.
    """
    info_nce = sum((contrast.info_nce.detach() for contrast in recognised), torch.zeros_like(size_weight))
    ceiling = sum(contrast.ceiling for contrast in recognised)
    return ViSPOutput(
        loss=loss,
        info_nce=info_nce,
        mi_lower_bound=ceiling - info_nce,
        mi_ceiling=torch.full_like(size_weight, ceiling),
        size_penalty=size_penalty(selections, reduction).detach(),
        binary_penalty=binary.detach(),
        keep_ratio=size_penalty(selections).detach(),
        size_weight=size_weight,
        saturated_share=(torch.cat(list(logits)).detach().abs() > SATURATED_LOGIT).float().mean(),
    )
