"""Draw the figures of the paper on the embedded corpus, each by its study: needs ``pip install "visp[plot]"``.

python examples/paper_figures.py --out figures
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from visp.data import VideoDataset
from visp.data.synthetic import write_corpus
from visp.factory import make_summarizer
from visp.studies.ablation import ablation, draw_variants
from visp.studies.batch_size import batch_sizes, draw_batch_sizes
from visp.studies.curves import draw_curves
from visp.studies.diversity import diversity, draw_diversity
from visp.studies.rounds import WITH_AND_WITHOUT, draw_rounds
from visp.studies.runs import weights_of
from visp.studies.saliency import draw_saliency, saliency_rows
from visp.studies.scaling import draw_scales, scales
from visp.studies.search import draw_search, sobol_points
from visp.studies.study import Labelled, Study, StudyResult, Variant, run_study
from visp.weights import load_weights


def main() -> None:
    """Run each study at a tiny size, and draw its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each pretraining")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of figures, videos and runs")
    options = parser.parse_args()
    out, cache = options.out, options.out / "runs"
    warnings.simplefilter("ignore")  # of so small batches, and of so short runs that teach nothing
    out.mkdir(parents=True, exist_ok=True)
    corpus: dict[str, Any] = {"num_videos": 6, "feature_dim": 16, "num_shots": 6, "shot_length": (2, 4)}
    write_corpus(out / "corpus.h5", overwrite=True, **corpus)
    write_corpus(out / "others.h5", overwrite=True, seed=1, **corpus)
    labelled = Labelled(str(out / "corpus.h5"), "tvsum", user_scores="user_summary", folds=2)

    def run(name: str, variants: tuple[Variant, ...], seeds: int = 1) -> StudyResult:
        study = Study(
            name,
            variants,
            (labelled,),
            seeds=tuple(range(seeds)),
            summarizer="transformer",
            training={"epochs": options.epochs, "batch_size": 6},
            finetuning={"epochs": 1},
        )
        return run_study(study, out / name, cache=cache, progress=False)

    def save(name: str, draw: Any) -> None:
        figure = Figure(layout="constrained")
        draw(figure)
        figure.savefig(out / f"{name}.png", dpi=150)
        print(f"drawn: {out / name}.png")

    save("figure3_batch_size", partial(draw_batch_sizes, run("batch-size", batch_sizes((3, 6)))))
    search = run("search", sobol_points(4))
    save("figure4_search", partial(draw_search, search))
    rounds = run("significance", WITH_AND_WITHOUT, seeds=2)
    save("figure6_significance", partial(draw_rounds, rounds))
    shares = scales((0.5,), out_domain=(str(out / "others.h5"),))
    save("figure7_scaling", partial(draw_scales, run("scaling", shares)))

    videos = VideoDataset(out / "corpus.h5")
    models = {}
    for label, source in (
        ("ViSP", rounds.pretrainings["ViSP"][0]),
        ("ViSP, fine-tuned", rounds.folds["ViSP", "corpus"][0]),
        ("not pretrained", rounds.folds["not pretrained", "corpus"][0]),
    ):
        models[label] = make_summarizer("transformer", videos.feature_dim)
        load_weights(models[label], weights_of(source, cache))
    video = rounds.folds["ViSP", "corpus"][0].split.test[0]
    save("figure8_saliency", partial(draw_saliency, saliency_rows(videos, video, models)))
    save("section44_diversity", partial(draw_diversity, diversity(rounds, cache)))
    variants = run("ablation", ablation(fsa=False)[:7])  # the rows of Table 3 that need no other file
    save("table3_ablation", partial(draw_variants, variants))
    save("training_curves", partial(draw_curves, variants, cache=cache))


if __name__ == "__main__":
    main()
