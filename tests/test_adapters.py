from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.summarizer_shapes import (
    SHAPES,
    AttentionShaped,
    CSTAShaped,
    D,
    DSNetAnchorBasedShaped,
    DSNShaped,
    H,
    InPlaceShaped,
    MSVAShaped,
    PGLSUMShaped,
    Shape,
    ShapedSummarizer,
    SSPVSShaped,
    WindowedShaped,
    batch_of_one,
    first,
    one_dict,
    three_channels,
    three_streams,
)
from visp.adapters import AdaptedSummarizer, adapt_encoder, adapt_summarizer, attach_head
from visp.contracts import SUMMARIZER_TEMPLATE, check_logits
from visp.weights import own_state_dict

T = 7


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.name)
def shape(request: pytest.FixtureRequest) -> Shape:
    chosen: Shape = request.param
    return chosen


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def hook_counts(module: nn.Module) -> dict[str, int]:
    """Count the entries of every hook dictionary of every submodule."""
    return {
        f"{name}.{attribute}": len(hooks)
        for name, layer in module.named_modules()
        for attribute, hooks in vars(layer).items()
        if "hook" in attribute and isinstance(hooks, dict)
    }


def outward_state(module: nn.Module) -> dict[str, Any]:
    """Everything of a module that an adapter must leave: hooks, modes, flags, names, values, forwards."""
    return {
        "hooks": hook_counts(module),
        "modes": {name: layer.training for name, layer in module.named_modules()},
        "flags": {name: weight.requires_grad for name, weight in module.named_parameters()},
        "values": {name: value.tolist() for name, value in module.state_dict().items()},
        "attributes": {name: sorted(vars(layer)) for name, layer in module.named_modules()},
    }


def with_mixed_modes(module: ShapedSummarizer) -> ShapedSummarizer:
    module.drop.eval()
    module.norm.bias.requires_grad_(False)
    return module


@pytest.mark.parametrize("length", [1, 2, H, T])
def test_adapted_logits_are_the_true_logits(shape: Shape, length: int) -> None:
    module = shape.make()
    frames = torch.randn(length, D)
    logits = adapt_summarizer(module, **shape.options)(frames)
    assert logits.shape == (length,)
    torch.testing.assert_close(logits, module.true_logits(frames), atol=1e-4, rtol=1e-4)


def test_adapted_gradients_are_the_true_gradients(shape: Shape) -> None:
    module = shape.make()
    frames = torch.randn(T, D)
    weights = list(module.parameters())
    target = torch.randn(T)
    adapted = torch.autograd.grad(
        adapt_summarizer(module, **shape.options)(frames) @ target, weights, allow_unused=True
    )
    true = torch.autograd.grad(module.true_logits(frames) @ target, weights, allow_unused=True)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in adapted)
    for got, expected in zip(adapted, true, strict=True):
        zero = torch.zeros(())
        got, expected = (zero if gradient is None else gradient for gradient in (got, expected))
        torch.testing.assert_close(got, expected.expand_as(got), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_a_call_leaves_the_module_as_it_was(shape: Shape, training: bool) -> None:
    module = with_mixed_modes(shape.make().train(training))
    before = outward_state(module)
    adapted = adapt_summarizer(module, **shape.options)
    adapted(torch.randn(T, D)).sum().backward()
    assert outward_state(module) == before
    assert adapted.training is training
    assert adapted.get_submodule("module") is module


def test_an_exception_in_the_module_leaves_it_as_it_was(shape: Shape) -> None:
    module = with_mixed_modes(shape.make())
    before = outward_state(module)
    adapted = adapt_summarizer(module, **shape.options)
    with pytest.raises(RuntimeError):
        adapted(torch.randn(T, D + 1))
    assert outward_state(module) == before
    assert adapted(torch.randn(T, D)).shape == (T,)


def test_hooks_of_the_user_stay_and_keep_their_order() -> None:
    module = PGLSUMShaped()
    module.linear_2.register_forward_hook(lambda _layer, _args, value: value + 1)
    frames = torch.randn(T, D)
    before = hook_counts(module)
    logits = adapt_summarizer(module, logits_from="linear_2")(frames)
    torch.testing.assert_close(logits, module.true_logits(frames))
    assert hook_counts(module) == before


def test_a_training_step_moves_the_users_own_module(shape: Shape) -> None:
    module = shape.make()
    before = copy.deepcopy(module.state_dict())
    adapted = adapt_summarizer(module, **shape.options)
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
    adapted(torch.randn(T, D)).square().sum().backward()
    optimizer.step()
    assert module.state_dict().keys() == before.keys()
    assert any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())
    shape.make().load_state_dict(module.state_dict())


