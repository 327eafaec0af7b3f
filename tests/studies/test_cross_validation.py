from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, Split, make_splits
from visp.data.synthetic import make_corpus
from visp.studies.cross_validation import cross_validate
from visp.studies.results import CrossValidation, Fold, read_results, results_table
from visp.studies.significance import compare, pair
from visp.utils.noise import seeded
from visp.weights import CheckpointError, save_state


class Scorer(nn.Module):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Scorer.made += 1
        self.score = nn.Linear(64, 1)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.score(frames).squeeze(-1)
        return logits


RECORDS = make_corpus(6, num_shots=10, shot_length=(1, 2))
VIDEOS = InMemoryDataset(RECORDS)
SPLITS = make_splits(VIDEOS.names, folds=3)


def evaluator() -> visp.Evaluator:
    return visp.Evaluator(VIDEOS, user_scores={r.name: r.user_summary for r in RECORDS if r.user_summary is not None})


def run(**options: Any) -> CrossValidation:
    videos = options.pop("videos", VIDEOS)
    given = {"splits": SPLITS, "evaluator": evaluator(), "epochs": 2, "progress": False, **options}
    return cross_validate(given.pop("make_summarizer", Scorer), videos, given.pop("splits"), **given)


def test_a_round_is_the_mean_over_its_folds_and_a_fold_what_finetune_finds() -> None:
    result = run(rounds=2, seed=5)
    assert [(fold.round, fold.fold, fold.seed) for fold in result.folds] == [
        (number, fold, 5 + number) for number in range(2) for fold in range(3)
    ]
    expected = []
    for seed in (5, 6):
        taus = []
        for split in SPLITS:
            torch.manual_seed(seed)
            summarizer = Scorer()
            found = visp.finetune(summarizer, VIDEOS, split, evaluator=evaluator(), epochs=2, seed=seed, progress=False)
            assert found.test is not None
            taus.append(found.test.tau)
        expected.append(np.mean(taus))
    assert result.per_round("tau") == pytest.approx(expected)
    assert result.mean("tau") == pytest.approx(np.mean(expected))
    assert result.spread("tau") == pytest.approx(np.std(expected, ddof=1))
    assert result.best_round("tau") == pytest.approx(max(expected))


def test_every_fold_starts_from_the_pretrained_weights(tmp_path: Path) -> None:
    trained = Scorer()
    save_state(trained.state_dict(), tmp_path / "weights.pt")
    scratch, from_file, from_state = (
        run(lr=0.0),
        run(lr=0.0, pretrained=tmp_path / "weights.pt"),
        run(lr=0.0, pretrained=trained.state_dict()),
    )
    assert from_file.per_round() == from_state.per_round() != scratch.per_round()


def test_each_round_may_start_from_weights_of_its_own() -> None:
    starts = [Scorer().state_dict() for _ in range(2)]
    both = run(rounds=2, pretrained=starts, lr=0.0)
    assert both.per_round() == [run(pretrained=start, lr=0.0).per_round()[0] for start in starts]
    with pytest.raises(ValueError, match="each of 3 rounds, got 2"):
        run(rounds=3, pretrained=starts)


def test_a_finished_fold_is_not_done_again_and_an_unfinished_one_is_gone_on_with(tmp_path: Path) -> None:
    expected = run(rounds=2)

    class Stops(visp.Evaluator):
        calls = 0

        def __call__(self, *arguments: Any) -> Any:
            Stops.calls += 1
            if Stops.calls > 4:
                raise KeyboardInterrupt
            return super().__call__(*arguments)

    stopping = Stops(VIDEOS, user_scores=evaluator().user_scores)
    with pytest.raises(KeyboardInterrupt):
        run(rounds=2, evaluator=stopping, out_dir=tmp_path / "run")
    assert len(list((tmp_path / "run").glob("*/*/fold.json"))) == 4
    to_compare = 1  # whose first weights must be those of the run that is resumed
    Scorer.made = 0
    result = run(rounds=2, out_dir=tmp_path / "run")
    assert Scorer.made == to_compare + 2
    assert result.folds == expected.folds
    Scorer.made = 0
    assert run(rounds=2, out_dir=tmp_path / "run").folds == expected.folds
    assert Scorer.made == to_compare


