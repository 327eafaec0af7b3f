from __future__ import annotations

import json
import math
from typing import Any

import h5py
import numpy as np
import pytest

from visp.data.h5 import write_h5
from visp.data.synthetic import make_corpus
from visp.eval.evaluation import evaluate
from visp.eval.metrics import f_score, human_consistency, rank_correlation
from visp.eval.results import Evaluation
from visp.eval.summary import make_summary

RECORDS = make_corpus(3, feature_dim=4, seed=0)
Fields = dict[str, dict[str, Any]]


def fields() -> Fields:
    """The corpus as the field's files hold it, with ratings of 1 to 5 beside it."""
    rng = np.random.default_rng(0)
    annotations: Fields = {}
    for record in RECORDS:
        assert record.n_frames is not None
        annotations[record.name] = {
            "picks": record.picks,
            "n_frames": record.n_frames,
            "change_points": record.change_points,
            "user_summary": record.user_summary,
            "gtscore": record.gtscore,
            "user_scores": rng.integers(1, 6, size=(3, record.n_frames)),
        }
    return annotations


def predictions(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {record.name: rng.random(len(record.features)) for record in RECORDS}


@pytest.mark.parametrize(
    ("protocol", "benchmark", "key", "over_users"),
    [
        ("csta", "tvsum", "user_scores", "mean"),
        ("otani", "tvsum", "user_scores", "mean"),
        ("scores", "tvsum", "user_scores", "mean"),
        ("msva", "tvsum", "user_summary", "mean"),
        ("csta", "summe", "user_summary", "max"),
        ("msva", "summe", "user_summary", "max"),
        ("scores", "summe", "gtscore", "max"),
    ],
)
def test_rows_and_means_are_those_of_the_functions_for_one_video(
    protocol: Any, benchmark: Any, key: str, over_users: Any
) -> None:
    annotations, scores = fields(), predictions()
    for video in annotations.values():
        video["change_points"] = video["change_points"][:8]  # of 12: the two budget bases differ
    result = evaluate(scores, annotations, protocol=protocol, benchmark=benchmark, budget=0.3, budget_base="n_frames")
    assert [row.video for row in result.videos] == list(scores)
    summaries_are_compared = key == "user_summary"
    for row in result.videos:
        video, prediction = annotations[row.video], scores[row.video]
        summary = make_summary(
            prediction, video["change_points"], video["n_frames"], video["picks"], budget=0.3, budget_base="n_frames"
        )
        ranks = rank_correlation(
            summary if summaries_are_compared else prediction,
            video[key][None] if key == "gtscore" else video[key],
            protocol=protocol,
            benchmark=benchmark,
            picks=video["picks"],
            n_frames=video["n_frames"],
        )
        assert (row.tau, row.rho, row.num_undefined) == (ranks.tau, ranks.rho, ranks.num_undefined)
        assert row.f_score == f_score(summary, video["user_summary"], over_users)
        assert row.share == summary.share
    assert result.tau == pytest.approx(np.mean([row.tau for row in result.videos]))
    assert result.rho == pytest.approx(np.mean([row.rho for row in result.videos]))
    assert result.f_score == pytest.approx(np.mean([row.f_score for row in result.videos]))
    assert result.share == pytest.approx(np.mean([row.share for row in result.videos]))
    assert (result.protocol, result.benchmark, result.over_users) == (protocol, benchmark, over_users)


def with_an_undefined_video() -> Evaluation:
    scores = predictions()
    scores["video_2"] = np.full_like(scores["video_2"], 0.5)
    return evaluate(scores, fields(), protocol="otani", benchmark="tvsum")


def test_an_undefined_video_is_counted_and_left_out_of_the_means() -> None:
    result = with_an_undefined_video()
    assert result.num_undefined == 1
    assert math.isnan(result.videos[1].tau)
    assert result.videos[1].num_undefined == 3
    assert result.tau == pytest.approx((result.videos[0].tau + result.videos[2].tau) / 2)


def test_the_table_names_the_protocol_beside_every_metric() -> None:
    result = with_an_undefined_video()
    lines = result.table().splitlines()
    assert lines[0] == ("| video | tau (otani, tvsum) | rho (otani, tvsum) | F-score (mean over users) | share kept |")
    assert [line.split("|")[1].strip() for line in lines[2:6]] == ["video_1", "video_2", "video_3", "mean"]
    assert lines[5] == f"| mean | {result.tau:.4f} | {result.rho:.4f} | {result.f_score:.4f} | {result.share:.3f} |"
    assert "protocol otani (tvsum), scores upsampled to all frames against each annotator's scores" in lines[-1]
    assert "at most 0.15 of the frames up to the last shot" in lines[-1]
    assert lines[-1].endswith("Without a tau: 1 videos.")


def test_below_the_mean_stand_its_error_and_the_means_of_chance_and_of_people() -> None:
    result = evaluate(predictions(), fields(), protocol="csta", benchmark="summe")
    error, constant, random, humans = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in result.table().splitlines()[6:10]
    )
    taus = [row.tau for row in result.videos]
    assert error[:2] == ["standard error over videos", f"{np.std(taus, ddof=1) / math.sqrt(3):.4f}"]
    for cells, key in ((constant, "constant"), (random, "random"), (humans, "humans")):
        rows = result.baselines[key]  # type: ignore[index]
        assert cells[1:4] == [
            f"{np.mean([getattr(row, metric) for row in rows]):.4f}" for metric in ("tau", "rho", "f_score")
        ]
    assert [cells[0] for cells in (constant, random, humans)] == [
        "constant scores",
        "random scores, mean of 20 draws",
        "each user against the others",
    ]


