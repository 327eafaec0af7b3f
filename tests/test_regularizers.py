from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.builders import generator, mean, normal
from visp.regularizers import FixedSize, SizeRule, TargetSize, binary_penalty, size_penalty
from visp.samplers import ConcreteSampler

DOUBLE = torch.float64
Reduction = Literal["mean", "sum"]
any_reduction = pytest.mark.parametrize("reduction", ["mean", "sum"])


def selections() -> list[Tensor]:
    return [torch.sigmoid(normal(length, seed=length, dtype=DOUBLE)) for length in (1, 4, 9)]


@any_reduction
def test_size_penalty_is_the_l1_norm_averaged_over_videos(reduction: Reduction) -> None:
    totals = []
    for video in selections():
        total = 0.0
        for y in video.tolist():
            total += abs(y)
        totals.append(total / len(video) if reduction == "mean" else total)

    assert size_penalty(selections(), reduction).item() == pytest.approx(mean(totals), rel=1e-12)


@any_reduction
def test_binary_penalty_is_y_times_1_minus_y_averaged_over_videos(reduction: Reduction) -> None:
    totals = []
    for video in selections():
        total = 0.0
        for y in video.tolist():
            total += y * (1 - y)
        totals.append(total / len(video) if reduction == "mean" else total)

    assert binary_penalty(selections(), reduction).item() == pytest.approx(mean(totals), rel=1e-12)


def test_a_long_video_counts_as_much_as_a_short_one_in_the_mean() -> None:
    assert size_penalty([torch.ones(1), torch.zeros(99)]).item() == pytest.approx(0.5)


def test_binary_penalty_of_a_binary_selection_is_zero() -> None:
    assert binary_penalty([torch.tensor([0.0, 1.0, 1.0])]).item() == 0


@pytest.mark.parametrize("penalty", [size_penalty, binary_penalty], ids=lambda f: f.__name__)
@any_reduction
def test_gradcheck_of_penalties(penalty: Callable[..., Tensor], reduction: Reduction) -> None:
    first, second, third = (video.requires_grad_() for video in selections())

    assert torch.autograd.gradcheck(lambda *videos: penalty(videos, reduction), (first, second, third))


def at(constraint: TargetSize, kept: Tensor) -> Tensor:
    """The penalty where the logits' share is the keep ratio."""
    penalty: Tensor = constraint([kept.expand(4)], [torch.logit(kept, eps=1e-6).expand(4)])
    return penalty


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.9])
def test_constraint_is_multiplier_times_excess_plus_damped_divergence(kept: float) -> None:
    target, damping = 0.3, 2.0
    constraint = TargetSize(target, damping=damping).eval()
    constraint.weight.fill_(1.5)
    divergence = target * math.log(target / kept) + (1 - target) * math.log((1 - target) / (1 - kept))

    penalty = at(constraint, torch.tensor(kept, dtype=DOUBLE))

    assert penalty.item() == pytest.approx(1.5 * (kept - target) + damping * divergence, rel=1e-9)


def test_divergence_is_least_at_the_target() -> None:
    kept = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)

    (gradient,) = torch.autograd.grad(at(TargetSize(0.3).eval(), kept), kept)

    assert gradient.item() == pytest.approx(0, abs=1e-9)


def test_gradcheck_of_the_constraint() -> None:
    constraint = TargetSize(0.3).to(DOUBLE).eval()
    constraint.weight.fill_(0.7)

    share = torch.tensor(0.45, dtype=DOUBLE, requires_grad=True)
    logits = normal(5).to(DOUBLE).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda kept, video: constraint([kept.expand(3)], [video, 2 * video[:2]]), (share, logits)
    )


@pytest.mark.parametrize("logit", [-2000.0, -100.0, 100.0, 2000.0])
def test_penalty_and_gradient_are_finite_at_the_ends(logit: float) -> None:
    logits = torch.full((6,), logit, requires_grad=True)
    penalty = TargetSize(0.3)([torch.sigmoid(logits)], [logits])
    penalty.backward()

    assert penalty.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_multiplier_rises_by_its_step_when_too_much_is_kept() -> None:
    constraint = TargetSize(0.3, step_size=0.1)
    at(constraint, torch.tensor(0.8))

    assert constraint.weight.item() == pytest.approx(0.05)


