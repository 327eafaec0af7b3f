"""Features of many videos: a folder in, the field's h5 file out, resumable file by file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from visp.data import VideoRecord, read_record, write_h5
from visp.data.h5 import natural_order
from visp.video.decode import VideoError, require_av, shown
from visp.video.extract import Batch, Ending, VideoFeatures, collected, find_shots, read_batches
from visp.video.extractors import Extractor, Preprocess
from visp.video.render import check_target

KTSFrames = Literal["sampled", "all"]
"""Where KTS may cut: at the sampled frames, or at every frame."""

_NAMES = "3gp asf avi divx f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv rm ts vob webm wmv"
ENDINGS = frozenset(f".{name}" for name in _NAMES.split(" "))
"""Names in a folder that are taken for videos; a file that is given by name may end as it likes."""
_PART = "video"
"""Group of the one video of a part."""


@dataclass(frozen=True)
class Corpus:
    """What was extracted.

    Attributes:
        path: The h5 file.
        videos: Name of each video in the file, by its group.
        left_out: Why a file is not in it, in one line, by its name.
        resumed: How many of the videos were there from an earlier, interrupted run.
    """

    path: Path
    videos: dict[str, str]
    left_out: dict[str, str]
    resumed: int


@dataclass(frozen=True)
class _Source:
    """A file, the name under which it is known, its group in the h5 file and its own finished part."""

    path: Path
    name: str
    group: str
    part: Path


def extract_corpus(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    extractor: Extractor | nn.Module,
    *,
    fps: float = 2.0,
    kts_frames: KTSFrames = "sampled",
    batch_size: int = 32,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Corpus:
    """Extract the features of videos and segment them, into an h5 file of the field's schema.

    Groups are ``video_1``, ``video_2``, ... in the order of the files; ``video_name`` says which file each one is.
    A file that cannot be read is left out with its reason and does not stop the others; its number stays free.
    Each video is kept in a folder beside ``out`` as soon as it is done, so that the same call goes on where an
    interrupted one stopped. Under ``torchrun`` each process takes its share of the files and the first one writes.

    Args:
        inputs: Videos, or folders, in which every file is taken that is named like a video.
        out: The h5 file.
        extractor: The image model; see :func:`visp.video.extract_features`.
        fps: Sampled frames a second of video.
        kts_frames: Where KTS may cut: ``"sampled"``, as in the field, or ``"all"``, at every frame, for which every
            frame goes through the model.
        batch_size: Frames that go through the model together.
        workers: Processes that decode, each its own videos; 0 to decode in this one.
        overwrite: Replaces an existing file.
        progress: Shows bars of files and of frames.

    Returns:
        What was extracted, the same in every process.

    Raises:
        FileNotFoundError: If there is no such input.
        FileExistsError: If ``out`` exists and ``overwrite`` is false.
        ModuleNotFoundError: If PyAV is not installed.
        VideoError: If not one video could be read; the message gives the reasons.
        ValueError: If an option is out of its range, or no input is a video.
    """
    require_av()
    check_kts_frames(kts_frames)
    target = Path(out)
    check_target(target, overwrite=overwrite)
    extract = extractor if isinstance(extractor, Extractor) else Extractor(extractor)
    provenance = {**extract.provenance, "sampling_rate": f"{fps:g} fps", "kts": f"linear kernel, {kts_frames} frames"}
    parts = target.with_name(f".{target.name}.parts")
    sources = _sources(inputs, parts, provenance)
    parts.mkdir(exist_ok=True)
    with _process_group() as (rank, processes):
        own = sources[rank::processes]
        missing = [source for source in own if not source.part.exists()]
        failed: dict[str, str] = {}
        batches = _batches(missing, extract.preprocess, None if kts_frames == "all" else fps, batch_size, workers)
        with (
            tqdm(total=len(own), initial=len(own) - len(missing), unit="video", disable=not progress) as files,
            tqdm(unit="frame", disable=not progress, leave=False) as frames,
        ):
            for source, result in _results(batches, missing, extract, frames):
                if isinstance(result, VideoFeatures):
                    write_h5(source.part, [_record(source, result, fps, kts_frames)], overwrite=True)
                else:
                    failed[source.group] = result
                files.update()
        shares = _gathered((failed, len(own) - len(missing)), processes)
        reasons = {group: reason for failures, _ in shares for group, reason in failures.items()}
        done = [source for source in sources if source.group not in reasons]
        left_out = {source.name: reasons[source.group] for source in sources if source.group in reasons}
        if not done:
            with suppress(OSError):
                parts.rmdir()
            raise VideoError("not one video could be read:\n  " + "\n  ".join(left_out.values()))
        if rank == 0:
            write_h5(target, (_finished(source) for source in done), provenance=provenance, overwrite=overwrite)
            if not left_out:
                shutil.rmtree(parts)
        _gathered(None, processes)  # no process returns before the file is there
    return Corpus(target, {s.group: s.name for s in done}, left_out, sum(resumed for _, resumed in shares))


def check_kts_frames(kts_frames: str) -> None:
    """Refuse anything else than ``"sampled"`` or ``"all"``."""
    if kts_frames not in ("sampled", "all"):
        raise ValueError(f"kts_frames must be 'sampled' or 'all', got {kts_frames!r}")


def _sources(inputs: Sequence[str | os.PathLike[str]], parts: Path, provenance: dict[str, str]) -> list[_Source]:
    found: dict[str, Path] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            paths = (p for p in given.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
            named = {p.relative_to(given).as_posix(): p for p in paths if not p.name.startswith(".")}
            if not named:
                raise ValueError(f"{shown(given)}: no file in this folder is named like a video (.mp4, .mkv, ...)")
        elif given.exists():
            named = {given.name: given}
        else:
            raise FileNotFoundError(f"{shown(given)}: no such file or folder")
        if twice := sorted(found.keys() & named):
            raise ValueError(f"two videos are named {twice[0]!r}; give their common folder")
        found |= named
    sources = []
    for number, name in enumerate(sorted(found, key=natural_order), start=1):
        stat = found[name].stat()
        identity = [os.fsencode(name).hex(), stat.st_size, stat.st_mtime_ns, provenance]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        readable = os.fsencode(name).decode("utf-8", "replace")
        sources.append(_Source(found[name], readable, f"video_{number}", parts / f"{digest[:32]}.h5"))
    return sources


class _Decoder(IterableDataset[tuple[int, Batch | Ending | str]]):
    """What the files hold, with the file's number: batches and an ending, or the reason why it cannot be read."""

    def __init__(
        self, paths: Sequence[Path], preprocess: Preprocess, fps: float | None, batch_size: int, threads: int
    ) -> None:
        self.paths = paths
        self.preprocess = preprocess
        self.fps = fps
        self.batch_size = batch_size
        self.threads = threads

    def __iter__(self) -> Iterator[tuple[int, Batch | Ending | str]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, len(self.paths), step):
            items = read_batches(
                self.paths[number], self.preprocess, fps=self.fps, batch_size=self.batch_size, threads=self.threads
            )
            try:
                for item in items:
                    yield number, item
            except (VideoError, OSError) as error:
                yield number, str(error)
            except Exception as error:  # whatever one file does, the others are read
                reason = " ".join(str(error).split())
                yield number, f"{shown(self.paths[number])}: {type(error).__name__}: {reason}"


