"""The lean layers against torch's own, which do the same in more passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.builders import gradients, normal
from visp.summarizers.inception import ConvNormReLU, GoogLeNetTrunk
from visp.summarizers.layers import ExactLinear, add_top_rows


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


# --- pooling before normalisation ---------------------------------------------------------------------------


def conv_norm_relu(kernel_size: int = 3) -> ConvNormReLU:
    """A layer with weights of both signs in its normalisation, and statistics that have moved."""
    layer = ConvNormReLU(4, 6, kernel_size=kernel_size, padding=kernel_size // 2).double()
    with torch.no_grad():
        layer.bn.weight.copy_(torch.tensor([1.0, -0.5, 2.0, -1.5, -0.2, 0.7]))
        layer.bn.bias.copy_(double(6, seed=3))
        assert layer.bn.running_mean is not None
        layer.bn.running_mean.copy_(double(6, seed=4))
    return layer


def pooled(layer: ConvNormReLU, x: Tensor) -> Tensor:
    pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    return layer.pooled(lambda weight: F.conv2d(x, weight, padding=1), pool)


def plainly_pooled(layer: ConvNormReLU, x: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(layer.bn(F.conv2d(x, layer.conv.weight, padding=1))), 3, 2, ceil_mode=True)


def image(height: int = 9, width: int = 14) -> Tensor:
    return double(2, 4, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()


def compared(
    run: Callable[[ConvNormReLU, Tensor], Tensor], layer: ConvNormReLU
) -> tuple[Tensor, Tensor | None, dict[str, Tensor | None], dict[str, Tensor]]:
    """Output, gradient of the input and of the parameters, buffers after one pass of a copy of the layer."""
    layer, x = copy.deepcopy(layer), image()
    output = run(layer, x)
    torch.autograd.backward((output * double(*output.shape, seed=2)).sum())
    return output.detach(), x.grad, gradients(layer), dict(layer.named_buffers())


@pytest.mark.parametrize("training", [True, False])
def test_pooling_first_changes_neither_output_nor_gradients_nor_statistics(training: bool) -> None:
    layer = conv_norm_relu().train(training)

    torch.testing.assert_close(compared(pooled, layer), compared(plainly_pooled, layer), rtol=1e-9, atol=1e-12)


def test_pooling_first_has_the_gradient_of_its_output() -> None:
    layer = conv_norm_relu()
    x = double(1, 4, 5, 6).requires_grad_()

    assert torch.autograd.gradcheck(lambda x: pooled(layer, x), x)


def test_pooling_first_keeps_less_for_backward() -> None:
    def kept(run: Callable[[ConvNormReLU, Tensor], Tensor]) -> int:
        storages = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            run(conv_norm_relu(), image(60, 60))
        return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

    assert kept(pooled) < 0.9 * kept(plainly_pooled)


@pytest.mark.parametrize(
    "options",
    [{"momentum": None}, {"affine": False}, {"track_running_stats": False}],
    ids=lambda options: next(iter(options)),
)
def test_other_normalisations_are_called_as_they_are(options: dict[str, bool | None]) -> None:
    layer = conv_norm_relu()
    layer.bn = nn.BatchNorm2d(6, **options).double()  # type: ignore[arg-type]

    torch.testing.assert_close(compared(pooled, layer), compared(plainly_pooled, layer), rtol=1e-9, atol=1e-12)


# --- an image whose channels differ in its top row alone ----------------------------------------------------


def test_top_rows_are_added_in_place_with_their_gradient() -> None:
    x, top = double(1, 2, 4, 3).requires_grad_(), double(2, 2, 3, seed=1).requires_grad_()

    assert torch.autograd.gradcheck(lambda x, top: add_top_rows(x.clone(), top), (x, top))


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