def test_multiplier_falls_when_too_little_is_kept() -> None:
    constraint = TargetSize(0.3, step_size=0.1)
    at(constraint, torch.tensor(0.1))

    assert constraint.weight.item() == pytest.approx(-0.02)


def test_multiplier_of_the_step_is_the_one_before_it_moves() -> None:
    fresh, moved = TargetSize(0.3, step_size=1.0), TargetSize(0.3, step_size=1.0).eval()

    assert at(fresh, torch.tensor(0.8)).item() == at(moved, torch.tensor(0.8)).item()


def test_multiplier_does_not_move_in_evaluation_mode() -> None:
    constraint = TargetSize(0.3).eval()
    at(constraint, torch.tensor(0.8))

    assert constraint.weight.item() == 0


def test_backward_through_the_penalty_survives_the_step() -> None:
    constraint = TargetSize(0.3)
    share = torch.tensor(0.8, requires_grad=True)
    first, second = at(constraint, share), at(constraint, share)
    (first + second).backward()  # type: ignore[no-untyped-call]

    assert share.grad is not None


@pytest.mark.parametrize(("kept", "bound"), [(1.0, 2.0), (0.0, -2.0)])
def test_multiplier_stays_within_its_bound(kept: float, bound: float) -> None:
    constraint = TargetSize(0.5, step_size=1.0, bound=2.0)
    for _ in range(20):
        at(constraint, torch.tensor(kept))

    assert constraint.weight.item() == bound


def test_multiplier_is_saved_and_restored() -> None:
    constraint, other = TargetSize(0.3), TargetSize(0.3)
    at(constraint, torch.tensor(0.8))
    other.load_state_dict(constraint.state_dict())

    assert other.weight.item() == constraint.weight.item() != 0


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 30.0, math.nan])
def test_a_target_that_is_no_share_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=r"the share of frames to keep must be in \(0, 1\)"):
        TargetSize(target)


@pytest.mark.parametrize(("logit", "sign"), [(-30.0, -1), (30.0, 1)])
def test_saturated_logits_are_pulled_back_where_the_sigmoid_is_flat(logit: float, sign: int) -> None:
    bias = torch.tensor(logit, requires_grad=True)
    kept = torch.sigmoid(bias.expand(50)).mean()
    (flat,) = torch.autograd.grad(kept, bias, retain_graph=True)

    (pull,) = torch.autograd.grad(TargetSize(0.3)([torch.sigmoid(bias.expand(50))], [bias.expand(50)]), bias)

    assert flat.abs() < 1e-4
    assert 0.5 < sign * pull.item() < 10


@pytest.mark.parametrize("target", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("start", [10.0, 0.0, -10.0], ids=["all_keep", "centre", "all_drop"])
def test_closed_loop_reaches_and_holds_the_target(start: float, target: float) -> None:
    """Logits that share a bias, as those of any network do; the keep ratio is noisy, so it is smoothed over steps."""
    constraint, sampler, noise = TargetSize(target), ConcreteSampler(0.5), generator()
    bias = torch.full((1,), start, requires_grad=True)
    residual = normal(200).requires_grad_()
    optimizer = torch.optim.Adam([bias, residual], lr=0.2)
    keep_ratios = []
    for _ in range(900):
        logits = bias + residual
        selection = sampler(logits, noise)
        optimizer.zero_grad()
        constraint([selection], [logits]).backward()
        optimizer.step()
        keep_ratios.append(selection.mean().item())

    smoothed = [mean(keep_ratios[end - 25 : end]) for end in range(800, 901)]
    assert max(abs(share - target) for share in smoothed) < 0.05


@any_reduction
def test_a_fixed_size_weighs_the_penalty(reduction: Reduction) -> None:
    rule = FixedSize(2.5).to(DOUBLE)

    assert rule(selections(), [], reduction).item() == pytest.approx(2.5 * size_penalty(selections(), reduction).item())
    assert rule.weight.item() == 2.5


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="the weight of the size penalty must be at least 0 and finite"):
        FixedSize(weight)


@pytest.mark.parametrize("rule", [FixedSize(1.0), TargetSize(0.3)], ids=lambda rule: type(rule).__name__)
def test_built_in_rules_are_size_rules(rule: SizeRule) -> None:
    assert isinstance(rule, SizeRule)
