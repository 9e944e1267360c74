"""What stands in a dataset's folder is replaced so that a kill at any moment costs neither the old nor the new.

A build writes into FOLDER/.building-PID. Once that is complete and on the disk it becomes FOLDER/.new, and from then on
the replacement goes through: entries are exchanged one by one, the old dataset.json first and the new one last, so that
no mixture ever has a description. Whoever opens the folder next finishes what a killed process began. The folder itself
is never renamed, as it may be a link or a mount point, and files of others in it never move.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from lasps.files import sweep, sync, sync_tree, temporary_folder

DESCRIPTION_NAME = "dataset.json"
BUILDING, NEW, OLD = ".building-", ".new", ".old"
NOBODYS = frozenset({NEW, OLD, "lost+found"})
"""Entries of a dataset's folder that are not somebody's files."""


@contextmanager
def staging(out_dir: Path) -> Iterator[Path]:
    """A folder inside `out_dir` to build in; removed at the end, whatever happens, and `out_dir` with it if it is new.

    Raises:
        ValueError: `out_dir` is a link to nowhere.
    """
    if out_dir.is_symlink() and not out_dir.exists():
        raise ValueError(
            f"{out_dir} is a link to {os.readlink(out_dir)}, which does not exist: expected a folder to "
            "build in. Is its disk mounted?"
        )
    sweep(out_dir.parent, f".{out_dir.name}.building-")  # as versions before this one left them
    is_new = not out_dir.exists()
    try:
        with temporary_folder(out_dir, BUILDING) as folder:
            yield folder
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                out_dir.rmdir()  # fails where it holds the dataset


def put_in_place(folder: Path, out_dir: Path) -> None:
    """Make the complete dataset in `folder` (of `staging`) the one in `out_dir`; a kill or error costs neither."""
    sync_tree(folder)
    with _alone_in(out_dir):
        _finish(out_dir)
        folder.rename(out_dir / NEW)
        sync(out_dir)
        _finish(out_dir)


def finish_replacement(folder: Path) -> None:
    """Finish what a killed build began to put in place in `folder`, and remove what dead builds left there.

    Raises:
        ValueError: there is something to finish, and it cannot be.
    """
    if not folder.is_dir():
        _bring_back(folder)
        return
    try:
        if (folder / NEW).exists() or (folder / OLD).exists():
            with _alone_in(folder):
                if _finish(folder):
                    logger.warning(f"{folder}: finished the replacement that a killed build began")
        sweep(folder, BUILDING)
    except OSError as error:
        raise ValueError(
            f"{folder}: a build that was killed left it half replaced ({NEW} and {OLD} in it hold the new "
            f"and the old dataset), and it cannot be finished: {error}"
        ) from error


def is_empty(folder: Path) -> bool:
    """Whether a folder is missing or holds nothing but what builds and file systems leave."""
    if not folder.is_dir():
        return not folder.exists()
    return all(name in NOBODYS or name.startswith(BUILDING) for name in os.listdir(folder))


def _finish(folder: Path) -> bool:
    """Exchange the entries of .new and the folder; True if there was something to exchange. Every step can be repeated.

    What is still in .new has not been moved yet; an entry of the same name in the folder is then the old one.
    """
    new, old = folder / NEW, folder / OLD
    waiting = new.exists()
    if waiting:
        old.mkdir(exist_ok=True)
        arriving = sorted(os.listdir(new), key=lambda name: name == DESCRIPTION_NAME)  # the description last
        if DESCRIPTION_NAME in arriving and (folder / DESCRIPTION_NAME).exists():
            (folder / DESCRIPTION_NAME).rename(old / DESCRIPTION_NAME)
            sync(folder)
        for name in arriving:
            if (folder / name).exists():
                (folder / name).rename(old / name)
            if name == DESCRIPTION_NAME:
                sync(folder)
            (new / name).rename(folder / name)
        sync(folder)
        new.rmdir()
    if old.exists():
        shutil.rmtree(old)
    return waiting


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait for the folder's lock and hold it; a file system without locks does without."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _bring_back(folder: Path) -> None:
    """Rename a dataset back that a kill of an earlier version left beside its place."""
    left = [path for path in folder.parent.glob(f".{folder.name}.replaced-*") if (path / DESCRIPTION_NAME).is_file()]
    if len(left) == 1 and not folder.is_symlink():
        left[0].rename(folder)
        logger.warning(f"{folder}: brought back from {left[0].name}, where a killed build had left it")
    elif left:
        raise ValueError(
            f"{folder} is gone, and killed builds left {', '.join(path.name for path in left)} beside it: "
            "rename the one that is wanted back"
        )
