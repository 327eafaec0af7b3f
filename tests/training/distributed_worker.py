"""What the tests of several processes run in each of them: ``distributed_worker.py SCENARIO FOLDER RANK WORLD``."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.builders import LinearSummarizer, MeanEncoder, fill, gradients, make_videos
from visp import attach_head
from visp.output import ViSPOutput
from visp.pretrainer import ViSPPretrainer
from visp.regularizers import FixedSize

SPLITS: dict[int, list[tuple[int, ...]]] = {2: [(5, 3), (1, 7)], 4: [(1, 3, 2, 2)]}
"""Numbers of videos that the processes bring in each of two steps, by number of processes."""

OPTIONS: dict[str, list[Any]] = {
    "contrast": ["videos", "both"],
    "gradient_flow": ["gating", "marginalization", "straight_through"],
    "hard_negatives": [False, True],
    "recompute": [False, True],
}
SIZES: list[dict[str, Any]] = [
    {"size": 0.3, "reduction": "sum"},
    {"size": FixedSize(0.7), "binary_weight": 0.3, "reduction": "sum"},
    {"size": 0.6, "binary_weight": 0.2},
]


class Bilinear(nn.Module):
    """A similarity with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 3))
        fill(self, seed=4)

    def forward(self, summaries: Tensor, candidates: Tensor) -> Tensor:
        return summaries @ self.weight @ candidates.T


def gradient_cases() -> dict[str, dict[str, Any]]:
    """Options of the pretrainer, by a name."""
    combinations = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]
    cases = [{**case, **SIZES[number % len(SIZES)]} for number, case in enumerate(combinations)]
    return {
        **{", ".join(f"{key}={value}" for key, value in case.items()): case for case in cases},
        "cosine": {"similarity": "cosine", "sampler": "gumbel_softmax"},
        "a similarity with parameters": {"similarity": Bilinear(), "hard_negatives": True},
        "frozen summarizer": {"frozen": "summarizer"},
        "frozen encoder": {"frozen": "encoder", "gradient_flow": "marginalization"},
        "trailing axes": {"trailing": (2, 2), "gradient_flow": "marginalization"},
        "float32 frames": {"dtype": torch.float32, "gradient_flow": "marginalization"},
    }


def two_steps(case: dict[str, Any], part: slice, wrap: Callable[[nn.Module], nn.Module]) -> list[dict[str, Any]]:
    """Outputs, gradients and buffers of two training steps on a part of the batch."""
    options = dict(case)
    trailing, dtype = options.pop("trailing", (4,)), options.pop("dtype", torch.float64)
    frozen = options.pop("frozen", None)
    pretrainer = ViSPPretrainer(LinearSummarizer(), MeanEncoder(), **{"seed": 11, **options}).to(dtype)
    if frozen is not None:
        pretrainer.get_submodule(frozen).requires_grad_(False)
    module = wrap(pretrainer)
    steps = []
    for step in range(2):
        output: ViSPOutput = module(make_videos(seed=step, trailing=trailing, dtype=dtype)[part])
        output.loss.backward()  # type: ignore[no-untyped-call]
        steps.append(
            {
                "output": {name: value.detach() for name, value in output._asdict().items()},
                "gradients": gradients(pretrainer),
                "buffers": {name: buffer.clone() for name, buffer in pretrainer.named_buffers()},
            }
        )
        pretrainer.zero_grad()
    return steps


def own_part(split: tuple[int, ...], rank: int) -> slice:
    return slice(sum(split[:rank]), sum(split[: rank + 1]))


def gradients_of_all(rank: int, world: int) -> dict[str, Any]:
    return {
        f"{split} {name}": two_steps(case, own_part(split, rank), DistributedDataParallel)
        for split in SPLITS[world]
        for name, case in gradient_cases().items()
    }


def message_of(function: Callable[[], object]) -> str:
    try:
        function()
    except (ValueError, OSError) as error:
        return str(error)
    return "no error"


def behaviours(rank: int, world: int) -> dict[str, Any]:
    """How two processes treat what is not a plain training step."""
    from visp.utils.distributed import average_gradients

    part = own_part((5, 3), rank)

    def tiny(**options: Any) -> ViSPPretrainer:
        return ViSPPretrainer(LinearSummarizer(), MeanEncoder(), **{"seed": 11, **options})

    def spoiled(spoil: Callable[[list[Any]], object]) -> str:
        videos: list[Any] = make_videos()[part]
        if rank == 1:
            spoil(videos)
        return message_of(lambda: tiny(gradient_flow="marginalization")(videos))

    found: dict[str, Any] = {
        "a video that is not finite": spoiled(lambda videos: videos[1].fill_(torch.nan)),
        "no video": spoiled(lambda videos: videos.clear()),
        "other features": spoiled(lambda videos: videos.__setitem__(slice(None), make_videos((3, 4), (5,)))),
        "frames with a gradient": message_of(
            lambda: tiny(gradient_flow="marginalization")([video.requires_grad_() for video in make_videos()[part]])
        ),
        "an encoder that follows the frames": message_of(
            lambda: ViSPPretrainer(LinearSummarizer(), LinearSummarizer())(make_videos(((4,) * 4, (7,) * 4)[rank]))
        ),
    }
    parameters = [nn.Parameter(torch.zeros(2, 1)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))]
    parameters[0].grad = torch.full((2, 1), 1.0 + rank)
    parameters[1].grad = torch.ones(3) if rank else None
    average_gradients(parameters)
    found["averages"] = [parameter.grad for parameter in parameters]
    with torch.no_grad():
        found["without gradients"] = tiny()(make_videos()[part]).loss
    found["in evaluation mode"] = tiny().eval()(make_videos()[part]).loss
    seeded_apart = tiny(seed=rank)
    found["seeds that differ"] = seeded_apart(make_videos()[part]).loss.detach()
    found["seed afterwards"] = seeded_apart.noise.seed
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found["gather=False"] = tiny(gather=False)(make_videos()[part]).loss.detach()
        found["warnings of each for itself"] = [str(warning.message) for warning in caught]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tiny()(make_videos()[rank * 2 : rank * 2 + 2])
        tiny()(make_videos()[rank * 4 : rank * 4 + 4])
        found["warnings of the union"] = [str(warning.message) for warning in caught]
    return found