@pytest.mark.parametrize(("protocol", "benchmark"), [("csta", "summe"), ("csta", "tvsum"), ("scores", "summe")])
def test_chance_is_what_such_scores_get_when_they_are_evaluated(protocol: Any, benchmark: Any) -> None:
    constant = {name: np.full_like(scores, 7.0) for name, scores in predictions().items()}
    expected = evaluate(constant, fields(), protocol=protocol, benchmark=benchmark)
    given = evaluate(predictions(), fields(), protocol=protocol, benchmark=benchmark)
    assert given.baselines["constant"] == expected.videos
    taus, f_scores = [], []
    for seed in range(300):
        draw = evaluate(
            predictions(seed),
            fields(),
            protocol=protocol,
            benchmark=benchmark,
            known_baselines={record.name: {} for record in RECORDS},
        )
        taus.append(draw.tau)
        f_scores.append(draw.f_score)
    # the mean of 20 draws of 3 videos lies within four of its standard errors of the mean of 300 others
    assert given.mean("tau", "random") == pytest.approx(np.mean(taus), abs=4 * np.std(taus) / math.sqrt(20))
    assert given.mean("f_score", "random") == pytest.approx(np.mean(f_scores), abs=4 * np.std(f_scores) / math.sqrt(20))


def test_people_are_each_left_out_in_turn() -> None:
    given = evaluate(predictions(), fields(), protocol="csta", benchmark="summe")
    for row in given.baselines["humans"]:
        kept = fields()[row.video]["user_summary"]
        assert row.tau == human_consistency(kept, "csta", "summe").tau
        others = [np.delete(kept, user, axis=0) for user in range(len(kept))]
        assert row.f_score == pytest.approx(
            np.mean([f_score(user, rest, "max") for user, rest in zip(kept, others, strict=True)])
        )
        assert row.share == pytest.approx(kept.mean())


def test_people_under_a_protocol_that_compares_with_all_of_them_have_an_f_score_only() -> None:
    (first, *_) = evaluate(predictions(), fields(), protocol="scores", benchmark="summe").baselines["humans"]
    assert math.isnan(first.tau)
    assert 0 < first.f_score < 1


def test_a_single_user_has_nobody_to_be_compared_with() -> None:
    annotations = fields()
    for video in annotations.values():
        video["user_summary"] = video["user_summary"][:1]
    assert list(evaluate(predictions(), annotations, protocol="csta", benchmark="summe").baselines) == [
        "constant",
        "random",
    ]


def test_random_scores_do_not_depend_on_the_other_videos_or_the_order() -> None:
    whole = evaluate(predictions(), fields(), protocol="csta", benchmark="summe").baselines["random"]
    for row in whole:
        scores, annotations = {row.video: predictions()[row.video]}, {row.video: fields()[row.video]}
        alone = evaluate(scores, annotations, protocol="csta", benchmark="summe")
        assert alone.baselines["random"] == (row,)


def test_the_dict_survives_strict_json() -> None:
    result = with_an_undefined_video()
    read = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert read["protocol"] == "otani"
    assert read["benchmark"] == "tvsum"
    assert read["videos"][1]["tau"] is None
    assert read["videos"][0]["tau"] == result.videos[0].tau
    assert read["mean"]["f_score"] == result.f_score
    assert read["description"] == result.description
    assert read["baselines"]["constant"]["mean"]["tau"] is None
    assert read["baselines"]["humans"]["mean"]["f_score"] == result.mean("f_score", "humans")
    assert read["standard_error"]["f_score"] == result.standard_error("f_score")


