"""How a measured result is written: the numbers, and what they were measured with, in one JSON file.

Files under experiments/results/ have this form; `make tables` builds the tables of the README and of docs/ from them.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments._cli import write_json
from lasps.config.settings import settings

RESULTS = settings.ROOT / "experiments" / "results"


def write_result(
    path: Path, result: Any, *, seeds: Sequence[int] = (), data: Mapping[str, str | None] | None = None, note: str = ""
) -> None:
    """Write `result` with the command that made it, the day, the commit, the machine, seeds and data.

    Args:
        path: the JSON file, replaced in one step.
        result: the numbers; NaN becomes null.
        seeds: all that were used.
        data: name of a dataset -> its fingerprint.
        note: what a reader must know, e.g. which choices were made on what.
    """
    from lasps.reproducibility import git_commit

    about = {
        "command": command(),
        "made": time.strftime("%Y-%m-%d"),
        "commit": git_commit(),
        "machine": machine(),
        "seeds": list(seeds),
        "data": dict(data or {}),
        "note": note,
    }
    write_json(path, about | {"result": result})


def read_result(path: Path) -> dict[str, Any]:
    """A file that `write_result` wrote.

    Raises:
        ValueError: it lacks what such a file has.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    lacking = {"command", "made", "commit", "machine", "seeds", "data", "note", "result"} - set(content)
    if lacking:
        raise ValueError(f"{path}: expected a result with command, commit, ...; it lacks {', '.join(sorted(lacking))}")
    return dict(content)


def command() -> str:
    """The running command as it can be given again in the repo root."""
    script, *arguments = sys.argv
    inside = Path(script).resolve()
    shown = inside.relative_to(settings.ROOT) if inside.is_relative_to(settings.ROOT) else Path(script)
    return shlex.join(["python", str(shown), *arguments])


def machine() -> dict[str, Any]:
    """Processor, cores, threads of torch, graphics card or null, versions."""
    import torch

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """The processor's name as Linux tells it, else the machine's kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


METRICS = (
    "n", "n_days", "accuracy", "class_accuracy", "macro_f1", "log_loss", "rank_ic", "icir", "rank_ic_skip1",
    "expected_calibration_error",
)  # fmt: skip
"""Of every model, what tables may show."""


def metrics_of(comparison: dict[str, Any], split: str = "test") -> dict[str, dict[str, Any]]:
    """Model -> METRICS of one split, from a comparison's JSON; of several seeds, their log losses too.

    net_top_decile: mean five-day return of the top tenth over the universe's, after costs.
    """
    found = {}
    for name, by_split in comparison["models"].items():
        of_split = by_split[split]
        found[name] = {key: of_split[key] for key in METRICS}
        book = of_split.get("portfolio") or {}
        found[name]["net_top_decile"] = (book.get("net_top_minus_universe") or {}).get("mean")
        if len(of_split["seeds"]) > 1:
            found[name]["log_loss_by_seed"] = [seed["log_loss"] for seed in of_split["seeds"]]
    return found


def differences_of(
    comparison: dict[str, Any], split: str = "test", metrics: Sequence[str] = ("accuracy", "log_loss", "rank_ic")
) -> dict[str, dict[str, Any]]:
    """'b minus a' -> metric -> difference, interval over days, n, n_days, from a comparison's JSON."""
    found: dict[str, dict[str, Any]] = {}
    for pair in comparison["pairs"]:
        if pair["split"] == split and pair["metric"] in metrics:
            row = {key: pair[key] for key in ("difference", "interval", "n", "n_days")}
            found.setdefault(f"{pair['b']} minus {pair['a']}", {})[pair["metric"]] = row
    return found
