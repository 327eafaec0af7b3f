"""What pretraining costs: a literal reading of the paper against visp, in time and memory; see docs/performance.md.

python benchmarks/pretrain.py --json performance.json        everything, about half an hour on two cores
python benchmarks/pretrain.py --quick                        short videos, small batches: a few minutes
python benchmarks/pretrain.py --parts speed --models csta    one part of it

The literal loop runs the published CSTA (tests/summarizers/csta_reference.py), a perceptron or the Transformer video by
video, and every window by itself, in float32; it keeps the activations of the batch. Both sides have the same weights,
videos and noise, and the script first checks that they have the same gradient. Variants are timed in turn in one
process, in seconds of processor time; each peak of memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import visp
from tests.summarizers.csta_reference import ReferenceCSTA
from visp.contrastive import Windows
from visp.encoders import AttentionPoolEncoder
from visp.summarizers import CSTA, CSTAEncoder, GoogleNet, Transformer

MODELS = ("csta", "googlenet", "perceptron", "transformer")
MODES = ("literal", "float32", "float32, recomputed", "bf16", "bf16, recomputed")
CONTRASTS = ("videos", "windows", "both")
FEATURE_DIM = 1024
TEMPERATURE, SIZE_WEIGHT, BINARY_WEIGHT, LR = 0.5, 1.0, 1.0, 1e-4


class Perceptron(nn.Module):
    """A perceptron that scores every frame by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURE_DIM, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Score frames (T, d): logits (T,)."""
        logits: Tensor = self.layers(frames).squeeze(-1)
        return logits


class LiteralAttentionPool(nn.Module):
    """What an attention encoder computes, as its parts say it: every frame becomes a token, a key and a value."""

    def __init__(self, encoder: AttentionPoolEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames (T, d): (e,)."""
        part = self.encoder
        tokens = part.frame_embedding(frames * (frames.square().mean() + 1e-12).rsqrt())
        hidden = part.norm1(part.query + part.attention(part.query, tokens, tokens, need_weights=False)[0])
        hidden = part.norm2(hidden + part.feed_forward(hidden))
        embedding: Tensor = F.normalize(hidden[0], dim=0) * part.scale**0.5
        return embedding


class LiteralPretrainer(nn.Module):
    """Section 3 of the paper as a reader would write it: Eq. 6, 7, 8, 3 and 10, one video at a time."""

    def __init__(
        self, summarizer: nn.Module, encoder: nn.Module, noise: Callable[[int, int], Tensor], contrast: str
    ) -> None:
        super().__init__()
        self.summarizer = summarizer
        self.encoder = encoder
        self.noise = noise
        self.contrast = contrast

    def forward(self, videos: Sequence[Tensor]) -> Tensor:
        """Return the loss of a batch."""
        gated, size, binary = [], torch.zeros(()), torch.zeros(())
        for index, frames in enumerate(videos):
            eps = self.noise(index, len(frames))
            alpha = self._logits(frames)
            y = torch.sigmoid((torch.log(eps) - torch.log(1 - eps) + alpha) / TEMPERATURE)
            gated.append(frames * y[:, None])
            size = size + y.mean() / len(videos)
            binary = binary + (y * (1 - y)).mean() / len(videos)
        loss = SIZE_WEIGHT * size + BINARY_WEIGHT * binary
        if self.contrast in ("videos", "both"):
            loss = loss + self._info_nce(gated, videos)
        if self.contrast in ("windows", "both"):
            windows = [Windows().spans(len(frames)) for frames in videos]
            losses = [
                self._info_nce([summary[first:end] for first, end in cuts], [frames[first:end] for first, end in cuts])
                for summary, frames, cuts in zip(gated, videos, windows, strict=True)
            ]
            loss = loss + torch.stack(losses).mean()
        return loss

    def _info_nce(self, summaries: Sequence[Tensor], originals: Sequence[Tensor]) -> Tensor:
        """Return Eq. 3, mean over what is compared."""
        embedded = [self._embed(frames) for frames in originals]
        losses = []
        for index, summary in enumerate(summaries):
            query = self._embed(summary)
            similarities = torch.stack([torch.dot(query, original) for original in embedded])
            losses.append(-F.log_softmax(similarities, dim=0)[index])
        return torch.stack(losses).mean()

    def _logits(self, frames: Tensor) -> Tensor:
        summarizer = self.summarizer
        logits: Tensor = summarizer.logits(frames) if isinstance(summarizer, ReferenceCSTA) else summarizer(frames)
        return logits

    def _embed(self, frames: Tensor) -> Tensor:
        encoder = self.encoder
        embedding: Tensor = encoder.hidden(frames)[0] if isinstance(encoder, ReferenceCSTA) else encoder(frames)
        return embedding


