"""The concrete studies: what they vary, and that each command runs on a small embedded corpus."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from visp import cli
from visp.data import VideoRecord, write_h5
from visp.data.synthetic import make_corpus, write_corpus
from visp.plots import read_metrics
from visp.studies.ablation import ablation
from visp.studies.curves import draw_curves, has_curves
from visp.studies.diversity import DRAWS, diversity_of, draw_summaries
from visp.studies.results import CrossValidation, Fold
from visp.studies.runs import metrics_of
from visp.studies.scaling import scales
from visp.studies.search import RANGES, best_points, sobol_points, value_of
from visp.studies.study import Labelled, Study, StudyResult, Variant, run_study
from visp.studies.table import PUBLISHED, with_and_without

LINEAR = "tests.studies.few_models:Linear"


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a labelled file, and the cache of all commands."""
    folder = tmp_path_factory.mktemp("studies")
    write_corpus(folder / "videos.h5", num_videos=8, feature_dim=8, num_shots=8, shot_length=(1, 2))
    return folder


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (("diversity",), "## Diversity: 20 summaries drawn per video and seed"),
        (("table", "--summarizers", LINEAR), "## Published"),
        (("ablation",), "(+) FSA was left out"),
        (("search", "--points", "4"), "They were chosen on the **test videos**"),
        (("search", "--points", "4", "--objective", "identification"), "No label was used to choose"),
        (("batch-size", "--sizes", "4", "8"), "| N = 8 |"),
        (("scaling", "--shares", "0.5", "--with-test-videos"), "| in-domain, test videos left out, share 0.5 |"),
    ],
    ids=lambda each: each[0] + each[-1] if isinstance(each, tuple) else "",
)
@pytest.mark.filterwarnings("ignore:a batch of")  # below 8 videos the pretrainer warns, of which these runs are
def test_each_command_runs_and_writes_its_report(
    command: tuple[str, ...], wanted: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--summe", str(place / "videos.h5"), "--summarizer", LINEAR, "--seeds", "1", "--folds", "2"]
    lengths = ["--epochs", "1", "--finetune-epochs", "1", "--cache", str(place / "cache"), "--out", str(tmp_path)]
    assert cli.main(["study", *command, *common, *lengths]) == 0
    assert wanted in (tmp_path / "table.md").read_text()
    assert wanted in capsys.readouterr().out
    names = {"study.json", "table.md", "table.csv", "results.json"}
    names |= {f"{figure}.{ending}" for figure in ("figure", "curves") for ending in ("png", "pdf")}
    assert names == {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "study.json").read_text())["study"]["name"] == command[0]


