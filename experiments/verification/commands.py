"""The commands that `make torture` puts under trouble, and the place where it does so."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from lasps.config.settings import settings
from lasps.reproducibility import git_commit, sha256_of

LONGEST = 1800.0
"""Seconds after which a command counts as stuck."""
SHORT_BY = 20
"""Market days that the dataset to be extended lacks."""
TEMPORARY = (".building-", ".new", ".old", ".writing-", ".tmp", "lasps-", "lock", ".resume.pt", ".state.pt", ".run")
"""Parts of names that no finished command may leave."""
N_STOCKS, N_DAYS = 24, 330
PAGE = resource.getpagesize()
"""Bytes: what a file on a tmpfs takes a multiple of; its folders take none."""


@dataclass(frozen=True)
class Command:
    """One command: its words ({root} is where it is given), what must lie there before, and which of its files must be
    bit-equal.
    """

    name: str
    words: str
    needs: tuple[str, ...]
    results: tuple[str, ...]
    resume: str = ""
    """What is added when it is given again."""
    keys: tuple[str, ...] = ()
    """Of a JSON result: what is compared, where the rest may differ (how many trials were begun); empty: the file."""
    keeps: tuple[str, ...] = ()
    """Ends of names that look temporary and may stay: the lock files beside a study."""


DATA = "--source {root}/%s.parquet --listing {root}/listing.csv --data-dir {root}/run/data"
USES = "--data-dir {root}/run/data --device cpu --no-track"
PHASE3 = "{root}/run/checkpoints/phase3_final.pt"
DATASET = ("data/*.json", "data/*/*.npy", "data/*/*.parquet")
COMMANDS = {
    command.name: command
    for command in (
        Command("build", f"build_dataset.py {DATA % 'short'} --fractions 0.75,0.1", (), DATASET),
        Command("extend", f"build_dataset.py {DATA % 'long'} --extend", ("data",), DATASET),
        Command(
            "train",
            f"train.py {USES} --output-dir {{root}}/run/checkpoints --epoch-samples 64 --no-charts",
            ("data",),
            ("checkpoints/*.pt",),
            resume="--resume",
        ),
        Command(
            "validate",
            f"validate_model.py {USES} --checkpoint {PHASE3}",
            ("data", "checkpoints"),
            ("checkpoints/predictions/*.parquet",),
        ),
        Command(
            "predict",
            "predict.py --checkpoint {root}/run/checkpoints/phase3_final.pt --source {root}/long.parquet "
            "--listing {root}/listing.csv --data-dir {root}/run/data --device cpu --out {root}/run/today.csv",
            ("data", "checkpoints"),
            ("today.csv",),
        ),
        Command(
            "check-data",
            "check_data.py --data-dir {root}/run/data --deep --html {root}/run/page.html "
            "--json {root}/run/findings.json",
            ("data",),
            ("findings.json",),
        ),
        Command(
            "train_phase2",
            f"train_phase2.py {USES} --checkpoint {PHASE3} --output-dir {{root}}/run/heads",
            ("data", "checkpoints"),
            ("heads/*.pt",),
        ),
        Command(
            "compare",
            f"compare.py {PHASE3} {{root}}/run/checkpoints/phase2_best.pt {USES} "
            "--json {root}/run/compared.json --html {root}/run/page.html",
            ("data", "checkpoints"),
            ("compared.json", "page.html"),
        ),
        Command(
            "tune",
            f"tune_phase2.py {USES} --checkpoint {PHASE3} --trials 2 --storage {{root}}/run/tune/s.journal",
            ("data", "checkpoints"),
            ("tune/*.json",),
            keys=("best", "log_loss", "difference", "made_on"),
            keeps=(".start.lock", ".claim.lock", ".journal.lock"),
        ),
    )
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    text: str

    @property
    def last_line(self) -> str:
        """The last line of what it wrote to stderr."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    @property
    def is_clear(self) -> bool:
        """Whether it ended as for a user's error, without a traceback."""
        return self.returncode == 2 and "Traceback" not in self.text


