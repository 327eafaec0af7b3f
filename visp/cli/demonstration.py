"""What ``visp demo`` shows: on two embedded corpora a small Transformer learns which frames matter, and from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from visp.data import InMemoryDataset, Split, VideoRecord
from visp.data.synthetic import CORPORA, make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.eval import Evaluation
from visp.evaluator import Evaluator
from visp.prediction import predict
from visp.pretrainer import ViSPPretrainer
from visp.summarizers import Transformer
from visp.training import finetune, pretrain
from visp.training.run_folder import write_json
from visp.utils.files import replacing
from visp.utils.noise import seeded
from visp.weights import own_state_dict

SHOWN: dict[str, str] = {
    "shared fillers": "what is not worth keeping looks the same in all videos",
    "own fillers": "every video has scenes of its own that return, and moments that occur once",
}
"""The corpora of the demo, of :data:`visp.data.synthetic.CORPORA`, and what holds in each."""
CONTRASTS: tuple[Literal["videos", "windows", "both"], ...] = ("videos", "windows", "both")
EPOCHS = 50
BATCH_SIZE = 20
LABELLED_SHARE = 0.1
FINETUNE_EPOCHS = 15
PROTOCOL = (
    "csta (TVSum form): scores at the sampled frames against each user's choices at these frames; Kendall's tau-b per "
    "user, mean over users, then over the videos that no label was shown of; chance is 0"
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
    """Pretrain with each contrast, and with few labels, and compare the scores with what users chose.

    Args:
        out: Folder of the run. It then holds ``results.json``, ``scores.png`` where matplotlib is installed, and for
            each corpus and seed the folders of its runs.
        seed: Seed of the corpora, the weights and the noise; the first of several.
        num_seeds: Number of seeds.
        epochs: Epochs of pretraining.
        finetune_epochs: Epochs of fine-tuning.
        num_videos: Size of each corpus.

    Returns:
        The rows of the table: ``corpus``, ``name``, ``labels`` (videos whose labels were shown), ``tau`` and
        ``tau_std``, the spread over seeds, or over videos for one seed; of several seeds also ``taus``, by seed.

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
        f"A small Transformer scores the frames of {num_videos} made-up videos. ViSP teaches it without labels, by one "
        f"of three contrasts;\nthe labels of {labelled} videos teach it from scratch, or after ViSP.\n"
    )
    rows = []
    for corpus in SHOWN:
        by_seed = [
            _run(out / corpus.replace(" ", "-") / f"seed-{one}", corpus, one, epochs, finetune_epochs, num_videos)
            for one in range(seed, seed + num_seeds)
        ]
        for name in by_seed[0]:
            labels = 0 if name == "untrained" or name in CONTRASTS else labelled
            found = [evaluations[name] for evaluations in by_seed]
            rows.append({"corpus": corpus, "name": name, "labels": labels, **_tau(found)})
    results = {"protocol": PROTOCOL, "seed": seed, "num_seeds": num_seeds, "rows": rows}
    write_json(out / "results.json", results)
    spread = "videos" if num_seeds == 1 else f"{num_seeds} seeds"
    for corpus, description in SHOWN.items():
        print(f"\n{corpus.capitalize()}: {description}.\n")
        print(f"| scores | labels | Kendall's tau | spread over {spread} |\n|---|---|---|---|")
        for row in rows:
            if row["corpus"] == corpus:
                name = f"ViSP, contrast {row['name']}" if row["name"] in CONTRASTS else row["name"]
                print(f"| {name} | {row['labels']} videos | {row['tau']:+.3f} | {row['tau_std']:.3f} |")
    print(f"\nProtocol: {PROTOCOL}.\nIn {out}: results.json, and the weights and metrics of each run", end="")
    print(", scores.png" if (out / "scores.png").exists() else '\nFor a figure of the scores: pip install "visp[plot]"')
    return rows


def _run(
    out: Path, corpus: str, seed: int, epochs: int, finetune_epochs: int, num_videos: int
) -> dict[str, Evaluation]:
    """Do the runs of one corpus and seed, and evaluate each."""
    records = make_corpus(num_videos, seed=seed, **CORPORA[corpus])
    videos = InMemoryDataset(records)
    labelled = round(LABELLED_SHARE * num_videos)
    split = Split(train=videos.names[:labelled], test=videos.names[labelled:])
    evaluator = Evaluator(videos, user_scores={record.name: _choices(record) for record in records})
    with seeded(seed):
        summarizer = Transformer(videos.feature_dim)
    start = {name: value.clone() for name, value in own_state_dict(summarizer).items()}
    found = {"untrained": evaluator(summarizer, split.test)}
    drawn = {"untrained": _scores(summarizer, records)}
    for contrast in CONTRASTS:
        summarizer.load_state_dict(start)
        with seeded(seed):
            encoder = AttentionPoolEncoder(videos.feature_dim)
        pretrainer = ViSPPretrainer(summarizer, encoder, contrast=contrast, seed=seed)
        folder = out / contrast
        pretrain(pretrainer, videos, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, out_dir=folder)
        found[contrast] = evaluator(summarizer, split.test)
        drawn[f"ViSP, {contrast}"] = _scores(summarizer, records)
    pretrained = {name: value.clone() for name, value in summarizer.state_dict().items()}
    for name, weights in (("scratch", start), ("ViSP (both) + fine-tuned", pretrained)):
        summarizer.load_state_dict(weights)
        folder = out / ("scratch" if name == "scratch" else "fine-tuned")
        result = finetune(
            summarizer, videos, split, evaluator=evaluator, epochs=finetune_epochs, seed=seed, out_dir=folder
        )
        assert result.test is not None
        found[name] = result.test
    picture = out.parents[1] / "scores.png"
    if corpus == "own fillers" and not picture.exists():
        _draw(picture, records[-3:], drawn)
    return found


def _scores(summarizer: torch.nn.Module, records: Sequence[VideoRecord]) -> list[npt.NDArray[np.float32]]:
    return [predict(summarizer, record.features) for record in records[-3:]]


def _choices(record: VideoRecord) -> npt.NDArray[np.number]:
    assert record.user_summary is not None
    return record.user_summary


def _tau(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    means = [evaluation.tau for evaluation in evaluations]
    spread = [video.tau for video in evaluations[0].videos] if len(evaluations) == 1 else means
    by_seed = {} if len(means) == 1 else {"taus": means}
    return {"tau": float(np.mean(means)), "tau_std": float(np.std(spread)), **by_seed}


def _draw(path: Path, records: Sequence[VideoRecord], scores: Mapping[str, list[npt.NDArray[np.float32]]]) -> None:
    """Draw the scores over the planted importance, one row per video; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    from visp.plots import plot_scores

    figure = Figure(figsize=(3.4 * len(scores), 1.1 + 1.7 * len(records)), layout="constrained")
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
