"""``visp demo``: on the embedded corpus, a CSTA learns without labels which frames matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from visp.data import InMemoryDataset, VideoRecord
from visp.data.synthetic import make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.eval import rank_correlation
from visp.pretrainer import ViSPPretrainer
from visp.summarizers import CSTA
from visp.training import checkpoint, pretrain

if TYPE_CHECKING:
    import numpy.typing as npt

WIDTH = 256
EPOCHS = 50
BATCH_SIZE = 20
PROTOCOL = (
    "csta (TVSum form): scores at the sampled frames against each user's choices at these frames; "
    "Kendall's tau-b a user, mean over users, then videos"
)


def run_demo(out: Path, *, seed: int = 0, epochs: int = EPOCHS, num_videos: int = 40) -> list[dict[str, object]]:
    """Pretrain a small CSTA without labels and compare its scores with what the users of the corpus chose.

    Args:
        out: Folder of the run; it then holds what :func:`visp.pretrain` writes, ``results.json``, and
            ``scores.png`` where matplotlib is installed.
        seed: Seed of the corpus, the weights and the noise.
        epochs: Passes over the videos.
        num_videos: Size of the corpus.

    Returns:
        The rows of the table: ``name``, ``tau`` and ``tau_std``, the spread over videos.

    Raises:
        FileExistsError: If the folder is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; choose another folder")
    records = make_corpus(num_videos, seed=seed)
    videos = InMemoryDataset(records)
    torch.manual_seed(seed)
    summarizer = CSTA(videos.feature_dim, width=WIDTH)
    print(
        f"{num_videos} made-up videos; in each, some shots are particular to it and the others are fillers that "
        f"many share.\nA CSTA of width {WIDTH} (published: 1024) learns from the features alone what tells the "
        "videos apart.\n"
    )
    untrained = video_scores(summarizer, videos)
    pretrainer = ViSPPretrainer(summarizer, AttentionPoolEncoder(videos.feature_dim), seed=seed)
    pretrain(pretrainer, videos, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, out_dir=out)
    learnt = video_scores(summarizer, videos)

    rows = [_row("untrained", untrained, records), _row("ViSP", learnt, records)]
    results = {"protocol": PROTOCOL, "seed": seed, "rows": rows}
    with checkpoint.replacing(out / "results.json") as file:
        file.write((json.dumps(results, indent=2) + "\n").encode())
    print("\nHow well the scores rank the frames that the users chose (no label was ever shown):\n")
    print("| scores | Kendall's tau | spread over videos |\n|---|---|---|")
    for row in rows:
        print(f"| {row['name']} | {row['tau']:.3f} | {row['tau_std']:.3f} |")
    print(f"\nProtocol: {PROTOCOL}.\nIn {out}: weights.pt, metrics.jsonl, results.json", end="")
    drawn = _draw(out / "scores.png", records, untrained, learnt)
    print(", scores.png" if drawn else '\nFor a figure of the scores: pip install "visp[plot]"')
    return rows


@torch.no_grad()
def video_scores(summarizer: nn.Module, videos: Sequence[Tensor] | InMemoryDataset) -> list[npt.NDArray[np.float32]]:
    """Return the logits (T,) of every video, in evaluation mode; the module's mode is put back."""
    was_training = summarizer.training
    summarizer.eval()
    try:
        return [summarizer(videos[index]).numpy() for index in range(len(videos))]
    finally:
        summarizer.train(was_training)


def mean_tau(scores: Sequence[npt.NDArray[np.float32]], records: Sequence[VideoRecord]) -> tuple[float, float]:
    """Return Kendall's tau as in ``PROTOCOL``: its mean and its standard deviation over videos."""
    taus = []
    for video, record in zip(scores, records, strict=True):
        assert record.user_summary is not None
        assert record.picks is not None
        taus.append(rank_correlation(video, record.user_summary[:, record.picks]).tau)
    return float(np.mean(taus)), float(np.std(taus))


def _row(name: str, scores: Sequence[npt.NDArray[np.float32]], records: Sequence[VideoRecord]) -> dict[str, object]:
    tau, spread = mean_tau(scores, records)
    return {"name": name, "tau": tau, "tau_std": spread}


def _draw(
    path: Path,
    records: Sequence[VideoRecord],
    untrained: Sequence[npt.NDArray[np.float32]],
    learnt: Sequence[npt.NDArray[np.float32]],
) -> bool:
    """Draw the scores of three videos over the planted importance; without matplotlib, return False."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    from visp.plots import plot_scores

    shown = min(3, len(records))
    figure = Figure(figsize=(10, 1.1 + 1.7 * shown), layout="constrained")
    axes = figure.subplots(shown, 2, sharey=True, squeeze=False)
    for row, record, before, after in zip(axes, records, untrained, learnt, strict=False):
        assert record.gtscore is not None
        plot_scores(before, record.gtscore, row[0], title=f"{record.name}, untrained")
        plot_scores(after, record.gtscore, row[1], title=f"{record.name}, ViSP, no labels")
        row[0].set_ylabel("rank of the score")
    for ax in axes[-1]:
        ax.set_xlabel("sampled frame")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    with checkpoint.replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")
    return True
