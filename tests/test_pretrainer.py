from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import (
    LENGTHS,
    LinearSummarizer,
    MeanEncoder,
    generator,
    gradients,
    make_videos,
    mean,
    normal,
    sigmoid,
)
from visp.contrastive import Windows
from visp.encoders import AttentionPoolEncoder
from visp.gradient_flow import Marginalization
from visp.output import ViSPOutput
from visp.pretrainer import (
    ViSPPretrainer,
)
from visp.registry import GRADIENT_FLOWS, SAMPLERS
from visp.regularizers import FixedSize, TargetSize
from visp.utils.noise import Purpose

DOUBLE = torch.float64
Reduction = Literal["mean", "sum"]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def tiny(**options: Any) -> ViSPPretrainer:
    return ViSPPretrainer(LinearSummarizer(), MeanEncoder(), **{"seed": 11, "contrast": "videos", **options})


# --- the whole forward pass against the paper ---------------------------------------------------------------


class SlowViSP:
    """Sections 3.1 to 3.4 in loops over Python floats; only the noise is the pretrainer's."""

    def __init__(self, pretrainer: ViSPPretrainer, sampler: str, flow: str, temperature: float) -> None:
        summarizer, encoder = pretrainer.summarizer, pretrainer.encoder
        assert isinstance(summarizer, LinearSummarizer)
        assert isinstance(encoder, MeanEncoder)
        self.pretrainer, self.sampler, self.flow, self.temperature = pretrainer, sampler, flow, temperature
        self.score_weight, self.score_bias = summarizer.score.weight[0].tolist(), summarizer.score.bias.item()
        self.embed_weight, self.embed_bias = encoder.embed.weight.tolist(), encoder.embed.bias.tolist()

    def noise(self, purpose: Purpose, index: int, *shape: int, contrast: int = 0) -> list[Any]:
        source = self.pretrainer.noise.generator(purpose, index, contrast)
        values: list[Any] = torch.rand(shape, generator=source, dtype=DOUBLE).tolist()
        return values

    def select(self, frames: list[list[float]], index: int) -> list[float]:
        alphas = [sum(w * x for w, x in zip(self.score_weight, f, strict=True)) + self.score_bias for f in frames]
        if self.sampler == "sigmoid":
            return [sigmoid(alpha / self.temperature) for alpha in alphas]
        if self.sampler == "concrete":
            noise = self.noise(Purpose.SELECTION, index, len(frames))
            return [
                sigmoid((math.log(e) - math.log(1 - e) + a) / self.temperature)
                for e, a in zip(noise, alphas, strict=True)
            ]
        keep, drop = self.noise(Purpose.SELECTION, index, 2, len(frames))
        return [
            sigmoid((a - math.log(-math.log(k)) + math.log(-math.log(d))) / self.temperature)
            for k, d, a in zip(keep, drop, alphas, strict=True)
        ]

    def summarize(
        self,
        frames: list[list[float]],
        kept: list[float],
        donor: list[list[float]],
        purpose: Purpose,
        index: int,
        position: int = 0,
    ) -> list[list[float]]:
        if self.flow == "straight_through":
            noise = self.noise(purpose, index, len(frames), contrast=position)
            kept = [float(e < y) for e, y in zip(noise, kept, strict=True)]
        summary = []
        for t, y in enumerate(kept):
            z = donor[math.floor((t + 0.5) / len(frames) * len(donor))]
            z = z if self.flow == "marginalization" else [0.0] * len(z)
            summary.append([x * y + other * (1 - y) for x, other in zip(frames[t], z, strict=True)])
        return summary

    def embed(self, frames: list[list[float]]) -> list[float]:
        return [
            mean(sum(w * x for w, x in zip(weights, frame, strict=True)) + bias for frame in frames)
            for weights, bias in zip(self.embed_weight, self.embed_bias, strict=True)
        ]

    def pieces(self, length: int, contrast: str, window: int) -> list[tuple[int, int]]:
        if contrast == "videos":
            return [(0, length)]
        number = max(1, length // window)
        return [(length * k // number, length * (k + 1) // number) for k in range(number)]

    def recognise(
        self, position: int, contrast: str, window: int, rows: Any, summaries: Any, selections: Any, donors: Any
    ) -> list[list[tuple[float, int]]]:
        """Return the loss of every piece of every video, and the number of pieces that it is compared with."""
        spans = [self.pieces(len(frames), contrast, window) for frames in rows]
        s, o = (
            [[self.embed(frames[a:b]) for a, b in cut] for frames, cut in zip(part, spans, strict=True)]
            for part in (summaries, rows)
        )
        r: list[list[list[float]]] = [[] for _ in rows]
        for i, cut in enumerate(spans if self.pretrainer.hard_negatives else []):
            noise = self.noise(Purpose.RANDOM_SELECTION, i, len(rows[i]), contrast=position)
            mask = [float(noise[t] < mean(selections[i][a:b])) for a, b in cut for t in range(a, b)]
            random = self.summarize(rows[i], mask, donors[i], Purpose.RANDOM_GATE, i, position)
            r[i] = [self.embed(random[a:b]) for a, b in cut]
        found: list[list[tuple[float, int]]] = []
        for i, summary in enumerate(s):
            videos = [i] if contrast == "windows" else range(len(rows))
            others = [piece for j in videos for piece in [*o[j], *r[j]]]
            compared = sum(len(o[j]) for j in videos)
            found.append([])
            for k, piece in enumerate(summary):
                inner = [sum(a * b for a, b in zip(piece, other, strict=True)) for other in others]
                own = sum(a * b for a, b in zip(piece, o[i][k], strict=True))
                found[i].append((-math.log(math.exp(own) / sum(math.exp(value) for value in inner)), compared))
        return found

    def __call__(
        self,
        videos: Sequence[Tensor],
        reduction: Reduction,
        contrasts: Mapping[str, float] = MappingProxyType({"videos": 1.0}),
        window: int = 1,
    ) -> dict[str, float]:
        rows = [video.tolist() for video in videos]
        n = len(rows)
        offsets = torch.randint(1, n, (n,), generator=self.pretrainer.noise.generator(Purpose.DONORS)).tolist()
        donors = [rows[(i + offset) % n] for i, offset in enumerate(offsets)]
        selections = [self.select(frames, i) for i, frames in enumerate(rows)]
        summaries = [self.summarize(rows[i], selections[i], donors[i], Purpose.GATE, i) for i in range(n)]
        total = info_nce = ceiling = 0.0
        for position, (contrast, weight) in enumerate(contrasts.items()):
            found = self.recognise(position, contrast, window, rows, summaries, selections, donors)
            over_videos = mean(mean(loss for loss, _ in video) for video in found)
            info_nce += over_videos
            ceiling += mean(mean(math.log(number) for _, number in video) for video in found)
            loss = over_videos if reduction == "mean" else sum(loss for video in found for loss, _ in video)
            total += weight * loss
        over_frames = mean if reduction == "mean" else sum
        size = mean(over_frames(y) for y in selections)
        binary = mean(over_frames([value * (1 - value) for value in y]) for y in selections)
        size_weight = self.pretrainer.size.weight.item()
        return {
            "loss": total + self.pretrainer.binary_weight * binary + size_weight * size,
            "info_nce": info_nce,
            "size_penalty": size,
            "binary_penalty": binary,
            "mi_lower_bound": ceiling - info_nce,
            "mi_ceiling": ceiling,
            "keep_ratio": mean(mean(y) for y in selections),
            "size_weight": size_weight,
        }


def values(output: ViSPOutput) -> dict[str, float]:
    return {name: value.item() for name, value in output._asdict().items() if name != "saturated_share"}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("hard_negatives", [False, True], ids=["videos_only", "hard_negatives"])
@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_forward_is_the_paper_in_loops(sampler: str, flow: str, hard_negatives: bool, reduction: Reduction) -> None:
    options: dict[str, Any] = {"sampler": sampler, "gradient_flow": flow, "hard_negatives": hard_negatives}
    pretrainer = tiny(**options, size=FixedSize(0.7), binary_weight=0.3, reduction=reduction).to(DOUBLE)
    videos = make_videos(dtype=DOUBLE)

    expected = SlowViSP(pretrainer, sampler, flow, temperature=0.5)(videos, reduction)

    assert values(pretrainer(videos)) == pytest.approx(expected, rel=1e-6)


WINDOWED: dict[str, dict[str, float]] = {"windows": {"windows": 1.0}, "both": {"videos": 1.0, "windows": 0.5}}
"""The weights of the losses of what a contrast names, by default."""


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("hard_negatives", [False, True], ids=["pieces_only", "hard_negatives"])
@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
@pytest.mark.parametrize("window", [1, 2, 3, 60])
@pytest.mark.parametrize("contrast", WINDOWED)
def test_windows_are_recognised_as_in_loops(
    contrast: Any, window: int, flow: Any, hard_negatives: bool, reduction: Reduction
) -> None:
    options: dict[str, Any] = {"gradient_flow": flow, "hard_negatives": hard_negatives, "reduction": reduction}
    pretrainer = tiny(contrast=contrast, window=window, size=FixedSize(0.7), **options).to(DOUBLE)
    videos = make_videos((1, 5, 50, 7, 3, 16, 2, 11), dtype=DOUBLE)

    expected = SlowViSP(pretrainer, "concrete", flow, 0.5)(videos, reduction, WINDOWED[contrast], window)

    assert values(pretrainer(videos)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("flow", ["gating", "marginalization"])
@pytest.mark.parametrize("contrast", ["windows", "both", Windows(3, within_video=False)], ids=str)
def test_gradcheck_of_the_loss_in_the_logits(contrast: Any, flow: Any) -> None:
    class Given(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            return alphas[len(frames)]

    lengths = (2, 3, 4, 5, 6, 7, 9, 13)
    videos = make_videos(lengths, dtype=DOUBLE)
    window = None if isinstance(contrast, Windows) else 3
    options: dict[str, Any] = {"contrast": contrast, "window": window, "gradient_flow": flow, "size": FixedSize(0.1)}
    pretrainer = ViSPPretrainer(Given(), MeanEncoder(), seed=1, **options).to(DOUBLE).eval()
    alphas: dict[int, Tensor] = {}

    def loss(*logits: Tensor) -> Tensor:
        alphas.update(zip(lengths, logits, strict=True))
        output: ViSPOutput = pretrainer(videos)
        return output.loss

    given = tuple(normal(length, seed=length, dtype=DOUBLE).requires_grad_() for length in lengths)
    assert torch.autograd.gradcheck(loss, given)


def test_one_video_alone_teaches_by_its_windows() -> None:
    assert learning(tiny(contrast="windows", window=3, size=FixedSize(0.0)), make_videos((20,))) == SUMMARIZER | ENCODER


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_the_windows_have_the_weight_that_is_given(weight: float) -> None:
    videos = make_videos(dtype=DOUBLE)
    options: dict[str, Any] = {"window": 3, "size": FixedSize(0.0)}
    apart = [tiny(contrast=contrast, **options).to(DOUBLE)(videos).loss for contrast in ("videos", "windows")]

    both = tiny(contrast="both", window_weight=weight, **options).to(DOUBLE)(videos)

    torch.testing.assert_close(both.loss, apart[0] + weight * apart[1])


@pytest.mark.parametrize("weight", [-0.5, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"the weight of a contrast must be at least 0 and finite, got {weight}"):
        tiny(contrast="both", window_weight=weight)


def test_both_contrasts_take_one_video_alone() -> None:
    windows = tiny(contrast="windows", window=3)(make_videos((20,)))
    with pytest.warns(UserWarning, match="a batch of 1 videos"):
        both = tiny(contrast="both", window=3)(make_videos((20,)))

    assert both.info_nce.item() == pytest.approx(windows.info_nce.item())


def test_marginalization_within_a_video_still_needs_another_video() -> None:
    with pytest.raises(ValueError, match="marginalization takes its donor frames from another video"):
        tiny(contrast="windows", gradient_flow="marginalization")(make_videos((20,)))


@pytest.mark.parametrize("final", [nn.Sigmoid(), nn.Identity()], ids=["probabilities", "logits"])
def test_probabilities_in_place_of_logits_are_warned_of_once(final: nn.Module) -> None:
    pretrainer = ViSPPretrainer(nn.Sequential(LinearSummarizer(), final), MeanEncoder(), seed=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses(pretrainer, steps=34)

    told = [str(warning.message) for warning in caught]
    assert [("probabilities=True" in message) for message in told] == ([True] if isinstance(final, nn.Sigmoid) else [])


def test_without_a_contrast_only_the_penalties_teach() -> None:
    pretrainer = tiny(contrast="none")
    output = pretrainer(make_videos())
    output.loss.backward()

    assert {name for name, value in gradients(pretrainer).items() if value is not None} == SUMMARIZER
    assert (output.info_nce.item(), output.mi_ceiling.item()) == (0, 0)


def test_a_window_beside_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="window=4 belongs to a contrast given by name"):
        tiny(contrast=Windows(3), window=4)


def test_the_constraint_replaces_the_fixed_size_term() -> None:
    videos = make_videos()
    fixed, held = tiny(size=FixedSize(0.0)), tiny()
    assert isinstance(held.size, TargetSize)
    held.size.weight.fill_(1.25)
    target = copy.deepcopy(held.size)

    difference = held(videos).loss - fixed(videos).loss

    logits = [held.summarizer(video) for video in videos]
    kept = [held.sampler(alpha, tiny().noise.generator(Purpose.SELECTION, i)) for i, alpha in enumerate(logits)]
    torch.testing.assert_close(difference, target(kept, logits), rtol=1e-4, atol=1e-5)


def test_saturated_share_is_the_share_of_logits_beyond_8() -> None:
    pretrainer = tiny()
    logits = [video.flatten(1).sum(dim=1) * 4 for video in make_videos()]
    pretrainer.summarizer = nn.Module()
    pretrainer.summarizer.forward = lambda frames: frames.flatten(1).sum(dim=1) * 4

    expected = mean(float(abs(value) > 8) for video in logits for value in video.tolist())
    assert 0 < expected < 1
    assert pretrainer(make_videos()).saturated_share.item() == pytest.approx(expected)


# --- which parameters learn ---------------------------------------------------------------------------------


def learning(pretrainer: ViSPPretrainer, videos: Sequence[Tensor] | None = None) -> set[str]:
    pretrainer(make_videos() if videos is None else videos).loss.backward()
    return {name for name, gradient in gradients(pretrainer).items() if gradient is not None and gradient.any()}


SUMMARIZER = {"summarizer.score.weight", "summarizer.score.bias"}
ENCODER = {"encoder.embed.weight", "encoder.embed.bias"}


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("hard_negatives", [False, True], ids=["videos_only", "hard_negatives"])
@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_summarizer_and_encoder_learn(sampler: str, flow: str, hard_negatives: bool, recompute: bool) -> None:
    pretrainer = tiny(sampler=sampler, gradient_flow=flow, hard_negatives=hard_negatives, recompute=recompute)

    assert learning(pretrainer) == SUMMARIZER | ENCODER


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_only_the_encoder_learns_with_a_frozen_summarizer(recompute: bool) -> None:
    pretrainer = tiny(recompute=recompute)
    pretrainer.summarizer.requires_grad_(False)

    assert learning(pretrainer) == ENCODER


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_only_the_summarizer_learns_with_a_frozen_encoder(recompute: bool) -> None:
    pretrainer = tiny(recompute=recompute)
    pretrainer.encoder.requires_grad_(False)

    assert learning(pretrainer) == SUMMARIZER


@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
def test_the_contrastive_loss_alone_teaches_the_summarizer(flow: str) -> None:
    assert learning(tiny(gradient_flow=flow, size=FixedSize(0.0))) == SUMMARIZER | ENCODER


def test_random_summaries_do_not_teach_the_summarizer() -> None:
    has_gradient = []

    class Recording(MeanEncoder):
        def forward(self, frames: Tensor) -> Tensor:
            has_gradient.append(frames.requires_grad)
            return super().forward(frames)

    ViSPPretrainer(LinearSummarizer(), Recording(), contrast="videos", hard_negatives=True, seed=1)(make_videos())

    assert has_gradient == [True] * 8 + [False] * 16


def test_no_penalty_or_bound_in_the_output_holds_a_graph() -> None:
    output = tiny(hard_negatives=True, binary_weight=0.1)(make_videos())

    assert [name for name, value in output._asdict().items() if value.requires_grad] == ["loss"]


def test_the_size_penalty_alone_reaches_a_saturated_summarizer() -> None:
    summarizer = LinearSummarizer()
    pretrainer = ViSPPretrainer(summarizer, MeanEncoder(), sampler="sigmoid", seed=11)
    pretrainer.encoder.requires_grad_(False)
    for parameter in pretrainer.encoder.parameters():
        parameter.zero_()
    with torch.no_grad():
        summarizer.score.bias.fill_(-14)
        summarizer.score.weight.mul_(0.1)
    pretrainer(make_videos()).loss.backward()

    assert summarizer.score.bias.grad is not None
    assert summarizer.score.bias.grad.item() < -0.5


# --- options ------------------------------------------------------------------------------------------------


def test_public_signature_is_the_promised_one() -> None:
    parameters = inspect.signature(ViSPPretrainer).parameters

    assert list(parameters) == [
        "summarizer",
        "encoder",
        "contrast",
        "window",
        "window_weight",
        "sampler",
        "gradient_flow",
        "hard_negatives",
        "size",
        "binary_weight",
        "similarity",
        "reduction",
        "recompute",
        "seed",
        "gather",
    ]


def test_size_target_is_0_3_by_default() -> None:
    size = tiny().size

    assert isinstance(size, TargetSize)
    assert size.target == 0.3


def test_a_number_is_the_size_target() -> None:
    size = tiny(size=0.15).size

    assert isinstance(size, TargetSize)
    assert size.target == 0.15


@pytest.mark.parametrize("option", ["contrast", "sampler", "gradient_flow", "similarity", "reduction"])
def test_an_unknown_choice_is_refused_by_the_name_of_its_option(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be .*'nonsense'"):
        tiny(**{option: "nonsense"})


@pytest.mark.parametrize("role", ["summarizer", "encoder"])
def test_what_is_no_module_is_refused_by_its_role(role: str) -> None:
    modules: dict[str, Any] = {"summarizer": LinearSummarizer(), "encoder": MeanEncoder(), role: lambda frames: frames}
    with pytest.raises(TypeError, match=rf"the {role} must be a torch\.nn\.Module"):
        ViSPPretrainer(**modules)


# --- batches that do not fit --------------------------------------------------------------------------------


def test_a_batch_of_one_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="at least 2 videos, got 1: InfoNCE compares videos with each other"):
        tiny()(make_videos((4,)))


def test_a_batch_below_8_warns_why() -> None:
    with pytest.warns(UserWarning, match="a batch of 7 videos: the bound on mutual information is at most log N"):
        tiny()(make_videos(LENGTHS[:7]))


def test_a_batch_of_8_does_not_warn() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tiny()(make_videos())

    assert caught == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_by_the_number_of_the_video(bad: float) -> None:
    videos = make_videos()
    videos[3][1, 2] = bad
    with pytest.raises(ValueError, match="video 3 of the batch holds values that are not finite"):
        tiny()(videos)


def test_feature_dimensions_that_disagree_are_refused_by_the_number_of_the_video() -> None:
    videos = make_videos()
    videos[5] = videos[5][:, :3]
    with pytest.raises(ValueError, match=r"video 5 of the batch has frames of shape \(3,\), video 0 of shape \(4,\)"):
        tiny()(videos)


def test_an_empty_video_is_refused_by_its_number() -> None:
    videos = make_videos()
    videos[2] = videos[2][:0]
    with pytest.raises(ValueError, match="video 2 of the batch has no frames"):
        tiny()(videos)


@pytest.mark.parametrize(
    "wrong", [torch.ones(4), torch.ones(3, 4, dtype=torch.long), [[1.0]]], ids=["1d", "int", "list"]
)
def test_what_is_no_video_is_refused_by_its_number(wrong: Any) -> None:
    videos: list[Any] = make_videos()
    videos[1] = wrong
    with pytest.raises(ValueError, match=r"video 1 of the batch: expected floating-point frames \(T, d\)"):
        tiny()(videos)


def test_a_refused_batch_does_not_step() -> None:
    pretrainer = tiny()
    videos = make_videos()
    videos[7] = videos[7][:0]
    with pytest.raises(ValueError, match="no frames"):
        pretrainer(videos)

    assert pretrainer.noise.step == 0
    assert pretrainer.size.weight.item() == 0


# --- modules that do not fit --------------------------------------------------------------------------------


class Scripted(nn.Module):
    """Returns what a function makes of the frames, and has a parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.function = function

    def forward(self, frames: Tensor) -> Any:
        return self.function(frames, self.weight)


def test_logits_of_another_shape_are_refused_with_both_shapes() -> None:
    summarizer = Scripted(lambda frames, weight: frames * weight)
    with pytest.raises(ValueError, match=r"Scripted returned a tensor of shape \(3, 4\).*expected logits \(T,\)"):
        ViSPPretrainer(summarizer, MeanEncoder())(make_videos())


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_logits_without_a_gradient_are_refused(recompute: bool) -> None:
    summarizer = Scripted(lambda frames, weight: (frames * weight).sum(dim=1).detach())
    with pytest.raises(ValueError, match="Scripted returned logits without a gradient"):
        ViSPPretrainer(summarizer, MeanEncoder(), recompute=recompute)(make_videos())


def test_logits_without_a_gradient_are_fine_in_evaluation_mode() -> None:
    summarizer = Scripted(lambda frames, weight: (frames * weight).sum(dim=1).detach())

    assert ViSPPretrainer(summarizer, MeanEncoder()).eval()(make_videos()).loss.isfinite()


def test_an_embedding_that_is_no_vector_is_refused() -> None:
    encoder = Scripted(lambda frames, weight: frames * weight)
    with pytest.raises(ValueError, match="expected an embedding"):
        ViSPPretrainer(LinearSummarizer(), encoder)(make_videos())


def test_an_encoder_whose_output_follows_the_length_is_refused_with_the_hint() -> None:
    with pytest.raises(ValueError, match=r"look like logits.*encode.*adapt_encoder"):
        ViSPPretrainer(LinearSummarizer(), LinearSummarizer())(make_videos())


def test_encode_is_used_instead_of_forward() -> None:
    class WithEncode(MeanEncoder):
        def encode(self, frames: Tensor) -> Tensor:
            return MeanEncoder.forward(self, frames)

        def forward(self, frames: Tensor) -> Tensor:
            raise AssertionError("forward was called")

    with_encode = ViSPPretrainer(LinearSummarizer(), WithEncode(), contrast="videos", seed=11)(make_videos())

    assert with_encode.loss.item() == tiny()(make_videos()).loss.item()


# --- what a batch may be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
def test_frames_may_have_trailing_axes(flow: str) -> None:
    videos = make_videos(trailing=(2, 3, 2))
    flat = [video.flatten(1) for video in videos]
    pretrainer = ViSPPretrainer(LinearSummarizer(12), MeanEncoder(12), gradient_flow=flow, seed=11).eval()  # type: ignore[arg-type]

    assert values(pretrainer(videos)) == pytest.approx(values(pretrainer(flat)))


def test_videos_of_one_frame_are_fine() -> None:
    assert tiny(hard_negatives=True, gradient_flow="marginalization")(make_videos((1,) * 8)).loss.isfinite()


@pytest.mark.parametrize("n", [2, 5, 8])
def test_marginalization_takes_donors_from_another_video(n: int) -> None:
    class Recording(Marginalization):
        def __call__(self, frames: Tensor, gate: Tensor, donors: Tensor | None) -> Tensor:
            assert donors is not None
            pairs.append((frames[0, 0].item(), donors[0, 0].item()))
            return super().__call__(frames, gate, donors)

    pairs: list[tuple[float, float]] = []
    videos = [torch.full((length, 4), float(index)) for index, length in enumerate(LENGTHS[:n])]
    pretrainer = tiny(gradient_flow=Recording(), hard_negatives=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(40):
            pretrainer(videos)

    assert {pair for pair in pairs if pair[0] != pair[1]} == {
        (float(a), float(b)) for a in range(n) for b in range(n) if a != b
    }
    assert all(frames != donor for frames, donor in pairs)


@pytest.mark.parametrize("hard_negatives", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_mi_bound_is_log_n_minus_the_mean_loss(hard_negatives: bool, reduction: Reduction) -> None:
    output = tiny(hard_negatives=hard_negatives, reduction=reduction)(make_videos())

    assert output.mi_lower_bound.item() == pytest.approx(math.log(8) - output.info_nce.item(), abs=1e-6)


# --- noise --------------------------------------------------------------------------------------------------

NOISY: dict[str, Any] = {"gradient_flow": "straight_through", "hard_negatives": True}


def losses(pretrainer: ViSPPretrainer, steps: int = 3) -> list[float]:
    return [pretrainer(make_videos()).loss.item() for _ in range(steps)]


@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
def test_one_seed_makes_a_run_repeatable(flow: str) -> None:
    runs = [losses(tiny(gradient_flow=flow, hard_negatives=True, seed=3)) for _ in range(2)]

    assert runs[0] == runs[1]


def test_another_seed_gives_other_noise() -> None:
    assert losses(tiny(seed=3)) != losses(tiny(seed=4))


def test_every_training_step_has_its_own_noise() -> None:
    pretrainer = tiny(size=FixedSize(0.0))

    assert len(set(losses(pretrainer))) == 3


def test_every_video_of_a_batch_has_its_own_noise() -> None:
    selections: list[Tensor] = []

    class Recording:
        def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
            selections.append(torch.rand(4, generator=generator))
            return torch.sigmoid(logits)

    tiny(sampler=Recording())(make_videos())

    assert len({tuple(selection.tolist()) for selection in selections}) == 8


def test_noise_does_not_depend_on_the_global_random_state() -> None:
    first, second = tiny(**NOISY), tiny(**NOISY)
    torch.manual_seed(1)
    expected = losses(first)
    torch.manual_seed(2)

    assert losses(second) == expected


def test_a_step_leaves_the_global_random_state_alone() -> None:
    pretrainer = tiny(**NOISY)
    before = torch.random.get_rng_state()
    pretrainer(make_videos())

    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_a_seed_the_global_seed_makes_a_run_repeatable() -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(losses(tiny(seed=None)))

    assert runs[0] == runs[1]


# --- state --------------------------------------------------------------------------------------------------


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_a_loaded_state_continues_noise_and_multiplier() -> None:
    pretrainer, resumed = tiny(**NOISY), tiny(**{**NOISY, "seed": 99})
    losses(pretrainer)
    resumed.load_state_dict(saved_and_loaded(pretrainer.state_dict()))

    assert losses(resumed) == losses(pretrainer)


def test_a_step_in_training_mode_is_counted() -> None:
    pretrainer = tiny()
    losses(pretrainer)

    assert pretrainer.noise.step == 3


def test_evaluation_mode_steps_nothing() -> None:
    pretrainer = tiny(**NOISY).eval()
    before = copy.deepcopy(pretrainer.state_dict())
    losses(pretrainer)

    torch.testing.assert_close(pretrainer.state_dict(), before, rtol=0, atol=0)


def test_evaluation_mode_is_repeatable() -> None:
    assert len(set(losses(tiny(**NOISY).eval()))) == 1


def test_the_summarizer_keeps_its_own_keys() -> None:
    summarizer = LinearSummarizer()
    ViSPPretrainer(summarizer, MeanEncoder())(make_videos()).loss.backward()

    assert list(summarizer.state_dict()) == ["score.weight", "score.bias"]


def test_the_state_holds_modules_multiplier_and_noise() -> None:
    assert set(tiny().state_dict()) == SUMMARIZER | ENCODER | {"size.weight", "noise._extra_state"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_alike_and_apart(copied: Callable[[ViSPPretrainer], ViSPPretrainer]) -> None:
    pretrainer = tiny(**NOISY)
    losses(pretrainer)
    twin = copied(pretrainer)
    expected = losses(pretrainer)

    assert losses(twin) == expected


# --- recomputation ------------------------------------------------------------------------------------------


class NormSummarizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.4), nn.Linear(6, 1), nn.Flatten(0)
        )

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.layers(frames)
        return logits


class NormEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=None), nn.Dropout(0.4), nn.Tanh())

    def forward(self, frames: Tensor) -> Tensor:
        rows: Tensor = self.layers(frames)
        return rows.mean(dim=0)


def twins(**options: Any) -> list[ViSPPretrainer]:
    made = []
    for recompute in (False, True):
        torch.manual_seed(2)
        made.append(ViSPPretrainer(NormSummarizer(), NormEncoder(), recompute=recompute, seed=3, **options))
    return made


def after_two_steps(pretrainer: ViSPPretrainer, part: str) -> dict[str, Any]:
    torch.manual_seed(7)
    outputs = []
    for step in range(2):
        outputs.append(pretrainer(make_videos(seed=step)))
        outputs[-1].loss.backward()
    parts: dict[str, dict[str, Any]] = {
        "outputs": {
            f"{i}.{name}": value for i, output in enumerate(outputs) for name, value in output._asdict().items()
        },
        "gradients": gradients(pretrainer),
        "buffers": dict(pretrainer.named_buffers()),
    }
    return parts[part]


@pytest.mark.parametrize("part", ["outputs", "gradients", "buffers"])
@pytest.mark.parametrize("hard_negatives", [False, True], ids=["videos_only", "hard_negatives"])
@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
@pytest.mark.parametrize("contrast", ["videos", "both"])
def test_recomputation_changes_nothing(contrast: str, flow: str, hard_negatives: bool, part: str) -> None:
    plain, lean = twins(contrast=contrast, gradient_flow=flow, hard_negatives=hard_negatives)

    torch.testing.assert_close(after_two_steps(lean, part), after_two_steps(plain, part), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("part", ["outputs", "gradients", "buffers"])
def test_recomputation_changes_nothing_under_autocast(part: str) -> None:
    plain, lean = twins(hard_negatives=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, actual = after_two_steps(plain, part), after_two_steps(lean, part)

    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("part", ["outputs", "gradients", "buffers"])
def test_recomputation_changes_nothing_in_evaluation_mode(part: str) -> None:
    plain, lean = (pretrainer.eval() for pretrainer in twins())

    torch.testing.assert_close(after_two_steps(lean, part), after_two_steps(plain, part), rtol=1e-6, atol=1e-7)


def test_recomputation_changes_nothing_without_gradients() -> None:
    plain, lean = twins(hard_negatives=True)
    results = []
    for pretrainer in (plain, lean):
        torch.manual_seed(7)
        with torch.no_grad():
            results.append((values(pretrainer(make_videos())), dict(pretrainer.named_buffers())))

    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def bytes_saved(lengths: Sequence[int], recompute: bool) -> int:
    """Bytes that a forward pass keeps for backward, each storage once, without parameters and videos."""
    pretrainer = ViSPPretrainer(
        nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1), nn.Flatten(0)),
        AttentionPoolEncoder(4, embedding_dim=64),
        recompute=recompute,
        seed=0,
    )
    videos = make_videos(lengths)
    known = {tensor.untyped_storage().data_ptr() for tensor in (*pretrainer.parameters(), *videos)}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage's address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = pretrainer(videos).loss
    assert loss.requires_grad
    return sum(kept.values())


def test_recomputation_keeps_a_few_numbers_per_frame() -> None:
    numbers_per_frame = 16  # logits, noise, selection and summary; the summarizer above keeps over 100

    longer = bytes_saved((200,) * 8, recompute=True) - bytes_saved((100,) * 8, recompute=True)

    assert longer < 4 * numbers_per_frame * 100 * 8


def test_without_recomputation_activations_grow_with_the_frames() -> None:
    longer = bytes_saved((200,) * 8, recompute=False) - bytes_saved((100,) * 8, recompute=False)

    assert longer > 4 * 100 * 100 * 8


def test_recomputation_embeds_the_windows_of_a_video_in_one_pass() -> None:
    encoder, passes = AttentionPoolEncoder(4, embedding_dim=8), []
    encode = encoder.encode_batch
    encoder.encode_batch = lambda frames, lengths: passes.append(lengths) or encode(frames, lengths)  # type: ignore
    kept, lean = (
        ViSPPretrainer(LinearSummarizer(), encoder, contrast="windows", window=5, recompute=recompute, seed=0)
        for recompute in (False, True)
    )
    videos = make_videos((20, 10))
    expected = kept(videos).loss
    passes.clear()
    loss = lean(videos).loss

    assert passes == [[5, 5, 5, 5], [5, 5], [5, 5, 5, 5], [5, 5]]  # the summaries, then the videos
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


# --- precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("flow", GRADIENT_FLOWS)
def test_bf16_autocast_gives_a_float32_loss_near_the_full_one(flow: str, recompute: bool) -> None:
    full = tiny(gradient_flow=flow)(make_videos())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = tiny(gradient_flow=flow, recompute=recompute)(make_videos())
    output.loss.backward()

    assert {value.dtype for value in output} == {torch.float32}
    assert output.keep_ratio.item() == pytest.approx(full.keep_ratio.item(), abs=0.02)


def test_a_selection_of_no_frame_at_all_gives_a_finite_gradient() -> None:
    """Straight-through drops every frame of a short video sooner or later."""
    summarizer = LinearSummarizer()
    pretrainer = ViSPPretrainer(
        summarizer, AttentionPoolEncoder(4, embedding_dim=8), gradient_flow="straight_through", seed=0
    )
    with torch.no_grad():
        summarizer.score.weight.zero_()
        summarizer.score.bias.fill_(-6)
    pretrainer(make_videos()).loss.backward()

    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients(pretrainer).values())


def test_without_noise_a_permuted_batch_has_the_same_loss() -> None:
    videos = make_videos()
    order = torch.randperm(8, generator=generator(1)).tolist()
    straight, permuted = (tiny(sampler="sigmoid")(batch) for batch in (videos, [videos[i] for i in order]))

    assert permuted.loss.item() == pytest.approx(straight.loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("sampler", visp.ConcreteSampler, "sampler must be one of 'concrete'"),
        ("gradient_flow", visp.Gating, "gradient_flow must be one of 'gating'"),
        ("gradient_flow", lambda frames, gate, donors: frames, "needs_donors"),
        ("contrast", visp.contrastive.Windows, "contrast must be one of 'videos'"),
        ("similarity", 3, "similarity must be one of 'inner'"),
    ],
)
def test_a_part_that_is_no_object_of_its_kind_is_refused(option: str, value: Any, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        tiny(**{option: value})


@pytest.mark.parametrize("option", ["binary_weight", "seed"])
def test_a_negative_number_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least 0.* got -1"):
        tiny(**{option: -1})


def test_a_summarizer_of_the_wrong_kind_is_named_under_recomputation_too() -> None:
    class Tuples(nn.Module):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
            return frames, frames

    pretrainer = tiny(recompute=True)
    pretrainer.summarizer = Tuples()
    with pytest.raises((TypeError, ValueError), match="Tuples"):
        pretrainer(make_videos())
