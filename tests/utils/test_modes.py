from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from torch import nn

from visp.utils.modes import evaluation_mode, training_mode


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def test_a_module_is_in_evaluation_mode_as_a_whole() -> None:
    module = body()
    module[1].eval()
    with evaluation_mode(module):
        assert not any(modes(module))
    assert modes(module) == [True, True, False, True]
    with evaluation_mode(len):
        pass


def test_a_part_in_evaluation_mode_stays_in_it_during_training() -> None:
    module = body()
    module[1].eval()
    with training_mode(module):
        assert modes(module) == [True, True, False, True]


@pytest.mark.parametrize("mode", [evaluation_mode, training_mode])
def test_an_error_ends_the_mode_too(mode: Callable[[nn.Module], AbstractContextManager[None]]) -> None:
    module = body().eval()
    module[2].train()

    def fail() -> None:
        with mode(module):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert modes(module) == [False, False, False, True]


def test_a_module_that_is_in_evaluation_mode_altogether_is_trained_with_all_its_parts() -> None:
    module = body().eval()
    with training_mode(module):
        assert all(modes(module))
    assert not any(modes(module))


def test_wholes_inside_are_judged_by_their_own_mode() -> None:
    used, partly, frozen = body().eval(), body(), body().requires_grad_(False).eval()
    partly[1].eval()
    outer = nn.ModuleList([used, partly, frozen])
    for training in (True, False):
        outer.training = training
        with training_mode(outer, used, partly, frozen):
            assert outer.training
            assert all(modes(used))
            assert modes(partly) == [True, True, False, True]
            assert not any(modes(frozen))
        assert not any(modes(used))


def test_a_whole_in_training_mode_keeps_its_parts_inside_an_adapter_in_evaluation_mode() -> None:
    whole = body()
    whole[1].eval()
    adapter = nn.ModuleList([whole])
    adapter.training = False
    with training_mode(adapter, whole):
        assert modes(adapter) == [True, True, True, False, True]


def test_a_train_method_of_the_users_own_is_called() -> None:
    class Freezing(nn.Sequential):
        def train(self, mode: bool = True) -> Freezing:
            super().train(mode)
            self[1].eval()
            return self

    module = Freezing(*body())
    assert module[1].training
    with training_mode(module):
        assert modes(module) == [True, True, False, True]
    assert module[1].training
