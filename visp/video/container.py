"""Open media files: formats that hold their own media and nothing else, within stated bounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from visp.utils.files import shown as shown

if TYPE_CHECKING:
    import av
    import av.container
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

MOST_PIXELS = 1 << 27
"""Largest picture that is decoded, 16,384 by 8,192."""
MOST_ASPECT = 64
"""Most times that one side of a picture may be as long as the other."""
PATIENCE = 60.0
"""Seconds for which a file may give nothing before it is given up."""
_MOST_EMPTY = 100_000
"""Packets without data in a row, after which a file is given up."""
_GIVE_UP = 20
"""Failures in a row to find a next packet, after which there is none."""
_PROBED = 64 << 20
"""Bytes of a transport or program stream in which streams are looked for, since those need not begin together."""

# Demuxers that read one file. Playlists (hls, dash, concat, imf), image sequences, scripts and devices are not here.
_DEMUXERS = (
    "3g2 3gp 4xm amv apng asf av1 avi bink cavsvideo dirac dnxhd dv dvd f4v film_cpk flic flv gif gxf h261 h263 h264 "
    "hevc idcin ipmovie ivf ivr lmlm4 m4a m4v matroska mj2 mjpeg mlv mov mp4 mpeg mpegts mpegtsraw mpegvideo mpjpeg "
    "msf mv mvi mxf nsv nut obu ogg ogv pva qcp r3d rm roq smk smush swf thp tmv ty vc1 vc1test vivo vob vvc webm "
    "wtv xmv yuv4mpegpipe"
)
_OPTIONS = {
    "format_whitelist": _DEMUXERS.replace(" ", ","),
    "protocol_whitelist": "file",
    "max_pixels": str(MOST_PIXELS),
    "probesize": str(_PROBED),
    "analyzeduration": str(600 * 10**6),
    "merge_pmt_versions": "1",  # recordings joined to one transport stream stay one picture and one sound
}


class VideoError(ValueError):
    """A file that cannot be read as a video; the message is one line that names it."""


@dataclass(frozen=True)
class Streams:
    """The streams of a file that make up the video.

    Attributes:
        video: The picture.
        sound: The sound, whose streams follow each other; several only where a format begins a further stream when the
            sound's coding changes.
        note: Which tracks were taken, where there was a choice; else empty.
    """

    video: VideoStream
    sound: list[AudioStream]
    note: str


class OpenFile:
    """What reads a media file, and closes it at the end of a ``with`` block."""

    _container: av.container.InputContainer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()


def open_container(path: Path) -> av.container.InputContainer:
    """Open a media file for reading.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If it is not a media file that can be read, or one that may name others.
    """
    require_av()
    import av

    if not path.exists():
        raise FileNotFoundError(f"{shown(path)}: no such file")
    if not path.is_file():
        raise VideoError(f"{shown(path)}: not a file")
    try:
        # An absolute path, so that FFmpeg does not take a name such as "concat:a.mp4" for a protocol.
        where = os.path.abspath(path)  # noqa: PTH100
        return av.open(where, metadata_errors="replace", options=_OPTIONS, timeout=PATIENCE)
    except PermissionError:
        raise PermissionError(f"{shown(path)}: no permission to read it") from None
    except (av.FFmpegError, UnicodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if path.stat().st_size == 0:
            reason = "it is empty"
        elif isinstance(error, av.ArgumentError):
            reason = "not a video container (a playlist, an image and whatever names other files are not opened)"
        raise VideoError(f"{shown(path)}: cannot be read as a video: {reason}") from error


def choose_streams(container: av.container.InputContainer, path: Path) -> Streams:
    """Choose the picture, and the sound that a player takes with it.

    The picture is the default one, or else the first; covers and thumbnails are none. The sound is the default track of
    the picture's programme.

    Raises:
        VideoError: If there is no picture, or one beyond the bounds.
    """
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    pictures = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & still]
    if not pictures:
        raise VideoError(f"{shown(path)}: has no video stream")
    video = next((s for s in pictures if s.disposition & Disposition.default), pictures[0])
    check_size(video.codec_context.width, video.codec_context.height, path)
    sounds = [s for s in container.streams.audio if s.codec_context is not None]
    best = container.streams.best("audio", related=video)
    default = [s for s in sounds if s.disposition & Disposition.default] + sounds
    chosen = next((s for s in sounds if best is not None and s.index == best.index), default[0] if default else None)
    notes = []
    if len(pictures) > 1:
        notes.append(f"picture {pictures.index(video) + 1} of {len(pictures)}")
    if container.format.name == "flv":
        return Streams(video, sounds, _note(notes))
    if chosen is not None and len(sounds) > 1:
        language = chosen.metadata.get("language")
        named = f" ({language})" if language and language.isprintable() else ""
        notes.append(f"sound {sounds.index(chosen) + 1} of {len(sounds)}{named}")
    return Streams(video, [] if chosen is None else [chosen], _note(notes))


def _note(parts: list[str]) -> str:
    return f"Of several tracks, these were taken: {', '.join(parts)}." if parts else ""


def check_size(width: int, height: int, path: Path) -> None:
    """Refuse pictures beyond the bounds.

    Raises:
        VideoError: If there are more than ``MOST_PIXELS``, or a side is more than ``MOST_ASPECT`` times the other.
    """
    if width * height > MOST_PIXELS or max(width, height) > MOST_ASPECT * max(1, min(width, height)):
        raise VideoError(
            f"{shown(path)}: has pictures of {width} x {height}; expected at most {MOST_PIXELS:,} pixels and no side "
            f"more than {MOST_ASPECT} times as long as the other"
        )


def iter_packets(
    container: av.container.InputContainer,
    streams: Sequence[Stream],
    path: Path,
    on_damage: Callable[[], None] = lambda: None,
) -> Iterator[Packet[Any]]:
    """Yield the packets of these streams in the file's order, and past damage; empty ones at the end flush decoders.

    Raises:
        VideoError: If the file gives nothing for too long.
    """
    from av import FFmpegError
    from av.error import ExitError

    packets = container.demux(*streams)
    unread = empty = 0
    while unread < _GIVE_UP:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):  # PyAV's IndexError: a stream that was not there when the file was opened
            return
        except ExitError:
            raise VideoError(f"{shown(path)}: gave nothing for {PATIENCE:g} s") from None
        except FFmpegError:
            on_damage()
            unread += 1
            packets = container.demux(*streams)
            continue
        unread = 0
        empty = empty + 1 if packet.size == 0 else 0
        if empty > _MOST_EMPTY:
            raise VideoError(f"{shown(path)}: holds {empty:,} packets in a row without data")
        yield packet


def require_av() -> None:
    """Refuse to run without PyAV.

    Raises:
        ModuleNotFoundError: If it is not installed; the message says how to get it.
    """
    try:
        import av  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise ModuleNotFoundError('reading videos needs PyAV: pip install "visp[video]"', name="av") from error
