"""What every script shares: how it starts, how it fails, and the flags that several scripts have."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loguru import logger

from lasps.config.model_config import TRAINING_CONFIG

if TYPE_CHECKING:
    from lasps.tasks import Task

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
Number = TypeVar("Number", int, float)
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGHUP)
LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
LIBRARIES = {
    "mlflow": "MLflow",
    "sqlalchemy": "the database",
    "alembic": "the database",
    "sqlite3": "SQLite",
    "optuna": "Optuna",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "torch": "torch",
    "zlib": "zlib",
    "zipfile": "zipfile",
}
"""Libraries whose own exceptions are about what they were given: a store, a database, a file, a device."""
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room on that disk and give the command again."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Name a place that can be written and read."),
    errno.ENAMETOOLONG: "Give it a shorter name.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
}


def run_script(main: Callable[[], int | None], failed: int = EXIT_USER_ERROR) -> None:
    """Run `main` and exit with its code; `failed` for an error that is told.

    An error of the user, a disk, a database or a library becomes one line (LASPS_LOG=DEBUG shows its traceback);
    a bug in lasps keeps its traceback. SIGTERM and SIGHUP clean up as Ctrl-C does.
    """
    start_log()
    try:
        with polite_stops():
            code = main() or 0
    except KeyboardInterrupt:
        logger.warning("interrupted: finished epochs are kept, continue with --resume")
        code = EXIT_INTERRUPTED
    except SystemExit as stop:
        if stop.code in STOPPED:
            logger.warning("stopped by a signal: finished epochs are kept, continue with --resume")
        raise
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    except BaseException as error:
        said = message_of(error)
        if said is None:
            raise
        logger.error(said)
        logger.opt(exception=error).debug("where it was raised:")
        code = failed
    sys.exit(code)


def hide_passwords(record: Any) -> None:
    """No line of the log shows the password of an address, whoever wrote the message."""
    from lasps.tracking.error_messages import without_password

    record["message"] = without_password(record["message"])


def start_log() -> None:
    """Log lines on stderr from the level in LASPS_LOG on, INFO by default; upper or lower case."""
    wanted = os.environ.get("LASPS_LOG", "").strip().upper() or "INFO"
    level = wanted if wanted in LEVELS else "INFO"
    logger.configure(patcher=hide_passwords)
    logger.remove()
    # without `diagnose`: it prints the values of variables, passwords included
    logger.add(sys.stderr, format="<level>{level: <7}</level> {message}", level=level, diagnose=False)
    if level != wanted:
        logger.warning(f"LASPS_LOG: expected one of {', '.join(LEVELS)}, got {os.environ['LASPS_LOG']!r}; using INFO")


@contextmanager
def polite_stops() -> Iterator[None]:
    """Let SIGTERM (docker stop, scancel) and SIGHUP end the block as an exception does, with code 128 + signal."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if in_main_thread and signal.getsignal(number) is signal.SIG_DFL
    ]  # not under nohup
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def message_of(error: BaseException) -> str | None:
    """One line for an error that is not a mistake in lasps; None for one that may be."""
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, MemoryError):
        return "out of memory: use fewer samples, a smaller --batch-size, or a machine with more"
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(("lasps", "experiments")):
        return f"{error}: install the package that brings it into this environment (pip install {error.name})"
    modules = (kind.__module__.partition(".")[0] for kind in type(error).__mro__)
    library = next((name for name in modules if name in LIBRARIES), None)
    return None if library is None else f"{LIBRARIES[library]}: {type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)[:600]
    return text + _cause(error, text) or "no message"


def _cause(error: BaseException, text: str) -> str:
    """The innermost cause of a disk, a network or SQLite, where the library's own text does not name it."""
    from lasps.tracking.error_messages import chain_of, first_line

    inner = [cause for cause in chain_of(error) if isinstance(cause, (OSError, sqlite3.Error))]
    said = first_line(inner[-1]) if inner else ""
    return f" ({type(inner[-1]).__name__}: {said})" if said and said not in text else ""


def _of_the_system(error: OSError) -> str:
    if error.filename is None or str(error.filename) in str(error.strerror):
        said = error.strerror if error.errno and error.strerror else str(error)
    else:
        said = str(error) if not str(error).startswith("[Errno") else f"{error.filename}: {error.strerror}"
    advice = ADVICE.get(error.errno or 0)
    return f"{said}. {advice}" if advice else str(said)


def add_data_flags(parser: argparse.ArgumentParser, batch_size: int) -> None:
    """--data-dir, --device and --batch-size of the original specification, --json and --no-track."""
    from lasps.config.settings import settings

    parser.add_argument("--data-dir", type=Path, default=settings.DATA_DIR, help="the dataset's folder")
    parser.add_argument("--device", default=None, help="cuda (the default, where there is one), cpu, cuda:1, ...")
    parser.add_argument("--batch-size", type=positive_int, default=batch_size)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the metrics here as well")
    parser.add_argument("--no-track", action="store_true", help="log nothing to MLflow")


def add_holdout_flag(parser: argparse.ArgumentParser) -> None:
    """--phase2-holdout, of every script that trains."""
    parser.add_argument(
        "--phase2-holdout",
        type=share,
        default=None,
        metavar="SHARE",
        help="of train's days, the last ones: kept from Phases 1 and 3, all that Phase 2 trains on "
        "(default: as the checkpoint it starts from, else 0)",
    )


