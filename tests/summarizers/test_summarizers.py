from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from tests.builders import normal
from tests.summarizers.csta_reference import INCEPTIONS, ReferenceCSTA
from visp.summarizers import CSTA, CSTAEncoder, GoogleNet

MODELS = [CSTA, GoogleNet]
AnyModel = type[CSTA] | type[GoogleNet]
any_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
any_pooling = pytest.mark.parametrize("pooling", ["attention", "mean", "cls"])


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def features(length: int, feature_dim: int = 1024, seed: int = 0) -> Tensor:
    """Unit-norm features, as the field makes them."""
    return nn.functional.normalize(normal(length, feature_dim, seed=seed), dim=1)


def without_dropout(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


def make_reference(model: AnyModel, feature_dim: int = 1024) -> ReferenceCSTA:
    """A reference with running statistics, positions of its norms and a CLS that are not the initial ones."""
    torch.manual_seed(1)
    reference = ReferenceCSTA(feature_dim, value_embedding=model is CSTA)
    with torch.no_grad():
        reference.CLS.normal_(std=0.03)
        for name, tensor in [*reference.named_parameters(), *reference.named_buffers()]:
            if name.endswith((".bn.weight", ".running_var", "layernorm1.weight")):
                tensor.uniform_(0.7, 1.3)
            elif name.endswith((".bn.bias", ".running_mean", "layernorm1.bias")):
                tensor.normal_(std=0.1)
    return reference


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model.__name__)
def published(request: pytest.FixtureRequest) -> tuple[ReferenceCSTA, CSTA | GoogleNet, dict[str, Tensor]]:
    with torch.random.fork_rng():
        reference = make_reference(request.param)
        model = request.param()
    without_dropout(reference)
    without_dropout(model)
    return reference, model, {name: value.clone() for name, value in reference.state_dict().items()}


@pytest.fixture
def pair(
    published: tuple[ReferenceCSTA, CSTA | GoogleNet, dict[str, Tensor]],
) -> tuple[ReferenceCSTA, CSTA | GoogleNet]:
    """A published model and ours with its weights, both without dropout."""
    reference, model, state = published
    reference.load_state_dict(state)
    model.load_published(state)
    return reference, model


# --- the reference is the published model -------------------------------------------------------------------


def published_shapes(value_embedding: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "CLS": (1, 3, 1, 1024),
        "googlenet.fc.weight": (1000, 1024),
        "googlenet.fc.bias": (1000,),
        "Positional_encoding_op.pe": (5000, 1024),
        "linear1.0.weight": (1024, 1024),
        "linear1.0.bias": (1024,),
        "linear1.3.weight": (1024,),
        "linear1.3.bias": (1024,),
        "linear2.0.weight": (1, 1024),
        "linear2.0.bias": (1,),
        "key_embedding.weight": (1024, 1024),
        "key_embedding.bias": (1024,),
    }
    if value_embedding:
        shapes |= {"value_embedding.weight": (1024, 1024), "value_embedding.bias": (1024,)}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
        shapes[f"googlenet.{name}.conv.weight"] = (outputs, inputs, kernel, kernel)
        norm(f"googlenet.{name}.bn", outputs)

    norm("layernorm1", 1)
    conv("conv1", 3, 64, 7)
    conv("conv2", 64, 64, 1)
    conv("conv3", 64, 192, 3)
    for name, (inputs, ones, three_in, three, five_in, five, pool) in INCEPTIONS.items():
        conv(f"inception{name}.branch1", inputs, ones, 1)
        conv(f"inception{name}.branch2.0", inputs, three_in, 1)
        conv(f"inception{name}.branch2.1", three_in, three, 3)
        conv(f"inception{name}.branch3.0", inputs, five_in, 1)
        conv(f"inception{name}.branch3.1", five_in, five, 3)
        conv(f"inception{name}.branch4.1", inputs, pool, 1)
    return shapes


