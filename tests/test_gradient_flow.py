from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.builders import generator, normal
from visp.gradient_flow import Gating, GradientFlow, Marginalization, StraightThrough, resampled
from visp.utils.noise import bernoulli

TRAILING = [(4,), (3, 2, 2)]
any_trailing = pytest.mark.parametrize("trailing", TRAILING, ids=str)
DOUBLE = torch.float64


def frames_and_selection(trailing: tuple[int, ...], length: int = 5) -> tuple[Tensor, Tensor]:
    return normal(length, *trailing, seed=1, dtype=DOUBLE), torch.sigmoid(normal(length, seed=2, dtype=DOUBLE))


def summarized(flow: GradientFlow, frames: Tensor, selection: Tensor) -> Tensor:
    return flow(frames, flow.gate(selection, generator()), None)


def nested(frames: Tensor) -> list[list[float]]:
    rows: list[list[float]] = frames.flatten(1).tolist()
    return rows


def relative_position(index: int, length: int, donor_length: int) -> int:
    """The donor frame whose share of the video holds the middle of frame ``index``'s share."""
    middle = (index + 0.5) / length
    for donor in range(donor_length):
        if donor / donor_length <= middle < (donor + 1) / donor_length:
            return donor
    raise AssertionError(middle)


@any_trailing
def test_gating_is_equation_8(trailing: tuple[int, ...]) -> None:
    frames, selection = frames_and_selection(trailing)
    expected = [[value * keep for value in row] for row, keep in zip(nested(frames), selection.tolist(), strict=True)]

    summary = Gating()(frames, selection, None)

    torch.testing.assert_close(summary, torch.tensor(expected, dtype=DOUBLE).reshape(frames.shape))


@any_trailing
@pytest.mark.parametrize("donor_length", [1, 3, 5, 12])
def test_marginalization_is_equation_9(trailing: tuple[int, ...], donor_length: int) -> None:
    frames, selection = frames_and_selection(trailing)
    donors = normal(donor_length, *trailing, seed=3, dtype=DOUBLE)
    rows, donor_rows = nested(frames), nested(donors)
    expected = []
    for t, keep in enumerate(selection.tolist()):
        z = donor_rows[relative_position(t, len(rows), donor_length)]
        expected.append([x * keep + other * (1 - keep) for x, other in zip(rows[t], z, strict=True)])

    summary = Marginalization()(frames, selection, donors)

    torch.testing.assert_close(summary, torch.tensor(expected, dtype=DOUBLE).reshape(frames.shape))


def test_marginalization_without_a_donor_is_refused() -> None:
    with pytest.raises(ValueError, match="needs donor frames from another video"):
        Marginalization()(*frames_and_selection((4,)), None)


@given(length=st.integers(1, 200), donor_length=st.integers(1, 200))
@settings(deadline=None, max_examples=60)
def test_resampled_positions_are_those_of_the_same_share_of_the_video(length: int, donor_length: int) -> None:
    taken = resampled(torch.arange(donor_length), length).tolist()

    # In integers: floor((t + 1/2) * T' / T).
    assert taken == [(2 * t + 1) * donor_length // (2 * length) for t in range(length)]


@given(length=st.integers(1, 200), donor_length=st.integers(1, 200))
@settings(deadline=None, max_examples=60)
def test_resampling_keeps_the_order(length: int, donor_length: int) -> None:
    taken = resampled(torch.arange(donor_length), length).tolist()

    assert len(taken) == length
    assert taken == sorted(taken)
    assert taken[0] >= 0
    assert taken[-1] < donor_length


@given(length=st.integers(1, 200))
@settings(deadline=None, max_examples=30)
def test_resampling_to_the_same_length_is_the_identity(length: int) -> None:
    assert resampled(torch.arange(length), length).tolist() == list(range(length))


@given(length=st.integers(1, 100), donor_length=st.integers(1, 100))
@settings(deadline=None, max_examples=40)
def test_resampling_is_symmetric_in_time(length: int, donor_length: int) -> None:
    donors = torch.arange(donor_length, dtype=DOUBLE)
    forward = resampled(donors, length)
    backward = (donor_length - 1 - forward).flip(0)

    assert (forward - backward).abs().max() <= 1


@any_trailing
def test_straight_through_keeps_whole_frames_or_zeros(trailing: tuple[int, ...]) -> None:
    frames, selection = frames_and_selection(trailing, length=40)

    summary = summarized(StraightThrough(), frames, selection)

    hard = bernoulli(selection, generator()).reshape(-1, *[1] * len(trailing))
    assert torch.equal(summary, torch.where(hard == 1, frames, 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_straight_through_gates_by_exactly_0_or_1(dtype: torch.dtype) -> None:
    selection = torch.rand(2000, generator=generator(1), dtype=dtype)

    gate = StraightThrough().gate(selection, generator())

    assert set(gate.tolist()) == {0.0, 1.0}


def test_straight_through_keeps_a_frame_with_its_selection_as_probability() -> None:
    selection = torch.full((4000,), 0.3)

    gate = StraightThrough().gate(selection, generator())

    assert gate.mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000) ** 0.5)


def test_straight_through_always_keeps_at_1_and_drops_at_0() -> None:
    selection = torch.tensor([0.0, 1.0]).repeat(500)

    gate = StraightThrough().gate(selection, generator())

    assert torch.equal(gate, selection)


@any_trailing
def test_straight_through_has_the_gradient_of_gating(trailing: tuple[int, ...]) -> None:
    frames, selection = frames_and_selection(trailing)
    weights = normal(*frames.shape, seed=4, dtype=DOUBLE)

    def gradient(flow: GradientFlow) -> Tensor:
        y = selection.clone().requires_grad_()
        (result,) = torch.autograd.grad((summarized(flow, frames, y) * weights).sum(), y)
        return result

    torch.testing.assert_close(gradient(StraightThrough()), gradient(Gating()))


@pytest.mark.parametrize("flow", [Gating(), Marginalization()], ids=lambda flow: type(flow).__name__)
@any_trailing
def test_gradcheck(flow: GradientFlow, trailing: tuple[int, ...]) -> None:
    frames, selection = frames_and_selection(trailing, length=3)
    donors = normal(4, *trailing, seed=3, dtype=DOUBLE).requires_grad_()

    assert torch.autograd.gradcheck(
        lambda x, y, z: flow(x, y, z), (frames.requires_grad_(), selection.requires_grad_(), donors)
    )


def test_half_precision_frames_stay_in_half_precision() -> None:
    summary = Gating()(torch.ones(3, 2, dtype=torch.bfloat16), torch.ones(3), None)

    assert summary.dtype == torch.bfloat16


@pytest.mark.parametrize("flow", [Gating(), Marginalization(), StraightThrough()], ids=lambda f: type(f).__name__)
def test_built_in_flows_are_gradient_flows(flow: GradientFlow) -> None:
    assert isinstance(flow, GradientFlow)


@pytest.mark.parametrize(("flow", "needs"), [(Gating(), False), (Marginalization(), True), (StraightThrough(), False)])
def test_only_marginalization_needs_donors(flow: GradientFlow, needs: bool) -> None:
    assert flow.needs_donors is needs
