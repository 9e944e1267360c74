"""How operations leave the process: in order, from a background thread, so that training never waits for MLflow.

Importing MLflow and opening a database takes seconds, a server may take forever; both happen beside the training. A
server is never trusted: each operation for it is in a journal on disk first. After the first failure nothing more is
tried (a breaker), training goes on, and what was not sent stays in the journal. A local store's journal begins when a
write fails. A file that the store does not take is no reason to stop: it waits in the journal, metrics go on.
A call that brings a file of the caller's waits until it has been sent; what was made for tracking alone (a picture, a
table, a copy of a checkpoint) lies in a temporary folder until the run ends, and nobody waits.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from loguru import logger

from lasps.files import temporary_folder
from lasps.tracking.reasons import reason_of, whole_story
from lasps.tracking.spool import Journal
from lasps.tracking.store import Location
from lasps.tracking.writer import SPOOLED, Operation, Rejected, Unstored, Writer

SERVER_SECONDS = 10.0
"""The longest that the end of a run waits for a server."""
RUN_ID_SECONDS = 6.0
"""The longest that asking for a run's id waits for a server: one request's time-out."""
LOCAL_SECONDS = 120.0
"""The longest that anything waits for a local store: as long as another process may take to create it."""
LOCAL_RETRIES = 3
"""A SQLite file that another process writes just now: MLflow itself waits 5 s each time."""


class Outbox:
    """Sends a tracker's operations, in order."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.writer = Writer(location)
        self.broken: str | None = None
        self._journal: Journal | None = None
        self._late: deque[Operation] = deque()
        self._unstored: list[Operation] = []
        self._created: dict[str, Operation] = {}
        self._ended: set[str] = set()
        self._pending: deque[Operation] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._temporary = ExitStack()
        self._folder: Path | None = None

    def new_folder(self) -> Path:
        """An empty folder, for a file that is made to be tracked; it goes when the outermost run has ended."""
        with self._changed:
            if self._folder is None:
                own = temporary_folder(Path(tempfile.gettempdir()), "lasps-")
                self._folder = self._temporary.enter_context(own)
            return Path(tempfile.mkdtemp(dir=self._folder))

    def put(self, operation: Operation, keep: bool = True, stays: bool = False) -> None:
        """Queue an operation; returns at once, for a file in a local store after milliseconds. Never raises.

        Args:
            operation: see `lasps.tracking.writer`.
            keep: False for what need not be repeated by `make sync`.
            stays: its file lies in a `new_folder` and will not change, so that nobody has to wait for the copy.
        """
        with self._changed:
            self._follow(operation)
            if keep and not self.location.is_local:
                operation = self._keep(operation)
            if self.broken is not None:
                if keep and self.location.is_local:
                    self._keep(operation)
                return
            self._pending.append(operation | {"keep": keep})
            self._changed.notify_all()
            self._start()
            if self.location.is_local and operation["do"] == "artifact" and not stays:
                self._wait(LOCAL_SECONDS)

    def beat(self) -> None:
        """Say that the process of all open runs lives, unless other things wait to be said."""
        with self._changed:
            if self.broken is None and not self._pending:
                for run in set(self._created) - self._ended:
                    self.put({"do": "seen", "run": run, "at": time.time()}, keep=False)

    def _follow(self, operation: Operation) -> None:
        if operation["do"] == "create_run":
            self._created[operation["run"]] = operation
        elif operation["do"] == "end_run":
            self._ended.add(operation["run"])

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._send_until_idle, name="lasps-tracking", daemon=True)
            self._thread.start()

    def _send_until_idle(self) -> None:
        while True:
            with self._changed:
                if not self._pending:
                    self._thread = None
                    return
                operation = self._pending[0]
            failure = self._try({key: value for key, value in operation.items() if key != "keep"})
            with self._changed:
                if failure is not None:
                    self._break(failure)
                elif self._pending and self._pending[0] is operation:
                    self._pending.popleft()
                self._changed.notify_all()

    def _try(self, operation: Operation) -> str | None:
        """Carry an operation out; what went wrong, where it is the store's fault."""
        for attempt in range(1, 1 + (LOCAL_RETRIES if self.location.is_local else 1)):
            try:
                self.writer.apply(operation)
                return None
            except Rejected as error:
                logger.warning(f"MLflow refused a record, it is left out: {self.location.hide(str(error))}")
                return None
            except Unstored as error:
                reason = self._reason(error)
                if self.writer.answers():
                    self._keep_unstored(operation, reason)
                    return None
                return reason
            except Exception as error:  # a server, a network, a full disk: training goes on
                reason = self._reason(error)
                if "locked" not in str(error):
                    return reason
                time.sleep(0.2 * attempt)
        return reason

    def _reason(self, error: Exception) -> str:
        logger.debug(whole_story(error, self.location.uri))
        return self.location.hide(reason_of(error))

    def _keep_unstored(self, operation: Operation, reason: str) -> None:
        """A file that the store does not take waits in the journal for `make sync`."""
        with self._changed:
            if not self._unstored:
                logger.warning(
                    f"MLflow at {self.location.shown_uri} takes metrics but no files ({reason}): they are "
                    f"kept in {self.location.folder / 'spool'}. Is the place of its artifacts right and "
                    "open to this machine?"
                )
            if self.location.is_local:
                run = operation["run"]
                self._keep({"do": "known_run", "run": run, "run_id": self.writer.run_ids[run]})
                operation = self._keep(operation)
            self._unstored.append(operation)

    def _break(self, reason: str) -> None:
        """Open the breaker: what waits goes to the journal, unless it is there already."""
        if self.broken is not None:
            return
        self.broken = reason
        logger.warning(
            f"MLflow at {self.location.shown_uri} fails ({reason}): training goes on, "
            f"the records are kept in {self.location.folder / 'spool'}"
        )
        waiting = [
            {key: value for key, value in operation.items() if key != "keep"}
            for operation in self._pending
            if operation["keep"]
        ]
        if self.location.is_local:
            self._begin_journal(waiting)
            for operation in waiting:
                self._keep(operation)
        self._pending.clear()

    def _begin_journal(self, waiting: list[Operation]) -> None:
        """Name in the journal the runs that later operations speak of, with the ids that they have already."""
        wanted = {operation["run"] for operation in waiting} | (set(self._created) - self._ended)
        wanted |= {str(self._created[run].get("parent")) for run in wanted}
        for run, operation in self._created.items():
            if run in wanted and run in self.writer.run_ids:
                self._keep({**operation, "run_id": self.writer.run_ids[run]})

    def _keep(self, operation: Operation) -> Operation:
        """Write the operation into the journal; while no disk takes it, it waits in memory."""
        self._late.append(operation)
        full = len(self._late) > 1
        try:
            if self._journal is None:
                self._journal = Journal(self.location)
            while self._late:
                operation = self._append(self._journal, self._late[0])
                self._late.popleft()
        except OSError as error:
            if not full:
                logger.warning(f"the spool cannot be written either ({error}): records wait in memory for the disk")
        return operation

    def _append(self, journal: Journal, operation: Operation) -> Operation:
        try:
            return journal.append(operation)
        except FileNotFoundError as error:
            logger.warning(f"not tracked, a file was removed before it could be kept: {error.filename}")
            return operation

    def _wait(self, seconds: float) -> None:
        """Until nothing is pending; after that long the store counts as too slow."""
        if not self._changed.wait_for(lambda: not self._pending, seconds):
            self._break(f"too slow: {len(self._pending)} records were waiting after {seconds:.0f} s")

    def run_id(self, run: str) -> str:
        """MLflow's id of a run, waited for; `resume_id`, where none is given within seconds."""
        with self._changed:
            self._changed.wait_for(
                lambda: run in self.writer.run_ids or self.broken is not None,
                LOCAL_SECONDS if self.location.is_local else RUN_ID_SECONDS,
            )
            return self.resume_id(run)

    def resume_id(self, run: str) -> str:
        """A name that the run can be continued by: its id where it is known already, else one of our own."""
        return self.writer.run_ids.get(run, f"{SPOOLED}{run}")

    def flush(self, seconds: float) -> bool:
        """Wait until everything is sent, or the breaker is open, or the time is up; whether all is sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)
            return not self._pending and self.broken is None

    def finish(self) -> None:
        """At the end of the outermost run: flush, then drop the journal or say where it lies."""
        with self._changed:
            self._wait(LOCAL_SECONDS if self.location.is_local else SERVER_SECONDS)
            if self._late and (self.broken is not None or self._unstored):
                self._keep(self._late.pop())
            self._temporary.close()
            self._folder = None
            if self.broken is not None and self._late:
                logger.error(f"the spool cannot be written: {len(self._late)} records are lost")
            self._late.clear()
            if self._journal is not None:
                self._end_journal(self._journal)
            self._journal, self._unstored = None, []

    def _end_journal(self, journal: Journal) -> None:
        if self.broken is not None:
            logger.warning(
                f"not sent to MLflow at {self.location.shown_uri} ({self.broken}): "
                f"{journal.count} records lie in {journal.folder}; send them with: make sync"
            )
        elif self._unstored:
            known = [
                {"do": "known_run", "run": run, "run_id": self.writer.run_ids[run]}
                for run in sorted({operation["run"] for operation in self._unstored})
            ]
            journal.keep_only([*known, *self._unstored])
            logger.warning(
                f"{len(self._unstored)} records with files that MLflow at {self.location.shown_uri} did not "
                f"take lie in {journal.folder}; all else was sent. Once it takes them: make sync"
            )
        else:
            journal.delete()
            return
        journal.close()
