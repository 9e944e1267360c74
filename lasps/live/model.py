"""A model that forecasts evenings: networks and trees trained alike up to one day, and what they are held against.

Its folder holds seedN/refitted.pt, trees/seedN.txt (LightGBM's own text, no pickle) and, written last, model.json: as
of which day it was trained, from which recipe, and the digest of every file.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from loguru import logger
from numpy.typing import NDArray

from lasps.data.datasets.panel_samples import PanelRows, PanelSamples
from lasps.evaluation.baselines import VolatilityBins
from lasps.evaluation.metrics import class_frequencies
from lasps.evaluation.trees import probabilities
from lasps.evaluation.verdict import TWIN
from lasps.files import held, write_atomically
from lasps.live.ledger import P_COLUMNS
from lasps.pipeline.forecast import inputs_of
from lasps.pipeline.recipe import Recipe
from lasps.pipeline.refit import refit_boosters, refit_network, with_steps_for
from lasps.pipeline.summary import plain_arrays
from lasps.reproducibility import sha256_of
from lasps.training.checkpoints import Checkpoint, described, load_checkpoint
from lasps.training.ensembles import Ensemble

if TYPE_CHECKING:
    import lightgbm

Array = NDArray[np.float64]
CHAMPION, NETWORK, PRIOR, VOLATILITY, SHADOW = "champion", "network", "prior", "volatility", "shadow"
"""What a ledger's rows are of. champion: the forecast that counts, the mean of network and LightGBM where there is one;
network and lightgbm: its parts; prior: class frequencies of its training rows; volatility: those of its bin of 20-day
volatility; shadow: what the champion's predecessor would have said."""
KIND, FILE = "lasps evening model", "model.json"


class ModelError(ValueError):
    """A model's folder is not as it was written, or does not fit the recipe."""


@dataclass(frozen=True)
class EveningModel:
    """Networks, and the trees trained beside them, as one model.

    Attributes:
        name: as_of and its weights' digest in short; of a checkpoint alone, the checkpoint's name and digest.
        network: one checkpoint, or several averaged.
        boosters: of the twin, averaged; none for a checkpoint alone.
        about: the content of model.json; empty for a checkpoint alone.
    """

    name: str
    network: Checkpoint | Ensemble
    boosters: tuple[lightgbm.Booster, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, network: Checkpoint | Ensemble) -> EveningModel:
        """A checkpoint or an ensemble that was trained elsewhere (`make seeds`)."""
        members = _members(network)
        digest = hashlib.sha256("|".join(member.card.sha256 for member in members).encode()).hexdigest()
        return cls(f"{network.name} {digest[:12]}", network)

    @classmethod
    def open(cls, folder: Path, device: str = "cpu") -> EveningModel:
        """The model that `train` wrote.

        Raises:
            ModelError: there is none, or a file of it was changed since.
        """
        import lightgbm

        path = folder / FILE
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            kind, files, digest = about["kind"], dict(about["files"]), about["digest"]
            changed = [name for name, sha256 in files.items() if sha256_of(folder / name) != sha256]
            networks = [Checkpoint.open(folder / name, device) for name in about["networks"]]
            boosters = tuple(lightgbm.Booster(model_file=str(folder / name)) for name in about["trees"])
        except (OSError, KeyError, TypeError, ValueError, AttributeError, lightgbm.basic.LightGBMError) as error:
            raise ModelError(f"{path}: expected a model that was trained whole, cannot read it ({error})") from error
        if kind != KIND or changed or digest != _digest(about):
            what = ", ".join(changed) or FILE
            raise ModelError(f"{folder}: {what} was changed since it was trained. Train it again, or put it back")
        network = networks[0] if len(networks) == 1 else Ensemble.of(networks, path)
        return cls(about["name"], network, boosters, about)

    @property
    def inputs(self) -> dict[str, Any]:
        """What it reads: features, scaler, window ... (`pipeline.forecast.inputs_of`)."""
        return inputs_of(self.network)

    @property
    def as_of(self) -> dt.date | None:
        """The day whose evening it was trained on; None for a checkpoint alone."""
        return dt.date.fromisoformat(self.about["as_of"]) if self.about else None

    def members(self, samples: PanelSamples) -> dict[str, Array]:
        """Every network's and every booster's probabilities (N, 3), by "network SEED" and "lightgbm SEED"."""
        found = {}
        in_order = PanelSamples(samples.rows, samples.ends, samples.labels)  # a Forecast with days is sorted by them
        for i, member in enumerate(_members(self.network)):
            found[f"{NETWORK} {member.card.training.get('seed', i)}"] = np.asarray(member.predict(in_order).p)
        if self.boosters:
            split = plain_arrays(samples, self.inputs["features"])
            for name, booster in zip(self.about["trees"], self.boosters, strict=True):
                found[f"{TWIN} {Path(name).stem.removeprefix('seed')}"] = probabilities(booster, "all_means", split)
        return found

    def predict(self, samples: PanelSamples) -> dict[str, Array]:
        """The probabilities (N, 3) of everything that it puts into a ledger, by name; each row sums to 1."""
        return self.combined(self.members(samples), samples)

    def combined(self, members: Mapping[str, Array], samples: PanelSamples) -> dict[str, Array]:
        """As `predict`, from the members' probabilities."""
        found = {}
        for name in (NETWORK, TWIN):
            own = [p for member, p in members.items() if member.split(" ")[0] == name]
            if own:
                found[name] = np.mean(own, axis=0)
        champion = np.mean(list(found.values()), axis=0)
        frequencies = self.inputs.get("train_class_frequencies")
        if frequencies is None:
            raise ModelError(
                f"{self.network.path}: expected the class frequencies of its training in the .json beside it, for the "
                "prior. Train it again with this version"
            )
        shares = np.asarray(frequencies, dtype=np.float64)
        found[PRIOR] = np.tile(shares / shares.sum(), (len(samples), 1))
        if self.about:
            bins = VolatilityBins(*(np.asarray(self.about["volatility"][key]) for key in ("edges", "table")))
            found[VOLATILITY] = bins.predict(samples.table()["volatility_20"].fill_null(np.nan).to_numpy())
        return {CHAMPION: champion} | (found if self.boosters else {k: p for k, p in found.items() if k != NETWORK})

    def ledger_table(self, samples: PanelSamples) -> pl.DataFrame:
        """Its rows of a day's file in the ledger (`ledger.SCHEMA`)."""
        return table_of(self.predict(samples), samples)