def add_loss_flag(parser: argparse.ArgumentParser) -> None:
    """--focal-gamma, of every script that trains Phases 1 and 3."""
    parser.add_argument(
        "--focal-gamma",
        type=nonnegative_float,
        default=None,
        metavar="G",
        help="exponent of the focal loss of Phases 1 and 3, 0 is the cross-entropy (default: as the checkpoint it "
        f"starts from, else {TRAINING_CONFIG['focal_gamma']:g})",
    )


def add_waive_flag(parser: argparse._ActionsContainer) -> None:
    """--waive, of every script that stops at the integrity gate; read it with `names_in`."""
    parser.add_argument(
        "--waive",
        nargs="+",
        default=[],
        metavar="CHECK",
        help="fatal findings of the integrity report to accept, by name",
    )


def add_workers_flag(parser: argparse._ActionsContainer) -> None:
    """--workers, of every script that has independent tasks; see `lasps.tasks.run_tasks`."""
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=None,
        metavar="N",
        help="run N tasks at a time on Ray: processes here, or on the cluster at RAY_ADDRESS",
    )


def fan_out(tasks: Sequence[Task], workers: int | None, done: Callable[[Task, Any], None] | None = None) -> list[Any]:
    """`lasps.tasks.run_tasks`, with the log lines of workers as those of this process."""
    from lasps.tasks import run_tasks

    return run_tasks(tasks, workers, start_log, done)


def add_reading_flags(parser: argparse._ActionsContainer) -> None:
    """How files of bars are read, of every script that reads them; see `reading_of`."""
    parser.add_argument("--pad-codes", action="store_true", help="codes that lost their leading zeros: give them back")
    parser.add_argument(
        "--signed-prices",
        action="store_true",
        help="prices carry a broker's sign (Kiwoom: the direction against the day before): drop it",
    )
    parser.add_argument(
        "--decimal",
        choices=("point", "comma"),
        default=None,
        help="what starts the decimals in text files, where the values do not prove it",
    )


def add_source_flags(parser: argparse._ActionsContainer, listing: bool = True) -> None:
    """--source, --listing and --data-dir, of scripts that read bars without building a dataset; see `source_files`."""
    from lasps.config.settings import settings

    parser.add_argument(
        "--source",
        type=Path,
        default=None,
        help="bars: parquet, CSV or a folder of CSVs; default: the synthetic market's in --data-dir",
    )
    if listing:
        parser.add_argument("--listing", type=Path, default=None, help="code, name, market, industry; with --source")
    parser.add_argument("--data-dir", type=Path, default=settings.DATA_DIR, help="a synthetic dataset")


def source_files(args: argparse.Namespace) -> tuple[Path, Path]:
    """Bars and listing of `add_source_flags`: both as named, or both of the synthetic market."""
    from lasps.pipeline.datasets import synthetic_source

    if (args.source is None) != (args.listing is None):
        raise ValueError("--source and --listing belong together: expected both, or neither for the synthetic market")
    return synthetic_source(args.data_dir) if args.source is None else (args.source, args.listing)


def reading_of(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_reading_flags` as lasps.data.sources.files.read_bars takes them."""
    return {name: getattr(args, name) for name in ("pad_codes", "signed_prices", "decimal")}


def names_in(words: list[str]) -> tuple[str, ...]:
    """Names separated by spaces or commas."""
    return tuple(" ".join(words).replace(",", " ").split())


def _within(kind: Callable[[str], Number], holds: Callable[[Number], bool], expected: str) -> Callable[[str], Number]:
    """An argparse type: a number for which `holds`."""

    def read(text: str) -> Number:
        value = kind(text)
        if not holds(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text}")
        return value

    read.__name__ = kind.__name__  # argparse: "invalid int value"
    return read


positive_int = _within(int, lambda n: n >= 1, "an integer above 0")
nonnegative_float = _within(float, lambda x: 0 <= x < float("inf"), "a finite number of 0 or more")
positive_float = _within(float, lambda x: 0 < x < float("inf"), "a finite number above 0")
part = _within(float, lambda x: 0 < x <= 1, "a number above 0, up to 1")
share = _within(float, lambda x: 0 <= x < 1, "a number from 0 to below 1")


def warn_of_ignored(
    args: argparse.Namespace, parser: argparse.ArgumentParser, names: Collection[str], why: str
) -> None:
    """One warning that names the flags among `names` that were given and have no effect."""
    ignored = [name for name, value in vars(args).items() if name in names and value != parser.get_default(name)]
    if ignored:
        logger.warning(f"{why}; ignored: {' '.join('--' + name.replace('_', '-') for name in ignored)}")


def resolve_device(requested: str | None) -> str:
    """The device to run on: cuda by default, cpu with one warning where there is none.

    Raises:
        ValueError: a device was asked for by name and is not there.
    """
    import torch

    if requested is None:
        if torch.cuda.is_available():
            return "cuda"
        logger.warning("no CUDA device here: running on the cpu (pass --device cpu to silence this)")
        return "cpu"
    try:
        torch.zeros(1, device=requested)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {requested}: expected a device of this machine, but torch says "
            f"'{str(error).partition(chr(10))[0]}'. Use --device cpu."
        ) from error
    return requested


def write_json(path: Path | None, content: Any) -> None:
    """Write `content` as JSON in one step (temporary file, rename); NaN becomes null. None: nothing is written."""
    from lasps.reproducibility import json_text, write_atomically

    if path is not None:
        write_atomically(path, json_text(content))