@pytest.mark.parametrize(("value_embedding", "count"), [(True, 361), (False, 359)], ids=["CSTA", "GoogleNet"])
def test_the_reference_has_the_published_names_and_shapes(value_embedding: bool, count: int) -> None:
    state = ReferenceCSTA(value_embedding=value_embedding).state_dict()

    assert {name: tuple(value.shape) for name, value in state.items()} == published_shapes(value_embedding)
    assert len(state) == count


@any_model
def test_state_dict_is_the_published_one_without_what_is_never_used(model: AnyModel) -> None:
    shapes = {name: tuple(value.shape) for name, value in model().state_dict().items()}
    unused = {"googlenet.fc.weight", "googlenet.fc.bias", "Positional_encoding_op.pe"}

    assert shapes == {n: s for n, s in published_shapes(model is CSTA).items() if n not in unused}


def test_csta_has_the_published_number_of_parameters_but_for_the_unused_classifier() -> None:
    published = sum(parameter.numel() for parameter in ReferenceCSTA().parameters())

    assert published == pytest.approx(9.8e6, rel=0.01)
    assert sum(parameter.numel() for parameter in CSTA().parameters()) == published - 1024 * 1000 - 1000


# --- parity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [14, 15, 60, 300])
def test_logits_equal_the_published_ones_in_evaluation_mode(
    pair: tuple[ReferenceCSTA, CSTA | GoogleNet], length: int
) -> None:
    reference, model = pair[0].eval(), pair[1].eval()
    with torch.no_grad():
        expected, actual = reference.logits(features(length)), model(features(length))

    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("length", [14, 15, 60, 300])
