"""The parts of the objective by name: a further one is a file of its own and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from typing_extensions import get_protocol_members

from visp.contrastive import Contrast, Cosine, InnerProduct, Similarity, Videos, Windows
from visp.gradient_flow import Gating, GradientFlow, Marginalization, StraightThrough
from visp.regularizers import FixedSize, SizeRule, TargetSize
from visp.samplers import ConcreteSampler, GumbelSoftmaxSampler, Sampler, SigmoidSampler

_Part = TypeVar("_Part")

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "concrete": ConcreteSampler,
    "gumbel_softmax": GumbelSoftmaxSampler,
    "sigmoid": SigmoidSampler,
}
GRADIENT_FLOWS: dict[str, Callable[[], GradientFlow]] = {
    "gating": Gating,
    "marginalization": Marginalization,
    "straight_through": StraightThrough,
}
CONTRASTS: dict[str, Callable[[int | None, float], tuple[Contrast, ...]]] = {
    "videos": lambda window, weight: (Videos(),),
    "windows": lambda window, weight: (Windows(window),),
    "both": lambda window, weight: (Videos(), Windows(window, weight=weight)),
    "none": lambda window, weight: (),
}
SIMILARITIES: dict[str, Callable[[], Similarity]] = {"inner": InnerProduct, "cosine": Cosine}

WITH_DONORS = {"step_size": 0.5, "bound": 20.0}
"""How a size target's multiplier moves where dropped frames become another video's: every dropped frame then misleads
the encoder, so that much more weight is needed to hold the target, and soon (docs/training.md)."""

PLAIN_OPTIONS = (
    "contrast",
    "window",
    "window_weight",
    "sampler",
    "temperature",
    "gradient_flow",
    "similarity",
    "hard_negatives",
    "size_target",
    "size_weight",
    "binary_weight",
)
"""The options of the objective on the command line, which :func:`objective_options` takes."""


def objective_options(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of :class:`visp.ViSPPretrainer` from plain values, as files and command lines have them.

    Args:
        plain: The pretrainer's options that are text or numbers; ``temperature`` of the sampler, ``size_target`` for
            ``size`` and ``size_weight`` for :class:`visp.FixedSize`.
    """
    chosen = dict(plain)
    if (temperature := chosen.pop("temperature", None)) is not None:
        chosen["sampler"] = SAMPLERS[chosen.get("sampler", "concrete")](temperature)
    if (target := chosen.pop("size_target", None)) is not None:
        chosen["size"] = target
    if (weight := chosen.pop("size_weight", None)) is not None:
        chosen["size"] = FixedSize(weight)
    return chosen


def choose(option: str, choice: str | _Part, choices: Mapping[str, Callable[[], _Part]], kind: type) -> _Part:
    """Return the part of that name, or the object given in its place.

    Args:
        option: What is chosen, for messages.
        choice: A name, or an object of its kind.
        choices: The parts by name.
        kind: The protocol that an object must keep.

    Raises:
        ValueError: If there is no part of that name.
        TypeError: If the object is a class, or lacks a member of the protocol.
    """
    names = ", ".join(map(repr, choices))
    if isinstance(choice, str):
        if choice not in choices:
            raise ValueError(f"{option} must be one of {names} or an object, got {choice!r}")
        return choices[choice]()
    if isinstance(choice, type) or not isinstance(choice, kind):
        members = ", ".join(sorted(get_protocol_members(kind)))
        raise TypeError(f"{option} must be one of {names} or an object with {members}, got {choice!r}")
    return choice


def choose_contrasts(
    choice: str | Contrast | tuple[Contrast, ...], window: int | None, window_weight: float
) -> tuple[Contrast, ...]:
    """Return the contrasts of that name, or those given in its place.

    Args:
        choice: The name, or one or several contrasts.
        window: Frames in a window.
        window_weight: Weight of the windows beside the videos.

    Raises:
        ValueError: If there is no contrast of that name, ``window`` is given beside an object, or it or the weight is
            out of its range.
        TypeError: If an object is not a contrast.
    """
    if isinstance(choice, str) and choice in CONTRASTS:
        return CONTRASTS[choice](window, window_weight)
    choices = dict.fromkeys(CONTRASTS, Videos)
    given = choice if isinstance(choice, tuple) else (choice,)
    contrasts = tuple(choose("contrast", contrast, choices, Contrast) for contrast in given)
    if window is not None:
        raise ValueError(f"window={window} belongs to a contrast given by name; {choice!r} has its own")
    return contrasts


def choose_size(choice: float | SizeRule, *, with_donors: bool) -> SizeRule:
    """Return the rule for the size of summaries: a target for a number, or the rule given in its place.

    Raises:
        ValueError: If a number is not in (0, 1).
        TypeError: If it is neither a number nor a rule.
    """
    if isinstance(choice, int | float):
        return TargetSize(choice, **(WITH_DONORS if with_donors else {}))
    return choose("size", choice, {}, SizeRule)


def describe(part: object) -> str:
    """Return the type of a part and its plain settings as text, equal in every process."""
    settings = getattr(part, "__dict__", {}).items()
    plain = [
        f"{name}={value}" for name, value in settings if isinstance(value, int | float | str) and name != "training"
    ]
    return f"{type(part).__name__}({', '.join(plain)})"
