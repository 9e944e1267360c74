"""How operations leave the process: at once to a local store, from a background thread to a server.

Training must never wait long for tracking, and never die of it. So a server is written to from a thread that has each
operation in a journal first; after the first failure nothing more is tried (a breaker), training goes on, and what was
not sent stays in the journal. A local store is written to directly; its journal begins when a write fails.
"""

from __future__ import annotations

import queue
import threading
import time

from loguru import logger

from lasps.tracking.spool import Journal
from lasps.tracking.store import Location
from lasps.tracking.writer import SPOOLED, Operation, Rejected, Writer

FLUSH_SECONDS = 10.0
"""The longest that the end of a run waits for a server."""
RUN_ID_SECONDS = 6.0
"""The longest that asking for a run's id waits for a server: one request's time-out."""
LOCAL_RETRIES = 3
"""A SQLite file that another process writes just now: MLflow itself waits 5 s each time."""


class Outbox:
    """Sends a tracker's operations, in order."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.writer = Writer(location)
        self.broken: str | None = None
        self._journal: Journal | None = None
        self._journal_failed = False
        self._open_runs: dict[str, Operation] = {}
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue: queue.Queue[Operation] = queue.Queue()
        self._unsent = 0
        self._thread: threading.Thread | None = None

    def put(self, operation: Operation, keep: bool = True) -> None:
        """Send an operation; returns at once for a server, after milliseconds for a local store. Never raises.

        Args:
            operation: see `lasps.tracking.writer`.
            keep: False for what need not be repeated by `make sync`.
        """
        with self._lock:
            if self.location.is_local:
                self._put_local(operation, keep)
            else:
                self._put_remote(operation, keep)
            self._follow(operation)

    def _put_local(self, operation: Operation, keep: bool) -> None:
        if self.broken is None and self._try(operation):
            return
        if keep:
            self._keep(operation)

    def _put_remote(self, operation: Operation, keep: bool) -> None:
        kept = self._keep(operation) if keep else operation
        if self.broken is not None:
            return
        self._unsent += 1
        self._queue.put(kept)
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_forever, name="lasps-tracking", daemon=True)
            self._thread.start()

    def _send_forever(self) -> None:
        while True:
            operation = self._queue.get()
            sent = self.broken is None and self._try(operation)
            with self._changed:
                self._unsent -= int(sent)
                self._changed.notify_all()

    def _try(self, operation: Operation) -> bool:
        """Carry an operation out; False, and the breaker opens, when the store cannot."""
        for attempt in range(LOCAL_RETRIES if self.location.is_local else 1):
            try:
                self.writer.apply(operation)
                return True
            except Rejected as error:
                logger.warning(f"MLflow refused a record, it is left out: {error}")
                return True
            except Exception as error:  # a server, a network, a full disk: training goes on
                reason = f"{type(error).__name__}: {_first_line(error)}"
                if "locked" not in str(error):
                    break
                time.sleep(0.2 * (attempt + 1))
        self._break(reason)
        return False

    def _break(self, reason: str) -> None:
        self.broken = reason
        logger.warning(f"MLflow at {self.location.shown_uri} fails ({reason}): training goes on, "
                       f"the records are kept in {self.location.folder / 'spool'}")

    def _follow(self, operation: Operation) -> None:
        if operation["do"] == "create_run":
            self._open_runs[operation["run"]] = operation
        elif operation["do"] == "end_run":
            self._open_runs.pop(operation["run"], None)

    def _keep(self, operation: Operation) -> Operation:
        """Write the operation into the journal; a disk that is full too is warned about once."""
        try:
            if self._journal is None:
                self._journal = Journal(self.location)
                for run in self._open_runs.values():
                    self._journal.append({**run, "run_id": self.writer.run_ids.get(run["run"])})
            return self._journal.append(operation)
        except OSError as error:
            if not self._journal_failed:
                logger.warning(f"the spool cannot be written either ({error}): records are lost from here on")
            self._journal_failed = True
            return operation

    def run_id(self, run: str) -> str:
        """MLflow's id of a run; a name of our own, good for resuming too, where no server answers within seconds."""
        with self._changed:
            self._changed.wait_for(lambda: run in self.writer.run_ids or self.broken is not None,
                                   0 if self.location.is_local else RUN_ID_SECONDS)
            return self.writer.run_ids.get(run, f"{SPOOLED}{run}")

    def flush(self, seconds: float) -> bool:
        """Wait until everything is sent, or the breaker is open, or the time is up; whether all is sent."""
        with self._changed:
            self._changed.wait_for(lambda: self._unsent == 0 or self.broken is not None, seconds)
            return self._unsent == 0 and self.broken is None

    def finish(self) -> None:
        """At the end of the outermost run: flush, then drop the journal or say where it lies."""
        sent = self.flush(FLUSH_SECONDS)
        with self._lock:
            if self._journal is None:
                return
            if sent:
                self._journal.delete()
                self._journal = None
                return
            self.broken = self.broken or f"too slow: {self._unsent} records were waiting after {FLUSH_SECONDS:.0f} s"
            logger.warning(f"not sent to MLflow at {self.location.shown_uri} ({self.broken}): "
                           f"{self._journal.count} records lie in {self._journal.folder}; send them with: make sync")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else ""
