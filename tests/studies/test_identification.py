from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from visp.data.synthetic import make_corpus
from visp.studies.identification import identify

N = 10
Corpus = tuple[list[Tensor], list[Tensor]]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Features, and the share of users who chose each frame."""
    records = make_corpus(N, num_shots=8, shot_length=(2, 4), num_fillers=3, seed=0)
    return [torch.from_numpy(record.features) for record in records], [torch.tensor(r.gtscore) for r in records]


def test_frames_that_users_chose_identify_videos_better_than_fillers(corpus: Corpus) -> None:
    videos, chosen = corpus
    best = identify(videos, chosen, steps=60)
    worst = identify(videos, [-scores for scores in chosen], steps=60)
    assert best.accuracy > worst.accuracy
    assert best.info_nce < worst.info_nce - 0.1
    assert best.info_nce < math.log(N) - 0.5


def test_only_the_order_of_scores_counts(corpus: Corpus) -> None:
    noise = torch.Generator().manual_seed(0)
    scores = [torch.randn(len(video), generator=noise) for video in corpus[0]]
    judged = partial(identify, corpus[0], steps=3, draws=3)
    assert judged(scores) == judged([10 * torch.exp(score) - 3 for score in scores])


def test_a_judgement_is_repeatable_and_leaves_the_global_random_state(corpus: Corpus) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = identify(*corpus, steps=2, draws=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert identify(*corpus, steps=2, draws=2) == first


def test_another_seed_is_another_judgement(corpus: Corpus) -> None:
    assert identify(*corpus, steps=2, draws=2) != identify(*corpus, steps=2, draws=2, seed=1)