@dataclass
class Workplace:
    """A folder with a market in it: `start` holds what commands begin from, `run` is where they work."""

    root: Path
    known: dict[str, tuple[dict[str, str], float]] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    """Bytes of each command's results."""

    @property
    def folder(self) -> Path:
        """Where the commands work."""
        return self.root / "run"

    def run(
        self,
        command: Command,
        kill_after: float | None = None,
        again: bool = False,
        file_limit: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command in a process of its own; kill it (and what it started) with -9 after some seconds."""
        words = f"{command.words} {command.resume if again else ''}".format(root=".").split()

        def limited() -> None:
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        own = {
            "TMPDIR": str(self.root / "tmp"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(settings.ROOT),
            "LASPS_LOG": "INFO",
        }
        process = subprocess.Popen(
            [sys.executable, str(settings.ROOT / "experiments" / words[0]), *words[1:]],
            cwd=self.root,
            env={**os.environ, **own, **(env or {})},
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=None if file_limit is None else limited,
        )
        try:
            _, text = process.communicate(timeout=LONGEST if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            end_group(process)
            _, text = process.communicate()
        finally:
            end_group(process)
        return Ended(process.returncode, text)

    def remember(self) -> None:
        """Keep what is known of the commands in the place itself, for `prepared`."""
        (self.root / "known.json").write_text(json.dumps([git_commit(), self.known, self.written]))

    def beside(self, root: Path) -> Workplace:
        """Another place with the same market and start, and what is known of the commands: for tries side by side."""
        shutil.copytree(self.root, root)
        return replace(self, root=root)

    def restore(self, command: Command) -> dict[str, str]:
        """Put `run` into the state that the command begins from; the digests of what lies there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name in command.needs:
            shutil.copytree(self.root / "start" / name, self.folder / name)
        return self.digests(("**/*",))

    def undisturbed(self, command: Command) -> tuple[dict[str, str], float]:
        """(digests of the command's results, seconds) of one run without trouble, done once."""
        if command.name not in self.known:
            self.restore(command)
            started = time.monotonic()
            ended = self.run(command)
            if ended.returncode:
                raise ValueError(f"{command.name} fails without any trouble: {ended.text[-2000:]}")
            self.written[command.name] = sum(
                (self.folder / name).stat().st_size for name in self.digests(command.results)
            )
            self.known[command.name] = (self.results(command), time.monotonic() - started)
        return self.known[command.name]

    def digests(self, patterns: tuple[str, ...]) -> dict[str, str]:
        """Path below `run` -> SHA-256 of the files that match."""
        found = {path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()}
        return {
            str(path.relative_to(self.folder)): sha256_of(path) for path in sorted(found) if path.name != ".scan.json"
        }

    def results(self, command: Command) -> dict[str, str]:
        """Path below `run` -> digest of the command's results; of a JSON with `keys`, those parts as text."""
        found = self.digests(command.results)
        if not command.keys:
            return found
        contents = {name: json.loads((self.folder / name).read_text(encoding="utf-8")) for name in found}
        return {
            name: json.dumps({key: content[key] for key in command.keys}, sort_keys=True)
            for name, content in contents.items()
        }

    def differences(self, command: Command, expected: Mapping[str, str]) -> list[str]:
        """Results that are not as those of the run without trouble."""
        found = self.results(command)
        return [
            f"{name} is not bit-equal" for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)
        ]

    def changed(self, before: Mapping[str, str]) -> list[str]:
        """Files that lay there before and are not as they were."""
        found = self.digests(("**/*",))
        return [f"{name} was changed" for name, digest in before.items() if found.get(name) != digest]

    def leftovers(self, keeps: tuple[str, ...] = ()) -> list[str]:
        """What a command left that nobody needs."""
        paths = [*self.folder.rglob("*"), *self.folder.rglob(".*"), *(self.root / "tmp").iterdir()]
        return sorted(
            {
                f"{path.name} was left"
                for path in paths
                if any(part in path.name for part in TEMPORARY) and not path.name.endswith(keeps)
            }
        )

    @contextmanager
    def little_room(self, command: Command, share: float) -> Iterator[int | None]:
        """A small disk over `run` with room for a share of what the command adds; without the right to mount, a limit
        of a file's size instead, which is what it yields.
        """
        grows = self.written[command.name]
        kept = self.root / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder, kept)
        used = sum(-(-path.stat().st_size // PAGE) for path in kept.rglob("*") if path.is_file())
        size = PAGE * max(1, used + int(share * grows / PAGE))
        if (
            os.geteuid() != 0
            or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder)], capture_output=True
            ).returncode
        ):
            shutil.rmtree(kept)
            yield max(1, int(share * grows))
            return
        try:
            shutil.copytree(kept, self.folder, dirs_exist_ok=True)
            yield None
            shutil.rmtree(kept)
            shutil.copytree(self.folder, kept)
        finally:
            subprocess.run(["umount", str(self.folder)], check=True)
            shutil.copytree(kept, self.folder, dirs_exist_ok=True)


def end_group(process: subprocess.Popen[Any]) -> None:
    """Kill -9 for a process that leads its own group, and all that it started; nothing where it has ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def prepared(root: Path, names: Collection[str]) -> Workplace:
    """A workplace with a market's files and, in `start`, what the named commands need: a dataset, checkpoints."""
    place = Workplace(root)
    if (root / "known.json").is_file():
        commit, known, place.written = json.loads((root / "known.json").read_text())
        if commit != git_commit():
            raise ValueError(f"{root} was prepared by commit {commit}, this is {git_commit()}: name another --work")
        place.known = {name: (digests, seconds) for name, (digests, seconds) in known.items()}
    else:
        write_market(root)
    needed = {need for name in names for need in COMMANDS[name].needs}
    for made, maker in (("data", "build"), ("checkpoints", "train")):
        if made in needed and not (root / "start" / made).is_dir():
            place.undisturbed(COMMANDS[maker])
            shutil.copytree(place.folder / made, root / "start" / made)
    return place


def write_market(root: Path) -> None:
    """A small synthetic market's files: all of its days, all but the last ones, and the listing."""
    from lasps.data.sources.synthetic import make_market

    root.mkdir(parents=True)
    market = make_market(seed=7, n_stocks=N_STOCKS, n_days=N_DAYS)
    days = market.panel["date"].unique().sort()
    market.panel.write_parquet(root / "long.parquet")
    market.panel.filter(pl.col("date") < days[-SHORT_BY]).write_parquet(root / "short.parquet")
    market.listing.write_csv(root / "listing.csv")
    for folder in ("tmp", "start"):
        (root / folder).mkdir()