def test_more_rounds_may_follow(tmp_path: Path) -> None:
    first = run(out_dir=tmp_path / "run")
    assert run(rounds=2, out_dir=tmp_path / "run").folds[:3] == first.folds


def test_the_results_are_read_back(tmp_path: Path) -> None:
    result = run(rounds=2, out_dir=tmp_path / "run")
    assert read_results(tmp_path / "run") == result
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["tau"]["mean"] == result.mean("tau")
    assert written["tau"]["rounds"] == result.per_round("tau")
    assert written["folds"][0]["evaluation"]["videos"][0]["video"] == SPLITS[0].test[0]


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    run(out_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"options was .* and is"):
        run(out_dir=tmp_path / "run", epochs=3)


class WiderScorer(Scorer):
    pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"make_summarizer": WiderScorer}, "summarizer was 'Scorer .* and is 'WiderScorer"),
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"pretrained": {"score.weight": torch.ones(1, 64), "score.bias": torch.zeros(1)}}, r"pretrained was \[None\]"),
        ({"select": "test"}, "select was 'last' and is 'test'"),
        ({"splits": SPLITS[:2]}, "splits was"),
    ],
)
def test_each_thing_that_differs_from_the_run_to_resume_is_named(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run(epochs=1, out_dir=tmp_path / "run")
    before = (tmp_path / "run" / "results.json").read_bytes()
    with pytest.raises(CheckpointError, match=message):
        run(epochs=1, out_dir=tmp_path / "run", **change)
    assert (tmp_path / "run" / "results.json").read_bytes() == before


@pytest.mark.parametrize("key", ["features", "gtscore", "user_summary"])
def test_other_data_under_the_same_names_are_refused(key: str, tmp_path: Path) -> None:
    run(epochs=1, out_dir=tmp_path / "run")
    changed = getattr(RECORDS[2], key).copy()
    changed[0] = 1 - changed[0]
    videos = InMemoryDataset([*RECORDS[:2], replace(RECORDS[2], **{key: changed}), *RECORDS[3:]])
    with pytest.raises(CheckpointError, match=r"data was '[0-9a-f]{8}' and is '[0-9a-f]{8}'"):
        run(epochs=1, out_dir=tmp_path / "run", videos=videos)


def spoil(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("folds",), {}, "the file: expected 'folds' as list, got dict"),
        (("folds",), [], "folds is empty"),
        (("folds", 0), 7, r"folds\[0\]: expected an object, got int"),
        (("folds", 1, "round"), "0", r"folds\[1\]: expected 'round' as int, got str"),
        (("folds", 0, "evaluation", "mean", "tau"), "high", "mean: expected tau as a number or null, got 'high'"),
        (("folds", 0, "evaluation", "videos", 0), {"tau": 1.0}, r"videos\[0\]: 'video' is missing"),
        (("folds", 0, "evaluation", "baselines"), None, "expected 'baselines' as dict, got NoneType"),
    ],
)
def test_results_of_another_structure_are_refused_by_the_part(
    path: tuple[Any, ...], new: Any, message: str, tmp_path: Path
) -> None:
    run(epochs=1, out_dir=tmp_path / "run")
    results = tmp_path / "run" / "results.json"
    found = json.loads(results.read_text())
    spoil(found, path, new)
    results.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"results.json does not hold the results of a cross-validation: .*{message}"):
        read_results(tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "7", '{"round": 0}'])