@pytest.mark.filterwarnings("ignore:a batch of")
def test_long_videos_are_studied_in_segments_leaving_one_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Appendix .4 of the paper: pretraining, fine-tuning and scores by segment, without shots."""
    corpus = make_corpus(4, feature_dim=8, num_shots=10, shot_length=(3, 5))
    write_h5(tmp_path / "qfvs.h5", [VideoRecord(each.name, each.features, gtscore=each.gtscore) for each in corpus])
    out = tmp_path / "out"
    data = [
        "--qfvs",
        str(tmp_path / "qfvs.h5"),
        "--folds",
        "leave-one-out",
        "--segment-length",
        "12",
        "--out",
        str(out),
    ]
    short = ["--summarizer", LINEAR, "--seeds", "1", "--epochs", "1", "--finetune-epochs", "1"]
    assert cli.main(["study", "significance", *data, *short, "--out", str(out)]) == 0
    table = (out / "table.md").read_text()
    assert "no shots chosen; one fold for each video" in table
    found = json.loads((out / "results.json").read_text())["variants"]["ViSP"]["files"]["qfvs"]["fine_tuned"]
    assert [len(fold["evaluation"]["videos"]) for fold in found["folds"]] == [1, 1, 1, 1]
    assert found["f_score"]["mean"] is None
    assert isinstance(found["tau"]["mean"], float)
    runs = [json.loads(path.read_text())["run"] for path in out.glob("runs/*/run.json")]
    assert [run["training"]["segment_length"] for run in runs] == [12] * 9  # one pretraining, two times four folds
    segments = sum(-(-len(each.features) // 12) for each in corpus)
    (log,) = [path for path in out.glob("runs/*/run/config.json") if "num_videos" in path.read_text()]
    assert json.loads(log.read_text())["num_videos"] == segments


def test_a_study_that_needs_labels_says_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--pretrain-data", str(place / "videos.h5"), "--out", str(tmp_path)]
    assert cli.main(["study", "diversity", *data]) == 2
    assert "visp study diversity compares with labels: expected --summe, --tvsum or --qfvs" in capsys.readouterr().err


def test_the_ablation_is_table_3_with_the_contrasts() -> None:
    names = [variant.name for variant in ablation(fsa=True)]
    assert names[0] == "not pretrained"
    assert {"(-) Concrete", "(+) Gumbel", "(+) STE", "(+) Margin", "(+) HN", "(+) FSA"} <= set(names)
    assert {"contrast videos", "contrast windows", "contrast both"} <= set(names)
    assert "(+) FSA" not in [variant.name for variant in ablation(fsa=False)]


def test_no_share_holds_test_videos_unless_asked_for() -> None:
    assert all(variant.unseen for variant in scales([0.5, 1], out_domain=("x.h5",))[1:])
    asked = scales([1], with_test_videos=True)
    assert [variant.name for variant in asked if not variant.unseen][1:] == ["in-domain, test videos included, share 1"]


def test_points_spread_over_the_logarithm_of_the_papers_ranges() -> None:
    points = sobol_points(64)
    for name, (low, high) in RANGES.items():
        values = np.array([variant.objective[name] for variant in points])
        assert ((values >= low * 0.99) & (values <= high * 1.01)).all()
        unit = np.log(values / low) / np.log(high / low)
        assert np.histogram(unit, bins=4, range=(0, 1))[0].tolist() == [16, 16, 16, 16]
    with pytest.raises(ValueError, match="power of two of at least 4"):
        sobol_points(12)


def test_a_search_ranks_by_its_objective() -> None:
    points = sobol_points(4)
    labelled = Labelled("videos.h5", "summe")

    def cross_validation(tau: float) -> CrossValidation:
        row = {"tau": tau, "rho": 0.0, "f_score": 0.0}
        return CrossValidation((Fold(0, 0, 0, 1, {"mean": row, "videos": [], "baselines": {}}),), "csta", "last", None)

    result = StudyResult(
        Study("search", points, (labelled,), seeds=(0,)),
        {(each.name, "videos"): cross_validation(number) for number, each in enumerate(points)},
        {(each.name, "videos"): cross_validation(-number) for number, each in enumerate(points)},
        {each.name: {"identification": float(number != 1)} for number, each in enumerate(points)},
        {},
        {},
        {},
    )
    assert [value_of(result, each, "fine-tuned") for each in points] == [0, 1, 2, 3]
    for objective, best in (("fine-tuned", 3), ("before", 0), ("identification", 1)):
        first = best_points(result, objective, shown=1).splitlines()[4]  # type: ignore[arg-type]
        assert first.startswith(f"| {points[best].name} |")


def test_coverage_and_users_are_those_of_a_worked_example() -> None:
    users = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=np.uint8)
    drawn = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]], dtype=np.uint8)
    found = diversity_of(drawn, np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8), users)
    assert found.retained == pytest.approx(5 / 12)
    assert found.coverage == 1.0  # the first draw covers the first user, the second the second
    assert found.users_served == 1.0  # of the two users with a summary
    assert found.best_draw == pytest.approx((4 / 5 + 1) / 2)
    assert found.fixed == pytest.approx((2 / 3 + 0) / 2)


def test_random_frames_keep_as_many_and_forget_the_scores() -> None:
    (record,) = make_corpus(1, num_shots=20)
    logits = np.where(np.arange(len(record.features)) % 3 == 0, 8.0, -8.0).astype(np.float32)
    drawn, fixed = draw_summaries(logits, record, np.random.default_rng(0))
    shuffled, _ = draw_summaries(logits, record, np.random.default_rng(0), shuffled=True)
    assert drawn.shape == (DRAWS, record.n_frames)
    assert drawn.sum(axis=1).tolist() == shuffled.sum(axis=1).tolist()
    assert (drawn == fixed).mean() > 0.95
    assert (shuffled == fixed).mean() < 0.7


def test_each_summarizer_is_there_with_and_without() -> None:
    assert with_and_without(["a", "b"]) == (
        Variant("a", kind="none", summarizer="a"),
        Variant("ViSP+a", summarizer="a"),
        Variant("b", kind="none", summarizer="b"),
        Variant("ViSP+b", summarizer="b"),
    )
    assert PUBLISHED["ViSP+CSTA"] == ("0.273", "0.305", "0.201", "0.263")


def test_the_curves_of_variants_are_their_runs_and_a_shared_run_is_drawn_once(place: Path, tmp_path: Path) -> None:
    same = (Variant("default"), Variant("both", objective={"contrast": "both"}))
    variants = (Variant("not pretrained", kind="none"), *same, Variant("videos", objective={"contrast": "videos"}))
    study = Study("curves", variants, unlabelled=(str(place / "videos.h5"),), seeds=(0,), summarizer=LINEAR)
    result = run_study(replace(study, training={"epochs": 3}), tmp_path, progress=False)
    figure = Figure(layout="constrained")
    draw_curves(result, figure, tmp_path / "runs")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["default = both", "videos"]
    for ax, metric in zip(figure.axes, ("mi_lower_bound", "keep_ratio"), strict=True):
        for number, name in enumerate(("default", "videos")):
            steps = read_metrics(metrics_of(result.pretrainings[name][0], tmp_path / "runs"))
            np.testing.assert_array_equal(ax.lines[2 * number].get_ydata(), [step[metric] for step in steps])
    many = tuple(Variant(str(number)) for number in range(11))
    assert has_curves(result)
    assert not has_curves(replace(result, study=replace(study, variants=many)))
    assert not has_curves(replace(result, study=replace(study, variants=variants[:1])))