def test_copies_and_pickles_give_the_same_logits(shape: Shape) -> None:
    adapted = adapt_summarizer(shape.make(), **shape.options)
    frames = torch.randn(T, D)
    expected = adapted(frames)
    for other in (copy.deepcopy(adapted), pickle.load(io.BytesIO(pickle.dumps(adapted)))):
        torch.testing.assert_close(other(frames), expected, atol=0, rtol=0)
        assert other.module is not adapted.get_submodule("module")


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputation_gives_the_same_gradients(shape: Shape, use_reentrant: bool) -> None:
    module = shape.make()
    adapted = adapt_summarizer(module, **shape.options)
    frames = torch.randn(T, D, requires_grad=True)
    (expected,) = torch.autograd.grad(adapted(frames).square().sum(), frames)
    logits: Tensor = checkpoint(adapted, frames, use_reentrant=use_reentrant)
    torch.autograd.backward(logits.square().sum())
    torch.testing.assert_close(frames.grad, expected)
    assert set(hook_counts(module).values()) == {0}


def test_an_in_place_sigmoid_does_not_reach_the_logits() -> None:
    class InPlace(PGLSUMShaped):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
            return self.linear_2(self.hidden(frames)).sigmoid_(), frames

    module = InPlace()
    frames = torch.randn(T, D)
    torch.testing.assert_close(adapt_summarizer(module, logits_from="linear_2")(frames), module.true_logits(frames))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=9))
def test_inversion_of_a_sigmoid_is_a_round_trip(values: list[float]) -> None:
    logits = torch.tensor(values)
    adapted = adapt_summarizer(nn.Sigmoid(), probabilities=True)
    torch.testing.assert_close(adapted(logits), logits, atol=2e-3, rtol=1e-3)


def test_inversion_is_finite_at_0_and_1_and_in_float32() -> None:
    adapted = adapt_summarizer(nn.Identity(), probabilities=True)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = adapted(torch.tensor([0.0, 0.5, 1.0], dtype=dtype))
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
        assert logits.argsort().tolist() == [0, 1, 2]
    assert adapted(torch.tensor([0.25], dtype=torch.float64)).dtype == torch.float64


def test_inversion_is_in_float32_under_autocast() -> None:
    module = nn.Sequential(nn.Linear(D, 1), nn.Sigmoid())
    adapted = adapt_summarizer(module, probabilities=True)
    frames = torch.randn(T, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = adapted(frames)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, module[0](frames).squeeze(-1), atol=0.1, rtol=0.1)


def test_inversion_refuses_what_is_not_a_probability() -> None:
    adapted = adapt_summarizer(nn.Identity(), probabilities=True)
    with pytest.raises(ValueError, match=r"Identity gave values from -2 to 3, outside \[0, 1\]"):
        adapted(torch.tensor([-2.0, 0.5, 3.0]))
    assert adapted(torch.tensor([1 + 1e-7, -1e-8])).isfinite().all()


@pytest.mark.parametrize("name", ["body", "norm"])
def test_hidden_from_makes_its_own_head(name: str) -> None:
    module = SSPVSShaped()
    before = outward_state(module)
    adapted = attach_head(module, inputs=one_dict, hidden_from=name)
    head = adapted.get_submodule("head")
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (H, 1)
    for length in (1, T):
        frames = torch.randn(length, D)
        hidden = module.body(frames)
        if name == "norm":
            hidden = module.norm(hidden + module.positions)
        torch.testing.assert_close(adapted(frames), head(hidden)[:, 0])
    adapted(torch.randn(T, D)).sum().backward()
    assert module.body.weight.grad is not None
    assert head.weight.grad is not None
    assert outward_state(module) == before


