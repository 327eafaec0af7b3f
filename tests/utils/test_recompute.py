from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.builders import gradients, normal
from visp.utils.recompute import recomputed


class Counter(nn.Module):
    """Counts its calls in a buffer, in place or by putting a new tensor there, and depends on the count."""

    count: Tensor

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.count += 1
        else:
            self.count = self.count + 1
        return torch.sin(x * self.weight * self.count.clone())


class LazyMean(nn.Module):
    """A running mean that starts as None."""

    running: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("running", None)

    def forward(self, x: Tensor) -> Tensor:
        now = x.detach().mean()
        self.running = now if self.running is None else 0.5 * self.running + now
        return torch.sin(x * self.weight * self.running)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def norm_network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 3))


def plain_and_recomputed(module: nn.Module, calls: int = 3) -> tuple[nn.Module, nn.Module]:
    """Run two copies on the same inputs, one plainly, one recomputed, and call backward after all calls."""
    plain, lean = module, copy.deepcopy(module)
    for copied, lean_run in ((plain, False), (lean, True)):
        torch.manual_seed(5)
        outputs = []
        for call in range(calls):
            x = normal(6, 3, seed=call)
            outputs.append(recomputed(copied, copied, x) if lean_run else copied(x))
        torch.autograd.backward(torch.stack(outputs).square().sum())
    return plain, lean


def modules() -> list[nn.Module]:
    return [norm_network(), Counter(in_place=True), Counter(in_place=False), LazyMean()]


any_module = pytest.mark.parametrize("index", range(4), ids=["batch_norm", "in_place", "replaced", "lazy"])


@any_module
def test_gradients_are_those_of_a_plain_run(index: int) -> None:
    plain, lean = plain_and_recomputed(modules()[index])

    torch.testing.assert_close(gradients(lean), gradients(plain), rtol=0, atol=0)


@any_module
def test_buffers_are_updated_once(index: int) -> None:
    plain, lean = plain_and_recomputed(modules()[index])

    torch.testing.assert_close(dict(lean.named_buffers()), dict(plain.named_buffers()), rtol=0, atol=0)


def test_buffers_stay_the_same_objects() -> None:
    module = norm_network()
    before = {name: buffer.data_ptr() for name, buffer in module.named_buffers()}
    torch.autograd.backward(recomputed(module, module, normal(6, 3)).sum())

    assert {name: buffer.data_ptr() for name, buffer in module.named_buffers()} == before


def test_evaluation_mode_batch_norm_can_be_recomputed() -> None:
    plain, lean = plain_and_recomputed(norm_network().eval())

    torch.testing.assert_close(gradients(lean), gradients(plain), rtol=0, atol=0)


def test_backward_twice_doubles_the_gradient() -> None:
    module = norm_network()
    output = recomputed(module, module, normal(6, 3)).square().sum()
    torch.autograd.backward(output, retain_graph=True)
    once = gradients(module)
    torch.autograd.backward(output)

    for name, gradient in gradients(module).items():
        assert gradient is not None
        first = once[name]
        assert first is not None
        torch.testing.assert_close(gradient, 2 * first, msg=name)


def test_backward_twice_updates_buffers_once() -> None:
    module = norm_network()
    output = recomputed(module, module, normal(6, 3)).square().sum()
    after_forward = copy.deepcopy(dict(module.named_buffers()))
    torch.autograd.backward(output, retain_graph=True)
    torch.autograd.backward(output)

    torch.testing.assert_close(dict(module.named_buffers()), after_forward, rtol=0, atol=0)


@pytest.mark.parametrize("in_place", [True, False])
def test_an_exception_in_the_recomputation_leaves_buffers_as_the_first_pass_did(in_place: bool) -> None:
    module = Counter(in_place)
    broken = False

    def run(x: Tensor) -> Tensor:
        output: Tensor = module(x)
        if broken:
            raise RuntimeError("broken on purpose")
        return output.exp()

    output = recomputed(module, run, normal(6, 3)).sum()
    broken = True
    with pytest.raises(RuntimeError, match="broken on purpose"):
        torch.autograd.backward(output)

    assert module.count.item() == 1


def test_an_exception_in_the_first_pass_is_passed_on() -> None:
    module = norm_network()

    def run(x: Tensor) -> Tensor:
        raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        recomputed(module, run, normal(6, 3))


def test_nothing_is_recomputed_without_gradients() -> None:
    module = Counter(in_place=True)
    with torch.no_grad():
        output = recomputed(module, module, normal(6, 3))

    assert not output.requires_grad
    assert module.count.item() == 1


def test_gradients_reach_the_arguments() -> None:
    module = norm_network().eval()
    x = normal(6, 3).requires_grad_()
    (expected,) = torch.autograd.grad(module(x).square().sum(), x)
    (actual,) = torch.autograd.grad(recomputed(module, module, x).square().sum(), x)

    assert torch.equal(actual, expected)
