"""What a study found as Markdown, CSV, JSON and a figure; each says by which protocol, seeds and errors."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visp.data.splits import Folds
from visp.eval.metrics import METRICS
from visp.eval.protocols import protocol_form
from visp.eval.results import BASELINES, without_nan
from visp.studies.curves import draw_curves, has_curves
from visp.studies.results import CrossValidation
from visp.studies.study import Labelled, Study, StudyResult
from visp.training.run_folder import write_json
from visp.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEASURES = {
    "identification": "identification (nats, lower is better)",
    "seeds_agree": "agreement between seeds (tau)",
    "mi_lower_bound": "bound on MI (nats)",
    "keep_ratio": "share kept",
}
_EXPLAINED = "±: standard deviation over seeds; [ ]: standard error over videos, which more seeds do not make smaller."


def write_report(
    result: StudyResult,
    out: Path,
    *,
    draw: Callable[[StudyResult, Figure], None] | None = None,
    more: str = "",
    more_values: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> str:
    """Write ``table.md``, ``table.csv``, ``results.json`` and the figures, and return the Markdown.

    Args:
        result: What came of the study.
        out: Its folder.
        draw: Draws ``figure.png`` and ``.pdf``; without matplotlib there is no figure, and the text says so.
        more: Markdown below the tables.
        more_values: Values for the JSON file.
        cache: Folder of the runs, whose training curves are drawn as ``curves.png`` and ``.pdf``, where they are few
            enough to be told apart.
    """
    text = markdown(result) + (f"\n\n{more}" if more else "")
    if draw is not None:
        text += f"\n\n{_save_figure('figure', partial(draw, result), result, out)}"
        if cache is not None and has_curves(result):
            text += f"\n\n{_save_figure('curves', partial(draw_curves, result, cache=cache), result, out)}"
    with replacing(out / "table.md") as file:
        file.write(f"{text}\n".encode())
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(csv_rows(result))
    with replacing(out / "table.csv") as file:
        file.write(rows.getvalue().encode())
    write_json(out / "results.json", {**to_json(result), **(more_values or {})})
    return text


def markdown(result: StudyResult) -> str:
    """Return the tables: after fine-tuning, before it, and the measures that need no label."""
    parts = [f"# {result.study.name}"]
    if result.study.labelled:
        parts += ["## After fine-tuning", _table(result, before=False)]
        parts += ["## Before fine-tuning: no label was seen", _table(result, before=True)]
    if any(result.measures.values()):
        parts += ["## Without labels", _measures_table(result)]
    return "\n\n".join([*parts, describe(result.study)])


def describe(study: Study) -> str:
    """Say how the numbers were made."""
    lines = []
    for labelled in study.labelled:
        form = protocol_form(labelled.protocol, labelled.benchmark).text
        folds = f"split file {labelled.splits}" if labelled.splits else _folds(labelled.folds)
        lines.append(
            f"{labelled.name}: tau and rho under protocol {labelled.protocol} ({labelled.benchmark}), {form}; {folds}."
        )
    select = study.finetuning.get("select", "last")
    if study.labelled:
        chosen = "on the **test videos**, as published figures often are" if select == "test" else f"by rule {select!r}"
        lines.append(f"Epoch of fine-tuning chosen {chosen}.")
    lines.append(f"Seeds {', '.join(map(str, study.seeds))}. {_EXPLAINED if study.labelled else ''}".strip())
    return " ".join(lines)


def _folds(folds: Folds) -> str:
    return "one fold for each video" if folds == "leave-one-out" else f"{folds} folds drawn with seed 0"


def csv_rows(result: StudyResult) -> Iterator[list[Any]]:
    """Yield one row per variant, file, stage and metric, and those of chance and people."""
    for stage, found in (("fine-tuned", result.fine_tuned), ("before fine-tuning", result.before)):
        for (variant, name), each in found.items():
            seen = result.seen[variant]
            for metric in METRICS:
                values = [each.mean(metric), each.spread(metric), each.standard_error(metric), each.best_round(metric)]
                shown = ["" if math.isnan(value) else f"{value:.6f}" for value in values]
                common = [each.protocol, each.select, len(result.study.seeds)]
                yield [variant, name, stage, metric, *shown, *common, "" if seen is None else "yes" if seen else "no"]
    for labelled in result.study.labelled:
        each = _any_of(result, labelled)
        for of, label in BASELINES.items():
            for metric in METRICS:
                value = each.baseline(of, metric)
                if not math.isnan(value):
                    yield [label, labelled.name, "", metric, f"{value:.6f}", "", "", "", each.protocol, "", "", ""]


def to_json(result: StudyResult) -> dict[str, Any]:
    """Return everything as plain values."""
    return {
        "study": asdict(result.study),
        "description": describe(result.study),
        "variants": {
            variant.name: {
                "test_videos_in_pretraining": result.seen[variant.name],
                "measures": without_nan(result.measures[variant.name]),
                "files": {
                    labelled.name: {
                        "fine_tuned": result.fine_tuned[variant.name, labelled.name].to_json(),
                        "before": result.before[variant.name, labelled.name].to_json(),
                    }
                    for labelled in result.study.labelled
                },
            }
            for variant in result.study.variants
        },
    }


_COLUMNS = (
    *("variant", "file", "stage", "metric", "mean", "std_over_seeds", "standard_error_over_videos", "best_seed"),
    *("protocol", "epoch_chosen_by", "seeds", "test_videos_in_pretraining"),
)


def _table(result: StudyResult, *, before: bool) -> str:
    study = result.study
    found = result.before if before else result.fine_tuned
    head = ["variant", *(f"{each.name}: tau | rho | F-score" for each in study.labelled), "mean of tau and rho"]
    columns = 2 + 3 * len(study.labelled) + 1
    lines = [f"| {' | '.join(head)} | test videos in pretraining |", "|---" * columns + "|"]
    for variant in study.variants:
        cells = [_cell(found[variant.name, each.name], metric) for each in study.labelled for metric in METRICS]
        average = (
            result.average(variant.name, "tau", before=before) + result.average(variant.name, "rho", before=before)
        ) / 2
        seen = {None: "no pretraining", True: "yes", False: "no"}[result.seen[variant.name]]
        lines.append(f"| {' | '.join([variant.name, *cells, _number(average), seen])} |")
    for of, label in BASELINES.items():
        values = [_any_of(result, each).baseline(of, metric) for each in study.labelled for metric in METRICS]
        if any(not math.isnan(value) for value in values):
            lines.append(f"| {' | '.join([label, *map(_number, values), '', ''])} |")
    return "\n".join(lines)


def _measures_table(result: StudyResult) -> str:
    names = [name for name in _MEASURES if any(name in found for found in result.measures.values())]
    lines = [f"| variant | {' | '.join(_MEASURES[name] for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for variant, found in result.measures.items():
        if found:
            lines.append(f"| {' | '.join([variant, *(_number(found.get(name, math.nan)) for name in names)])} |")
    return "\n".join(lines)


def _cell(found: CrossValidation, metric: Any) -> str:
    mean, spread, error = found.mean(metric), found.spread(metric), found.standard_error(metric)
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}") + f" [{_number(error)}]"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _any_of(result: StudyResult, labelled: Labelled) -> CrossValidation:
    """Return a result on the file; chance and people are the same in all."""
    return result.fine_tuned[result.study.variants[0].name, labelled.name]


def _save_figure(name: str, draw: Callable[[Figure], None], result: StudyResult, out: Path) -> str:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return 'No figure was drawn: it needs matplotlib, `pip install "visp[plot]"`.'
    figure = Figure(layout="constrained")
    draw(figure)
    for ending in ("png", "pdf"):
        with replacing(out / f"{name}.{ending}") as file:
            figure.savefig(file, dpi=150, format=ending)
    return f"![{result.study.name}]({name}.png)"
