"""Many videos decoded, in this process or in others that decode side by side."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from visp.video.decode import VideoError, shown
from visp.video.extract import Batch, Ending, read_batches
from visp.video.extractors import Preprocess

PATIENCE = 7200.0
"""Seconds for which a decoding process may give nothing before it is given up."""

Decoded = Batch | Ending | str
"""Frames of a video, what is known at its end, or the reason why it cannot be read."""

_DEAD, _SILENT = "DataLoader worker", "DataLoader timed out"


class Decoder:
    """Decodes videos into batches of prepared frames.

    Args:
        preprocesses: Each prepares a frame.
        fps: Sampled frames a second of video; None for every frame.
        batch_size: Frames a batch.
        workers: Processes that decode, each its own videos; 0 to decode in this one.
    """

    def __init__(self, preprocesses: Sequence[Preprocess], fps: float | None, batch_size: int, workers: int) -> None:
        self.preprocesses = preprocesses
        self.fps = fps
        self.batch_size = batch_size
        self.workers = workers
        self._shares: list[list[Path]] = []

    def decoded(self, paths: Sequence[Path]) -> Iterator[tuple[int, Decoded]]:
        """Decode videos; yields what comes, with the number of its video.

        The batches of a video come in order and then its ending, or the reason why it cannot be read; videos come
        mixed where there are workers.
        """
        if not paths:
            return
        workers = min(self.workers, len(paths))
        videos = _Videos(paths, self, threads=1 if workers else 0)
        self._shares = [list(paths[worker::workers]) for worker in range(workers)]
        timeout = PATIENCE if workers else 0
        loader = DataLoader(videos, batch_size=None, num_workers=workers, collate_fn=_as_it_is, timeout=timeout)
        with _objects_of_this_process():
            items = iter(loader)
        for number, item in items:
            if workers and not isinstance(item, Batch):
                self._shares[number % workers].pop(0)
            yield number, item

    @contextmanager
    def naming_the_dead(self) -> Iterator[None]:
        """Say in one line where the workers were when one of them died, which may be noticed at any moment.

        Raises:
            VideoError: If a worker dies, or gives nothing for ``PATIENCE`` seconds.
        """
        try:
            yield
        except RuntimeError as error:
            if not is_of_a_dead_worker(error):
                raise
            at = " or ".join(shown(share[0]) for share in self._shares if share)
            what = "gave nothing" if str(error).startswith(_SILENT) else "died"
            raise VideoError(f"a decoding process {what} at {at}: {str(error).splitlines()[0]}") from error


def is_of_a_dead_worker(error: Exception) -> bool:
    """Return whether an error says that a worker died or is silent; torch raises it wherever this process is."""
    return isinstance(error, RuntimeError) and str(error).startswith((_DEAD, _SILENT))


@contextmanager
def _objects_of_this_process() -> Iterator[None]:
    """Keep processes that are forked meanwhile from freeing what is this one's.

    A decoder and a scaler of FFmpeg have threads of their own, which a fork does not copy: a child whose garbage
    collector frees one waits for these threads for ever.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Videos(IterableDataset[tuple[int, Decoded]]):
    """What the videos hold; in a worker, what its share of them holds."""

    def __init__(self, paths: Sequence[Path], decoder: Decoder, *, threads: int) -> None:
        self.paths = paths
        self.decoder = decoder
        self.threads = threads

    def __iter__(self) -> Iterator[tuple[int, Decoded]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, len(self.paths), step):
            how = self.decoder
            items = read_batches(
                self.paths[number], how.preprocesses, fps=how.fps, batch_size=how.batch_size, threads=self.threads
            )
            try:
                for item in items:
                    yield number, item
            except (VideoError, OSError) as error:
                yield number, str(error)


def _as_it_is(item: Any) -> Any:
    return item