def test_means_of_nothing_defined_are_none_in_json() -> None:
    scores = {name: np.full_like(values, 0.5) for name, values in predictions().items()}
    read = evaluate(scores, fields(), protocol="csta", benchmark="tvsum").to_json()
    assert (read["mean"]["tau"], read["mean"]["rho"], read["mean"]["num_undefined"]) == (None, None, 3)


def test_the_groups_of_an_h5_file_are_annotations(tmp_path: Any) -> None:
    path = tmp_path / "corpus.h5"
    write_h5(path, RECORDS)
    expected = evaluate(predictions(), fields(), protocol="csta", benchmark="summe")
    with h5py.File(path) as file:
        assert evaluate(predictions(), dict(file), protocol="csta", benchmark="summe") == expected


def test_videos_in_one_mapping_alone_are_named_on_both_sides() -> None:
    scores, annotations = predictions(), fields()
    scores["video_8"] = scores.pop("video_1")
    with pytest.raises(ValueError, match="only in predictions: video_8; only in annotations: video_1"):
        evaluate(scores, annotations, protocol="csta", benchmark="summe")


def test_no_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="the same videos, at least one"):
        evaluate({}, {}, protocol="csta", benchmark="summe")


@pytest.mark.parametrize("protocol", ["csta", "otani", "scores"])
def test_missing_raw_scores_name_the_file_that_brings_them(protocol: Any) -> None:
    annotations = fields()
    del annotations["video_2"]["user_scores"]
    with pytest.raises(ValueError, match=rf"^video_2: protocol '{protocol}' on tvsum .* ydata-anno.tsv with visp.data"):
        evaluate(predictions(), annotations, protocol=protocol, benchmark="tvsum")


@pytest.mark.parametrize("key", ["picks", "n_frames", "change_points", "user_summary", "gtscore"])
def test_a_missing_field_is_named(key: str) -> None:
    annotations = fields()
    del annotations["video_3"][key]
    with pytest.raises(ValueError, match=f"^video_3: the annotations lack {key}; they hold "):
        evaluate(predictions(), annotations, protocol="scores", benchmark="summe")


def test_a_refused_video_is_named() -> None:
    scores = predictions()
    scores["video_2"][3] = np.inf
    with pytest.raises(ValueError, match=r"^video_2: the scores hold values that are not finite"):
        evaluate(scores, fields(), protocol="csta", benchmark="summe")


def test_user_summaries_of_another_length_are_refused_with_both() -> None:
    annotations = fields()
    n_frames = annotations["video_1"]["n_frames"]
    annotations["video_1"]["user_summary"] = annotations["video_1"]["user_summary"][:, :-1]
    with pytest.raises(ValueError, match=f"^video_1: .* differ in length: {n_frames} and {n_frames - 1}"):
        evaluate(predictions(), annotations, protocol="csta", benchmark="summe")


def test_warnings_name_the_video() -> None:
    with pytest.warns(UserWarning, match="the summary is empty") as caught:
        result = evaluate(predictions(), fields(), protocol="csta", benchmark="tvsum", budget=0.001)
    assert [str(warning.message).split(":")[0] for warning in caught] == ["video_1", "video_2", "video_3"]
    assert (result.f_score, result.share) == (0, 0)


def test_an_undefined_protocol_is_refused_before_any_video_is_read() -> None:
    with pytest.raises(ValueError, match="'otani' is not defined for 'summe'"):
        evaluate({"a": [1]}, {}, protocol="otani", benchmark="summe")


def test_hour_long_videos_are_judged_by_correlation_alone() -> None:
    gtscore = np.array([0.0, 0.5, 0.25, 1.0])
    found = evaluate({"a": [1.0, 2.0, 3.0, 4.0]}, {"a": {"gtscore": gtscore}}, protocol="scores", benchmark="qfvs")
    assert found.tau == pytest.approx(4 / 6)  # five pairs of six agree
    assert math.isnan(found.f_score)
    assert set(found.baselines) == {"constant", "random"}
    assert "F-score" not in found.description
    with pytest.raises(ValueError, match="the annotations lack gtscore"):
        evaluate({"a": [1.0]}, {"a": {}}, protocol="scores", benchmark="qfvs")