class KnownNoise:
    """Eq. 6 with noise that depends on the video's place in the batch alone, so that both sides see the same."""

    def __init__(self, num_videos: int) -> None:
        self.num_videos = num_videos
        self.calls = 0

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the selection of the next video of the batch."""
        eps = noise(self.calls % self.num_videos, len(logits))
        self.calls += 1
        return torch.sigmoid((eps.log() - torch.log1p(-eps) + logits) / TEMPERATURE)


def noise(index: int, length: int) -> Tensor:
    return torch.rand(length, generator=torch.Generator().manual_seed(index)).clamp(1e-6, 1 - 1e-6)


def make_videos(number: int, length: int) -> list[Tensor]:
    """Frames of unit norm, as features are."""
    generator = torch.Generator().manual_seed(0)
    return [F.normalize(torch.randn(length, FEATURE_DIM, generator=generator), dim=1) for _ in range(number)]


def make_pretrainers(model: str, modes: Sequence[str], number: int, contrast: str = "videos") -> dict[str, nn.Module]:
    """Make a pretrainer for each mode, all with the same weights."""
    made: dict[str, nn.Module] = {}
    for mode in modes:
        torch.manual_seed(0)
        parts = make_light(model, mode) if model in ("perceptron", "transformer") else make_cnn(model, mode)
        if mode == "literal":
            made[mode] = LiteralPretrainer(*parts, noise, contrast)
        else:
            made[mode] = visp.ViSPPretrainer(
                *parts,
                contrast=contrast,  # type: ignore[arg-type]
                sampler=KnownNoise(number),
                size=visp.FixedSize(SIZE_WEIGHT),
                binary_weight=BINARY_WEIGHT,
                recompute="recomputed" in mode,
                seed=0,
            )
    return made


def make_light(model: str, mode: str) -> tuple[nn.Module, nn.Module]:
    """Make a light summarizer and the attention encoder."""
    summarizer = Perceptron() if model == "perceptron" else Transformer(FEATURE_DIM)
    encoder = AttentionPoolEncoder(FEATURE_DIM)
    return summarizer, LiteralAttentionPool(encoder) if mode == "literal" else encoder


def make_cnn(model: str, mode: str) -> tuple[nn.Module, nn.Module]:
    """Make CSTA or GoogleNet, and CSTA as encoder: as published for the literal loop, else visp's."""
    references = [ReferenceCSTA(FEATURE_DIM, value_embedding=part) for part in (model == "csta", True)]
    if mode == "literal":
        return references[0], references[1]
    summarizer = CSTA(FEATURE_DIM) if model == "csta" else GoogleNet(FEATURE_DIM)
    encoder = CSTAEncoder(FEATURE_DIM, pooling="cls")
    summarizer.load_published(references[0].state_dict())
    encoder.load_published(references[1].state_dict())
    return summarizer, encoder


def loss_of(pretrainer: nn.Module, mode: str, videos: Sequence[Tensor]) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode.startswith("bf16")):
        output = pretrainer(videos)
    loss: Tensor = output if mode == "literal" else output.loss
    return loss


