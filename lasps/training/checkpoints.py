"""Checkpoints: a bare state_dict in NAME.pt, where it came from in NAME.json beside it.

Saving replaces both in an order that a kill at any moment leaves loadable: (1) both temporary files are written and
synchronised, (2) the old .json is removed, (3) the .pt is renamed into place, (4) the .json is. Between 2 and 4 there
is a .pt without a .json: that loads, on the weaker checks and with a warning. A .json never describes another .pt.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from lasps.reproducibility import json_text, sync, write_synced

WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
MADE_BY = {
    "phase1_best": "python experiments/train.py --phase 1",
    "phase3_final": "python experiments/train.py --phase 3",
    "phase2_best": "python experiments/train_phase2.py --checkpoint checkpoints/phase3_final.pt",
}
MAKE_ANEW = "Make it anew with"


def save_checkpoint(path: str | Path, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Replace NAME.pt and NAME.json; an error before the first rename leaves both as they were.

    Args:
        path: NAME.pt; its folder is made where it is missing.
        state_dict: finite tensors by name; kept on the CPU, without wrappers' prefixes.
        meta: what can be written as JSON; NaN and infinities become null. `sha256` (of the .pt) is added.

    Returns:
        The SHA-256 of NAME.pt.

    Raises:
        ValueError: no state_dict, or values that are not finite.
    """
    path = checked_path(path)
    state = checked_state(state_dict, f"the state to be saved as {path}", "")
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().clone() for name, tensor in state.items()}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    described = json_text({**meta, "sha256": digest})

    path.parent.mkdir(parents=True, exist_ok=True)
    companion = path.with_suffix(".json")
    new_path, new_companion = (file.with_name(f".{file.name}.{os.getpid()}.tmp") for file in (path, companion))
    try:
        write_synced(new_path, content)
        write_synced(new_companion, described)
        companion.unlink(missing_ok=True)
        sync(path.parent)
        os.replace(new_path, path)
        os.replace(new_companion, companion)
    finally:
        new_path.unlink(missing_ok=True)
        new_companion.unlink(missing_ok=True)
    sync(path.parent)
    return digest


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read and verify a checkpoint; code in it is never executed.

    With a .json beside it the file must have the SHA-256 written there. Without one (a bare state_dict from elsewhere)
    the zip checksums, names, types and finite values are all that can be checked; one warning says so.

    Returns:
        The state_dict on the CPU without `module.` and `_orig_mod.`, and the .json's content or None.

    Raises:
        FileNotFoundError: there is no such file; names the command that makes it.
        ValueError: truncated, altered, not finite, pickled code, or no state_dict; says what to do.
    """
    path = checked_path(path)
    advice = f"{MAKE_ANEW} '{MADE_BY.get(path.stem, 'python experiments/train.py')}' or name another checkpoint."
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: expected a file, found nothing. {advice}")
    content = path.read_bytes()
    meta = read_meta(path)
    if meta is None or "sha256" not in meta:
        logger.warning(f"{path}: no sha256 in a {path.with_suffix('.json').name} beside it, so only zip checksums, "
                       "shapes and finite values are checked; where it came from is unknown")
    else:
        digest = hashlib.sha256(content).hexdigest()
        if digest != meta["sha256"]:
            raise ValueError(f"checkpoint {path}: expected SHA-256 {meta['sha256']} (from its .json), the file of "
                             f"{len(content)} bytes has {digest}: it was altered or cut off. {advice}")
    check_zip(content, path, advice)
    return checked_state(unpickle(content, path, advice), f"checkpoint {path}", advice), meta


def checked_path(path: str | Path) -> Path:
    """The path of a .pt file.

    Raises:
        ValueError: it ends in .json (the companion's name) or is a folder.
    """
    path = Path(path)
    if path.suffix == ".json" or path.is_dir():
        raise ValueError(f"checkpoint {path}: expected a .pt file, got a {'folder' if path.is_dir() else '.json'}")
    return path


def read_meta(path: str | Path) -> dict[str, Any] | None:
    """The content of the .json beside a checkpoint; None where there is none.

    Raises:
        ValueError: it is not a JSON object.
    """
    companion = Path(path).with_suffix(".json")
    if not companion.is_file():
        return None
    try:
        meta = json.loads(companion.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{companion}: expected JSON, got {error}. Remove it to load the checkpoint on the weaker "
                         "checks, or make both anew.") from error
    if not isinstance(meta, dict):
        raise ValueError(f"{companion}: expected a JSON object, got {type(meta).__name__}. Remove it or make it anew.")
    return meta


def check_zip(content: bytes, path: Path, advice: str) -> None:
    """Raise ValueError unless `content` is a whole zip archive whose members have their checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise ValueError(f"checkpoint {path}: expected a file of torch.save (a zip archive), got {len(content)} bytes "
                         f"that are cut off, altered or something else ({error}). {advice}") from error
    if damaged is not None:
        raise ValueError(f"checkpoint {path}: the checksum of '{damaged}' inside it is wrong: bytes were altered. "
                         f"{advice}")


def unpickle(content: bytes, path: Path, advice: str) -> Any:
    """What torch.save wrote, tensors and plain containers only."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # weights_only refuses in many ways: UnpicklingError, RuntimeError, KeyError ...
        raise ValueError(f"checkpoint {path}: expected a bare state_dict, got something that holds other objects or "
                         f"code, or is damaged; nothing of it was executed ({str(error).partition(chr(10))[0]}). "
                         f"{advice}"
                         ) from error


def checked_state(state: Any, what: str, advice: str) -> dict[str, Tensor]:
    """`state` without wrappers' prefixes.

    Raises:
        ValueError: not a mapping of names to tensors, or values that are not finite.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{what}: expected a state_dict (names -> tensors), got {type(state).__name__}. {advice}")
    strange = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise ValueError(f"{what}: expected a bare state_dict (names -> tensors), but '{strange[0]}' is a "
                         f"{type(state[strange[0]]).__name__}. If the state_dict is inside it, save that "
                         f"alone. {advice}")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{what}: '{name}' holds NaN or infinity: the training diverged. {advice}")
    return {without_wrappers(name): tensor for name, tensor in state.items()}


def without_wrappers(name: str) -> str:
    """A parameter's name without `module.` and `_orig_mod.` before it."""
    for prefix in WRAPPER_PREFIXES:
        if name.startswith(prefix):
            return without_wrappers(name.removeprefix(prefix))
    return name
