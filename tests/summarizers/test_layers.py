"""What the built-in summarizers compute otherwise than torch's layers would, against these."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.builders import normal
from visp.summarizers.inception import GoogLeNetTrunk
from visp.summarizers.layers import ExactLinear


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def double(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed, dtype=torch.float64)


# --- the linear layer ---------------------------------------------------------------------------------------


def test_a_linear_layer_is_exact_under_autocast() -> None:
    layer, x = ExactLinear(8, 5), normal(20, 8)
    expected = F.linear(x, layer.weight, layer.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = layer(x)

    assert torch.equal(actual, expected)


def test_a_linear_layers_gradients_under_autocast_are_near_the_exact_ones() -> None:
    layer, x = ExactLinear(8, 5), normal(20, 8).requires_grad_()
    weights = normal(20, 5, seed=1)
    inputs = (x, layer.weight, layer.bias)
    exact = torch.autograd.grad((layer(x) * weights).sum(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x)
    rounded = torch.autograd.grad((output * weights).sum(), inputs)

    for actual, expected in zip(rounded, exact, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, rtol=0, atol=0.02 * expected.abs().max().item())


def test_a_linear_layer_without_autocast_is_torchs_own() -> None:
    layer, x = ExactLinear(8, 5).double(), double(4, 8).requires_grad_()

    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert torch.autograd.gradcheck(layer, x)


# --- an image whose channels differ in its top row alone ----------------------------------------------------


@pytest.mark.parametrize("height", [15, 16, 33])
def test_a_gray_image_is_mapped_as_its_three_channels(height: int) -> None:
    trunk = GoogLeNetTrunk(64).double()
    rows, top = double(height - 1, 512).requires_grad_(), double(3, 512, seed=1).requires_grad_()
    wanted = [rows, top, *trunk.parameters()]

    def gradients_of(output: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((output * double(*output.shape, seed=2)).sum(), wanted)

    whole = trunk(torch.cat([top.unsqueeze(1), rows.expand(3, -1, -1)], dim=1).unsqueeze(0))
    gray = trunk.of_gray(rows, top)

    torch.testing.assert_close(gray, whole, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gradients_of(gray), gradients_of(whole), rtol=1e-7, atol=1e-9)