def test_hidden_from_takes_a_given_head_and_output() -> None:
    module = DSNShaped()
    adapted = attach_head(
        module,
        inputs=batch_of_one,
        hidden_from="rnn",
        head=nn.Linear(2 * H, 3),
        output=lambda value: value.amax(dim=-1),
    )
    frames = torch.randn(T, D)
    states = module.rnn(module.hidden(frames[None]))[0][0]
    torch.testing.assert_close(adapted(frames), adapted.get_submodule("head")(states).amax(dim=-1))


def test_a_made_head_has_the_dtype_of_the_module() -> None:
    adapted = attach_head(PGLSUMShaped().double(), hidden_from="norm")
    assert adapted(torch.randn(T, D, dtype=torch.float64)).dtype == torch.float64


def test_hidden_from_needs_a_head_where_the_width_is_unknown() -> None:
    with pytest.raises(ValueError, match=r"hidden_from='drop' is a Dropout.*give head=nn\.Linear\(h, 1\)"):
        attach_head(PGLSUMShaped(), hidden_from="drop")


def test_hidden_from_refuses_other_shapes() -> None:
    frames = torch.randn(T, D)
    pooled = attach_head(nn.Sequential(Mean(), nn.Linear(D, H)), "1")
    with pytest.raises(ValueError, match=r"submodule '1' of Sequential gave a tensor of shape \(4,\).*\(L, h\)"):
        pooled(frames)
    shorter = attach_head(nn.Sequential(Halve(), nn.Linear(D, H)), "1")
    with pytest.raises(ValueError, match=r"got hidden values \(4, 4\); expected \(T, h\), T = 7"):
        shorter(frames)
    wide = attach_head(PGLSUMShaped(), hidden_from="drop", head=nn.Linear(H, 2))
    with pytest.raises(ValueError, match=r"the head on submodule 'drop' of PGLSUMShaped gave .*\(7, 2\)"):
        wide(frames)


@pytest.mark.parametrize("make", [adapt_summarizer, partial(attach_head, hidden_from="norm")])
def test_excluded_options_are_both_named(make: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="inputs= and call= exclude each other"):
        make(PGLSUMShaped(), inputs=batch_of_one, call=lambda module, frames: module(frames))


def test_an_unknown_submodule_lists_the_closest_first() -> None:
    with pytest.raises(ValueError, match=r"logits_from='linear2': PGLSUMShaped .* It has: linear_2, "):
        adapt_summarizer(PGLSUMShaped(), logits_from="linear2")
    with pytest.raises(ValueError, match=r"hidden_from='normal': .* It has: norm, "):
        adapt_encoder(PGLSUMShaped(), hidden_from="normal")
    with pytest.raises(ValueError, match=r"hidden_from='': "):
        attach_head(PGLSUMShaped(), hidden_from="")
    with pytest.raises(ValueError, match="It has: none"):
        adapt_summarizer(nn.Identity(), logits_from="fc")
    with pytest.raises(ValueError, match=r"0, 1, .*, \.\.\. \(30 in all\)"):
        adapt_summarizer(nn.Sequential(*[nn.Identity() for _ in range(30)]), logits_from="fc")


def test_what_is_not_a_module_is_shown_a_template() -> None:
    with pytest.raises(TypeError, match=r"got function\. .*\n\nclass MySummarizer"):
        adapt_summarizer(batch_of_one)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got the class PGLSUMShaped"):
        adapt_encoder(PGLSUMShaped, hidden_from="norm")  # type: ignore[arg-type]
    names: dict[str, Any] = {"torch": torch}
    exec(SUMMARIZER_TEMPLATE, names)
    frames = torch.randn(T, D)
    check_logits(adapt_summarizer(names["MySummarizer"](feature_dim=D))(frames), frames, "template")


