"""One HTML page about a summary: the video, the score curve, the chosen shots, the others, and how they came about."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from visp.utils.files import replacing
from visp.video.picture import as_file
from visp.video.result import VideoSummary

PICTURE_WIDTH = 320
_POINTS = 1500
"""Most points of the score curve; of more, the best of each stretch is drawn."""
_WIDTH, _HEIGHT = 1000, 200

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #5c5c5c; --line: #ddd; --edge: #aaa;
  --shot: #f3f3f3; --chosen: #fbd9c0; --curve: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #161616; --soft: #aaa; --line: #444; --edge: #777;
  --shot: #232323; --chosen: #5c3413; --curve: #5cb6ec; } }
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } a { color: var(--curve); }
.lead, figcaption, .soft { color: var(--soft); } svg { width: 100%; height: 12rem; display: block; }
.axis { display: flex; justify-content: space-between; font-size: .8rem; color: var(--soft); margin: .2rem 0; }
video { width: 100%; display: block; background: #000; border-radius: 4px; } .player { max-height: 70vh; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(14rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; font-variant-numeric: tabular-nums; }
ol.others { list-style: none; padding: 0; font-size: .85rem; font-variant-numeric: tabular-nums; display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 0 1.5rem; }
.others li { display: flex; justify-content: space-between; border-bottom: 1px solid var(--line); padding: .15rem 0; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; width: 30%; } .key { display: inline-block; width: .9em; height: .9em; border-radius: 2px; }
"""


