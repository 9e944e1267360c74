"""An Optuna study of Phase 2's hyperparameters on cached shared features: the backbone runs once."""

from __future__ import annotations

from lasps.tuning.conclusion import Conclusion, conclude, fitting_default, plateau_of, read_conclusion
from lasps.tuning.halves import split_val
from lasps.tuning.liveness import requeue_dead
from lasps.tuning.storage import conclusion_path, journal_path
from lasps.tuning.study import DEFAULT, best_settings, load_study, open_study, settings_of, space_of, suggest
from lasps.tuning.trials import run_trials

__all__ = [
    "DEFAULT",
    "Conclusion",
    "best_settings",
    "conclude",
    "conclusion_path",
    "fitting_default",
    "journal_path",
    "load_study",
    "open_study",
    "plateau_of",
    "read_conclusion",
    "requeue_dead",
    "run_trials",
    "settings_of",
    "space_of",
    "split_val",
    "suggest",
]
