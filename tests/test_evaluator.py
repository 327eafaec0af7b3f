from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import visp
from tests.builders import LinearSummarizer
from visp.data import InMemoryDataset, Split
from visp.data.synthetic import make_corpus
from visp.eval import evaluate

RECORDS = make_corpus(4, feature_dim=4, num_shots=10, shot_length=(1, 2))
VIDEOS = InMemoryDataset(RECORDS)


def evaluator(**options: object) -> visp.Evaluator:
    return visp.Evaluator(VIDEOS, benchmark="summe", **options)  # type: ignore[arg-type]


def test_an_evaluation_is_that_of_the_predictions_with_chance_beside_it() -> None:
    summarizer = LinearSummarizer()
    found = evaluator()(summarizer, VIDEOS.names[:2])
    expected = evaluate(
        {record.name: visp.predict(summarizer, record.features) for record in RECORDS[:2]},
        {record.name: vars(record) for record in RECORDS[:2]},
        protocol="csta",
        benchmark="summe",
    )
    assert found == expected
    assert list(found.baselines) == ["constant", "random", "humans"]


def test_an_evaluation_of_some_videos_is_not_changed_by_earlier_ones() -> None:
    scores = {record.name: np.linspace(0, 1, len(record.features)) for record in RECORDS}
    used = evaluator()
    used.of_scores(scores)
    one = {"video_2": scores["video_2"]}
    assert used.of_scores(one) == evaluator().of_scores(one)


@pytest.mark.parametrize("broken", [{"user_summary": None}, {"n_frames": 7}])
def test_a_video_that_cannot_be_evaluated_is_refused_before_the_first_step(
    broken: dict[str, object], tmp_path: Path
) -> None:
    records = [*RECORDS[:3], replace(RECORDS[3], **broken)]  # type: ignore[arg-type]
    videos = InMemoryDataset(records)
    split = Split(train=videos.names[:3], test=videos.names[3:])
    summarizer = LinearSummarizer()
    before = summarizer.score.weight.clone()
    with pytest.raises(ValueError, match=r"^video_4: "):
        visp.finetune(
            summarizer,
            videos,
            split,
            evaluator=visp.Evaluator(videos, benchmark="summe"),
            epochs=1,
            out_dir=tmp_path / "run",
            progress=False,
        )
    assert torch.equal(summarizer.score.weight, before)
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="'video_9' is not among the 4 videos"):
        evaluator().check(["video_9"])
