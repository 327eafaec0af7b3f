"""A video in, its summary out: features, scores, shots, knapsack, and the chosen shots cut with their sound."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from visp._version import __version__
from visp.eval.knapsack import knapsack
from visp.eval.kts import kts
from visp.eval.summary import shot_scores, upsample_scores
from visp.prediction import predict
from visp.utils.files import replacing
from visp.video.corpus import KTSFrames, check_kts_frames
from visp.video.extract import VideoFeatures, extract_features, find_shots, unit_norm
from visp.video.extractors import Extractor
from visp.video.render import check_output, check_target, write_summary
from visp.video.report import html_report
from visp.video.result import VideoSummary
from visp.weights import state_hash

_SHORTEST = 0.1
"""Seconds for which a frame is shown at least, where it is not shown for less in the video."""
_FINE = 0.01
"""Seconds, the longest unit of the budget where the video is not too long for it."""
_MOST_UNITS = 2_000_000
"""Units of a whole video that the knapsack can take."""


def summarize_video(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    summarizer: Callable[[Tensor], Tensor],
    extractor: Extractor | nn.Module,
    budget: float = 0.15,
    seconds: float | None = None,
    fps: float = 2.0,
    kts_frames: KTSFrames = "sampled",
    segment_length: int | None = 2000,
    batch_size: int = 32,
    report: str | os.PathLike[str] | None = None,
    json_file: str | os.PathLike[str] | None = None,
    settings: dict[str, str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> VideoSummary:
    """Summarize a video: the shots of greatest total score within a budget of time, cut with their sound.

    A shot longer than the budget, which no summary could hold, is split by KTS into shots of at most the budget, and
    a frame that is shown for longer than the budget is shown for as long as the budget; ``notes`` says so. So every
    video longer than its budget has a summary, and a shorter one is kept whole.

    Args:
        path: The video.
        out: The summary video: .mp4, .m4v, .mov or .mkv.
        summarizer: Maps features (T, d) to logits (T,); see :func:`visp.predict`.
        extractor: The image model; see :func:`visp.video.extract_features`.
        budget: Longest summary as a share of the video, in (0, 1].
        seconds: Longest summary in seconds, in place of ``budget``.
        fps: Sampled frames a second of video.
        kts_frames: Where KTS may cut: ``"sampled"``, as in the field, or ``"all"``, at every frame, for which every
            frame goes through the extractor.
        segment_length: Largest number of sampled frames that the summarizer sees at once; None for all. CSTA takes
            about half a megabyte a frame.
        batch_size: Frames that go through the extractor together.
        report: Writes an HTML page there, whole in itself.
        json_file: Writes the shots with their times there.
        settings: More to record of how the summary is made, such as the summarizer's weights.
        overwrite: Replaces existing files.
        progress: Shows bars.

    Returns:
        The summary.

    Raises:
        FileNotFoundError: If there is no such video, or no folder to write to.
        FileExistsError: If a file to write exists and ``overwrite`` is false.
        VideoError: If the video cannot be read, is cut short, or its summary cannot be encoded.
        ValueError: If an option is out of its range, or a model does not return what it should.
    """
    source, target = Path(path), Path(out)
    pages = [Path(page) for page in (report, json_file) if page is not None]
    _check_options(budget, seconds, kts_frames)
    _check_files(source, target, pages, overwrite)
    extract = extractor if isinstance(extractor, Extractor) else Extractor(extractor)
    clock = _Clock()

    every_frame = kts_frames == "all"
    video = extract_features(
        source, extract, fps=None if every_frame else fps, batch_size=batch_size, progress=progress
    )
    clock.seconds |= video.seconds
    longest = seconds if seconds is not None else budget * video.duration
    with clock.stage("shots"):
        shots, notes = _shots_within(video, longest)
        if every_frame:
            video = video.at(fps)
    with clock.stage("scores"):
        scores = predict(summarizer, video.features, segment_length)
    with clock.stage("knapsack"):
        worth = shot_scores(upsample_scores(scores, video.picks, video.n_frames), shots)
        selected = _chosen(worth, _weights(video, shots), _capacity(video, longest))
        key_frames = np.array([_best_pick(video, scores, shots[shot]) for shot in selected])
    with clock.stage("writing"):
        shot_times = np.stack([video.frame_times[shots[:, 0]], video.frame_times[shots[:, 1] + 1]], axis=1)
        kept = np.minimum(np.diff(shot_times[selected]).ravel(), max(longest, _SHORTEST))
        written = write_summary(
            source, shots[selected], target, lengths=kept, pictures=key_frames.tolist(), overwrite=overwrite
        )
        if cut := int((shot_times[selected, 1] - written.times[:, 1] > 1e-6).sum()):
            notes.append(f"{cut} of the frames, shown for longer than the budget in the video, end with the budget.")
        shot_times[selected] = written.times

    notes += written.notes
    made_with = {**(settings or {}), **extract.provenance}
    for model in ("extractor", "summarizer"):
        if made_with.get(f"{model}_weights") == "random":
            notes.append(f"The {model}'s weights are random, to try the pipeline: the choice of shots means nothing.")
    if longest >= video.duration:
        notes.append("The video is not longer than the budget: the summary is the whole video.")
    if video.damaged:
        notes.append(f"{video.damaged} damaged packets were left out.")
    if not written.sound:
        notes.append("The video has no sound, nor has its summary.")
    result = VideoSummary(
        video=source,
        out=target,
        duration=video.duration,
        budget=longest,
        n_frames=video.n_frames,
        picks=video.picks,
        times=video.frame_times[video.picks],
        scores=scores,
        shots=shots,
        shot_times=shot_times,
        shot_scores=worth,
        selected=selected,
        key_frames=key_frames,
        pictures=written.pictures,
        notes=notes,
        settings={
            **(settings or {}),
            **({"summarizer_sha256": state_hash(summarizer.state_dict())} if isinstance(summarizer, nn.Module) else {}),
            **extract.provenance,
            "sampling_rate": f"{fps:g} fps",
            "kts": f"linear kernel, {kts_frames} frames",
            "segment_length": "the whole video" if segment_length is None else f"{segment_length} sampled frames",
            "budget": f"{budget:.0%} of the video" if seconds is None else f"{seconds:g} s",
            "visp_version": __version__,
        },
        seconds=clock.seconds,
    )
    _write_pages(result, None if report is None else Path(report), None if json_file is None else Path(json_file))
    return result


def _check_options(budget: float, seconds: float | None, kts_frames: str) -> None:
    check_kts_frames(kts_frames)
    if not 0 < budget <= 1:
        raise ValueError(f"the budget must be a share of the video in (0, 1], got {budget!r}")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"the summary's seconds must be a positive number, got {seconds!r}")


def _check_files(source: Path, target: Path, pages: list[Path], overwrite: bool) -> None:
    check_output(source, target, overwrite=overwrite)
    for page in pages:
        check_target(page, overwrite=overwrite)
    if len({source.resolve(), target.resolve(), *(page.resolve() for page in pages)}) < 2 + len(pages):
        raise ValueError("the video, its summary, the report and the JSON need names of their own")


class _Clock:
    """Seconds spent by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _units(video: VideoFeatures) -> float:
    """Return the units a second in which the budget is counted, a whole number of them in a frame of average length.

    At a constant frame rate the choice is that of the field, which counts frames.
    """
    finest = max(1, _MOST_UNITS // video.n_frames)
    return min(max(4, math.ceil(1 / (video.frame_rate * _FINE))), finest) * video.frame_rate


def _capacity(video: VideoFeatures, longest: float) -> int:
    """Return a length in seconds in whole units, at least that of the shortest summary."""
    return max(1, int(max(longest, min(_SHORTEST, 1 / video.frame_rate)) * _units(video) + 1e-6))


def _weights(video: VideoFeatures, shots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the length (S,) of each shot in units, not less than it is."""
    seconds = video.frame_times[shots[:, 1] + 1] - video.frame_times[shots[:, 0]]
    return np.maximum(1, np.ceil(seconds * _units(video) - 1e-6)).astype(np.int64)


def _shots_within(video: VideoFeatures, longest: float) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Cut a video into shots (S, 2) of at most ``longest`` seconds, and say which had to be split for that."""
    shots = find_shots(video)
    capacity = _capacity(video, longest)
    pieces, notes = [], []
    for number, (shot, weight) in enumerate(zip(shots, _weights(video, shots).tolist(), strict=True), start=1):
        if weight <= capacity:
            pieces.append(shot[None])
            continue
        split = _split(video, shot, capacity)
        pieces.append(split)
        if len(split) == 1:  # a single frame, which the summary shows for a shorter time
            continue
        start, end = video.frame_times[shot[0]], video.frame_times[shot[1] + 1]
        notes.append(
            f"Shot {number} of {len(shots)}, {start:.2f} to {end:.2f} s, is longer than the budget of {longest:.2f} s: "
            f"KTS split it into {len(split)}."
        )
    return np.concatenate(pieces), notes


def _split(video: VideoFeatures, shot: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """Split a shot by KTS with a largest length, and evenly where the sampled frames are too far apart for that."""
    first, last = shot.tolist()
    rows = np.flatnonzero((video.picks >= first) & (video.picks <= last))
    times = np.append(video.frame_times[video.picks[rows]], video.frame_times[last + 1]) * _units(video)
    longest = min(len(rows), int(capacity / np.median(np.diff(times))) + 1)
    # With so many rows, at least nine in ten pieces fit; the others are cut evenly.
    fitting = (n for n in range(longest, 1, -1) if np.quantile(times[n:] - times[:-n], 0.9) <= capacity + 1e-6)
    change_points = kts(unit_norm(video.features[rows]), max_length=next(fitting, 1)).change_points
    starts = [first, *video.picks[rows[change_points]].tolist(), last + 1]
    pieces = [piece for start, stop in pairwise(starts) for piece in _evenly(video, start, stop, capacity)]
    return np.array(pieces)


def _evenly(video: VideoFeatures, start: int, stop: int, capacity: int) -> list[tuple[int, int]]:
    """Cut frames [start, stop) into even shots that weigh at most ``capacity``, if a frame does not weigh more."""
    weight = int(_weights(video, np.array([[start, stop - 1]]))[0])
    if weight <= capacity or stop - start == 1:
        return [(start, stop - 1)]
    parts = min(stop - start, -(-weight // capacity))
    cuts = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return [piece for a, b in pairwise(cuts) for piece in _evenly(video, a, b, capacity)]


def _chosen(worth: npt.NDArray[np.float64], weights: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.intp]:
    """Choose shots by the knapsack; a single frame that is shown for longer than the budget takes all of it."""
    return knapsack(np.maximum(worth, np.finfo(np.float64).tiny), np.minimum(weights, capacity), capacity)


def _best_pick(video: VideoFeatures, scores: npt.NDArray[np.float32], shot: npt.NDArray[np.int64]) -> int:
    """Return the sampled frame of a shot with the highest score, or its middle frame where it has none."""
    first, last = shot.tolist()
    rows = np.flatnonzero((video.picks >= first) & (video.picks <= last))
    return int(video.picks[rows[scores[rows].argmax()]]) if len(rows) else (first + last) // 2


def _write_pages(summary: VideoSummary, report: Path | None, json_file: Path | None) -> None:
    if report is not None:
        with replacing(report) as file:
            file.write(html_report(summary).encode())
    if json_file is not None:
        with replacing(json_file) as file:
            file.write((json.dumps(summary.to_json(), indent=2) + "\n").encode())