def table_of(probabilities: Mapping[str, Array], samples: PanelSamples) -> pl.DataFrame:
    """Probabilities by name as rows of the ledger (`ledger.SCHEMA`)."""
    rows = samples.table().select("code", "sector", "close")
    return pl.concat(
        rows.with_columns(pl.lit(name).alias("model"), *(pl.Series(c, p[:, i]) for i, c in enumerate(P_COLUMNS)))
        for name, p in probabilities.items()
    )


def train(
    recipe: Recipe, rows: PanelRows, as_of: dt.date, folder: Path, device: str = "cpu", fraction: float = 1.0
) -> EveningModel:
    """Train what a recipe says on every label that has ended by a day; looks at no score, and knows no val.

    What is finished is kept, and an interrupted network is resumed: the same call again gives the same model.

    Args:
        rows: of the whole market, up to `as_of` or longer; later bars are not read.
        folder: the model's own; replaced only where it holds a model of something else.
        fraction: train on a part of the rows, by a hash of code and date, with as many fewer steps.

    Raises:
        ValueError: no label has ended by then.
        InUseError: another process trains in the folder.
    """
    samples = rows.ended_by(as_of, fraction)
    if not len(samples):
        raise ValueError(f"{as_of}: expected labels that have ended by this day to train on, found none")
    with held(folder / ".lock", f"{folder}", "Wait for it, or train in another folder"):
        return _train(recipe, samples, as_of, folder, device, fraction)


