from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import visp
from visp import cli
from visp.data import VideoDataset, make_splits
from visp.data.synthetic import write_corpus
from visp.evaluator import Evaluator
from visp.factory import make_encoder, make_summarizer
from visp.registry import objective_options
from visp.studies import execution
from visp.studies.execution import KnapsackSummaries, carry_out, repeat
from visp.studies.report import markdown, write_report
from visp.studies.runs import Pretraining, Run, Videos, key, read_run, weights_of
from visp.studies.study import Labelled, Study, StudyResult, Variant, run_study
from visp.training.run_folder import write_json
from visp.utils import distributed
from visp.utils.files import locked
from visp.utils.noise import seeded

LINEAR = "tests.studies.few_models:Linear"
VARIANTS = (Variant("not pretrained", kind="none"), Variant("ViSP"))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two labelled files of eight videos each."""
    folder = tmp_path_factory.mktemp("corpora")
    for number in (1, 2):
        path = folder / f"corpus_{number}.h5"
        write_corpus(path, num_videos=8, feature_dim=8, num_shots=8, shot_length=(1, 2), seed=number)
    return str(folder / "corpus_1.h5"), str(folder / "corpus_2.h5")


def study_of(files: tuple[str, str], **changed: Any) -> Study:
    labelled = (
        Labelled(files[0], "summe", folds=2),
        Labelled(files[1], "tvsum", user_scores="user_summary", folds=2),
    )
    given: dict[str, Any] = {
        "name": "small",
        "variants": VARIANTS,
        "labelled": labelled,
        "seeds": (0, 1),
        "summarizer": LINEAR,
        "training": {"epochs": 2},
        "finetuning": {"epochs": 2},
    }
    return Study(**{**given, **changed})


@pytest.fixture(scope="session")
def finished(files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    """A study that is done, and its folder."""
    out = tmp_path_factory.mktemp("study")
    result = run_study(study_of(files), out, progress=False)
    write_report(result, out)
    return result, out


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("table.md", "table.csv", "results.json")}


def test_a_study_finds_what_pretrain_and_finetune_find_by_hand(
    finished: tuple[StudyResult, Path], files: tuple[str, str]
) -> None:
    result, _ = finished
    both, videos = VideoDataset(files), VideoDataset(files[0])
    evaluator = Evaluator(videos, benchmark="summe")
    split = make_splits(videos.names, folds=2)[1]
    with seeded(1):
        summarizer = make_summarizer(LINEAR, 8)
        encoder = make_encoder("attention", 8)
    visp.pretrain(visp.ViSPPretrainer(summarizer, encoder, seed=1), both, epochs=2, seed=1, progress=False)
    before = evaluator(summarizer, split.test)
    after = visp.finetune(summarizer, videos, split, evaluator=evaluator, epochs=2, seed=1, progress=False).test
    assert after is not None
    place = "ViSP", "corpus_1"
    assert result.before[place].folds[3].mean("f_score") == pytest.approx(before.f_score)
    assert result.fine_tuned[place].folds[3].evaluation["videos"] == json.loads(json.dumps(after.to_json()["videos"]))


def test_a_finished_study_runs_nothing_again(
    finished: tuple[StudyResult, Path], files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = finished
    expected = tables(out)
    monkeypatch.setattr(execution, "pretrain", None)
    monkeypatch.setattr(execution, "cross_validate", None)
    write_report(run_study(study_of(files), out, progress=False), out)
    assert tables(out) == expected


def test_a_changed_variant_is_run_and_the_others_are_not(
    finished: tuple[StudyResult, Path], files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = finished
    done: list[Run] = []
    carry_out = execution._carry_out

    def noted(run: Run, *rest: Any) -> ValueError | None:
        done.append(run)
        return carry_out(run, *rest)

    monkeypatch.setattr(execution, "_carry_out", noted)
    variants = (*VARIANTS, Variant("STE", objective={"gradient_flow": "straight_through"}))
    study = study_of(files, variants=variants, seeds=(0,))
    run_study(study, tmp_path, cache=out / "runs", progress=False)
    assert len(done) == 1 + 4  # one pretraining, two folds of two files


def test_the_key_is_of_content_not_of_paths(finished: tuple[StudyResult, Path]) -> None:
    run = finished[0].pretrainings["ViSP"][0]
    moved = replace(run, videos=replace(run.videos, files=("elsewhere.h5",)))
    assert key(moved) == key(run)
    for change in ({"seed": 7}, {"training": {"epochs": 3}}, {"videos": replace(run.videos, content="other")}):
        assert key(replace(run, **change)) != key(run)


def test_a_run_is_made_again_from_its_file(finished: tuple[StudyResult, Path], tmp_path: Path) -> None:
    result, out = finished
    run = result.folds["ViSP", "corpus_2"][0]
    declared = out / "runs" / key(run) / "run.json"
    assert key(read_run(declared)) == key(run)
    found = repeat(declared, tmp_path)
    assert found == json.loads((out / "runs" / key(run) / "result.json").read_text())
    weights = [torch.load(weights_of(run, place)) for place in (tmp_path, out / "runs")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_of_other_videos_or_another_version_is_not_made_again(
    finished: tuple[StudyResult, Path], tmp_path: Path
) -> None:
    result, out = finished
    run = result.pretrainings["ViSP"][0]
    found = json.loads((out / "runs" / key(run) / "run.json").read_text())
    found["run"]["videos"]["content"] = "other"
    write_json(tmp_path / "run.json", found)
    with pytest.raises(ValueError, match="made of other videos"):
        repeat(tmp_path / "run.json", tmp_path / "out")
    write_json(tmp_path / "run.json", {**found, "visp_version": "0.0.0"})
    with pytest.raises(ValueError, match=r"is of visp 0\.0\.0"):
        repeat(tmp_path / "run.json", tmp_path / "out")
    write_json(tmp_path / "run.json", {"visp_version": visp.__version__})
    with pytest.raises(ValueError, match="is not of a run of a study"):
        repeat(tmp_path / "run.json", tmp_path / "out")


COMMAND = (
    *("study", "significance", "--summarizer", LINEAR, "--seeds", "1", "--folds", "2"),
    *("--epochs", "2", "--finetune-epochs", "2"),
)


@pytest.fixture(scope="module")
def of_one_process(files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "one"
    assert cli.main([*COMMAND, "--summe", files[0], "--out", str(folder)]) == 0
    return folder


def test_two_processes_give_the_tables_of_one_and_so_does_a_study_that_was_killed(
    files: tuple[str, str], of_one_process: Path, tmp_path: Path
) -> None:
    data = ["--summe", files[0]]
    command = [sys.executable, "-m", "visp", *COMMAND, *data, "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    while not list(tmp_path.glob("killed/runs/*/run.json")) and time.monotonic() - started < 60:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert cli.main([*COMMAND, *data, "--jobs", "2", "--out", str(tmp_path / "killed")]) == 0
    assert tables(tmp_path / "killed") == tables(of_one_process)


def test_the_processes_of_torchrun_share_the_runs_and_give_the_tables_of_one(
    files: tuple[str, str],
    of_one_process: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = [*COMMAND, "--summe", files[0]]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "visp"]
    two = [*torchrun, *study, "--out", str(tmp_path / "two")]
    made = subprocess.run(two, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert tables(tmp_path / "two") == tables(of_one_process)
    assert made.stdout.count("## After fine-tuning") == 1  # the first process alone writes and prints
    monkeypatch.setenv("WORLD_SIZE", "2")
    for more, message in (
        ((), "--out is missing"),
        (("--out", str(of_one_process), "--jobs", "2"), "exclude each other"),
    ):
        assert cli.main([*study, *more]) == 2
        assert message in capsys.readouterr().err


def test_what_a_process_that_died_has_left_is_done_by_another(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    videos = Videos(files[:1], VideoDataset(files[0]).content_hash())
    runs = [Pretraining(videos, LINEAR, "attention", "visp", {}, {"epochs": 1}, seed) for seed in (0, 1)]
    found: list[dict[str, dict[str, Any]]] = []
    other = threading.Thread(target=lambda: found.append(carry_out(runs, tmp_path, progress=False)))
    (tmp_path / key(runs[0])).mkdir()
    with locked(tmp_path / key(runs[0])):  # as a process that does the first run
        other.start()
        while not (tmp_path / key(runs[1]) / "result.json").exists():
            time.sleep(0.05)
        assert not found
    other.join()
    assert found[0].keys() == {key(run) for run in runs}


FAILS = "tests.studies.few_models:fails"


def test_a_run_that_fails_under_torchrun_is_tried_and_reported_once(files: tuple[str, str], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "visp"]
    study = ["study", "significance", "--summe", files[0], "--summarizer", FAILS, "--folds", "2", "--out", "out"]
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [*torchrun, *study, "--seeds", "3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    assert len((tmp_path / "failures.txt").read_text().splitlines()) == 3
    assert made.stderr.count("RuntimeError: this summarizer cannot be made") == 1
    assert made.stderr.count("visp study: out/runs/") == 1


def test_a_run_that_failed_in_an_earlier_start_is_tried_again(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    videos = Videos(files[:1], VideoDataset(files[0]).content_hash())
    runs = [Pretraining(videos, FAILS, "attention", "visp", {}, {"epochs": 1}, 0)]
    for start, attempts in (("first", 1), ("first", 1), ("second", 2)):
        monkeypatch.setattr(distributed, "_OWN_ID", start)
        with pytest.raises(execution.FailedRunError, match=r"run\.json: RuntimeError: this summarizer cannot be made"):
            carry_out(runs, tmp_path, progress=False)
        assert len(Path("failures.txt").read_text().splitlines()) == attempts
    monkeypatch.setattr(execution, "make_summarizer", lambda name, feature_dim: make_summarizer(LINEAR, feature_dim))
    monkeypatch.setattr(distributed, "_OWN_ID", "third")
    assert carry_out(runs, tmp_path, progress=False).keys() == {key(runs[0])}
    assert not list(tmp_path.glob("*/failed.json"))


def test_unseen_pretraining_leaves_the_test_videos_of_each_fold_out(files: tuple[str, str], tmp_path: Path) -> None:
    variants = (Variant("half", unseen=True, share=0.5), Variant("all"))
    study = study_of(files, variants=variants, seeds=(0,), unlabelled=files)
    result = run_study(replace(study, labelled=study.labelled[:1]), tmp_path, progress=False)
    assert result.seen == {"half": False, "all": True}
    for run in result.folds["half", "corpus_1"]:
        assert run.pretraining is not None
        assert run.pretraining.videos.names is not None
        assert not {f"corpus_1/{video}" for video in run.split.test} & set(run.pretraining.videos.names)
        assert len(run.pretraining.videos.names) == 8  # half of 16, of the 12 that are left


def test_pseudo_summaries_are_the_knapsacks_of_the_other_file(files: tuple[str, str], tmp_path: Path) -> None:
    variants = (Variant("FSA", kind="pseudo-summaries"),)
    short = {"epochs": 1}
    study = study_of(files, variants=variants, seeds=(0,), training=short, finetuning=short)
    result = run_study(study, tmp_path, progress=False)
    assert {run.videos.files for run in result.pretrainings["FSA"]} == {(files[0],), (files[1],)}
    for run in result.folds["FSA", "corpus_1"]:
        assert run.pretraining is not None
        assert run.pretraining.videos.files == (files[1],)
    videos = VideoDataset(files[0])
    record = videos.record(0)
    labels = KnapsackSummaries(videos).labels[0].numpy()
    shots = np.asarray(record.change_points)
    assert record.n_frames is not None
    kept = np.zeros(record.n_frames)
    for start, end in shots:
        inside = (np.asarray(record.picks) >= start) & (np.asarray(record.picks) <= end)
        assert len(set(labels[inside])) == 1
        kept[start : end + 1] = labels[inside][0]
    assert 0 < kept.mean() <= 0.15


def test_the_report_says_protocol_selection_seeds_errors_chance_and_people(
    finished: tuple[StudyResult, Path],
) -> None:
    result, out = finished
    text = markdown(result)
    for wanted in (
        "protocol csta (summe)",
        "protocol csta (tvsum)",
        "by rule 'last'",
        "Seeds 0, 1.",
        "standard deviation over seeds",
        "standard error over videos",
        "| constant scores |",
        "| random scores, mean of 20 draws |",
        "| each user against the others |",
    ):
        assert wanted in text
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    mine = next(r for r in rows if (r["variant"], r["file"], r["stage"]) == ("ViSP", "corpus_1", "fine-tuned"))
    assert float(mine["mean"]) == pytest.approx(result.fine_tuned["ViSP", "corpus_1"].mean("tau"), abs=1e-6)
    assert mine["test_videos_in_pretraining"] == "yes"
    table = [line for line in text.split("##")[1].splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def test_a_study_without_labels_measures_what_needs_none(files: tuple[str, str], tmp_path: Path) -> None:
    study = study_of(files, labelled=(), unlabelled=files[:1], variants=VARIANTS[1:])
    result = run_study(study, tmp_path, progress=False)
    assert {"identification", "keep_ratio", "seeds_agree"} <= set(result.measures["ViSP"])
    assert "## Without labels" in markdown(result)
    assert "fine-tuning" not in markdown(result)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": ()}, "at least one variant"),
        ({"variants": (VARIANTS[1], VARIANTS[1])}, "variants of one name"),
        ({"variants": (Variant("x", share=0.0),)}, "share must be in"),
        ({"labelled": (), "unlabelled": ()}, "one file of videos"),
    ],
)
def test_a_study_of_nothing_is_refused(change: dict[str, Any], message: str, files: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=message):
        study_of(files, **change)


def test_what_the_protocol_lacks_is_said_before_the_work(files: tuple[str, str], tmp_path: Path) -> None:
    study = study_of(files, labelled=(Labelled(files[0], "tvsum"),))
    with pytest.raises(ValueError, match="raw scores as user_scores"):
        run_study(study, tmp_path, progress=False)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_is_named_and_the_others_are_done(files: tuple[str, str], tmp_path: Path) -> None:
    broken = Variant("broken", training={"lr": -1.0})
    study = study_of(files, variants=(broken, VARIANTS[1]), seeds=(0,))
    with pytest.raises(ValueError, match=r"run\.json: ValueError: expected lr >= 0"):
        run_study(study, tmp_path, progress=False)
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1  # of the other pretraining


def test_a_process_that_is_ended_is_one_line(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--pretrain-data", files[0], "--summarizer", "tests.studies.few_models:dies", "--out", str(tmp_path)]
    assert cli.main(["study", "ablation", *data, "--jobs", "2"]) == 2
    assert "a process of the study was ended from outside; run it again to resume" in capsys.readouterr().err


def test_plain_options_make_the_parts_of_the_objective() -> None:
    made = objective_options({"sampler": "sigmoid", "temperature": 0.2, "size_weight": 3.0, "hard_negatives": True})
    assert isinstance(made["sampler"], visp.SigmoidSampler)
    assert made["sampler"].temperature == 0.2
    assert float(made["size"].weight) == 3.0
    assert made["hard_negatives"] is True


def test_missing_files_are_named_with_where_the_field_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", "ablation", "--summe", "nowhere.h5", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no such file: nowhere.h5" in said
    assert "eccv16_dataset_summe_google_pool5.h5" in said
    assert cli.main(["study", "scaling", "--out", str(tmp_path)]) == 2
    assert "expected --summe, --tvsum, --qfvs or --pretrain-data" in capsys.readouterr().err