def test_logits_and_running_statistics_equal_the_published_ones_in_training_mode(
    pair: tuple[ReferenceCSTA, CSTA | GoogleNet], length: int
) -> None:
    reference, model = copy.deepcopy(pair[0]).double().train(), copy.deepcopy(pair[1]).double().train()
    frames = features(length).double()
    with torch.no_grad():
        expected, actual = reference.logits(frames), model(frames)
    statistics = {n: b for n, b in reference.named_buffers() if n != "Positional_encoding_op.pe"}

    torch.testing.assert_close(actual, expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(dict(model.named_buffers()), statistics, rtol=1e-5, atol=1e-6)


@any_model
def test_gradients_equal_the_published_ones(model: AnyModel) -> None:
    reference = without_dropout(make_reference(model).double())
    ours = without_dropout(model().double())
    assert isinstance(reference, ReferenceCSTA)
    assert isinstance(ours, CSTA | GoogleNet)
    ours.load_published(reference.state_dict())
    frames, weights = features(60).double(), normal(60, dtype=torch.float64)
    torch.autograd.backward((reference.logits(frames) * weights).sum())
    torch.autograd.backward((ours(frames) * weights).sum())
    published = dict(reference.named_parameters())

    for name, parameter in ours.named_parameters():
        expected = published[name].grad
        assert expected is not None
        tolerance = 1e-5 * expected.abs().max().item() + 1e-12  # the published position table is in float32
        torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("training", [False, True])
def test_the_cls_pooling_is_row_0_of_the_published_hidden_state(
    training: bool,
) -> None:
    reference, encoder = without_dropout(make_reference(CSTA)), without_dropout(CSTAEncoder(pooling="cls"))
    assert isinstance(reference, ReferenceCSTA)
    assert isinstance(encoder, CSTAEncoder)
    encoder.load_published(reference.state_dict())
    reference.train(training)
    encoder.train(training)
    with torch.no_grad():
        expected, actual = reference.hidden(features(40))[0], encoder(features(40))

    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


def test_scores_are_the_published_output(pair: tuple[ReferenceCSTA, CSTA | GoogleNet]) -> None:
    reference, model = pair[0].eval(), pair[1].eval()
    with torch.no_grad():
        torch.testing.assert_close(model.scores(features(40)), reference(features(40)), rtol=0, atol=1e-4)


def test_logits_equal_the_published_ones_at_another_feature_dimension() -> None:
    reference = make_reference(CSTA, 768).eval()
    model = CSTA(feature_dim=768).eval()
    model.load_published(reference.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(features(40, 768)), reference.logits(features(40, 768)), rtol=0, atol=1e-4)


# --- loading ------------------------------------------------------------------------------------------------


def test_loading_gives_the_published_weights() -> None:
    state = ReferenceCSTA().state_dict()
    model = CSTA()
    model.load_published(state)

    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("absent", ["Positional_encoding_op.", "googlenet.fc."])
def test_what_is_never_used_may_be_absent(absent: str) -> None:
    state = {n: v for n, v in ReferenceCSTA().state_dict().items() if not n.startswith(absent)}
    model = CSTA()
    model.load_published(state)

    assert torch.equal(model.key_embedding.weight, state["key_embedding.weight"])


def test_a_checkpoint_is_loaded_from_its_path(tmp_path: Path) -> None:
    state = ReferenceCSTA().state_dict()
    torch.save(state, tmp_path / "published.pt")
    model = CSTA()
    model.load_published(str(tmp_path / "published.pt"))

    assert torch.equal(model.key_embedding.weight, state["key_embedding.weight"])


def test_an_encoder_loads_a_checkpoint_without_its_classifier() -> None:
    state = ReferenceCSTA().state_dict()
    model = CSTAEncoder()
    model.load_published(state)

    assert torch.equal(model.key_embedding.weight, state["key_embedding.weight"])


def test_loading_does_not_change_the_given_state() -> None:
    state = ReferenceCSTA().state_dict()
    names = list(state)
    CSTA().load_published(state)

    assert list(state) == names


def test_another_position_table_is_refused() -> None:
    state = ReferenceCSTA().state_dict()
    state["Positional_encoding_op.pe"] = state["Positional_encoding_op.pe"].flip(0)
    with pytest.raises(ValueError, match="position table is not the sinusoids"):
        CSTA().load_published(state)


def wrong_state() -> dict[str, Tensor]:
    state: dict[str, Tensor] = CSTA(width=64).state_dict()
    del state["CLS"], state["linear2.0.bias"]
    state["extra.weight"] = torch.ones(1)
    state["googlenet.extra"] = torch.ones(1)
    state["key_embedding.bias"] = torch.ones(7)
    return state


@pytest.mark.parametrize(
    "line",
    [
        "missing: CLS",
        "missing: linear2.0.bias",
        "unexpected: extra.weight",
        "unexpected: googlenet.extra",
        "shape of key_embedding.bias: expected (64,), got (7,)",
    ],
)
def test_every_problem_of_a_state_is_listed(line: str) -> None:
    with pytest.raises(ValueError, match="do not fit CSTA") as caught:
        CSTA(width=64).load_published(wrong_state())

    assert line in [listed.strip() for listed in str(caught.value).splitlines()]


def test_a_refused_state_leaves_the_weights_alone() -> None:
    model = CSTA(width=64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit"):
        model.load_published(wrong_state())

    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_a_csta_checkpoint_does_not_fit_the_googlenet_variant() -> None:
    with pytest.raises(ValueError, match=r"unexpected: value_embedding\.weight"):
        GoogleNet(width=64).load_published(CSTA(width=64).state_dict())


@pytest.mark.parametrize("method", ["load_published", "load_imagenet"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(method: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.pt"
    path.write_text("no weights in here")
    with pytest.raises(ValueError, match=r"notes\.pt is not a file of weights"):
        getattr(CSTA(width=64), method)(path)


@pytest.mark.parametrize("method", ["load_published", "load_imagenet"])
def test_a_file_that_holds_something_else_is_refused(method: str, tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, expected a state dict"):
        getattr(CSTA(width=64), method)(tmp_path / "list.pt")


@pytest.mark.parametrize("method", ["load_published", "load_imagenet"])
def test_a_missing_file_is_named(method: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        getattr(CSTA(width=64), method)(tmp_path / "absent.pt")


def torchvision_state() -> dict[str, Tensor]:
    """Random weights under the names of torchvision's googlenet, which has two auxiliary classifiers."""
    state: dict[str, Tensor] = {n: v + 1 for n, v in ReferenceCSTA().googlenet.state_dict().items()}
    for aux in ("aux1", "aux2"):
        state |= {f"{aux}.conv.conv.weight": torch.ones(128, 512, 1, 1), f"{aux}.fc2.bias": torch.ones(1000)}
    return state


@any_model
def test_imagenet_weights_load_without_their_classifiers(model: AnyModel) -> None:
    state = torchvision_state()
    loaded = model()
    loaded.load_imagenet(state)

    assert all(torch.equal(value, state[name]) for name, value in loaded.googlenet.state_dict().items())


def test_imagenet_weights_load_from_a_path(tmp_path: Path) -> None:
    state = torchvision_state()
    torch.save(state, tmp_path / "googlenet.pth")
    model = CSTA()
    model.load_imagenet(tmp_path / "googlenet.pth")

    assert torch.equal(model.googlenet.conv1.conv.weight, state["conv1.conv.weight"])


def test_imagenet_weights_with_a_name_missing_are_refused() -> None:
    state = torchvision_state()
    del state["conv1.conv.weight"]
    with pytest.raises(ValueError, match=r"missing: conv1\.conv\.weight"):
        CSTA().load_imagenet(state)


def test_imagenet_weights_do_not_fit_a_narrow_model() -> None:
    with pytest.raises(ValueError, match=r"shape of conv1\.conv\.weight: expected \(16,"):
        CSTA(width=256).load_imagenet(torchvision_state())


def test_imagenet_weights_are_downloaded_with_their_hash_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        calls.append((url.rpartition("/")[2], options["check_hash"]))
        return torchvision_state()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    CSTA().load_imagenet()

    assert calls == [("googlenet-1378be20.pth", True)]


# --- any video ----------------------------------------------------------------------------------------------


@any_model
@pytest.mark.parametrize("length", range(1, 17))
def test_a_short_video_has_one_finite_logit_a_frame(model: AnyModel, length: int) -> None:
    logits = model(feature_dim=8, width=64)(features(length, 8))

    assert logits.shape == (length,)
    assert logits.isfinite().all()


@any_pooling
def test_a_video_of_one_frame_has_a_finite_embedding(pooling: Any) -> None:
    embedding = CSTAEncoder(feature_dim=8, width=64, pooling=pooling)(features(1, 8))

    assert embedding.shape == (64,)
    assert embedding.isfinite().all()


def test_a_video_longer_than_the_published_table_is_scored() -> None:
    with torch.no_grad():
        logits = CSTA(feature_dim=8, width=64).eval()(features(5200, 8))

    assert logits.shape == (5200,)
    assert logits.isfinite().all()


def test_a_short_video_is_scored_as_the_one_with_every_frame_repeated() -> None:
    model = without_dropout(CSTA(feature_dim=8, width=64)).eval()
    frames = features(5, 8)

    repeated = model(frames.repeat_interleave(3, dim=0))

    torch.testing.assert_close(model(frames), repeated.reshape(5, 3).mean(dim=1))


@any_model
@pytest.mark.parametrize("shape", [(20, 9), (20,), (1, 20, 8), (0, 8)], ids=str)
def test_frames_of_another_shape_are_refused_with_both_shapes(model: AnyModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected frames \(T, 8\) with T >= 1, got \(") as caught:
        model(feature_dim=8, width=64)(torch.ones(shape))

    assert str(shape) in str(caught.value)


@any_model
def test_scores_are_in_range_and_rank_as_logits(model: AnyModel) -> None:
    scorer = model(feature_dim=8, width=64).eval()
    scores, logits = scorer.scores(features(30, 8)), scorer(features(30, 8))

    assert ((scores > 0) & (scores < 1)).all()
    assert torch.equal(scores.argsort(), logits.argsort())


@pytest.mark.parametrize("length", [30, 120])
@any_model
def test_bf16_autocast_keeps_the_ranking(model: AnyModel, length: int) -> None:
    """Kendall's tau with the float32 scores is above 0.99; a float32 rounding alone gives 1."""
    scorer = model(width=256).eval()
    frames = features(length)
    with torch.no_grad():
        full = scorer(frames)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = scorer(frames)

    assert half.dtype == torch.float32
    assert stats.kendalltau(full.numpy(), half.numpy()).statistic > 0.99


# --- roles and options --------------------------------------------------------------------------------------


def without_gradient(model: nn.Module, output: Tensor) -> list[str]:
    torch.autograd.backward((output * normal(*output.shape, seed=9)).sum())
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


@any_model
def test_every_parameter_learns_as_summarizer(model: AnyModel) -> None:
    summarizer = model(feature_dim=8, width=64)

    assert without_gradient(summarizer, summarizer(features(40, 8))) == []
    flat = {
        name for name, parameter in summarizer.named_parameters() if parameter.grad is None or not parameter.grad.any()
    }
    narrow = {name for name in flat if ".branch" in name}  # a few channels: all may be negative, before a ReLU
    assert flat - narrow <= {"layernorm1.bias"}  # softmax does not see a shift


@any_pooling
def test_every_parameter_of_an_encoder_receives_gradient(pooling: Any) -> None:
    encoder = CSTAEncoder(feature_dim=8, width=64, pooling=pooling)

    assert without_gradient(encoder, encoder(features(40, 8))) == []


def test_an_encoder_has_all_of_csta_but_its_classifier() -> None:
    full, encoder = CSTA(feature_dim=8, width=64).state_dict(), CSTAEncoder(feature_dim=8, width=64).state_dict()

    assert [name for name in full if not name.startswith(("linear1.", "linear2."))] == list(encoder)


@any_pooling
@pytest.mark.parametrize("training", [False, True])
def test_a_folded_encoder_takes_the_features_as_they_are(pooling: Any, training: bool) -> None:
    encoder = without_dropout(CSTAEncoder(feature_dim=8, width=64, pooling=pooling)).double().train(training)
    assert isinstance(encoder, CSTAEncoder)
    frames, mean, scale = features(30, 8).double(), normal(8, seed=1).double(), torch.tensor(0.2).double()
    expected = encoder((frames - mean) / scale)
    encoder.fold_inputs(mean, scale)

    torch.testing.assert_close(encoder(frames), expected)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_inner_products_of_pooled_embeddings_are_at_most_5(pooling: Any) -> None:
    encoder = CSTAEncoder(feature_dim=8, width=64, pooling=pooling)

    assert encoder(features(20, 8)).square().sum().item() == pytest.approx(5, rel=1e-4)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_a_video_of_zeros_has_a_finite_embedding_and_gradient(pooling: Any) -> None:
    encoder = CSTAEncoder(feature_dim=8, width=64, pooling=pooling)
    frames = torch.zeros(20, 8, requires_grad=True)
    embedding = encoder(frames)
    torch.autograd.backward((embedding * normal(64)).sum())

    assert embedding.isfinite().all()
    assert frames.grad is not None
    assert frames.grad.isfinite().all()


def test_the_default_pooling_is_attention() -> None:
    assert CSTAEncoder(feature_dim=8, width=64).pooling == "attention"


def test_an_unknown_pooling_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="pooling must be one of 'attention', 'mean', 'cls', got 'max'"):
        CSTAEncoder(width=64, pooling="max")  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [0, 100, -64])
def test_a_width_that_is_no_multiple_of_64_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="width must be a positive multiple of 64"):
        CSTA(width=width)


def test_a_feature_dimension_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="feature_dim must be at least 1"):
        CSTA(feature_dim=0, width=64)


@any_model
def test_every_dropout_is_a_module(model: AnyModel) -> None:
    scorer = without_dropout(model(feature_dim=8, width=64)).train()
    with torch.no_grad():
        assert torch.equal(scorer(features(20, 8)), scorer(features(20, 8)))


@any_model
def test_the_classifier_starts_with_biases_of_a_tenth(model: AnyModel) -> None:
    state = model(feature_dim=8, width=64).state_dict()

    assert (state["linear1.0.bias"] == 0.1).all()
    assert (state["linear2.0.bias"] == 0.1).all()


def test_the_classifier_starts_xavier_uniform_with_gain_root_2() -> None:
    weight = CSTA(feature_dim=8, width=256).state_dict()["linear1.0.weight"]
    limit = (2 * 6 / (256 + 256)) ** 0.5

    assert 0.99 * limit < weight.abs().max() <= limit
