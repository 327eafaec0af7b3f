"""Features of many videos: a folder in, the field's h5 file out, resumable file by file."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch import nn

from visp.data import VideoRecord
from visp.data.h5 import check_side_name
from visp.utils.distributed import launched
from visp.utils.files import check_outputs, locked
from visp.utils.progress import Bar
from visp.video.decode import VideoError, require_av, shown
from visp.video.extract import (
    Batch,
    Ending,
    VideoFeatures,
    check_fps,
    checked_batch_size,
    collected,
    find_shots,
    reason,
)
from visp.video.extractors import Extractor, Preprocess, make_extractor
from visp.video.parts import Parts
from visp.video.sources import Source, find_videos, identified
from visp.video.workers import Decoder, is_of_a_dead_worker

KTSFrames = Literal["sampled", "all"]
"""Where KTS may cut: at the sampled frames, or at every frame."""

STAGES = ("decoding", "network", "shots")


@dataclass(frozen=True)
class Corpus:
    """What was extracted.

    Attributes:
        path: The h5 file.
        videos: Name of each video in the file, by its group.
        left_out: Why a file is not in it, in one line, by its name.
        resumed: How many of the videos were there from an earlier run.
        seconds: Time spent by stage, summed over the processes: ``"decoding"``, ``"network"`` and ``"shots"``.
    """

    path: Path
    videos: dict[str, str]
    left_out: dict[str, str]
    resumed: int
    seconds: dict[str, float]


def extract_corpus(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    extractor: Extractor | nn.Module,
    *,
    fps: float = 2.0,
    kts_frames: KTSFrames = "sampled",
    batch_size: int | None = None,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool = False,
    streams: Mapping[str, Extractor | nn.Module] | None = None,
) -> Corpus:
    """Extract the features of videos and segment them, into an h5 file of the field's schema.

    Groups are ``video_1``, ``video_2``, ... in the order of the files; ``video_name`` says which file each one is.
    A file that cannot be read is left out with its reason and does not stop the others; its number stays free.
    Each video is kept in a folder beside ``out`` as soon as it is done, so that the same call resumes where an
    interrupted one stopped; what an existing ``out`` holds of unchanged files is taken over. Under ``torchrun`` each
    process takes its share of the files and the first one writes.

    The streams of further extractors, one row per sampled frame, are kept beside the features, for
    ``VideoDataset(out, with_={name: "frames"})``. Each video is still decoded once; shots are cut by the features.

    Args:
        inputs: Videos, or folders, in which every file is taken that is named like a video.
        out: The h5 file.
        extractor: The image model; see :func:`visp.video.extract_features`.
        fps: Sampled frames a second of video.
        kts_frames: Where KTS may cut: ``"sampled"``, as in the field, or ``"all"``, at every frame, for which every
            frame goes through every model.
        batch_size: Frames that go through a model together; None for 4 on a CPU and 32 elsewhere.
        workers: Processes that decode, each its own videos; 0 to decode in this one.
        overwrite: Replaces an existing file.
        progress: Shows bars of files and of frames.
        streams: Further image models, by the name of the array (T, d2) that each one's rows become.

    Returns:
        What was extracted, the same in every process.

    Raises:
        FileNotFoundError: If there is no such input.
        FileExistsError: If ``out`` exists and ``overwrite`` is false.
        BlockingIOError: If another process is writing ``out``.
        ModuleNotFoundError: If PyAV is not installed.
        VideoError: If not one video could be read; the message gives the reasons. If a decoding process died.
        ValueError: If an option is out of its range, no input is a video, ``out`` is an input, or a stream has a name
            that is a key of the schema or cannot be one.
    """
    require_av()
    check_kts_frames(kts_frames)
    check_fps(fps)
    target = Path(os.path.realpath(out))  # of a link, the file that it leads to is written
    videos = find_videos(inputs)
    for name in streams or {}:
        check_side_name(name)
    models = {"features": extractor, **(streams or {})}
    extractors = {name: each if isinstance(each, Extractor) else Extractor(each) for name, each in models.items()}
    made_with = _made_with(extractors, fps, kts_frames)
    preprocesses: list[Preprocess] = []
    for each in extractors.values():
        preprocesses += [] if each.preprocess in preprocesses else [each.preprocess]
    frames_at_once = checked_batch_size(batch_size, extractors["features"])
    decoder = Decoder(preprocesses, None if kts_frames == "all" else fps, frames_at_once, workers)
    with _processes() as processes, _output(target, videos, processes, overwrite=overwrite):
        parts = Parts(target, made_with, list(streams or {}))
        sources = identified(videos, made_with)
        own = sources[processes.rank :: processes.size]
        missing = [source for source in own if not parts.has(source)]
        if missing:
            for each in extractors.values():
                _ = each.feature_dim  # a model that cannot work is refused before the videos are decoded
        failed: dict[str, str] = {}
        seconds = dict.fromkeys(STAGES, 0.0)
        with (
            decoder.naming_the_dead(),
            Bar(total=len(own), initial=len(own) - len(missing), unit="video", disable=not progress) as files,
            Bar(unit="frame", disable=not progress, leave=False) as frames,
        ):
            for source, result in _results(decoder, missing, extractors, frames):
                record = result if isinstance(result, str) else _record(source, result, fps, kts_frames, seconds)
                if isinstance(record, str):
                    failed[source.group] = record
                else:
                    parts.keep(source, record)
                files.update()
        shares = processes.gathered((failed, len(own) - len(missing), seconds))
        reasons = {group: text for failures, _, _ in shares for group, text in failures.items()}
        done = [source for source in sources if source.group not in reasons]
        left_out = {source.name: reasons[source.group] for source in sources if source.group in reasons}
        if not done:
            raise VideoError("not one video could be read:\n  " + "\n  ".join(left_out.values()))
        if processes.rank == 0:
            parts.join(done)
        processes.gathered(None)  # none returns before the file is there
    return Corpus(
        Path(out),
        {source.group: source.name for source in done},
        left_out,
        sum(number for _, number, _ in shares),
        {stage: sum(spent[stage] for _, _, spent in shares) for stage in STAGES},
    )


def features_of(
    paths: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    extractor: Extractor | None = None,
    *,
    fps: float = 2.0,
    kts_frames: KTSFrames = "sampled",
    batch_size: int | None = None,
    workers: int = 0,
    progress: bool = False,
) -> Path:
    """Make the h5 file of features of videos, or reuse what is there of it; only changed files are extracted again.

    Its name tells the inputs and how the features are made, so that other inputs or another extractor have a file of
    their own. Files that cannot be read are left out, with a warning that gives the reasons.

    Args:
        paths: Videos, or folders of them.
        folder: Where the file is kept; made if it does not exist.
        extractor: The image model; None for EfficientNet-Lite0.
        fps: Sampled frames a second of video.
        kts_frames: Where KTS may cut; see :func:`extract_corpus`.
        batch_size: Frames that go through the model together; None for 4 on a CPU and 32 elsewhere.
        workers: Processes that decode, each its own videos; 0 to decode in this one.
        progress: Shows bars of files and of frames.

    Returns:
        The h5 file.

    Raises:
        FileNotFoundError: If there is no such input.
        BlockingIOError: If another process is writing the file.
        ModuleNotFoundError: If PyAV is not installed, or the extractor's weights are not.
        VideoError: If not one video could be read, or a decoding process died.
        ValueError: If an option is out of its range, or no input is a video.
    """
    extract = make_extractor() if extractor is None else extractor
    inputs = [os.fsencode(Path(path).resolve()).hex() for path in paths]
    identity = json.dumps([inputs, _made_with({"features": extract}, fps, kts_frames)], sort_keys=True)
    name = Path(paths[0]).resolve().stem if paths else ""
    out = Path(folder) / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.h5"
    out.parent.mkdir(parents=True, exist_ok=True)
    corpus = extract_corpus(
        paths,
        out,
        extract,
        fps=fps,
        kts_frames=kts_frames,
        batch_size=batch_size,
        workers=workers,
        overwrite=True,
        progress=progress,
    )
    if corpus.left_out:
        warnings.warn("left out:\n  " + "\n  ".join(corpus.left_out.values()), stacklevel=2)
    return corpus.path


def check_kts_frames(kts_frames: str) -> None:
    """Refuse anything else than ``"sampled"`` or ``"all"``."""
    if kts_frames not in ("sampled", "all"):
        raise ValueError(f"kts_frames must be 'sampled' or 'all', got {kts_frames!r}")


def _made_with(extractors: Mapping[str, Extractor], fps: float, kts_frames: KTSFrames) -> dict[str, str]:
    """Return how the features are made, and how each stream is, the latter as ``"name/extractor"`` and so on."""
    made_with = {"sampling_rate": f"{fps:g} fps", "kts": f"linear kernel, {kts_frames} frames"}
    for name, extractor in extractors.items():
        of = "" if name == "features" else f"{name}/"
        made_with |= {f"{of}{key}": value for key, value in extractor.provenance.items()}
    return made_with


@contextmanager
def _output(target: Path, videos: Mapping[str, Path], processes: _Processes, *, overwrite: bool) -> Iterator[None]:
    """Refuse an output that cannot be, in every process, and hold its lock in the first one."""
    with ExitStack() as stack:
        refusal: Exception | None = None
        if processes.rank == 0:
            try:
                check_outputs(target, inputs=videos.values(), overwrite=overwrite)
                stack.enter_context(locked(target))
                check_outputs(target, overwrite=overwrite)  # it may have been made in the meantime
            except (OSError, ValueError) as error:
                refusal = error
        first, *_ = processes.gathered(refusal)
        if first is not None:
            raise first
        yield


def _results(
    decoder: Decoder, sources: Sequence[Source], extractors: Mapping[str, Extractor], bar: Bar
) -> Iterator[tuple[Source, VideoFeatures | str]]:
    """Yield the features and streams of each video, or the reason why there are none, as they come."""
    prepared = {name: decoder.preprocesses.index(each.preprocess) for name, each in extractors.items()}
    rows: dict[int, dict[str, list[npt.NDArray[np.float32]]]] = {}
    picks: dict[int, list[int]] = {}
    network: dict[int, float] = defaultdict(float)
    failed: set[int] = set()
    for number, item in decoder.decoded([source.path for source in sources]):
        source = sources[number]
        if number in failed:
            continue
        if isinstance(item, Batch):
            started = time.perf_counter()
            try:
                found = rows.setdefault(number, {name: [] for name in extractors})
                for name, extract in extractors.items():
                    found[name].append(extract(item.images[prepared[name]]))
            except Exception as error:
                if is_of_a_dead_worker(error):
                    raise
                failed.add(number)
                rows.pop(number, None)
                yield source, reason(source.path, error)
                continue
            network[number] += time.perf_counter() - started
            picks.setdefault(number, []).extend(item.picks)
            bar.set_description(shown(source.name), refresh=False)
            bar.update(len(item.picks))
        elif isinstance(item, Ending):
            try:
                video = collected(rows.pop(number), picks.pop(number), item, network[number])
            except ValueError as error:  # of rows that differ in length
                yield source, reason(source.path, error)
            else:
                yield source, video
        else:
            rows.pop(number, None)
            yield source, item


def _record(
    source: Source, video: VideoFeatures, fps: float, kts_frames: KTSFrames, seconds: dict[str, float]
) -> VideoRecord | str:
    """Cut a video into shots and make its record, or say why that fails; its time is added to ``seconds``."""
    started = time.perf_counter()
    try:
        shots = find_shots(video)
    except Exception as error:
        if is_of_a_dead_worker(error):
            raise
        return reason(source.path, error)
    for stage, spent in {**video.seconds, "shots": time.perf_counter() - started}.items():
        seconds[stage] += spent
    if kts_frames == "all":
        video = video.at(fps)
    return VideoRecord(
        name=source.group,
        features=video.features,
        picks=video.picks,
        n_frames=video.n_frames,
        change_points=shots,
        n_frame_per_seg=shots[:, 1] - shots[:, 0] + 1,
        n_steps=len(video.features),
        video_name=source.name,
        side=video.streams,
        provenance={
            "frame_rate": f"{video.frame_rate:.6g}",
            "duration": f"{video.duration:.3f} s",
            "damaged_packets": str(video.damaged),
        },
    )


@dataclass(frozen=True)
class _Processes:
    """This process and the others of ``torchrun``."""

    rank: int
    size: int
    group: Any = None

    def gathered(self, own: Any) -> list[Any]:
        if self.size == 1:
            return [own]
        shares: list[Any] = [None] * self.size
        dist.all_gather_object(shares, own, group=self.group)
        return shares


@contextmanager
def _processes() -> Iterator[_Processes]:
    """Join the other processes of ``torchrun`` where there are any."""
    if not dist.is_available() or launched()[1] == 1:
        yield _Processes(0, 1)
        return
    # They meet only at the end, and one share of the files may take days longer than another.
    patience = timedelta(days=30)
    if dist.is_initialized():
        group = dist.new_group(backend="gloo", timeout=patience)
        yield _Processes(dist.get_rank(), dist.get_world_size(), group)
        dist.destroy_process_group(group)
        return
    dist.init_process_group("gloo", timeout=patience)
    try:
        yield _Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
