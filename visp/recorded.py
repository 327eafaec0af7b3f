"""What the folder of a run says of itself: which summarizer it trained, and on whose features."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visp.utils.files import parse_json, read_text, shown


@dataclass(frozen=True)
class Recorded:
    """What ``config.json`` says.

    Attributes:
        summarizer: Name of the summarizer, as :func:`visp.factory.make_summarizer` takes it; None where the run was
            given a module that code made.
        arguments: What the class of a built-in summarizer was given, where it is not the default.
        features: How the features were made, by name of the attribute; empty where the run was not told.
        extractor: Name of the image model, where the run's own user gave it.
    """

    summarizer: str | None
    arguments: Mapping[str, Any]
    features: Mapping[str, str]
    extractor: str | None


def read_run(folder: str | os.PathLike[str]) -> Recorded:
    """Read ``config.json`` of a run's folder, or of one that ``save_pretrained`` wrote.

    A run's folder is its user's own, and may name factories to call; a folder of ``save_pretrained`` may be anybody's.

    Raises:
        ValueError: If there is none, or it is of another kind.
    """
    path = Path(folder)
    try:
        config = parse_json(read_text(path / "config.json"))
        if not isinstance(config, dict):
            raise TypeError("not an object")
        foreign = "visp" in config
        known = dict(config.pop("visp")) if foreign else config
        name, extractor = known.get("summarizer"), None if foreign else known.get("extractor")
        features = {str(key): str(value) for key, value in dict(known.get("features") or {}).items()}
        if not isinstance(name, str | None) or not isinstance(extractor, str | None):
            raise TypeError("a name is no text")
        if foreign and name is not None and ":" in name:
            raise ValueError("only built-in summarizers have a name in a folder of save_pretrained")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{shown(path)}: no config.json here says what a run trained") from error
    arguments = config if foreign else {key: config[key] for key in ("width",) if key in config}
    return Recorded(name, arguments, features, extractor)
