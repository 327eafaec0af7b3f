from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.builders import generator, normal, sigmoid
from visp.samplers import ConcreteSampler, GumbelSoftmaxSampler, Sampler, SigmoidSampler

SAMPLERS = [ConcreteSampler, GumbelSoftmaxSampler, SigmoidSampler]
NOISY = [ConcreteSampler, GumbelSoftmaxSampler]
AnySampler = type[ConcreteSampler] | type[GumbelSoftmaxSampler] | type[SigmoidSampler]

any_sampler = pytest.mark.parametrize("kind", SAMPLERS, ids=lambda kind: kind.__name__)
noisy_sampler = pytest.mark.parametrize("kind", NOISY, ids=lambda kind: kind.__name__)


def many(sampler: Sampler, alpha: float, seed: int, count: int = 4000) -> Tensor:
    """Draw many selections of one frame with logit alpha."""
    return sampler(torch.full((count,), alpha, dtype=torch.float64), generator(seed))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_concrete_is_equation_6_of_the_noise(temperature: float) -> None:
    logits = 3 * normal(50, seed=3, dtype=torch.float64)
    noise = torch.rand(50, generator=generator(7), dtype=torch.float64).tolist()
    expected = [
        sigmoid((math.log(eps) - math.log(1 - eps) + alpha) / temperature)
        for eps, alpha in zip(noise, logits.tolist(), strict=True)
    ]

    selection = ConcreteSampler(temperature)(logits, generator(7))

    torch.testing.assert_close(selection, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_gumbel_softmax_is_the_first_class_of_the_noise(temperature: float) -> None:
    logits = 3 * normal(50, seed=3, dtype=torch.float64)
    noise = torch.rand(2, 50, generator=generator(7), dtype=torch.float64).tolist()
    expected = []
    for keep, drop, alpha in zip(*noise, logits.tolist(), strict=True):
        keep_score = (alpha - math.log(-math.log(keep))) / temperature
        drop_score = (0.0 - math.log(-math.log(drop))) / temperature
        top = max(keep_score, drop_score)
        kept, dropped = math.exp(keep_score - top), math.exp(drop_score - top)
        expected.append(kept / (kept + dropped))

    selection = GumbelSoftmaxSampler(temperature)(logits, generator(7))

    torch.testing.assert_close(selection, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_sigmoid_is_the_sigmoid_of_the_logit_over_the_temperature(temperature: float) -> None:
    logits = 3 * normal(50, seed=3, dtype=torch.float64)
    expected = [sigmoid(alpha / temperature) for alpha in logits.tolist()]

    selection = SigmoidSampler(temperature)(logits, generator(7))

    torch.testing.assert_close(selection, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [-3.0, 0.0, 2.0])
def test_gumbel_softmax_equals_concrete_in_distribution(alpha: float, temperature: float) -> None:
    concrete = many(ConcreteSampler(temperature), alpha, seed=1)
    gumbel = many(GumbelSoftmaxSampler(temperature), alpha, seed=2)

    assert stats.ks_2samp(concrete.numpy(), gumbel.numpy()).pvalue > 0.005


def test_the_distribution_test_sees_a_logit_that_is_off_by_a_fifth() -> None:
    concrete = many(ConcreteSampler(0.5), 0.0, seed=1)
    shifted = many(GumbelSoftmaxSampler(0.5), 0.2, seed=2)

    assert stats.ks_2samp(concrete.numpy(), shifted.numpy()).pvalue < 1e-4


@noisy_sampler
@pytest.mark.parametrize("alpha", [-2.0, 0.0, 1.0])
def test_at_zero_temperature_a_frame_is_kept_with_the_sigmoid_of_its_logit(kind: AnySampler, alpha: float) -> None:
    selection = many(kind(1e-4), alpha, seed=5)

    probability = sigmoid(alpha)
    error = math.sqrt(probability * (1 - probability) / len(selection))
    assert (selection > 0.5).double().mean().item() == pytest.approx(probability, abs=4 * error)


@noisy_sampler
def test_at_zero_temperature_a_selection_is_binary(kind: AnySampler) -> None:
    selection = many(kind(1e-4), 0.3, seed=5)

    assert (torch.minimum(selection, 1 - selection) < 1e-6).double().mean() > 0.995


@any_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_selection_is_strictly_between_0_and_1_for_moderate_logits(kind: AnySampler, dtype: torch.dtype) -> None:
    selection = kind(1.0)(torch.linspace(-4, 4, 500, dtype=dtype), generator())

    assert selection.min() > 0
    assert selection.max() < 1


@any_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_selection_stays_in_range_for_extreme_logits(kind: AnySampler, dtype: torch.dtype) -> None:
    logits = torch.tensor([-1e30, -1e4, -100, 100, 1e4, 1e30], dtype=dtype).repeat(100)

    selection = kind(0.05)(logits, generator())

    assert ((selection >= 0) & (selection <= 1)).all()


@any_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_for_extreme_logits(kind: AnySampler, dtype: torch.dtype) -> None:
    logits = torch.tensor([-1e30, -1e4, -100, 0, 100, 1e4, 1e30], dtype=dtype).repeat(100).requires_grad_()

    (gradient,) = torch.autograd.grad(kind(0.05)(logits, generator()).sum(), logits)

    assert gradient.isfinite().all()


@noisy_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_noise_at_the_edge_of_its_range_gives_a_finite_gradient(
    kind: AnySampler, dtype: torch.dtype, edge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, dtype, **_: torch.full(shape, edge, dtype=dtype))
    logits = torch.zeros(3, dtype=dtype, requires_grad=True)

    (gradient,) = torch.autograd.grad(kind(0.5)(logits, generator()).sum(), logits)

    assert gradient.isfinite().all()


@any_sampler
def test_gradcheck(kind: AnySampler) -> None:
    logits = normal(6, dtype=torch.float64).requires_grad_()

    assert torch.autograd.gradcheck(lambda alpha: kind(0.7)(alpha, generator(3)), logits)


@noisy_sampler
def test_one_generator_seed_gives_one_selection(kind: AnySampler) -> None:
    logits = normal(20)
    torch.manual_seed(1)
    first = kind()(logits, generator(9))
    torch.manual_seed(2)
    second = kind()(logits, generator(9))

    assert torch.equal(first, second)


@noisy_sampler
def test_another_generator_seed_gives_another_selection(kind: AnySampler) -> None:
    logits = normal(20)

    assert not torch.equal(kind()(logits, generator(9)), kind()(logits, generator(10)))


@any_sampler
def test_global_random_state_is_not_consumed(kind: AnySampler) -> None:
    before = torch.random.get_rng_state()
    kind()(normal(20), generator(9))

    assert torch.equal(before, torch.random.get_rng_state())


@any_sampler
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(kind: AnySampler, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        kind(temperature)


@any_sampler
def test_a_refused_temperature_leaves_the_old_one(kind: AnySampler) -> None:
    sampler = kind(0.7)
    with pytest.raises(ValueError, match="temperature"):
        sampler.temperature = -1.0

    assert sampler.temperature == 0.7


@any_sampler
def test_a_schedule_may_set_the_temperature(kind: AnySampler) -> None:
    logits = normal(20)
    sampler = kind(5.0)
    sampler.temperature = 0.5

    assert torch.equal(sampler(logits, generator()), kind(0.5)(logits, generator()))


@any_sampler
def test_built_in_samplers_are_samplers(kind: AnySampler) -> None:
    assert isinstance(kind(), Sampler)
