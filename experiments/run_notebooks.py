#!/usr/bin/env python
"""Execute the notebooks into reports/; those in notebooks/ stay as they are, without outputs.

python experiments/run_notebooks.py                 # all of them
python experiments/run_notebooks.py compare_phases  # one
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from experiments._cli import run_script
from lasps.config.settings import settings

NOTEBOOKS = settings.ROOT / "notebooks"
CELL_SECONDS = 600


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks to run, without .ipynb; default: all")
    parser.add_argument("--out", type=Path, default=settings.REPORT_DIR)
    parser.add_argument("--study", default="phase2", help="the study that head_study shows")
    parser.add_argument("--storage", default=None, help="where it is, if not in checkpoints/studies/")
    parser.add_argument("--live-dir", type=Path, default=settings.ROOT / "live", help="what live_record shows")
    return parser.parse_args()


def execute(path: Path, out: Path) -> Path:
    """Run one notebook with this interpreter and write it, outputs included, into `out`.

    Raises:
        ValueError: a cell failed; the message has its error.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        startup_timeout=CELL_SECONDS,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    target = out / path.name
    out.mkdir(parents=True, exist_ok=True)
    try:
        client.execute()
    except CellExecutionError as error:
        raise ValueError(f"{path.name}: {error.ename}: {error.evalue}") from error
    finally:
        nbformat.write(notebook, target)
    return target


def main() -> None:
    """Execute the notebooks that were asked for."""
    args = parse_args()
    from lasps.tuning.storage import absolute

    args.storage = absolute(args.storage)  # the notebook's own folder is another one
    os.environ |= {
        "LASPS_STUDY": args.study,
        "LASPS_STORAGE": args.storage or "",
        "LASPS_LIVE": str(args.live_dir.resolve()),
        "PYTHONWARNINGS": "ignore:IProgress not found",
    }  # tqdm looks for widgets; bars are text here
    available = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    unknown = sorted(set(args.names) - set(available))
    if unknown:
        raise ValueError(f"expected notebooks among {sorted(available)}, got {unknown}")
    with own_kernel():
        for name in args.names or available:
            if name == "head_study" and not args.names and not has_study(args):
                continue
            if name == "live_record" and not args.names and not list(args.live_dir.glob("outcomes/*.parquet")):
                logger.warning(f"live_record is left out: no evening of {args.live_dir} has come due yet")
                continue
            logger.info(f"Saved: {execute(available[name], args.out)}")


@contextmanager
def own_kernel() -> Iterator[None]:
    """Make this interpreter the kernel "python3", whatever kernels are installed under that name elsewhere."""
    arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "kernels" / "python3" / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": arguments, "display_name": "lasps", "language": "python"}))
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = folder if before is None else folder + os.pathsep + before
        yield


def has_study(args: argparse.Namespace) -> bool:
    """Whether there is a study to show; a warning where not."""
    from lasps.tuning import load_study

    try:
        load_study(args.study, args.storage)
    except ValueError as error:
        logger.warning(f"head_study is left out: {error}")
        return False
    return True


if __name__ == "__main__":
    run_script(main)