def test_options_of_the_wrong_type() -> None:
    with pytest.raises(TypeError, match="inputs= must be callable, got str"):
        adapt_summarizer(nn.Identity(), inputs="frames")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="output= must be callable, got int"):
        adapt_summarizer(nn.Identity(), output=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"head must be a torch\.nn\.Module.* got function"):
        attach_head(PGLSUMShaped(), hidden_from="norm", head=first)  # type: ignore[arg-type]
    listed = adapt_summarizer(nn.Identity(), inputs=listing)
    with pytest.raises(TypeError, match=r"tuple \(\*args\) or a dict \(\*\*kwargs\), got list"):
        listed(torch.randn(T, D))


def test_a_tuple_or_dict_needs_output() -> None:
    frames = torch.randn(T, D)
    with pytest.raises(ValueError, match="PGLSUMShaped gave a tuple of") as caught:
        adapt_summarizer(PGLSUMShaped())(frames)
    said = str(caught.value)
    assert "[0] Tensor (1, 7) which fits (T,), [1] Tensor (7, 7); expected logits (T,) with T = 7" in said
    assert "output=" in said
    assert "logits_from=" in said
    with pytest.raises(ValueError, match=r"a dict of \['frame_score'\] Tensor \(1, 7, 1\) which fits \(T,\)"):
        adapt_summarizer(SSPVSShaped(), inputs=one_dict)(frames)
    with pytest.raises(ValueError, match=r"submodule 'rnn' of DSNShaped gave a tuple of .*, \[1\] tuple"):
        adapt_summarizer(DSNShaped(), inputs=batch_of_one, logits_from="rnn")(frames)


def test_a_wrong_shape_or_type_is_refused() -> None:
    frames = torch.randn(T, D)
    with pytest.raises(ValueError, match=r"submodule 'fc_cls' .* shape \(1, 7, 3\).* \(T,\) with T = 7"):
        adapt_summarizer(DSNetAnchorBasedShaped(), inputs=batch_of_one, logits_from="fc_cls")(frames)
    with pytest.raises(ValueError, match=r"output= on PGLSUMShaped gave .* shape \(7, 7\)"):
        adapt_summarizer(PGLSUMShaped(), output=lambda value: value[1])(frames)
    with pytest.raises(ValueError, match="a value of type NoneType"):
        adapt_summarizer(nn.Identity(), output=lambda _value: None)(frames)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"shape \(\)"):
        adapt_summarizer(nn.Identity(), output=torch.sum)(frames)
    with pytest.raises(TypeError, match="int64; expected real numbers"):
        adapt_summarizer(nn.Identity(), output=lambda value: value[:, 0].long())(frames)


def test_a_submodule_that_does_not_run_once_is_refused_and_unhooked() -> None:
    twice = Calls(2)
    with pytest.raises(RuntimeError, match="submodule 'fc' of Calls was called 2 times in one forward"):
        adapt_summarizer(twice, logits_from="fc")(torch.randn(T, D))
    never = Calls(0)
    with pytest.raises(RuntimeError, match="submodule 'fc' of Calls was never called in one forward"):
        adapt_encoder(never, hidden_from="fc")(torch.randn(T, D))
    assert set(hook_counts(twice).values()) | set(hook_counts(never).values()) == {0}


ENCODERS: list[tuple[Callable[[], ShapedSummarizer], Any]] = [
    (PGLSUMShaped, None),
    (CSTAShaped, three_channels),
    (SSPVSShaped, one_dict),
]