def html_report(summary: VideoSummary, folder: str | os.PathLike[str] | None = None) -> str:
    """Return the page; it refers to no other file than the summary video and runs no script.

    Args:
        summary: The summary.
        folder: Where the page will be; that of the summary video if not given.
    """
    name = escape(_printable(os.fsencode(summary.video.name).decode("utf-8", "replace")))
    link = _link(summary.out, summary.out.parent if folder is None else Path(folder))
    kept = summary.summary_duration
    shots = "1 shot" if len(summary.selected) == 1 else f"{len(summary.selected)} shots"
    lead = (
        f"{clock(kept)} of {clock(summary.duration)} ({kept / summary.duration:.1%}), {shots} of {len(summary.shots)}; "
        f"the budget was {clock(summary.budget)}."
    )
    notes = "".join(f"<li>{escape(_printable(note))}</li>" for note in summary.notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Summary of {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Summary of {name}</h1>
<p class="lead">{lead}</p>
<video class="player" controls preload="metadata" src="{link}"></video>
{f"<ul>{notes}</ul>" if notes else ""}
<h2>Scores and shots</h2>
{_curve(summary, link)}
<p class="soft"><span class="key" style="background: var(--chosen)"></span> chosen shots,
<span class="key" style="background: var(--curve)"></span> score of each sampled frame; vertical lines are shot
boundaries.</p>
<h2>Chosen shots</h2>
<div class="sheet">
{_sheet(summary, link)}
</div>
{_others(summary)}
<h2>Time spent</h2>
{_table(_times(summary.seconds))}
<h2>How it was made</h2>
{_table((key.replace("_", " "), value) for key, value in summary.settings.items())}
</body>
</html>
"""


def write_report(summary: VideoSummary, path: str | os.PathLike[str]) -> None:
    """Write the page to a file, in place of an older one there."""
    with replacing(Path(path)) as file:
        file.write(html_report(summary, Path(path).parent).encode())


def _link(target: Path, folder: Path) -> str:
    """Return the address of a file, relative to a folder; quoted, so that nothing in its name is more than a name."""
    relative = os.path.relpath(target.absolute(), folder.absolute())
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))


def _printable(text: str) -> str:
    """Return a text without what could hide or reorder its letters."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def clock(seconds: float) -> str:
    """Return a time as ``m:ss.s``, or ``h:mm:ss.s`` from an hour on."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _curve(summary: VideoSummary, link: str) -> str:
    """Draw the scores over time, on the shots; the chosen ones lead into the summary."""

    def x(time: float) -> float:
        return _WIDTH * time / summary.duration

    low, high = float(summary.scores.min()), float(summary.scores.max())
    spread = high - low or 1.0

    def y(score: float) -> float:
        return 6 + (_HEIGHT - 12) * (1 - (score - low) / spread)

    places = dict(zip(summary.selected.tolist(), summary.places.tolist(), strict=True))
    marks = []
    for number, (start, end) in enumerate(summary.shot_times.tolist()):
        title = f"shot {number + 1}, {clock(start)} to {clock(end)}, mean score {summary.shot_scores[number]:.3f}"
        mark = (
            f'<rect x="{x(start):.2f}" y="0" width="{x(end) - x(start):.2f}" height="{_HEIGHT}" '
            f'fill="var(--{"chosen" if number in places else "shot"})" stroke="var(--edge)" stroke-width="1" '
            f'vector-effect="non-scaling-stroke"><title>{title}</title></rect>'
        )
        marks.append(f'<a href="{link}{_span(places[number])}">{mark}</a>' if number in places else mark)
    times, scores = _thinned(summary.times, summary.scores)
    points = " ".join(f"{x(t):.1f},{y(s):.1f}" for t, s in zip(times, scores, strict=True))
    dots = f'<circle cx="{x(times[0]):.1f}" cy="{y(scores[0]):.1f}" r="3" fill="var(--curve)"/>' * (len(times) == 1)
    ticks = "".join(f"<span>{clock(t)}</span>" for t in (0, summary.duration / 2, summary.duration))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="score of each sampled frame over time">{"".join(marks)}'
        f'<polyline points="{points}" fill="none" stroke="var(--curve)" stroke-width="1.5" stroke-linejoin="round" '
        f'vector-effect="non-scaling-stroke" pointer-events="none"/>{dots}</svg>'
        f'<div class="axis">{ticks}</div><p class="soft">Scores of frames from {low:.2f} to {high:.2f}.</p>'
    )


def _thinned(
    times: npt.NDArray[np.float64], scores: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Keep the best frame of each of at most ``_POINTS`` stretches."""
    starts = np.unique(np.linspace(0, len(times), min(len(times), _POINTS), endpoint=False).astype(int))
    best = [a + int(scores[a:b].argmax()) for a, b in zip(starts, [*starts[1:], len(times)], strict=True)]
    return times[best], scores[best]


def _sheet(summary: VideoSummary, link: str) -> str:
    cells = []
    chosen = zip(summary.selected.tolist(), summary.key_frames.tolist(), summary.places.tolist(), strict=True)
    for shot, frame, place in chosen:
        start, end = summary.shot_times[shot].tolist()
        data = base64.b64encode(as_file(summary.pictures[frame], "mjpeg", "yuvj420p", PICTURE_WIDTH)).decode()
        at = f"{link}{_span(place)}"
        cells.append(
            f'<figure><video controls preload="none" poster="data:image/jpeg;base64,{data}" src="{at}" '
            f'aria-label="shot {shot + 1}"></video><figcaption><b><a href="{at}">{clock(start)} to {clock(end)}</a></b>'
            f"<br>shot {shot + 1}, score {summary.shot_scores[shot]:.3f}</figcaption></figure>"
        )
    return "\n".join(cells)


def _others(summary: VideoSummary) -> str:
    """List the shots that were not taken, with their scores."""
    taken = set(summary.selected.tolist())
    rows = [
        f"<li><span>{number + 1}: {clock(start)} to {clock(end)}</span>"
        f"<span>{summary.shot_scores[number]:.3f}</span></li>"
        for number, (start, end) in enumerate(summary.shot_times.tolist())
        if number not in taken
    ]
    return f'<h2>Shots not taken, with their scores</h2>\n<ol class="others">{"".join(rows)}</ol>' if rows else ""


def _span(place: list[float]) -> str:
    """Return the fragment of an address that plays a part of a video (W3C Media Fragments)."""
    return f"#t={place[0]:.3f},{place[1]:.3f}"


def _times(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    total = sum(seconds.values())
    rows = [(stage, f"{spent:.2f} s, {spent / total:.0%}") for stage, spent in seconds.items()]
    return [*rows, ("total", f"{total:.2f} s")]


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows)
    return f"<table>{cells}</table>"