def test_a_damaged_fold_is_one_line(text: str, tmp_path: Path) -> None:
    run(epochs=1, out_dir=tmp_path / "run")
    (tmp_path / "run" / "round-0" / "fold-1" / "fold.json").write_text(text)
    with pytest.raises(ValueError, match=r"fold\.json does not hold a fold of a cross-validation: ") as caught:
        run(epochs=1, out_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_two_threads_find_what_each_finds_alone() -> None:
    made: dict[int, list[Tensor]] = {seed: [] for seed in range(8)}

    def make(seed: int) -> None:
        for _ in range(20):
            with seeded(seed):
                made[seed].append(Scorer().score.weight.detach())

    threads = [threading.Thread(target=make, args=(seed,)) for seed in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, weights in made.items():
        torch.manual_seed(seed)
        expected = Scorer().score.weight
        assert all(torch.equal(weight, expected) for weight in weights)


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="holds no cross-validation"):
        run(out_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_validation_videos_are_held_out_of_the_training_videos(tmp_path: Path) -> None:
    result = run(select="validation", out_dir=tmp_path / "run")
    assert result.select == "validation"
    config = json.loads((tmp_path / "run" / "round-0" / "fold-0" / "config.json").read_text())
    split = config["split"]
    assert sorted(split["train"] + split["validation"]) == sorted(SPLITS[0].train)
    assert len(split["validation"]) == 1


def test_the_table_names_protocol_and_selection_and_marks_the_test_fold() -> None:
    table = results_table({"scratch": run(select="test"), "pretrained": run(rounds=2)})
    scratch, pretrained = table.splitlines()[2:4]
    assert scratch.startswith("| scratch | csta, tvsum | **test videos** | 1 | ")
    assert pretrained.startswith("| pretrained | csta, tvsum | last | 2 | ")
    assert "±" in pretrained
    assert "±" not in scratch


def test_the_table_ends_with_chance_and_people_once() -> None:
    first = run()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in results_table({"scratch": first, "again": run(seed=1)}).splitlines()[4:7]
    ]
    assert [row[0] for row in rows] == [
        "constant scores",
        "random scores, mean of 20 draws",
        "each user against the others",
    ]
    assert rows[0][4:7] == ["undefined", "undefined", f"{first.baseline('constant', 'f_score'):.3f}"]
    assert rows[2][4] == f"{first.baseline('humans', 'tau'):.3f}"


def test_chance_is_averaged_as_the_metrics_are() -> None:
    result = run(rounds=2)
    by_fold = [evaluator()(Scorer(), split.test).mean("f_score", "random") for split in SPLITS]
    assert result.baseline("random", "f_score") == pytest.approx(np.mean(by_fold))


def test_the_standard_error_is_over_videos_of_their_means_over_rounds() -> None:
    result = run(rounds=2)
    taus: dict[str, list[float]] = {}
    for fold in result.folds:
        for row in fold.evaluation["videos"]:
            taus.setdefault(row["video"], []).append(row["tau"])
    means = [sum(values) / len(values) for values in taus.values()]
    assert len(means) == len(VIDEOS)
    assert result.standard_error("tau") == pytest.approx(np.std(means, ddof=1) / np.sqrt(len(means)))


def test_an_undefined_metric_stays_undefined(tmp_path: Path) -> None:
    fold = Fold(0, 0, 0, 1, {"mean": {"tau": None, "rho": 0.5, "f_score": 0.5}, "videos": [], "baselines": {}})
    result = CrossValidation((fold,), "csta, tvsum", "last", None)
    assert np.isnan(result.mean("tau"))
    assert result.to_json()["tau"]["mean"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": []}, "at least one split"),
        ({"rounds": 0}, "expected rounds >= 1"),
        ({"evaluator": None}, "needs an evaluator"),
        ({"resume": True}, "takes no resume: folds start from `pretrained` and are resumed"),
    ],
)
def test_what_makes_no_cross_validation_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**change)


def test_pretrained_folds_have_the_learning_rate_of_pretrained_weights(tmp_path: Path) -> None:
    start = Scorer().state_dict()
    assert run(pretrained=start, lr=0.5, pretrained_lr=0.0).per_round() == run(pretrained=start, lr=0.0).per_round()
    assert run(lr=0.0, pretrained_lr=0.5).per_round() == run(lr=0.0).per_round()