@pytest.mark.parametrize(("make", "inputs"), ENCODERS)
@pytest.mark.parametrize("length", [1, T])
def test_pools(make: Callable[[], ShapedSummarizer], inputs: Any, length: int) -> None:
    module = with_mixed_modes(make())
    before = outward_state(module)
    frames = torch.randn(length, D)
    hidden = module.norm(module.body(frames) + module.positions)
    expected: list[tuple[Any, Tensor]] = [
        ("mean", hidden.mean(dim=0)),
        ("cls", hidden[0]),
        (largest, hidden.amax(dim=0)),
        (Mean(), hidden.mean(dim=0)),
    ]
    for pool, embedding in expected:
        encoder = adapt_encoder(module, hidden_from="norm", pool=pool, inputs=inputs)
        torch.testing.assert_close(encoder(frames), embedding)
        torch.testing.assert_close(copy.deepcopy(encoder)(frames), embedding)
        encoder(frames).sum().backward()
    torch.testing.assert_close(adapt_encoder(module, hidden_from="norm", inputs=inputs)(frames), hidden.mean(dim=0))
    assert module.body.weight.grad is not None
    with pytest.raises(RuntimeError):
        encoder(torch.randn(length, D + 1))
    assert outward_state(module) == before


def test_an_encoder_of_several_streams_says_that_its_layer_runs_thrice() -> None:
    encoder = adapt_encoder(MSVAShaped(), hidden_from="norm", inputs=three_streams)
    with pytest.raises(RuntimeError, match="called 3 times"):
        encoder(torch.randn(T, D))
    second = adapt_encoder(MSVAShaped(), hidden_from="streams.1", inputs=three_streams)
    assert second(torch.randn(T, D)).shape == (H,)


def test_a_wrong_pool_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool must be 'mean', 'cls' or a callable.*'max'"):
        adapt_encoder(PGLSUMShaped(), hidden_from="norm", pool="max")  # type: ignore[arg-type]
    unpooled = adapt_encoder(PGLSUMShaped(), hidden_from="norm", pool=torch.tanh)
    with pytest.raises(ValueError, match=r"pool= on submodule 'norm' .* shape \(7, 4\).* \(e,\)"):
        unpooled(torch.randn(T, D))


def test_adapters_are_ordinary_modules() -> None:
    module = PGLSUMShaped()
    adapted = adapt_summarizer(module, logits_from="linear_2")
    assert isinstance(adapted, AdaptedSummarizer)
    assert adapted.state_dict().keys() == {f"module.{name}" for name in module.state_dict()}
    adapted.eval()
    assert not module.training


def test_the_frames_stay_as_they_are_where_the_module_writes_into_its_input() -> None:
    frames = torch.randn(T, D)
    before = frames.clone()
    adapt_summarizer(InPlaceShaped(), output=first, probabilities=True)(frames)
    adapt_encoder(InPlaceShaped(), hidden_from="norm")(frames)
    attach_head(InPlaceShaped(), hidden_from="norm")(frames)
    assert torch.equal(frames, before)


def test_call_runs_a_dictionary_of_parts_and_leaves_its_keys() -> None:
    parts = nn.ModuleDict({"embed": nn.Linear(D, H), "score": nn.Linear(H, 1)})
    keys = list(parts.state_dict())

    def call(modules: nn.ModuleDict, frames: Tensor) -> Tensor:
        return modules["score"](modules["embed"](frames).tanh())  # type: ignore[no-any-return]

    frames = torch.randn(T, D)
    expected = call(parts, frames)[:, 0]
    torch.testing.assert_close(adapt_summarizer(parts, call=call)(frames), expected)
    torch.testing.assert_close(
        adapt_encoder(parts, call=call, hidden_from="embed")(frames), parts["embed"](frames).mean(dim=0)
    )
    assert list(own_state_dict(adapt_summarizer(parts, call=call))) == keys
    with pytest.raises(ValueError, match="inputs= and call= exclude each other"):
        adapt_summarizer(parts, inputs=batch_of_one, call=call)
    with pytest.raises(TypeError, match="call= must be callable, got str"):
        adapt_encoder(parts, call="embed", hidden_from="embed")  # type: ignore[arg-type]


class Weighted(nn.Module):
    def forward(self, value: Tensor, frames: Tensor) -> Tensor:
        return value * frames.sum(dim=1)