def agreement(model: str, length: int, contrast: str) -> dict[str, Any]:
    """Compare loss and gradient of the summarizer, float32 with the literal loop, without dropout."""
    videos = make_videos(2, length)
    pretrainers = make_pretrainers(model, ("literal", "float32"), len(videos), contrast)
    losses, gradients = [], []
    for mode, pretrainer in pretrainers.items():
        for layer in pretrainer.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        loss = loss_of(pretrainer, mode, videos)
        torch.autograd.backward(loss)
        losses.append(float(loss.detach()))
        summarizer = pretrainer.get_submodule("summarizer")
        gradients.append({n: p.grad.double().flatten() for n, p in summarizer.named_parameters() if p.grad is not None})
    names = gradients[0].keys() & gradients[1].keys()
    literal, ours = (torch.cat([gradient[name] for name in sorted(names)]) for gradient in gradients)
    difference = float((ours - literal).norm() / literal.norm())
    return {
        "part": "agreement",
        "model": model,
        "contrast": contrast,
        "losses": losses,
        "relative_difference_of_gradients": difference,
    }


def speed(
    model: str, modes: Sequence[str], number: int, length: int, rounds: int, contrast: str
) -> list[dict[str, Any]]:
    """Time steps of every mode in turn, after one that is not counted."""
    videos = make_videos(number, length)
    pretrainers = make_pretrainers(model, modes, number, contrast)
    optimizers = {mode: torch.optim.Adam(pretrainers[mode].parameters(), lr=LR) for mode in modes}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(rounds + 1):
        for mode in modes:
            seconds[mode].append(timed_step(pretrainers[mode], optimizers[mode], mode, videos) / number)
            optimizers[mode].zero_grad()
    times = {mode: values[1:] for mode, values in seconds.items()}
    return [
        {
            "part": "speed",
            "model": model,
            "contrast": contrast,
            "mode": mode,
            "videos": number,
            "frames": length,
            "seconds_a_video": statistics.median(values),
            "fastest": min(values),
            "times_literal": statistics.median(a / b for a, b in zip(times["literal"], values, strict=True)),
        }
        for mode, values in times.items()
    ]


def memory(model: str, mode: str, number: int, length: int, contrast: str) -> dict[str, Any]:
    """Measure the peak memory of this process over two steps, the second with Adam's state there."""
    videos = make_videos(number, length)
    (pretrainer,) = make_pretrainers(model, (mode,), number, contrast).values()
    optimizer = torch.optim.Adam(pretrainer.parameters(), lr=LR)
    before = peak_mib()
    seconds = [timed_step(pretrainer, optimizer, mode, videos) for _ in range(2)]
    return {
        "part": "memory",
        "model": model,
        "contrast": contrast,
        "mode": mode,
        "videos": number,
        "frames": length,
        "seconds_a_video": min(seconds) / number,
        "peak_mib": peak_mib(),
        "peak_mib_before": before,
    }


def timed_step(pretrainer: nn.Module, optimizer: torch.optim.Optimizer, mode: str, videos: Sequence[Tensor]) -> float:
    started = time.process_time()  # of all threads, so that what else runs on the machine does not count
    optimizer.zero_grad()
    torch.autograd.backward(loss_of(pretrainer, mode, videos))
    optimizer.step()
    return time.process_time() - started


def peak_mib() -> float:
    """Peak resident memory of this process, without what its parent had when it was started."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def plan(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List the measurements, each for a process of its own."""
    number, length = options.videos or (2 if options.quick else 4), options.frames or (60 if options.quick else 300)
    tasks: list[dict[str, Any]] = []
    for model, contrast in itertools.product(options.models, options.contrasts):
        common = {"model": model, "contrast": contrast}
        if "speed" in options.parts:
            tasks.append({"do": "agreement", "length": length, **common})
            modes = [mode for mode in options.modes if contrast == "videos" or mode in ("literal", "float32")]
            tasks.append({"do": "speed", "modes": modes, "number": number, "length": length, **common})
            tasks[-1]["rounds"] = options.rounds
        if "memory" in options.parts:
            sizes = [(2, length), (4, length), (8, length), (2, 2 * length)][: 2 if options.quick else None]
            for mode in options.modes:
                tasks += [{"do": "memory", "mode": mode, "number": n, "length": t, **common} for n, t in sizes]
    if "paper" in options.parts and not options.quick:  # the paper's batch, which the literal loop has no room for
        tasks += [
            {"do": "memory", "model": "csta", "mode": mode, "number": 32, "length": 300, "contrast": "videos"}
            for mode in ("bf16, recomputed", "bf16", "float32, recomputed")
        ]
    return tasks


