"""A queue of operations sent by a background thread, in order, so that training never waits for MLflow.

Importing MLflow and opening a database take seconds, a server may take forever; both happen beside the training. A
server is never trusted: each operation for it is written to a journal on disk first. After the first failure nothing
more is tried (a circuit breaker): training goes on, and what was not sent stays in the journal. A local store's journal
begins when a write fails. A file that the store does not accept waits in the journal; metrics go on.
log_artifact blocks until the file is copied. Files made for tracking (plots, tables, copies of checkpoints) lie in a
temporary folder until the run ends, and do not block.
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
from lasps.tracking.error_messages import reason_of, whole_story
from lasps.tracking.location import Location
from lasps.tracking.spool import SPOOL, Journal, with_paths
from lasps.tracking.writer import SPOOLED, Operation, Rejected, Unstored, Writer

SERVER_SECONDS = 10.0
"""The longest that the end of a run waits for a server."""
RUN_ID_SECONDS = 6.0
"""The longest that asking for a run's id waits for a server: one request's time-out."""
LOCAL_SECONDS = 120.0
"""The longest that anything waits for a local store: as long as another process may take to create it."""
LOCAL_TRIES = 3
"""For a SQLite file that another process is writing: MLflow itself waits 5 s each time."""


class Outbox:
    """Sends a tracker's operations, in order.

    Attributes:
        broken: why nothing more is sent; None while the store works.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.writer = Writer(location)
        self.broken: str | None = None
        self._spool = location.folder / SPOOL
        self._journal: Journal | None = None
        self._late: deque[Operation] = deque()
        self._unstored: list[Operation] = []
        self._created: dict[str, Operation] = {}
        self._ended: set[str] = set()
        self._pending: deque[tuple[Operation, bool]] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._temporary = ExitStack()
        self._folder: Path | None = None

    def new_folder(self) -> Path:
        """An empty folder for a file that is made to be tracked, removed when the outermost run has ended."""
        with self._changed:
            if self._folder is None:
                own = temporary_folder(Path(tempfile.gettempdir()), "lasps-")
                self._folder = self._temporary.enter_context(own)
            return Path(tempfile.mkdtemp(dir=self._folder))

    def put(self, operation: Operation, keep: bool = True, stays: bool = False) -> None:
        """Queue an operation; returns at once, for a file in a local store after milliseconds. Never raises.

        Args:
            operation: see `lasps.tracking.writer`.
            keep: False for what `make sync` need not repeat.
            stays: its file lies in a `new_folder` and will not change, so there is no need to wait for the copy.
        """
        with self._changed:
            if operation["do"] == "create_run":
                self._created[operation["run"]] = operation
            elif operation["do"] == "end_run":
                self._ended.add(operation["run"])
            if keep and (self.broken is not None or not self.location.is_local):
                operation = self._keep(operation)
            if self.broken is not None:
                return
            self._pending.append((operation, keep))
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._send_until_idle, name="lasps-tracking", daemon=True)
                self._thread.start()
            if self.location.is_local and operation["do"] == "artifact" and not stays:
                self._wait(LOCAL_SECONDS)

    def beat(self) -> None:
        """Record that the process of all open runs is alive, unless other operations are waiting."""
        with self._changed:
            if self.broken is None and not self._pending:
                for run in set(self._created) - self._ended:
                    self.put({"do": "seen", "run": run, "at": time.time()}, keep=False)

    def _send_until_idle(self) -> None:
        while True:
            with self._changed:
                if not self._pending:
                    self._thread = None
                    return
                entry, journal = self._pending[0], self._journal
            failure = self._try(entry[0], journal.folder if journal else Path())
            with self._changed:
                if failure is not None:
                    self._break(failure)
                elif self._pending and self._pending[0] is entry:
                    self._pending.popleft()
                self._changed.notify_all()

    def _try(self, operation: Operation, folder: Path) -> str | None:
        """Carry an operation out, its files in `folder`; returns what went wrong where that is the store's fault."""
        for attempt in range(1, 1 + (LOCAL_TRIES if self.location.is_local else 1)):
            try:
                self.writer.apply(with_paths(operation, folder))
                return None
            except Rejected as error:
                logger.warning(f"MLflow refused a record, it is left out: {self.location.hide(str(error))}")
                return None
            except Unstored as error:
                reason = self._reason(error)
                if not self.writer.answers():
                    return reason
                self._keep_unstored(operation, reason)
                return None
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
        """A file that the store does not accept waits in the journal for `make sync`."""
        with self._changed:
            if not self._unstored:
                logger.warning(
                    f"MLflow at {self.location.shown_uri} takes metrics but no files ({reason}): they are "
                    f"kept in {self._spool}. Is the place of its artifacts right and open to this machine?"
                )
            if self.location.is_local:
                for known in self.writer.known_runs([operation]):
                    self._keep(known)
                operation = self._keep(operation)
            self._unstored.append(operation)

    def _break(self, reason: str) -> None:
        """Open the breaker: operations that are waiting go to the journal, unless they are there already."""
        if self.broken is not None:
            return
        self.broken = reason
        logger.warning(
            f"MLflow at {self.location.shown_uri} fails ({reason}): training goes on, "
            f"the records are kept in {self._spool}"
        )
        if self.location.is_local:
            waiting = [operation for operation, keep in self._pending if keep]
            for operation in [*self._known_runs(waiting), *waiting]:
                self._keep(operation)
        self._pending.clear()

    def _known_runs(self, waiting: list[Operation]) -> list[Operation]:
        """The runs that these and later operations refer to and that have an MLflow id already, with that id."""
        wanted = {operation["run"] for operation in waiting} | (set(self._created) - self._ended)
        wanted |= {str(self._created[run].get("parent")) for run in wanted}
        ids = self.writer.run_ids
        return [{**self._created[run], "run_id": ids[run]} for run in self._created if run in wanted and run in ids]

    def _keep(self, operation: Operation) -> Operation:
        """Write the operation into the journal; while no disk takes it, it waits in memory."""
        self._late.append(operation)
        was_full = len(self._late) > 1
        try:
            if self._journal is None:
                self._journal = Journal(self.location)
            while self._late:
                operation = self._append(self._journal, self._late[0])
                self._late.popleft()
        except OSError as error:
            if not was_full:
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
        """MLflow's id of a run, waited for; `resume_id` where MLflow gives none within seconds."""
        with self._changed:
            self._changed.wait_for(
                lambda: run in self.writer.run_ids or self.broken is not None,
                LOCAL_SECONDS if self.location.is_local else RUN_ID_SECONDS,
            )
            return self.resume_id(run)

    def resume_id(self, run: str) -> str:
        """A name by which the run can be continued: its id where it is known already, else one of our own."""
        return self.writer.run_ids.get(run, f"{SPOOLED}{run}")

    def flush(self, seconds: float) -> bool:
        """Wait until everything is sent, the breaker is open, or the time is up; whether all is sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)
            return not self._pending and self.broken is None

    def finish(self) -> None:
        """At the end of the outermost run: flush, then delete the journal or say where it lies."""
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
            journal.keep_only([*self.writer.known_runs(self._unstored), *self._unstored])
            logger.warning(
                f"{len(self._unstored)} records with files that MLflow at {self.location.shown_uri} did not "
                f"take lie in {journal.folder}; all else was sent. Once it takes them: make sync"
            )
        else:
            journal.delete()
            return
        journal.close()
