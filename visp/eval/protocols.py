"""What each protocol of the field correlates with what. No metric is comparable across protocols.

===========  =============================================  =============================================
protocol     TVSum                                          SumMe
===========  =============================================  =============================================
``csta``     scores at the picks; each annotator's scores   summary; mean of the users' summaries
             at every 15th frame
``otani``    scores upsampled to all frames; each           not defined
             annotator's scores
``msva``     summary; mean of the users' summaries          the same
``scores``   scores upsampled to all frames; each           scores upsampled to all frames; ``gtscore``
             annotator's scores                             upsampled likewise
===========  =============================================  =============================================

On MR.HiSum, which has one rater and one step per second, ``triplesumm`` compares the scores with ``gtscore`` at the
steps, and ``mrhisum`` the summary with that of the rater, as ``msva`` does. On QFVS' hour-long videos, ``scores``
compares the scores with ``gtscore`` at the sampled frames, without shots or an F-score (Appendix .4 of the paper).

``csta`` is also LLMVS's and SummDiff's and the one of Table 2 of the ViSP paper; ``otani`` is Otani et al. 2019;
``msva`` is also MR.HiSum's; ``scores`` is Summarizer's and SSPVS's. Some scale the annotators' scores, ``csta`` by the
annotator's maximum and ``scores`` by (score - 1) / 4. Both measures are of ranks, which no such scaling changes, so it
is left out here: the annotations are always the raw ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Protocol = Literal["csta", "otani", "msva", "scores", "triplesumm", "mrhisum"]
Benchmark = Literal["summe", "tvsum", "mrhisum", "qfvs"]

PROTOCOLS: tuple[str, ...] = get_args(Protocol)
BENCHMARKS: tuple[str, ...] = get_args(Benchmark)

STRIDE = 15
"""TVSum's files sample every 15th frame."""


@dataclass(frozen=True)
class ProtocolForm:
    """What a protocol correlates on one benchmark: one cell of the table.

    Attributes:
        predicted: The scores at the picks, these upsampled to all frames, or the 0/1 summary.
        annotated: Each annotator's scores, one by one; the mean over users of their 0/1 summaries; or the
            ``gtscore`` at the picks.
        text: The form in words, for tables.
        shots: Whether a summary of shots is made and has an F-score.
    """

    predicted: Literal["picks", "frames", "summary"]
    annotated: Literal["annotators", "mean summary", "gtscore"]
    text: str
    shots: bool = True


_SUMMARIES = ProtocolForm(
    "summary", "mean summary", "summary against the mean of the users' summaries, all frames, one value per video"
)
_ALL_FRAMES = ProtocolForm(
    "frames", "annotators", "scores upsampled to all frames against each annotator's scores, mean over annotators"
)
_FORMS: dict[tuple[str, str], ProtocolForm] = {
    ("csta", "tvsum"): ProtocolForm(
        "picks",
        "annotators",
        "scores at the sampled frames against each annotator's scores there, mean over annotators",
    ),
    ("csta", "summe"): _SUMMARIES,
    ("otani", "tvsum"): _ALL_FRAMES,
    ("msva", "tvsum"): _SUMMARIES,
    ("msva", "summe"): _SUMMARIES,
    ("scores", "tvsum"): _ALL_FRAMES,
    ("scores", "summe"): ProtocolForm(
        "frames", "gtscore", "scores against gtscore, both upsampled to all frames, one value per video"
    ),
    ("triplesumm", "mrhisum"): ProtocolForm(
        "picks", "gtscore", "scores against gtscore at the sampled frames, one value per video"
    ),
    ("mrhisum", "mrhisum"): _SUMMARIES,
    ("scores", "qfvs"): ProtocolForm(
        "picks",
        "gtscore",
        "scores against gtscore at the sampled frames, one value per video, no shots chosen",
        shots=False,
    ),
}


def protocol_form(protocol: str, benchmark: str) -> ProtocolForm:
    """Return what the protocol compares on the benchmark.

    Raises:
        ValueError: If the protocol or the benchmark is unknown, or the protocol is not defined for the benchmark.
    """
    for name, value, choices in (("protocol", protocol, Protocol), ("benchmark", benchmark, Benchmark)):
        known = get_args(choices)
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if (protocol, benchmark) not in _FORMS:
        defined = [name for name, where in _FORMS if where == benchmark]
        raise ValueError(f"protocol {protocol!r} is not defined for {benchmark!r}; defined are {', '.join(defined)}")
    return _FORMS[protocol, benchmark]