def plain_pretrainer(**options: Any) -> ViSPPretrainer:
    """Without dropout and BatchNorm, so that the number of processes changes nothing."""
    return ViSPPretrainer(LinearSummarizer(), MeanEncoder(), **{"seed": 5, "hard_negatives": True, **options})


class Headed(nn.Module):
    """Its own head is not used in pretraining."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 3)
        self.score = nn.Linear(3, 1)
        fill(self, seed=3)

    def forward(self, frames: Tensor) -> Tensor:
        scores: Tensor = torch.sigmoid(self.score(self.hidden(frames))).squeeze(-1)
        return scores


def headed_pretrainer() -> ViSPPretrainer:
    head = nn.Linear(3, 1)
    fill(head, seed=4)
    return ViSPPretrainer(attach_head(Headed(), hidden_from="hidden", head=head), MeanEncoder(), seed=5)


def corpus() -> Any:
    """25 videos that know their lengths, for three batches of 9, 8 and 8."""
    from visp.data import InMemoryDataset
    from visp.data.synthetic import make_corpus

    return InMemoryDataset(make_corpus(25, feature_dim=4, num_shots=2, shot_length=(1, 3)))


def pretraining(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """Runs of :func:`visp.pretrain` in two processes."""
    from tests.training.test_pretrain import (  # here: the other scenarios start faster without
        noisy_pretrainer,
        pretrain,
        videos,
    )

    many = corpus()

    def trained(pretrainer: ViSPPretrainer, name: str, **options: Any) -> dict[str, Any]:
        result = pretrain(pretrainer, many, batch_size=12, out_dir=folder / name, **options)
        return {"metrics": result.metrics, "state": pretrainer.state_dict()}

    found: dict[str, Any] = {
        "plain": trained(plain_pretrainer(), "plain", epochs=2),
        "marginalized": trained(
            plain_pretrainer(gradient_flow="marginalization"), "marginalized", epochs=2, **EVERYTHING
        ),
        "headed": trained(headed_pretrainer(), "headed", epochs=1),
        "half": trained(plain_pretrainer(), "half", epochs=1),
        "noisy": trained(noisy_pretrainer(seed=rank), "noisy", epochs=2),
        "alone": trained(plain_pretrainer(gather=False), f"alone-{rank}", epochs=1),
    }
    trained(noisy_pretrainer(seed=rank), "resumed", epochs=1)
    found["resumed"] = trained(noisy_pretrainer(seed=9), "resumed", epochs=2, resume=True)

    def fail(step: int, metrics: Mapping[str, float]) -> None:
        if step == 2:
            raise ConnectionError(f"step {step} of {metrics['num_videos']} videos")

    def hooked() -> object:
        hook = fail if rank == 0 else None  # the others wait for the first one's
        return trained(plain_pretrainer(), "hooked", epochs=2, checkpoint_seconds=1e9, on_step=hook)

    found["a hook that fails"] = message_of(hooked)
    found["a folder that is not empty"] = message_of(lambda: trained(plain_pretrainer(), "plain"))
    found["batches of one"] = message_of(lambda: pretrain(plain_pretrainer(), videos(3), batch_size=2))
    return found


def interrupted(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """A run in which one process is told to end; it says which steps it did."""
    from tests.training.test_pretrain import Reads, noisy_pretrainer, pretrain

    slow = Reads(seconds=0.002)
    status = 0
    try:
        pretrain(noisy_pretrainer(), slow, epochs=10_000, out_dir=folder / "run", checkpoint_seconds=1e9)
    except SystemExit as end:
        status = int(end.code or 0)
    return {"status": status}


EVERYTHING: dict[str, Any] = {"schedule": "cosine", "ema_decay": 0.9, "bucket_by_length": True}


@contextmanager
def process_group(folder: Path, rank: int, world: int) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def main() -> None:
    scenario, folder, rank, world = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "step .* InfoNCE stays at log N")  # there is little to learn in noise
    scenarios: dict[str, Callable[[], dict[str, Any]]] = {
        "gradients": lambda: gradients_of_all(rank, world),
        "behaviours": lambda: behaviours(rank, world),
        "pretraining": lambda: pretraining(rank, world, folder),
        "interrupted": lambda: interrupted(rank, world, folder),
    }
    with process_group(folder, rank, world):
        torch.save(scenarios[scenario](), folder / f"{rank}.pt")


if __name__ == "__main__":
    main()
