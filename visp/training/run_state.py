"""What a run's checkpoint holds, and how it comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from visp.training.options import RunOptions
from visp.utils.distributed import num_processes, rank
from visp.utils.files import one_line
from visp.weights import CheckpointError, load_into

_HALVES = (torch.float16, torch.bfloat16)


class RunState:
    """A module and everything that its training changes.

    Args:
        kind: What the run does, in the checkpoint's format and in messages.
        module: What is trained, on the device to train on; its whole state is in the checkpoint.
        options: How the weights move.
        together: Whether several processes train one module, each on its part of every batch. The loss must then be
            that of the whole batch. Without, this process trains for itself.

    Attributes:
        step: Steps done.
        skipped: How many of them fp16 skipped.
        average: Average of the parameters over the steps, or None.
        extra: What else the run keeps in its checkpoint.

    Raises:
        ValueError: If no parameter requires a gradient, or one that does is of 16 bits.
    """

    def __init__(self, kind: str, module: nn.Module, options: RunOptions, *, together: bool = False) -> None:
        self.kind = kind
        self.module = module
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError(f"there is nothing to train: no parameter of the {kind} run requires a gradient")
        small = [name for name, each in module.named_parameters() if each.requires_grad and each.dtype in _HALVES]
        if small:
            raise ValueError(
                f"{small[0]} is of 16 bits, which the steps of Adam vanish in: keep parameters in float32, and give "
                "precision='bf16' or 'fp16' for the rest"
            )
        self.parameter_list = nn.ParameterList(self.parameters)
        self.device = self.parameters[0].device
        self.rank, self.num_processes = (rank(), num_processes()) if together else (0, 1)
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.lr, weight_decay=options.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.average = None if options.ema_decay is None else _averaged(self.parameter_list, options.ema_decay)
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.extra: dict[str, Any] = {}

    @property
    def buffers(self) -> list[Tensor]:
        """The floating-point buffers, such as running statistics."""
        return [buffer for buffer in self.module.buffers() if buffer.is_floating_point() and buffer.numel()]

    def keep_average(self) -> None:
        """Give the module the average of its weights, if one is kept."""
        if self.average is not None:
            with torch.no_grad():
                for parameter, average in zip(self.parameters, self.average.parameters(), strict=True):
                    parameter.copy_(average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the module use the average of its weights in the block, if one is kept."""
        last = [parameter.detach().clone() for parameter in self.parameters] if self.average is not None else []
        self.keep_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters, last, strict=bool(last)):
                    parameter.copy_(value)

    def checkpoint(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        """Return what :meth:`restore` takes.

        Args:
            fingerprint: What must not change when the run is resumed, by name.
        """
        return {
            "format": self._format,
            "step": self.step,
            "skipped": [self.skipped, self.skipped_in_a_row],
            "fingerprint": dict(fingerprint),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "extra": self.extra,
        }

    def restore(self, state: Mapping[str, Any], fingerprint: Mapping[str, Any], source: object) -> None:
        """Take over a checkpoint.

        Args:
            state: The checkpoint.
            fingerprint: As it must have been.
            source: Where it comes from, for messages.

        Raises:
            CheckpointError: If it is none, is of a run with another fingerprint (the message lists the differences), or
                of another model.
        """
        if state.get("format") != self._format:
            raise CheckpointError(f"{source} is not a checkpoint of a {self.kind} run")
        there = state.get("fingerprint")
        if not isinstance(there, dict):
            raise CheckpointError(f"{source} is damaged: it does not hold fingerprint as it should")
        differences = [
            f"{name} was {there.get(name)!r} and is {fingerprint.get(name)!r}"
            for name in dict.fromkeys([*fingerprint, *there])
            if there.get(name) != fingerprint.get(name)
        ]
        if differences:
            raise CheckpointError(f"{source} is of a run with other settings: {'; '.join(differences)}")
        if wrong := self._malformed(state):
            raise CheckpointError(f"{source} is damaged: it does not hold {', '.join(wrong)} as it should")
        load_into(self.module, state["module"], f"{source} is of another model")
        if self.average is not None:
            load_into(self.average, state["average"], f"{source}, its average of the weights, is of another model")
        try:
            # What the groups hold is in the options, which are the same, and the rate is set in every step.
            groups = self.optimizer.state_dict()["param_groups"]
            _check_moments(state["optimizer"]["state"], self.parameters)
            self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{source} is of another model, or damaged: {one_line(error)}") from error
        self.step = state["step"]
        self.skipped, self.skipped_in_a_row = state["skipped"]
        self.extra = state["extra"]

    def _malformed(self, state: Mapping[str, Any]) -> list[str]:
        """Return the entries of a checkpoint that do not have their form."""
        dicts = ["module", "optimizer", "scaler", "extra"] + ["average"] * (self.average is not None)
        wrong = [name for name in dicts if not isinstance(state.get(name), dict)]
        if not _is_count(state.get("step")):
            wrong.append("step")
        skipped = state.get("skipped")
        if not isinstance(skipped, list) or len(skipped) != 2 or not all(map(_is_count, skipped)):
            wrong.append("skipped")
        if "extra" not in wrong and not set(self.extra) <= set(state["extra"]):
            wrong.append("extra")
        return wrong

    @property
    def _format(self) -> str:
        return f"visp-{self.kind}-2"


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _check_moments(moments: Mapping[int, Mapping[str, Tensor]], parameters: Sequence[Tensor]) -> None:
    """Refuse what is not Adam's state of some of the parameters."""
    for index, state in moments.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if state[name].shape != parameters[index].shape or not state[name].isfinite().all():
                raise ValueError(f"the optimizer's {name} of parameter {index} does not fit")
        if state["step"].numel() != 1 or len(state) != 3:
            raise ValueError(f"the optimizer's state of parameter {index} does not fit")


def _averaged(parameters: nn.ParameterList, decay: float) -> AveragedModel:
    """Average from the weights that the run starts with; at step s the decay is at most (1 + s) / (10 + s)."""

    def average(averaged: Tensor, parameter: Tensor, step: Tensor | int) -> Tensor:
        kept = torch.as_tensor((1 + step) / (10 + step)).clamp(max=decay)  # the first weights fade sooner
        return averaged * kept + parameter * (1 - kept)

    model = AveragedModel(parameters, avg_fn=average)
    model.update_parameters(parameters)
    return model
