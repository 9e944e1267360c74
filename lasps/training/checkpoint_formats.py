"""Weights as people have them: torch.save or safetensors, bare or in another dictionary, wrapped, in half precision.

Nothing in a file is ever executed.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor

WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
INNER_NAMES = ("model_state_dict", "state_dict", "model")
"""Under which name training scripts keep the weights beside optimiser and epoch, the first that is there."""
MODEL_PREFIX = "model."
"""What Lightning and other modules around the model put before its names."""


def weights_in(content: bytes, path: Path, advice: str) -> dict[str, Tensor]:
    """The state_dict in a file's content: finite, floating values as float32, without wrappers' prefixes.

    Raises:
        ValueError: truncated, altered, pickled code, a whole model, or no state_dict; says what to do.
    """
    if path.suffix == ".safetensors":
        loaded: Any = _safetensors(content, path, advice)
    else:
        check_zip(content, path, advice)
        loaded = unpickle(content, path, advice)
    state = checked_state(inner_state(loaded, path), f"checkpoint {path}", advice)
    return as_float32(without_model_prefix(state, path), path)


def _safetensors(content: bytes, path: Path, advice: str) -> dict[str, Tensor]:
    from safetensors.torch import load

    try:
        return load(content)
    except Exception as error:
        raise ValueError(
            f"checkpoint {path}: expected a safetensors file, got {len(content)} bytes that are cut off, "
            f"altered or something else ({error}). {advice}"
        ) from error


def check_zip(content: bytes, path: Path, advice: str) -> None:
    """Raise ValueError unless `content` is a whole zip archive whose members have their checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
    except Exception as error:
        if content.startswith(b"\x80\x02"):
            raise ValueError(
                f"checkpoint {path}: expected a zip archive as torch.save writes it since 1.6, got the "
                "format before. Load it where you trust it, with torch.load, and save its state_dict "
                f"again. {advice}"
            ) from error
        raise ValueError(
            f"checkpoint {path}: expected a file of torch.save (a zip archive), got {len(content)} bytes "
            f"that are cut off, altered or something else ({error}). {advice}"
        ) from error
    if damaged is not None:
        raise ValueError(
            f"checkpoint {path}: the checksum of '{damaged}' inside it is wrong: bytes were altered. {advice}"
        )


def unpickle(content: bytes, path: Path, advice: str) -> Any:
    """What torch.save wrote, tensors and plain containers only."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # weights_only refuses in many ways: UnpicklingError, RuntimeError, KeyError ...
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise ValueError(
            f"checkpoint {path}: expected a bare state_dict, got something that holds other objects or "
            f"code{what}, or is damaged; nothing of it was executed. If it is a whole model, save "
            f"model.state_dict() instead. {advice}"
        ) from error


def inner_state(loaded: Any, path: Path) -> Any:
    """The weights inside a training script's dictionary, or what was loaded itself."""
    if not isinstance(loaded, Mapping):
        return loaded
    for name in INNER_NAMES:
        inner = loaded.get(name)
        if isinstance(inner, Mapping) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            rest = [str(other) for other in loaded if other != name]
            logger.info(
                f"{path}: the weights are taken from '{name}'" + (f", beside {', '.join(rest[:6])}" if rest else "")
            )
            return inner
    return loaded


def checked_state(state: Any, what: str, advice: str) -> dict[str, Tensor]:
    """`state` without wrappers' prefixes.

    Raises:
        ValueError: not a mapping of names to tensors, or values that are not finite.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{what}: expected a state_dict (names -> tensors), got {type(state).__name__}. {advice}")
    strange = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise ValueError(
            f"{what}: expected a state_dict (names -> tensors), bare or under one of "
            f"{', '.join(INNER_NAMES)}, but '{strange[0]}' is a {type(state[strange[0]]).__name__}. If "
            f"the state_dict is inside it, save that alone. {advice}"
        )
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


def without_model_prefix(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under `model.`, where there are some; what else lies beside them is named in a warning."""
    inside = {
        without_wrappers(name.removeprefix(MODEL_PREFIX)): tensor
        for name, tensor in state.items()
        if name.startswith(MODEL_PREFIX)
    }
    if not inside:
        return state
    beside = [name for name in state if not name.startswith(MODEL_PREFIX)]
    if beside:
        logger.warning(
            f"{path}: the weights under '{MODEL_PREFIX}' are the model's; left out: {', '.join(beside[:6])}"
            + (f" and {len(beside) - 6} more" if len(beside) > 6 else "")
        )
    return without_model_prefix(inside, path)


def as_float32(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Floating weights as float32, with one warning where they were not."""
    other = sorted(
        {
            str(tensor.dtype).removeprefix("torch.")
            for tensor in state.values()
            if tensor.is_floating_point() and tensor.dtype != torch.float32
        }
    )
    if not other:
        return state
    logger.warning(
        f"{path}: weights in {', '.join(other)} are converted to float32, in which the model computes: "
        "what rounding took is not brought back"
    )
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