def test_output_is_given_the_frames_where_it_asks_for_two_values() -> None:
    frames = torch.randn(T, D)
    module = nn.Sequential(nn.Linear(D, 1), nn.Flatten(0))
    value = module(frames)
    expected = value * frames.sum(dim=1)
    two: Callable[..., Tensor] = lambda value, frames: value * frames.sum(dim=1)  # noqa: E731
    one: Callable[..., Tensor] = lambda value, factor=2.0: value * factor  # noqa: E731
    torch.testing.assert_close(adapt_summarizer(module, output=two)(frames), expected)
    torch.testing.assert_close(adapt_summarizer(module, output=Weighted())(frames), expected)
    torch.testing.assert_close(adapt_summarizer(module, output=one)(frames), 2 * value)
    torch.testing.assert_close(adapt_summarizer(module, output=torch.tanh)(frames), value.tanh())


def test_a_part_of_a_layers_output_is_taken_by_index_and_key() -> None:
    module = AttentionShaped()
    frames = torch.randn(T, D)
    context = module.attention(module.hidden(frames))[0]
    head = nn.Linear(H, 1)
    adapted = attach_head(module, hidden_from="attention[0]", head=head)
    torch.testing.assert_close(adapted(frames), head(context)[:, 0])
    torch.testing.assert_close(adapt_encoder(module, hidden_from="attention[-2]")(frames), context.mean(dim=0))
    with pytest.raises(ValueError, match=r"hidden_from='attention\[0\]'.*give head="):
        attach_head(module, hidden_from="attention[0]")
    with pytest.raises(ValueError, match=r"gave a tuple of .*name the part, such as 'attention\[0\]'"):
        adapt_encoder(module, hidden_from="attention")(frames)
    for text in ("attention[2]", "attention[1]['logits']", "attention[0][0]", "body[0]"):
        with pytest.raises(ValueError, match=f"submodule {re.escape(repr(text))} of .* which has no such part"):
            adapt_encoder(module, hidden_from=text)(frames)
    for text in ("attentoin[0]", "attention[0", "attention[first]", "attention[:]"):
        with pytest.raises(ValueError, match=r"no such submodule\. It has: attention, "):
            adapt_encoder(module, hidden_from=text)
    assert set(hook_counts(module).values()) == {0}


@pytest.mark.parametrize("length", [1, 3, 4, 12])
def test_hidden_layers_that_run_once_per_window_are_joined(length: int) -> None:
    module = WindowedShaped()
    frames = torch.randn(length, D)
    hidden = module.norm(module.body(frames) + module.positions)
    torch.testing.assert_close(adapt_encoder(module, hidden_from="norm")(frames), hidden.mean(dim=0))
    head = nn.Linear(H, 1)
    adapted = attach_head(module, hidden_from="norm", head=head)
    torch.testing.assert_close(adapted(frames), head(hidden)[:, 0])


def test_windows_whose_order_along_the_frames_is_unclear_are_refused() -> None:
    module = nn.ModuleDict({"scales": nn.Linear(D, 2)})

    def call(modules: nn.ModuleDict, frames: Tensor) -> list[Tensor]:
        return [modules["scales"](window) for window in torch.split(frames, 2)]  # (2, 2) each

    adapted = adapt_summarizer(module, call=call, logits_from="scales", output=largest_scale)
    with pytest.raises(RuntimeError, match=r"called 2 times .* \(\(2, 2\), \(2, 2\)\) along several axes sum to T = 4"):
        adapted(torch.randn(4, D))
    assert adapted(torch.randn(5, D)).shape == (5,)


def largest_scale(scores: Tensor) -> Tensor:
    return scores.amax(dim=-1)


def listing(frames: Tensor) -> Any:
    return [frames]


def largest(hidden: Tensor) -> Tensor:
    return hidden.amax(dim=0)


class Mean(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=0)


class Halve(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames[::2]


class Calls(nn.Module):
    """Calls its layer so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.fc = nn.Linear(D, 1)
        self.times = times

    def forward(self, frames: Tensor) -> Tensor:
        total = frames.sum()
        for _ in range(self.times):
            total = total + self.fc(frames).sum()
        return total
