"""Summarizers that read more than frames go through the whole library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visp
from tests.side_summarizers import SIDED, D, Sided, sided_records, sided_videos
from visp.data import InMemoryDataset, Split, VideoDataset, write_h5
from visp.encoders import AttentionPoolEncoder
from visp.inputs import carried
from visp.studies.controls import controls
from visp.weights import CheckpointError, load_state

pytestmark = pytest.mark.parametrize("sided", SIDED.values(), ids=SIDED)


def pretrainer_of(summarizer: nn.Module, **options: Any) -> visp.ViSPPretrainer:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return visp.ViSPPretrainer(summarizer, AttentionPoolEncoder(D, embedding_dim=8), seed=3, **options)


def pretrained(sided: Sided, videos: Any, **options: Any) -> dict[str, Tensor]:
    given = {"epochs": 2, "batch_size": 8, "progress": False, "lr": 1e-2, **options}
    pretrainer = pretrainer_of(sided.make())
    visp.pretrain(pretrainer, videos, **given)
    return pretrainer.summarizer.state_dict()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_loop_of_ones_own_teaches_every_part_and_recomputes_alike(sided: Sided) -> None:
    videos = sided_videos(sided)
    batch = [videos[index] for index in range(len(videos))]
    found: list[dict[str, Tensor]] = []
    for recompute in (False, True):
        pretrainer = pretrainer_of(sided.make(), recompute=recompute)
        pretrainer(batch).loss.backward()
        parameters = dict(pretrainer.summarizer.named_parameters())
        found.append({name: each.grad for name, each in parameters.items() if each.grad is not None})
        assert found[-1].keys() == {name for name in parameters if "fc_text_cls" not in name}  # of the sentences alone
        assert all(grad.abs().sum() > 0 for grad in found[-1].values())
    for name, grad in found[0].items():
        assert torch.allclose(grad, found[1][name], atol=1e-6), name


def test_a_resumed_run_equals_an_uninterrupted_one_and_knows_what_it_read(sided: Sided, tmp_path: Path) -> None:
    videos = sided_videos(sided, 16)
    pretrained(sided, videos, epochs=4, out_dir=tmp_path / "straight")
    pretrained(sided, videos, epochs=2, out_dir=tmp_path / "run")
    pretrained(sided, videos, epochs=4, out_dir=tmp_path / "run", resume=True)
    assert_same(load_state(tmp_path / "straight/weights.pt"), load_state(tmp_path / "run/weights.pt"))
    if sided.with_ != ("change_points",):  # the labels of both are the same
        other = InMemoryDataset(sided_records(16, seed=1), with_=sided.with_)
        with pytest.raises(CheckpointError, match="content"):
            pretrained(sided, other, epochs=5, out_dir=tmp_path / "run", resume=True)


def test_workers_that_read_a_file_give_the_run_of_one_process_on_records(sided: Sided, tmp_path: Path) -> None:
    write_h5(tmp_path / "videos.h5", sided_records())
    files = VideoDataset(tmp_path / "videos.h5", with_=sided.with_)
    records = sided_videos(sided)
    assert files.content_hash() == records.content_hash()
    assert_same(pretrained(sided, files, num_workers=2), pretrained(sided, records))


def test_segments_are_scored_with_their_part_of_the_side_inputs(sided: Sided) -> None:
    summarizer, video = sided.make(), sided_videos(sided)[0]
    half = len(video) // 2
    with torch.no_grad():
        parts = [torch.sigmoid(summarizer(part.frames, part.side)) for part in (video[:half], video[half:])]
    scores = visp.predict(summarizer, video, segment_length=len(video) - half)
    np.testing.assert_allclose(scores, torch.cat(parts).numpy(), atol=1e-6)


def test_fine_tuning_and_evaluation_pass_them_on(sided: Sided) -> None:
    videos, summarizer = sided_videos(sided), sided.make()
    split = Split(train=videos.names[:4], test=videos.names[4:])
    before = {name: value.clone() for name, value in summarizer.state_dict().items()}
    evaluator = visp.Evaluator(videos, benchmark="summe", segment_length=10)
    result = visp.finetune(
        summarizer, videos, split, epochs=2, lr=1e-2, segment_length=10, evaluator=evaluator, progress=False
    )
    assert result.test is not None
    assert len(result.test.videos) == 4
    moved = {name for name, value in summarizer.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "fc_text_cls" not in name}


def test_a_standardization_changes_the_frames_alone(sided: Sided) -> None:
    videos, pretrainer = sided_videos(sided), pretrainer_of(sided.make())
    result = visp.pretrain(pretrainer, videos, epochs=1, batch_size=8, standardize=True, progress=False)
    summarizer, video = pretrainer.summarizer, videos[0]
    change = carried(summarizer)
    assert (change is None) == (result.standardized == "folded")
    if change is not None:
        with torch.no_grad():
            inner = sided.make()
            inner.load_state_dict(summarizer.state_dict())
            assert torch.allclose(
                inner(change(video.frames), video.side), summarizer(video.frames, video.side), atol=1e-5
            )


@pytest.mark.filterwarnings("ignore")
def test_controls_and_the_movement_of_a_run_score_with_them(sided: Sided) -> None:
    found = controls(
        sided.make,
        lambda: AttentionPoolEncoder(D, embedding_dim=8),
        sided_videos(sided),
        identification_steps=0,
        epochs=1,
        batch_size=8,
        progress=False,
    )
    assert found.table()
    pretrainer = pretrainer_of(sided.make())
    assert visp.pretrain(pretrainer, sided_videos(sided), epochs=20, batch_size=8, progress=False).movement is not None


def test_a_summarizer_of_frames_alone_is_told_what_to_do(sided: Sided) -> None:
    videos = sided_videos(sided)
    batch = [videos[index] for index in range(len(videos))]
    with pytest.raises(TypeError, match=r"Sequential takes no side inputs, and the video carries .*adapt_summarizer"):
        pretrainer_of(nn.Sequential(nn.Linear(D, 1), nn.Flatten(0)))(batch)
    frames_alone = [video.frames for video in batch]
    with pytest.raises(ValueError, match="takes side inputs, and the video carries none"):
        pretrainer_of(sided.make())(frames_alone)