def _batches(
    sources: Sequence[_Source], preprocess: Preprocess, fps: float | None, batch_size: int, workers: int
) -> Iterable[tuple[int, Batch | Ending | str]]:
    workers = min(workers, len(sources))
    decoder = _Decoder([s.path for s in sources], preprocess, fps, batch_size, threads=1 if workers else 0)
    return DataLoader(decoder, batch_size=None, num_workers=workers, collate_fn=_as_it_is) if sources else ()


def _as_it_is(item: Any) -> Any:
    return item


def _results(
    batches: Iterable[tuple[int, Batch | Ending | str]], sources: Sequence[_Source], extract: Extractor, bar: tqdm[Any]
) -> Iterator[tuple[_Source, VideoFeatures | str]]:
    """Yield the features of each file, or the reason why there are none, as they come."""
    rows: dict[int, list[npt.NDArray[np.float32]]] = {}
    picks: dict[int, list[int]] = {}
    network: dict[int, float] = {}
    for number, item in batches:
        if isinstance(item, Batch):
            started = time.perf_counter()
            rows.setdefault(number, []).append(extract(item.images))
            network[number] = network.get(number, 0.0) + time.perf_counter() - started
            picks.setdefault(number, []).extend(item.picks)
            bar.set_description(shown(sources[number].name), refresh=False)
            bar.update(len(item.picks))
        elif isinstance(item, Ending):
            yield sources[number], collected(rows.pop(number), picks.pop(number), item, network.pop(number))
        else:
            rows.pop(number, None)
            yield sources[number], item


def _record(source: _Source, video: VideoFeatures, fps: float, kts_frames: KTSFrames) -> VideoRecord:
    shots = find_shots(video)
    if kts_frames == "all":
        video = video.at(fps)
    return VideoRecord(
        name=_PART,
        features=video.features,
        picks=video.picks,
        n_frames=video.n_frames,
        change_points=shots,
        n_frame_per_seg=shots[:, 1] - shots[:, 0] + 1,
        n_steps=len(video.features),
        video_name=source.name,
        provenance={
            "frame_rate": f"{video.frame_rate:.6g}",
            "duration": f"{video.duration:.3f} s",
            "damaged_packets": str(video.damaged),
        },
    )


def _finished(source: _Source) -> VideoRecord:
    """Read a finished part, which an earlier run may have made when the file had another number."""
    return replace(read_record(source.part, _PART), name=source.group)


@contextmanager
def _process_group() -> Iterator[tuple[int, int]]:
    """Join the other processes of ``torchrun`` where there are any; yields this one's rank and their number."""
    if not dist.is_available() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    joined = dist.is_initialized()
    if not joined:
        # They meet only at the end, and one share of the files may take days longer than another.
        dist.init_process_group("gloo", timeout=timedelta(days=30))
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        if not joined:
            dist.destroy_process_group()


def _gathered(own: Any, processes: int) -> list[Any]:
    if processes == 1:
        return [own]
    shares: list[Any] = [None] * processes
    dist.all_gather_object(shares, own)
    return shares