def _train(
    recipe: Recipe, samples: PanelSamples, as_of: dt.date, folder: Path, device: str, fraction: float
) -> EveningModel:
    if _stands(folder, recipe, samples, as_of):
        logger.info(f"{folder} is up to date")
        return EveningModel.open(folder, device)
    logger.info(f"Training as of {as_of}: {len(samples):,} samples, recipe {recipe.digest[:12]}, no val")
    (folder / FILE).unlink(missing_ok=True)
    networks = []
    for own in recipe.networks:
        scaled = with_steps_for(own, recipe.samples, len(samples))
        networks.append(refit_network(scaled, samples, recipe.data, folder / f"seed{own.seed}", device))
    trees = _trees(recipe, samples, folder / "trees")
    assert samples.samples is not None
    bins = VolatilityBins.fit(_volatility(samples.samples), samples.labels)
    companions = [path.with_suffix(".json") for path in networks]
    files = {str(path.relative_to(folder)): sha256_of(path) for path in (*networks, *companions, *trees)}
    about: dict[str, Any] = {
        "kind": KIND,
        "as_of": as_of.isoformat(),
        "recipe": recipe.digest,
        "fraction": fraction,
        "samples": len(samples),
        "rows": samples.fingerprint,
        "last_label_end": str(samples.samples["label_end"].max()),
        "class_frequencies": class_frequencies(samples.labels),
        "stocks": len(samples.rows.on(as_of)),
        "volatility": {"edges": bins.edges.tolist(), "table": bins.table.tolist()},
        "networks": [str(path.relative_to(folder)) for path in networks],
        "trees": [str(path.relative_to(folder)) for path in trees],
        "files": files,
    }
    weights = "|".join(sorted(files[name] for name in (*about["networks"], *about["trees"])))
    about["name"] = f"{as_of} {hashlib.sha256(weights.encode()).hexdigest()[:8]}"
    about["digest"] = _digest(about)
    write_atomically(folder / FILE, json.dumps(about, indent=1) + "\n")
    return EveningModel.open(folder, device)


def write_without_pickle(folder: Path, target: Path) -> None:
    """A copy of a model's folder, the networks as safetensors in place of torch's own format, which holds a pickle.

    It forecasts the same to the bit, and has the same name in a ledger.

    Raises:
        ModelError: `folder` holds no whole model.
    """
    from safetensors.torch import save

    about = dict(EveningModel.open(folder).about)
    networks: list[str] = []
    files: dict[str, bytes] = {}
    for name in about["networks"]:
        state, meta = load_checkpoint(folder / name)
        content, path = save(state), Path(name).with_suffix(".safetensors")
        card = described({**(meta or {}), "sha256": hashlib.sha256(content).hexdigest()})
        networks.append(str(path))
        files |= {str(path): content, str(path.with_suffix(".json")): card.encode()}
    files |= {name: (folder / name).read_bytes() for name in about["trees"]}
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target / name, content)
    about |= {"networks": networks, "files": {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}}
    write_atomically(target / FILE, json.dumps(about | {"digest": _digest(about)}, indent=1) + "\n")


def with_seeds(recipe: Recipe, seeds: int) -> Recipe:
    """The recipe with its first so many networks and boosters."""
    trees = dict(sorted(recipe.trees.items())[:seeds])
    return replace(recipe, networks=recipe.networks[:seeds], trees=trees)


def _trees(recipe: Recipe, samples: PanelSamples, folder: Path) -> list[Path]:
    paths = [folder / f"seed{seed}.txt" for seed in recipe.trees]
    key = f"{recipe.digest} {samples.fingerprint}\n"
    if not (folder / "key").is_file() or (folder / "key").read_text() != key:
        for path in folder.glob("*.txt"):
            path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "key", key)
    if all(path.is_file() for path in paths):
        return paths
    split = plain_arrays(samples, recipe.data["features"])
    for path, booster in zip(paths, refit_boosters(recipe, split), strict=True):
        write_atomically(path, booster.model_to_string())
    return paths


def _stands(folder: Path, recipe: Recipe, samples: PanelSamples, as_of: dt.date) -> bool:
    try:
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        known = [about[key] for key in ("as_of", "recipe", "rows")]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return known == [as_of.isoformat(), recipe.digest, samples.fingerprint]


def _volatility(table: pl.DataFrame) -> Array:
    return np.asarray(table["volatility_20"].cast(pl.Float64).fill_null(np.nan).to_numpy())


def _digest(about: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in about.items() if key != "digest"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _members(network: Checkpoint | Ensemble) -> Sequence[Checkpoint]:
    return network.members if isinstance(network, Ensemble) else (network,)
