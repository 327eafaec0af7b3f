"""``visp demo``: on the embedded corpus, a CSTA learns which frames matter, first without labels, then with a few."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from visp.data import InMemoryDataset, Split, VideoRecord
from visp.data.synthetic import make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.eval import Evaluation
from visp.evaluator import Evaluator
from visp.prediction import predict
from visp.pretrainer import ViSPPretrainer
from visp.summarizers import CSTA
from visp.training import finetune, pretrain
from visp.training.run_folder import write_json
from visp.utils.files import replacing
from visp.weights import own_state_dict

WIDTH = 256
EPOCHS = 50
BATCH_SIZE = 20
LABELLED_SHARE = 0.1
FINETUNE_EPOCHS = 15
ROWS = ("untrained", "scratch", "ViSP", "ViSP + fine-tuned")
PROTOCOL = (
    "csta (TVSum form): scores at the sampled frames against each user's choices at these frames; "
    "Kendall's tau-b a user, mean over users, then over the videos that no label was shown of"
)


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    num_seeds: int = 1,
    epochs: int = EPOCHS,
    finetune_epochs: int = FINETUNE_EPOCHS,
    num_videos: int = 40,
) -> list[dict[str, Any]]:
    """Train a small CSTA with few labels, with none, and with both, and compare its scores with what users chose.

    Args:
        out: Folder of the run. It then holds ``results.json`` and, of one seed, what :func:`visp.pretrain` writes, the
            folders ``scratch`` and ``fine-tuned`` of the fine-tuning runs, and ``scores.png`` where matplotlib is
            installed; of several seeds, a folder for each.
        seed: Seed of the corpus, the weights and the noise; the first of several.
        num_seeds: Number of seeds.
        epochs: Epochs of pretraining.
        finetune_epochs: Epochs of fine-tuning.
        num_videos: Size of the corpus.

    Returns:
        The rows of the table: ``name``, ``tau`` and ``tau_std``, the spread over seeds, or over videos for one seed;
        of several seeds also ``taus``, by seed.

    Raises:
        FileExistsError: If the folder is not empty.
        ValueError: If ``num_seeds`` is less than 1.
    """
    if num_seeds < 1:
        raise ValueError(f"expected at least one seed, got {num_seeds}")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; choose another folder")
    labelled = round(LABELLED_SHARE * num_videos)
    print(
        f"{num_videos} made-up videos; in each, some shots are particular to it and the others are fillers that many "
        f"share.\nA CSTA of width {WIDTH} (published: 1024) learns from the features alone what tells the videos "
        f"apart (ViSP), from the labels of {labelled} videos (scratch), or from one after the other.\n"
    )
    found = [
        _one_seed(out if num_seeds == 1 else out / f"seed-{one}", one, epochs, finetune_epochs, num_videos)
        for one in range(seed, seed + num_seeds)
    ]
    rows = [_row(name, [evaluations[name] for evaluations in found]) for name in ROWS]
    spread = "videos" if num_seeds == 1 else f"{num_seeds} seeds"
    write_json(out / "results.json", {"protocol": PROTOCOL, "seed": seed, "num_seeds": num_seeds, "rows": rows})
    print(
        f"\nHow well the scores rank the frames that users chose, on the {num_videos - labelled} unlabelled videos:\n"
    )
    print(f"| scores | labels | Kendall's tau | spread over {spread} |\n|---|---|---|---|")
    for row in rows:
        labels = labelled if row["name"] in ("scratch", "ViSP + fine-tuned") else 0
        print(f"| {row['name']} | {labels} videos | {row['tau']:.3f} | {row['tau_std']:.3f} |")
    print(f"\nProtocol: {PROTOCOL}.\nIn {out}: results.json, and the weights and metrics of each run", end="")
    figures = list(out.glob("**/scores.png"))
    print(", scores.png" if figures else '\nFor a figure of the scores: pip install "visp[plot]"')
    return rows


def _one_seed(out: Path, seed: int, epochs: int, finetune_epochs: int, num_videos: int) -> dict[str, Evaluation]:
    records = make_corpus(num_videos, seed=seed)
    videos = InMemoryDataset(records)
    labelled = round(LABELLED_SHARE * num_videos)
    split = Split(train=videos.names[:labelled], test=videos.names[labelled:])
    evaluator = Evaluator(videos, user_scores={record.name: _choices(record) for record in records})
    torch.manual_seed(seed)
    summarizer = CSTA(videos.feature_dim, width=WIDTH)
    start = own_state_dict(summarizer)
    start = {name: value.clone() for name, value in start.items()}
    found = {"untrained": evaluator(summarizer, split.test)}
    drawn = {"untrained": [predict(summarizer, record.features) for record in records[-3:]]}

    encoder = AttentionPoolEncoder(videos.feature_dim)
    pretrainer = ViSPPretrainer(summarizer, encoder, contrast="videos", seed=seed)  # the fillers are shared by all
    pretrain(pretrainer, videos, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, out_dir=out)
    found["ViSP"] = evaluator(summarizer, split.test)
    drawn["ViSP, no labels"] = [predict(summarizer, record.features) for record in records[-3:]]
    pretrained = {name: value.clone() for name, value in summarizer.state_dict().items()}

    for name, folder, weights in (("scratch", "scratch", start), ("ViSP + fine-tuned", "fine-tuned", pretrained)):
        summarizer.load_state_dict(weights)
        result = finetune(
            summarizer, videos, split, evaluator=evaluator, epochs=finetune_epochs, seed=seed, out_dir=out / folder
        )
        assert result.test is not None
        found[name] = result.test
    _draw(out / "scores.png", records[-3:], drawn)
    return found


def _choices(record: VideoRecord) -> npt.NDArray[np.number]:
    assert record.user_summary is not None
    return record.user_summary


def _row(name: str, evaluations: list[Evaluation]) -> dict[str, Any]:
    means = [evaluation.tau for evaluation in evaluations]
    spread = [video.tau for video in evaluations[0].videos] if len(evaluations) == 1 else means
    by_seed = {} if len(means) == 1 else {"taus": means}
    return {"name": name, "tau": float(np.mean(means)), "tau_std": float(np.std(spread)), **by_seed}


def _draw(path: Path, records: list[VideoRecord], scores: Mapping[str, list[npt.NDArray[np.float32]]]) -> None:
    """Draw the scores over the planted importance, one row per video; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    from visp.plots import plot_scores

    figure = Figure(figsize=(10, 1.1 + 1.7 * len(records)), layout="constrained")
    axes = figure.subplots(len(records), len(scores), sharey=True, squeeze=False)
    for column, (name, of_videos) in enumerate(scores.items()):
        for row, (record, video_scores) in enumerate(zip(records, of_videos, strict=True)):
            assert record.gtscore is not None
            plot_scores(video_scores, record.gtscore, axes[row][column], title=f"{record.name}, {name}")
    for row in axes:
        row[0].set_ylabel("rank of the score")
    for ax in axes[-1]:
        ax.set_xlabel("sampled frame")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")