def measured(task: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """Do one measurement in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(threads), "--task", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def do(task: dict[str, Any]) -> list[dict[str, Any]]:
    measurements: dict[str, Callable[..., Any]] = {"agreement": agreement, "speed": speed, "memory": memory}
    warnings.filterwarnings("ignore", message="a batch of")  # small batches teach little and cost the same a video
    found = measurements[task.pop("do")](**task)
    return found if isinstance(found, list) else [found]


def report(results: Sequence[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{r['model']}, {r['contrast']}: loss {r['losses'][0]:.6f} literal, {r['losses'][1]:.6f} visp; gradients of "
        f"the summarizer differ by {r['relative_difference_of_gradients']:.1e} of their norm"
        for r in results
        if r["part"] == "agreement"
    ]
    timed = [r for r in results if r["part"] == "speed"]
    if timed:
        lines += ["", "| model | contrast | mode | N | T | s per video and step | fastest | times as fast as literal |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['model']} | {r['contrast']} | {r['mode']} | {r['videos']} | {r['frames']} | "
        f"{r['seconds_a_video']:.4f} | {r['fastest']:.4f} | {r['times_literal']:.2f} |"
        for r in timed
    ]
    sized = [r for r in results if r["part"] == "memory"]
    if sized:
        lines += [
            "",
            "| model | contrast | mode | N | T | peak MiB | of it before the first step | s per video and step |",
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['model']} | {r['contrast']} | {r['mode']} | {r['videos']} | {r['frames']} | {r['peak_mib']:.0f} | "
        f"{r['peak_mib_before']:.0f} | {r['seconds_a_video']:.4f} |"
        for r in sized
    ]
    return "\n".join(lines)


def machine(threads: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    processor = names[0].partition(": ")[2] if names else platform.processor()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "amx": torch.cpu._is_amx_tile_supported() if hasattr(torch.cpu, "_is_amx_tile_supported") else None,
        "gflops": {str(kind).removeprefix("torch."): gflops(kind) for kind in (torch.float32, torch.bfloat16)},
    }


def gflops(kind: torch.dtype, size: int = 1024) -> int:
    """Rate of a matrix product, the limit of everything here."""
    a = torch.randn(size, size).to(kind)
    seconds: list[float] = []
    while len(seconds) < 8 and sum(seconds) < 5:  # bfloat16 is emulated, slowly, where the processor lacks it
        started = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - started)
    return round(2 * size**3 / min(seconds) / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("speed", "memory", "paper")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="with literal first")
    parser.add_argument("--contrasts", nargs="+", choices=CONTRASTS, default=CONTRASTS)
    parser.add_argument("--quick", action="store_true", help="T = 60, batches of 2 and 4, not the paper's batch")
    parser.add_argument("--videos", type=int, help="N of the speed part (4, or 2 if quick)")
    parser.add_argument("--frames", type=int, help="T of the speed and memory parts (300, or 60 if quick)")
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each mode in the speed part")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.task is not None:
        print(json.dumps(do(json.loads(options.task))))
        return
    facts = machine(options.threads)
    print(facts, file=sys.stderr)
    results = []
    for task in plan(options):
        found = measured(task, options.threads)
        print(*found, sep="\n", file=sys.stderr, flush=True)
        results += found
        if options.json is not None:
            options.json.write_text(json.dumps({"machine": facts, "results": results}, indent=2) + "\n")
    print(report(results))


if __name__ == "__main__":
    main()
