"""The options of the training runs, each written once: functions, their help and the command line are made of these.

A field says what it is in its metadata (:func:`option`). :func:`takes` gives a function the fields as keyword
arguments, for callers, type checkers and ``help()`` alike; ``visp.cli.options`` makes flags of them.
"""

# ruff: noqa: RUF009, `option` makes a field

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    get_args,
    get_type_hints,
    overload,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Precision = Literal["float32", "bf16", "fp16"]
Schedule = Literal["constant", "cosine"]
Select = Literal["last", "validation", "test"]
Metric = Literal["tau_and_rho", "tau", "rho", "f_score"]
FinetuneLoss = Literal["mse", "ranking"]


def option(default: Any, text: str, *, flag: str | None = "", least: float | None = None) -> Any:
    """Return a dataclass field that says what it is.

    Args:
        default: Its value where none is given.
        text: One or two sentences; where the default is None, also what happens then.
        flag: On the command line; ``""`` makes one of the name, None makes none.
        least: Smallest value.
    """
    return field(default=default, metadata={"help": text, "flag": flag, "least": least})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every training run can be told.

    Raises:
        ValueError: If an option is out of its range.
    """

    epochs: int = option(100, "passes over the videos", least=1)
    batch_size: int = option(1, "largest number of videos per step", least=1)
    lr: float = option(1e-3, "learning rate of Adam", least=0)
    weight_decay: float = option(0.0, "weight decay of Adam", least=0)
    clip_grad_norm: float | None = option(None, "largest norm of the gradient; None does not clip")
    warmup_steps: int = option(0, "steps over which the learning rate rises linearly to lr", least=0)
    schedule: Schedule = option(
        "constant", "what the learning rate does after the warm-up: stay, or fall to 0 over the run as a cosine"
    )
    ema_decay: float | None = option(
        None,
        "decay, in (0, 1), of an average of the weights over the steps (at step s at most (1 + s) / (10 + s)), with "
        "which the run then ends; the run ends with the last weights if not given",
    )
    seed: int = option(0, "seed of the order of the videos and of dropout", least=0)
    precision: Precision = option("float32", "autocast of the forward pass; parameters stay as they are")
    weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = option(
        None,
        "weights to start from: the folder of an earlier run, a file such as its weights.pt or, in Python, a state "
        "dict; the module's own if not given",
    )
    device: str | torch.device | None = option(
        None, "torch device to train on, such as cuda; the module is moved there, or stays where it is if not given"
    )
    out_dir: str | os.PathLike[str] | None = option(
        None, "folder of the run; nothing is written if not given", flag=None
    )
    resume: bool = option(False, "resume from the folder's checkpoint if there is one")
    checkpoint_seconds: float = option(
        60.0, "least time between two checkpoints; 0 writes one after every step", least=0
    )
    num_workers: int = option(0, "processes that read the data", flag="--workers", least=0)
    worker_timeout: float = option(
        600.0,
        "seconds to wait for a worker's batch before the run ends and names its videos; 0 waits for ever",
        least=0,
    )
    progress: bool = option(True, "show a progress bar", flag=None)
    tensorboard: bool = option(False, "write event files to the folder's tensorboard/ too")
    on_step: Callable[[int, Mapping[str, float]], object] | None = option(
        None,
        "called after every step with its number, from 1, and the metrics that metrics.jsonl gets, in the first "
        "process; an error of its own ends the run after a checkpoint; nothing is called if not given",
        flag=None,
    )
    config: Mapping[str, Any] = option(None, "more to record in config.json", flag=None)

    def __post_init__(self) -> None:
        types = get_type_hints(type(self), vars_for_hints(type(self)))
        for each in described(type(self)):
            value = getattr(self, each.name)
            choices = get_args(types[each.name]) if getattr(types[each.name], "__origin__", None) is Literal else ()
            if choices and value not in choices:
                raise ValueError(f"{each.name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
            least = each.metadata["least"]
            if least is not None and value is not None and not least <= value < math.inf:
                raise ValueError(f"expected {each.name} >= {least} and finite, got {value!r}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in (0, 1), got {self.ema_decay!r}")
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise ValueError(f"clip_grad_norm must be positive, got {self.clip_grad_norm!r}")
        if self.tensorboard and self.out_dir is None:
            raise ValueError("tensorboard=True writes into the folder of the run: give out_dir too")

    def rate(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step, from 0, of a run of that many."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.lr
        progress = (step - self.warmup_steps) / (num_steps - self.warmup_steps)
        return self.lr * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(RunOptions):
    """What :func:`visp.pretrain` can be told."""

    epochs: int = 200
    batch_size: int = option(
        32,
        "largest number N of videos per step; an epoch is cut into batches as equal as can be, so that none is left "
        "with too few videos to compare",
        least=1,
    )
    clip_grad_norm: float | None = 1.0
    warmup_steps: int = option(
        20,
        "steps over which the learning rate rises linearly to lr, so that the size constraint does not overshoot "
        "before the encoder has learnt anything",
        least=0,
    )
    bucket_by_length: bool = option(
        False, "make batches of videos of similar length, so that several processes wait less for each other"
    )
    segment_length: int | None = option(
        None,
        "train on segments of at most that many frames, as the paper does with hour-long videos; on whole videos if "
        "not given",
        least=1,
    )
    crop: float | None = option(
        None,
        "least share, in (0, 1), of a video that a step sees: a stretch of random length, drawn anew each time, so "
        "that a frame's place tells little; whole videos if not given",
    )
    standardize: bool | Literal["auto"] = option(
        "auto",
        "train on features of mean 0 and spread 1, and have the summarizer take the features as they are afterwards; "
        "'auto', or if not given: yes, unless the run starts from weights or a part of the summarizer is frozen, or "
        "this cannot be folded into the weights and the features are not nearly one vector",
    )
    recompute: bool | None = option(
        None,
        "keep the activations of one video at a time and recompute them: less memory, more time; if not given: as the "
        "objective says, and where those of built-in models would take more than half of the memory",
    )
    controls: bool = option(
        True,
        "at the end of a run of at least 20 steps, compare the scores of 16 videos with those before it and with those "
        "that the size constraint alone gives in a fifth of the steps, and warn where it seems to have taught nothing",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop is not None and not 0 < self.crop < 1:
            raise ValueError(f"crop must be in (0, 1), got {self.crop!r}")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(RunOptions):
    """What :func:`visp.finetune` can be told. The defaults are CSTA's published training."""

    weight_decay: float = 1e-7
    evaluator: Any = option(
        None, "evaluates on the dataset by one protocol (:class:`visp.Evaluator`); needed to select epochs", flag=None
    )
    select: Select = option(
        "last",
        "which epoch's weights to keep: the last, the best on the validation videos, or the best on the test videos, "
        "as many publications do; the latter has seen the test videos, and results that come from it say so",
    )
    metric: Metric = option(
        "tau_and_rho",
        "what makes an epoch the best so far; tau_and_rho: both must rise, as CSTA does. Undefined metrics count as "
        "worse than any other",
    )
    segment_length: int | None = option(
        None,
        "train on segments of at most that many frames, as the paper does with hour-long videos; on whole videos if "
        "not given",
        least=1,
        flag=None,
    )
    loss: FinetuneLoss = option(
        "mse", "mse: Eq. 11; ranking: logistic loss over the pairs of frames whose importance differs, for order alone"
    )
    pretrained_lr: float | None = option(
        None, "learning rate of Adam where the run starts from weights; lr if not given", least=0
    )
    freeze: tuple[str, ...] = option((), "names of submodules that are not trained")
    pull: float = option(
        0.0,
        "weight of the squared distance to the weights that the run starts from (L2-SP), added to the loss",
        least=0,
    )
    patience: int | None = option(
        None,
        "end after that many epochs in a row without a better one (select says on which videos); all if not given",
        least=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.select != "last" and self.evaluator is None:
            raise ValueError(f"select={self.select!r} compares epochs on annotated videos and needs an evaluator")
        if self.patience is not None and self.select == "last":
            raise ValueError("patience counts epochs without a better one: it needs select='validation' or 'test'")


def vars_for_hints(options: type[Any]) -> dict[str, Any]:
    """Return the names that the annotations of a class of options use, those imported for type checkers included."""
    return {**vars(sys.modules[options.__module__]), "Tensor": Any, "torch": _AnyTorch, **globals()}


class _AnyTorch:
    device = Any


def described(options: type[Any]) -> list[dataclasses.Field[Any]]:
    """Return the fields of a class of options; one that only changes a default keeps what its base says of it."""
    found = []
    for each in dataclasses.fields(options):
        bases = (base.__dict__.get("__dataclass_fields__", {}).get(each.name) for base in options.__mro__)
        each.metadata = next(base.metadata for base in bases if base is not None and base.metadata)
        found.append(each)
    return found


_P = ParamSpec("_P")
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_Options = TypeVar("_Options")
_Result = TypeVar("_Result")


class takes(Generic[_P, _Options]):  # noqa: N801, a decorator
    """Give a function of two or three arguments and ``options`` the fields of a class of options as keyword arguments.

    Args:
        options: The class; its instance is the function's last argument.
    """

    def __init__(self, options: Callable[_P, _Options]) -> None:
        self.options = options

    @overload
    def __call__(
        self, function: Callable[[_A, _B, _Options], _Result]
    ) -> Callable[Concatenate[_A, _B, _P], _Result]: ...

    @overload
    def __call__(
        self, function: Callable[[_A, _B, _C, _Options], _Result]
    ) -> Callable[Concatenate[_A, _B, _C, _P], _Result]: ...

    def __call__(self, function: Any) -> Any:
        """Return the function that takes keyword arguments."""
        *first, _ = inspect.signature(function).parameters.values()

        def call(*args: Any, **given: Any) -> Any:
            named = {each.name: given.pop(each.name) for each in first[len(args) :] if each.name in given}
            return function(*args, **named, options=self.options(**given))  # type: ignore[call-arg]

        update_wrapper(call, function)
        own = inspect.signature(self.options).parameters.values()
        result = inspect.signature(function).return_annotation
        call.__signature__ = inspect.Signature([*first, *own], return_annotation=result)  # type: ignore[attr-defined]
        call.__doc__ = _with_options(inspect.getdoc(function) or "", self.options)
        return call


def _with_options(text: str, options: Any) -> str:
    """Add the options to the ``Args:`` of a docstring."""
    lines = ["options: As keyword arguments:"]
    for each in described(options):
        default = "" if each.default is None else f" (default: {each.default!r})"
        said = f"{each.name}: {each.metadata['help'][0].upper()}{each.metadata['help'][1:]}{default}."
        lines += textwrap.wrap(said, 104, initial_indent="    ", subsequent_indent="        ")
    return text.replace("    options: As keyword arguments.", textwrap.indent("\n".join(lines), "    "))