def test_users_scores_that_differ_are_another_cross_validation(tmp_path: Path) -> None:
    run(epochs=1, out_dir=tmp_path / "run")
    other = visp.Evaluator(
        VIDEOS, user_scores={r.name: 1 - r.user_summary for r in RECORDS if r.user_summary is not None}
    )
    with pytest.raises(CheckpointError, match="evaluation was"):
        run(epochs=1, out_dir=tmp_path / "run", evaluator=other)


def test_a_fold_without_test_videos_is_refused() -> None:
    with pytest.raises(ValueError, match="fold 0 has no test videos"):
        run(splits=[Split(train=VIDEOS.names, test=())])


def test_compare_is_welchs_test() -> None:
    a, b = [0.1, 0.2, 0.15], [0.3, 0.25, 0.5, 0.2]
    found, expected = compare(a, b), stats.ttest_ind(b, a, equal_var=False)
    assert found.t == pytest.approx(expected.statistic)
    assert found.degrees_of_freedom == pytest.approx(expected.df)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.mean_a == pytest.approx(np.mean(a))
    assert found.mean_b == pytest.approx(np.mean(b))
    assert found.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert found.rounds == (3, 4)


def test_the_effect_size_is_hedges_g() -> None:
    a, b = [0.1, 0.2, 0.15], [0.3, 0.25, 0.5]
    pooled = np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    assert compare(a, b).effect_size == pytest.approx((np.mean(b) - np.mean(a)) / pooled * (1 - 3 / 15))
    assert "Hedges' g = " in str(compare(a, b))
    assert compare([1.0, 1.0], [2.0, 2.0]).effect_size == float("inf")
    assert compare([1.0, 1.0], [1.0, 1.0]).effect_size == 0


def test_compare_takes_a_side_without_spread() -> None:
    found = compare([0.1, 0.1, 0.1], [0.3, 0.4])
    assert found.t == pytest.approx(0.25 / np.sqrt(0.005 / 2))
    assert found.degrees_of_freedom == pytest.approx(1)


def test_compare_takes_cross_validations() -> None:
    a, b = run(rounds=2), run(rounds=2, seed=7)
    over_rounds = compare(a.per_round("rho"), b.per_round("rho"))
    found = compare(a, b, "rho")
    assert replace(found, paired=None) == over_rounds
    first, second = a.per_video("rho"), b.per_video("rho")
    expected = stats.ttest_rel(list(second.values()), [first[name] for name in second])
    assert found.paired is not None
    assert (found.paired.t, found.paired.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.paired.num_videos == len(VIDEOS)


def test_one_round_each_is_compared_over_videos_alone() -> None:
    found = compare(run(), run(seed=7))
    assert found.paired is not None
    assert np.isnan(found.p_value)
    assert "no spread over 1 and 1 rounds; paired over 6 videos" in str(found)
    assert 0 <= found.paired.p_value <= 1


def test_pairs_are_the_videos_for_which_both_are_defined() -> None:
    found = pair({"a": 0.1, "b": 0.2, "c": 0.3, "d": float("nan")}, {"c": 0.5, "b": 0.3, "d": 0.1, "e": 0.2})
    assert found is not None
    assert found.num_videos == 2
    assert found.difference == pytest.approx(0.15)
    assert found.standard_error == pytest.approx(0.05)
    assert pair({"a": 0.1}, {"a": 0.2}) is None


def test_without_any_spread_a_difference_is_certain_and_equality_shows_nothing() -> None:
    assert compare([1.0, 1.0], [2.0, 2.0]).p_value == 0
    assert compare([1.0, 1.0], [1.0, 1.0]).p_value == 1


@pytest.mark.parametrize(("rounds", "message"), [([0.1], "has 1 rounds"), ([0.1, float("nan")], "not finite")])
def test_rounds_that_tell_nothing_are_refused(rounds: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare([0.1, 0.2], rounds)
