"""A video in, its summary out: features, scores, shots, knapsack, and the chosen shots cut with their sound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from visp._version import __version__
from visp.prediction import predict
from visp.utils.files import check_outputs
from visp.video.choose import Ranges, Wishes, choose, find_candidates
from visp.video.corpus import KTSFrames, check_kts_frames
from visp.video.decode import VideoReader
from visp.video.extract import VideoFeatures, extract_features
from visp.video.extractors import Extractor
from visp.video.picture import upright_image
from visp.video.remux import copy_spans
from visp.video.render import WrittenSummary, check_ending, write_summary
from visp.video.result import VideoSummary
from visp.weights import state_hash


def summarize_video(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    summarizer: Callable[[Tensor], Tensor],
    extractor: Extractor | nn.Module,
    budget: float = 0.15,
    seconds: float | None = None,
    margin: float = 0.0,
    min_shot: float = 0.0,
    keep: Ranges = (),
    drop: Ranges = (),
    fps: float = 2.0,
    kts_frames: KTSFrames = "sampled",
    segment_length: int | None = 2000,
    batch_size: int | None = None,
    features: VideoFeatures | None = None,
    copy: bool = False,
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
        margin: Seconds by which every chosen shot is widened on both sides, within the budget.
        min_shot: Seconds that every chosen shot lasts at least.
        keep: (start, end) of spans that are in the summary whatever their scores, in seconds after the first frame.
        drop: Spans that are not.
        fps: Sampled frames a second of video.
        kts_frames: Where KTS may cut: ``"sampled"``, as in the field, or ``"all"``, at every frame, for which every
            frame goes through the extractor.
        segment_length: Largest number of sampled frames that the summarizer sees at once; None for all. CSTA takes
            about half a megabyte a frame.
        batch_size: Frames that go through the extractor together; None for 4 on a CPU and 32 elsewhere.
        features: The video's features at ``fps`` frames a second, where they are there already.
        copy: Copies the shots instead of encoding them; ``notes`` says how much was encoded at the borders, or how far
            each cut moved, so that the summary is longer. See :func:`visp.video.remux.copy_spans`.
        overwrite: Replaces an existing summary.
        progress: Shows bars.

    Returns:
        The summary.

    Raises:
        FileNotFoundError: If there is no such video, or no folder to write to.
        FileExistsError: If ``out`` exists and ``overwrite`` is false.
        ModuleNotFoundError: If PyAV is not installed.
        VideoError: If the video cannot be read, is cut short, or its summary cannot be encoded.
        ValueError: If an option is out of its range, or a model does not return what it should.
    """
    source, target = Path(path), Path(out)
    wishes = Wishes(margin, min_shot, tuple(keep), tuple(drop))
    _check_options(budget, seconds, kts_frames)
    check_ending(target)
    check_outputs(target, inputs=[source], overwrite=overwrite)
    extract = extractor if isinstance(extractor, Extractor) else Extractor(extractor)
    clock = _Clock()

    every_frame = kts_frames == "all" and features is None
    video = features or extract_features(
        source, extract, fps=None if every_frame else fps, batch_size=batch_size, progress=progress
    )
    clock.seconds |= video.seconds
    longest = seconds if seconds is not None else budget * video.duration
    with clock.stage("shots"):
        candidates = find_candidates(video, longest, wishes)
        if every_frame:
            video = video.at(fps)
    with clock.stage("scores"):
        scores = predict(summarizer, video.features, segment_length)
    with clock.stage("knapsack"):
        choice = choose(video, scores, candidates, longest, wishes)
        shots, selected = choice.shots, choice.selected
        notes = [*candidates.notes, *choice.notes]
        key_frames = np.array([_best_pick(video, scores, shots[shot]) for shot in selected])
    with clock.stage("writing"):
        shot_times = np.stack([video.frame_times[shots[:, 0]], video.frame_times[shots[:, 1] + 1]], axis=1)
        if copy:
            wanted = shot_times[selected]
            wanted[:, 1] = np.minimum(wanted[:, 1], wanted[:, 0] + choice.lengths)
            written, encoded = _copied(source, wanted, key_frames, target)
            notes += _moves(selected, wanted, written.times, encoded)
        else:
            written = write_summary(
                source,
                shots[selected],
                target,
                lengths=choice.lengths,
                pictures=key_frames.tolist(),
                overwrite=overwrite,
            )
            if cut := int((shot_times[selected, 1] - written.times[:, 1] > 1e-6).sum()):
                notes.append(
                    f"{cut} of the frames, shown for longer than the budget in the video, end with the budget."
                )
        shot_times[selected] = written.times

    notes += written.notes
    if longest >= video.duration:
        notes.append("The video is not longer than the budget: the summary is the whole video.")
    if video.damaged:
        notes.append(f"{video.damaged} damaged packets were left out.")
    if not written.sound:
        notes.append("The video has no sound, nor has its summary.")
    return VideoSummary(
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
        shot_scores=choice.scores,
        selected=selected,
        key_frames=key_frames,
        pictures=written.pictures,
        notes=notes,
        settings={
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


def _check_options(budget: float, seconds: float | None, kts_frames: str) -> None:
    check_kts_frames(kts_frames)
    if not 0 < budget <= 1:
        raise ValueError(f"the budget must be a share of the video in (0, 1], got {budget!r}")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"the summary's seconds must be a positive number, got {seconds!r}")


class _Clock:
    """Seconds spent by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _copied(
    source: Path, times: npt.NDArray[np.float64], key_frames: npt.NDArray[np.int64], target: Path
) -> tuple[WrittenSummary, float]:
    """Copy spans, decode their pictures, and say how many seconds were encoded."""
    copied = copy_spans(source, times, target)
    wanted = set(key_frames.tolist())
    pictures = {}
    with VideoReader(source) as reader:
        for frame in reader.frames():
            if frame.index in wanted:
                pictures[frame.index] = upright_image(frame.frame)
            if len(pictures) == len(wanted):
                break
    length = float(np.diff(copied.times).sum())
    return WrittenSummary(target, copied.times, length, copied.sound, pictures, []), copied.encoded


def _moves(
    selected: npt.NDArray[np.intp], wanted: npt.NDArray[np.float64], copied: npt.NDArray[np.float64], encoded: float
) -> list[str]:
    """Say how far each copied shot begins and ends from where it was to, or what was encoded so that none moves."""
    moved = [
        f"shot {shot + 1} begins {begin:+.2f} s and ends {end:+.2f} s"
        for shot, (begin, end) in zip(selected.tolist(), (copied - wanted).tolist(), strict=True)
        if max(abs(begin), abs(end)) >= 0.005
    ]
    if encoded:
        return [f"Copied, but for {encoded:.2f} s between the cuts and the nearest key frames, which were encoded."]
    return [f"Cut at key frames, without encoding: {', '.join(moved) or 'no cut moved'}."]


def _best_pick(video: VideoFeatures, scores: npt.NDArray[np.float32], shot: npt.NDArray[np.int64]) -> int:
    """Return the sampled frame of a shot with the highest score, or its middle frame where it has none."""
    first, last = shot.tolist()
    rows = np.flatnonzero((video.picks >= first) & (video.picks <= last))
    return int(video.picks[rows[scores[rows].argmax()]]) if len(rows) else (first + last) // 2
