"""Small modules with the call signatures, return values and submodule names of published summarizers.

Each also has ``true_logits(frames (T, d)) -> (T,)``, written without the adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

D = 6  # feature dimension
H = 4  # hidden width
SCALES = 3


class ShapedSummarizer(nn.Module):
    """A layer-normalized hidden layer and a buffer, which every stand-in has."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(D, H)
        self.norm = nn.LayerNorm(H)
        self.drop = nn.Dropout(0.0)
        self.register_buffer("positions", torch.linspace(0, 1, H))

    def hidden(self, frames: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.body(frames) + self.positions)
        hidden: Tensor = self.drop(torch.tanh(normed))
        return hidden

    def true_logits(self, frames: Tensor) -> Tensor:
        raise NotImplementedError


class PGLSUMShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.linear_2 = nn.Linear(H, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:  # (T, d)
        hidden = self.hidden(frames)
        scores = torch.sigmoid(self.linear_2(hidden))
        return scores.view(1, -1), torch.softmax(hidden @ hidden.T, dim=-1)  # (1, T), (T, T)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.linear_2(self.hidden(frames))[:, 0]
        return logits


class VASNetShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.kd = nn.Linear(H, 1)

    def forward(self, x: Tensor, seq_len: int) -> tuple[Tensor, Tensor]:  # (1, T, d)
        hidden = self.hidden(x.view(seq_len, D))
        scores = self.kd(hidden).sigmoid_()
        return scores.view(1, -1), torch.softmax(hidden @ hidden.T, dim=-1)  # (1, T), (T, T)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.kd(self.hidden(frames))[:, 0]
        return logits


class DSNetAnchorFreeShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.fc_cls = nn.Linear(H, 1)
        self.fc_loc = nn.Linear(H, 2)
        self.fc_ctr = nn.Linear(H, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (1, T, d)
        hidden = self.hidden(x)
        scores = self.fc_cls(hidden).sigmoid()
        # (T,), (T, 2), (T,)
        return scores.view(-1), self.fc_loc(hidden).exp().view(-1, 2), self.fc_ctr(hidden).sigmoid().view(-1)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.fc_cls(self.hidden(frames))[:, 0]
        return logits


class DSNetAnchorBasedShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.fc_cls = nn.Linear(H, SCALES)
        self.fc_loc = nn.Linear(H, 2 * SCALES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (1, T, d)
        hidden = self.hidden(x)
        scores = self.fc_cls(hidden).sigmoid().view(-1, SCALES)
        return scores, self.fc_loc(hidden).view(-1, SCALES, 2)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.fc_cls(self.hidden(frames)).amax(dim=-1)
        return logits


class DSNShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(H, H, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(2 * H, 1)

    def forward(self, x: Tensor) -> Tensor:  # (1, T, d)
        states, _ = self.rnn(self.hidden(x))
        return torch.sigmoid(self.fc(states))  # (1, T, 1)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.rnn(self.hidden(frames[None]))[0])[0, :, 0]
        return logits


class CSTAShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.linear2 = nn.Sequential(nn.Linear(H, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:  # (1, 3, T, d)
        scores: Tensor = self.linear2(self.hidden(x.mean(dim=1)))
        return scores.squeeze()  # (T,), and () for one frame

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.linear2[0](self.hidden(frames))[:, 0]
        return logits


class MSVAShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.streams = nn.ModuleList(nn.Linear(H, H) for _ in range(3))
        self.kd = nn.Linear(H, 1)

    def mix(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        hidden = (self.hidden(frames) for frames in (first, second, third))
        return torch.stack([stream(one) for stream, one in zip(self.streams, hidden, strict=True)]).sum(dim=0)

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor]:  # (T, d) each
        mixed = self.mix(first, second, third)
        return torch.sigmoid(self.kd(mixed)).view(1, -1), mixed @ mixed.T  # (1, T), (T, T)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.kd(self.mix(frames, frames, frames))[:, 0]
        return logits


class SSPVSShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Linear(H, 1) for _ in range(2))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # video_feature (1, T, d)
        hidden = self.hidden(batch["video_feature"])
        return {"frame_score": self.stages[0](hidden).sigmoid() * self.stages[1](hidden).sigmoid()}  # (1, T, 1)

    def true_logits(self, frames: Tensor) -> Tensor:
        hidden = self.hidden(frames)
        product = self.stages[0](hidden).sigmoid() * self.stages[1](hidden).sigmoid()
        logits: Tensor = (product / (1 - product)).log()[:, 0]
        return logits


class A2SummShaped(ShapedSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.fc_video_cls = nn.Linear(H, 1)
        self.fc_text_cls = nn.Linear(H, 1)

    def forward(
        self, *, video: Tensor, text: Tensor, mask_video: Tensor, mask_text: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:  # (1, T, d), (1, S, d), (1, T), (1, S)
        seen = self.hidden(video) * mask_video[..., None]
        read = self.hidden(text) * mask_text[..., None]
        return self.fc_video_cls(seen).squeeze(-1), self.fc_text_cls(read).squeeze(-1), seen.mean(dim=1)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.fc_video_cls(self.hidden(frames))[:, 0]
        return logits


class PartsShaped(ShapedSummarizer):
    """Parts without a forward of their own, which a training script strings together."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(H, 1)

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.score(self.hidden(frames))[:, 0]
        return logits


class WindowedShaped(ShapedSummarizer):
    """Scores windows of three frames one after the other; the last may be shorter."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(H, 1)

    def forward(self, frames: Tensor) -> list[Tensor]:  # (T, d)
        return [self.score(self.hidden(window[None])).sigmoid() for window in torch.split(frames, 3)]  # (1, n, 1) each

    def true_logits(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.score(self.hidden(frames))[:, 0]
        return logits


class PaddedShaped(WindowedShaped):
    """Takes only lengths that are multiples of three."""

    def forward(self, frames: Tensor) -> Any:  # (3 k, d)
        return self.score(self.hidden(frames.view(-1, 3, D)))  # (k, 3, 1), logits


class SelfAttention(nn.Module):
    def forward(self, hidden: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # (T, h)
        weights = torch.softmax(hidden @ hidden.T, dim=-1)
        scores = weights.sum(dim=0)
        return weights @ hidden, {"weights": weights, "scores": scores, "shares": scores.sigmoid()}


class AttentionShaped(ShapedSummarizer):
    """Its attention returns a tuple, and nothing else gives one number per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()

    def forward(self, frames: Tensor) -> Tensor:  # (T, d)
        context, _ = self.attention(self.hidden(frames))
        return context.mean(dim=0)  # type: ignore[no-any-return]

    def true_logits(self, frames: Tensor) -> Tensor:
        hidden = self.hidden(frames)
        return torch.softmax(hidden @ hidden.T, dim=-1).sum(dim=0)


class InPlaceShaped(PGLSUMShaped):
    """Normalises its input where it lies."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:  # (T, d)
        return super().forward(frames.mul_(0.5))

    def true_logits(self, frames: Tensor) -> Tensor:
        return super().true_logits(frames * 0.5)


def strung_together(module: Any, frames: Tensor) -> Tensor:
    logits: Tensor = module.score(module.hidden(frames))
    return logits


def padded_to_windows(module: Any, frames: Tensor) -> Tensor:
    missing = -len(frames) % 3
    logits: Tensor = module(torch.cat([frames, frames[-1:].expand(missing, -1)]))
    return logits


def without_padding(value: Tensor, frames: Tensor) -> Tensor:
    return value.flatten()[: len(frames)]


def joined_windows(value: list[Tensor]) -> Tensor:
    return torch.cat(value, dim=1)


def batch_of_one(frames: Tensor) -> Tensor:
    return frames[None]


def frames_and_length(frames: Tensor) -> tuple[Tensor, int]:
    return frames[None], frames.shape[0]


def three_channels(frames: Tensor) -> Tensor:
    return frames.expand(1, 3, *frames.shape)


def three_streams(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return frames, frames, frames


def one_dict(frames: Tensor) -> tuple[dict[str, Tensor]]:
    return ({"video_feature": frames[None]},)


def video_and_text(frames: Tensor) -> dict[str, Tensor]:
    return {
        "video": frames[None],
        "text": frames.new_zeros(1, 2, D),
        "mask_video": frames.new_ones(1, frames.shape[0]),
        "mask_text": frames.new_ones(1, 2),
    }


def first(value: tuple[Any, ...]) -> Any:
    return value[0]


def best_scale(scores: Tensor) -> Tensor:
    return scores.amax(dim=-1)


def first_best_scale(value: tuple[Tensor, Tensor]) -> Tensor:
    return value[0].amax(dim=-1)


def frame_score(value: dict[str, Tensor]) -> Tensor:
    return value["frame_score"]


@dataclass(frozen=True)
class Shape:
    """One way to adapt one stand-in: its name, how to make it and the options of ``adapt_summarizer``."""

    name: str
    make: Callable[[], ShapedSummarizer]
    options: dict[str, Any]


SHAPES = [
    Shape("PGL-SUM", PGLSUMShaped, {"logits_from": "linear_2"}),
    Shape("PGL-SUM inverted", PGLSUMShaped, {"output": first, "probabilities": True}),
    Shape("VASNet", VASNetShaped, {"inputs": frames_and_length, "logits_from": "kd"}),
    Shape("VASNet inverted", VASNetShaped, {"inputs": frames_and_length, "output": first, "probabilities": True}),
    Shape("DSNet anchor-free", DSNetAnchorFreeShaped, {"inputs": batch_of_one, "logits_from": "fc_cls"}),
    Shape(
        "DSNet anchor-free inverted",
        DSNetAnchorFreeShaped,
        {"inputs": batch_of_one, "output": first, "probabilities": True},
    ),
    Shape(
        "DSNet anchor-based",
        DSNetAnchorBasedShaped,
        {"inputs": batch_of_one, "logits_from": "fc_cls", "output": best_scale},
    ),
    Shape(
        "DSNet anchor-based inverted",
        DSNetAnchorBasedShaped,
        {"inputs": batch_of_one, "output": first_best_scale, "probabilities": True},
    ),
    Shape("DSN", DSNShaped, {"inputs": batch_of_one, "logits_from": "fc"}),
    Shape("DSN inverted", DSNShaped, {"inputs": batch_of_one, "probabilities": True}),
    Shape("CSTA", CSTAShaped, {"inputs": three_channels, "logits_from": "linear2.0"}),
    Shape("CSTA inverted", CSTAShaped, {"inputs": three_channels, "probabilities": True}),
    Shape(
        "CSTA submodule inverted",
        CSTAShaped,
        {"inputs": three_channels, "logits_from": "linear2", "probabilities": True},
    ),
    Shape("MSVA", MSVAShaped, {"inputs": three_streams, "logits_from": "kd"}),
    Shape("MSVA inverted", MSVAShaped, {"inputs": three_streams, "output": first, "probabilities": True}),
    Shape("SSPVS", SSPVSShaped, {"inputs": one_dict, "output": frame_score, "probabilities": True}),
    Shape("A2Summ", A2SummShaped, {"inputs": video_and_text, "output": first}),
    Shape("A2Summ submodule", A2SummShaped, {"inputs": video_and_text, "logits_from": "fc_video_cls"}),
    Shape("parts", PartsShaped, {"call": strung_together}),
    Shape("parts, submodule", PartsShaped, {"call": strung_together, "logits_from": "score"}),
    Shape("windows", WindowedShaped, {"logits_from": "score"}),
    Shape("windows inverted", WindowedShaped, {"output": joined_windows, "probabilities": True}),
    Shape("padded", PaddedShaped, {"call": padded_to_windows, "output": without_padding}),
    Shape(
        "padded, submodule",
        PaddedShaped,
        {"call": padded_to_windows, "logits_from": "score", "output": without_padding},
    ),
    Shape("part", AttentionShaped, {"logits_from": "attention[1]['scores']"}),
    Shape("part inverted", AttentionShaped, {"logits_from": "attention[1]['shares']", "probabilities": True}),
    Shape("in place", InPlaceShaped, {"logits_from": "linear_2"}),
    Shape("in place inverted", InPlaceShaped, {"output": first, "probabilities": True}),
]
