"""The whole network: days and chart -> 128 shared features -> the logits of the sample's sector.

Shapes: B batch, T days, F features, S sectors, C classes, H x W chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lasps.config.model_config import MODEL_CONFIG
from lasps.config.settings import CLASS_NAMES
from lasps.models.chart_cnn import ChartCNN
from lasps.models.dropout import ByteDropout
from lasps.models.linear_transformer import LinearTransformerEncoder
from lasps.window_parts import SKIP_DAYS, Reads, WindowParts, parts_of

NUM_CLASSES = len(CLASS_NAMES)
SKIP_SHARE = 0.5
"""Share of the shared features that come from the skip alone (guess, not tuned)."""
SKIP_LINEAR_UP_TO = 8.0
"""The skip is linear up to about here (scaled features are clipped before) and logarithmic beyond, so that unscaled
foreign data (prices of 50,000) give finite features."""
PHASES = (1, 2, 3)
BACKBONE = ("ts_encoder", "cnn", "shared_fusion", "common_head")


class ClassificationHead(nn.Module):
    """Shared features (B, 128) -> logits (B, C): Linear, ReLU, Dropout, Linear, and a linear path beside them.

    The path's output is added to theirs; Phase 2 gives one to the heads of sectors that val accepts.

    `linear` is None, which stands for zeros, until `add_linear`. It is in the state_dict only then, and loading a state
    without it removes it: a state of a head without a path loads as it always did, to the same bits. It is not trained
    by Phases 1 and 3 (no gradient).
    """

    def __init__(
        self, input_dim: int = 128, hidden_dim: int = 64, num_classes: int = NUM_CLASSES, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_dim, num_classes)
        self.linear: nn.Linear | None = None
        self.register_load_state_dict_pre_hook(_linear_as_saved)  # type: ignore[no-untyped-call]

    def forward(self, shared: Tensor) -> Tensor:
        """(B, 128) -> (B, C)."""
        logits: Tensor = self.fc2(self.dropout(functional.relu(self.fc1(shared))))
        return logits if self.linear is None else logits + self.linear(shared)

    def add_linear(self) -> nn.Linear:
        """The linear path; where there is none, a new one of zeros."""
        if self.linear is None:
            weight = self.fc1.weight
            self.linear = nn.Linear(weight.shape[1], self.fc2.out_features, device=weight.device, dtype=weight.dtype)
            for parameter in self.linear.parameters():
                nn.init.zeros_(parameter.requires_grad_(False))
        return self.linear


def _linear_as_saved(head: ClassificationHead, state_dict: Mapping[str, Any], prefix: str, *_: object) -> None:
    """Give the head a linear path where the state to be loaded has one that is not zero, else take it away."""
    names = [name for name in state_dict if name.startswith(f"{prefix}linear.")]
    if any(bool(state_dict[name].any()) for name in names):
        head.add_linear()
        return
    head.linear = None
    for name in names:
        del state_dict[name]  # type: ignore[attr-defined]


class SharedFusion(nn.Module):
    """Encoder output, CNN output and the skip (the features' means) -> the shared features (B, 128).

    The first part is an MLP over all three: what the training of the common head finds useful. The second part is a
    linear projection of the skip alone, orthogonal at the start: it keeps directions that the common head has no use
    for, so that a sector's head can still find its own signal in them. It leaves the scores out: they repeat the
    features in another scale, and would take the room of directions that nothing else carries.
    """

    projected: Tensor

    def __init__(
        self, branches_dim: int, ts_input_dim: int, score_columns: Sequence[int], shared_dim: int, dropout: float
    ) -> None:
        super().__init__()
        skip_dim = len(SKIP_DAYS) * ts_input_dim
        linear_dim = int(shared_dim * SKIP_SHARE)
        self.mlp = nn.Sequential(
            nn.Linear(branches_dim + skip_dim, shared_dim),
            nn.GELU(),
            ByteDropout(dropout),
            nn.Linear(shared_dim, shared_dim - linear_dim),
            nn.LayerNorm(shared_dim - linear_dim),
        )
        kept = [column for column in range(ts_input_dim) if column not in set(score_columns)]
        columns = torch.tensor(kept) + ts_input_dim * torch.arange(len(SKIP_DAYS)).unsqueeze(1)
        self.register_buffer("projected", columns.flatten(), persistent=False)
        self.skip_projection = nn.Linear(columns.numel(), linear_dim)
        nn.init.orthogonal_(self.skip_projection.weight)
        nn.init.zeros_(self.skip_projection.bias)

    def forward(self, encoded: Tensor, chart: Tensor, means: Tensor) -> Tensor:
        """(B, D), (B, D), (B, 3 F) -> (B, 128)."""
        skip = skip_of(means)
        learned = self.mlp(torch.cat([encoded.float(), chart.float(), skip], dim=1))
        own = skip if len(self.projected) == skip.shape[1] else skip.index_select(1, self.projected)
        return torch.cat([learned.float(), self.skip_projection(own).float()], dim=1)


def skip_of(means: Tensor) -> Tensor:
    """The skip of the features' means, (B, 3 F) both: linear up to about SKIP_LINEAR_UP_TO."""
    return SKIP_LINEAR_UP_TO * torch.asinh(means / SKIP_LINEAR_UP_TO)


def checked_columns(columns: Sequence[int], ts_input_dim: int, name: str) -> Tensor:
    """Numbers of columns, int64.

    Raises:
        ValueError: a repeated one, or one that is not among 0..F-1.
    """
    chosen = [int(column) for column in columns]
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(ts_input_dim)):
        raise ValueError(f"{name}: expected different numbers of 0..{ts_input_dim - 1}, got {chosen}")
    return torch.tensor(chosen, dtype=torch.int64)


class SectorAwareFusionModel(nn.Module):
    """Days and chart -> logits of SELL, HOLD, BUY, through one common head or one head per sector.

    Args:
        num_sectors: S.
        ts_input_dim: F.
        encoder_columns: which of the F columns the transformer reads over the whole window (the skip carries all); of
            a dataset's features they are `lasps.data.features.window_columns(names)`. None: all. A window of raw
            features tells the day that it ends on by the market's path, which a network learns by heart; see the log
            of experiments.
        score_columns: which of the F columns are scores (`lasps.data.features.score_columns(names)`): they are left out
            of the linear half of the shared features.
        uses_charts: False leaves the CNN out (zeros in its place), to measure what the charts add; the state tells.
        encoder, cnn, fusion: what differs from MODEL_CONFIG's `linear_transformer`, `chart_cnn` and `fusion`.
    """

    encoder_columns: Tensor
    score_columns: Tensor
    uses_charts: Tensor

    def __init__(
        self,
        num_sectors: int = MODEL_CONFIG["num_sectors"],
        ts_input_dim: int = MODEL_CONFIG["linear_transformer"]["input_dim"],
        *,
        encoder_columns: Sequence[int] | None = None,
        score_columns: Sequence[int] = (),
        uses_charts: bool = True,
        encoder: Mapping[str, Any] | None = None,
        cnn: Mapping[str, Any] | None = None,
        fusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        read = range(ts_input_dim) if encoder_columns is None else encoder_columns
        columns = checked_columns(read, ts_input_dim, "encoder_columns")
        scores = checked_columns(score_columns, ts_input_dim, "score_columns")
        if not len(columns) > 0 or not len(scores) < ts_input_dim:
            raise ValueError(
                f"expected one of encoder_columns at least, and one column that is not among score_columns, got {read} "
                f"and {score_columns}"
            )
        encoder = {**MODEL_CONFIG["linear_transformer"], **(encoder or {}), "input_dim": len(columns)}
        cnn = {**MODEL_CONFIG["chart_cnn"], **(cnn or {})}
        fusion = {**MODEL_CONFIG["fusion"], **(fusion or {})}
        self.num_sectors, self.ts_input_dim = num_sectors, ts_input_dim
        self.register_buffer("encoder_columns", columns)
        self.register_buffer("score_columns", scores)
        self.register_buffer("uses_charts", torch.tensor(uses_charts))
        self.ts_encoder = LinearTransformerEncoder(**encoder)
        self.cnn = ChartCNN(**cnn)
        self.shared_fusion = SharedFusion(
            encoder["hidden_dim"] + cnn["output_dim"],
            ts_input_dim,
            scores.tolist(),
            fusion["shared_dim"],
            encoder["dropout"],
        )
        self.reads = Reads(tuple(columns.tolist()), uses_charts)
        head = (fusion["shared_dim"], fusion["head_hidden"], NUM_CLASSES, fusion["head_dropout"])
        self.common_head = ClassificationHead(*head)
        self.sector_heads = nn.ModuleList(ClassificationHead(*head) for _ in range(num_sectors))
        self.frozen = False
        self.register_load_state_dict_pre_hook(_without_scores)  # type: ignore[no-untyped-call]
        self.init_sector_heads_from_common()

    # ------------------------------------------------------------------------------------------------ forward

    def forward(
        self, time_series: Tensor | WindowParts, charts: Tensor, sector_ids: Tensor | None = None, phase: int = 3
    ) -> dict[str, Tensor]:
        """One batch through the network.

        Args:
            time_series: float32 (B, T, F), finite; NaN must have become 0 before (the scaler does it). Or the parts of
                such windows that the network reads (`read` of our datasets).
            charts: (B, 3, H, W), uint8 0..255 or float 0..1; not looked at by a model without charts.
            sector_ids: int64 (B,), 0..S-1; not needed in Phase 1.
            phase: 1 the common head, 2 and 3 the sector heads.

        Returns:
            logits (B, C), probabilities (B, C) = softmax of the logits (`evaluation.focal_calibration` says what they
            mean), shared_features (B, 128); all float32.

        Raises:
            ValueError: unknown phase, sector ids out of range, NaN or infinite input, other shapes.
        """
        shared = self.encode(time_series, charts)
        logits = self.classify(shared, sector_ids, phase)
        return {"logits": logits, "probabilities": torch.softmax(logits, dim=1), "shared_features": shared}

    def encode(self, time_series: Tensor | WindowParts, charts: Tensor) -> Tensor:
        """The shared features (B, 128) float32 of a batch; see `forward`."""
        parts = time_series if isinstance(time_series, WindowParts) else self._parts_of(time_series)
        for part in parts:
            check_finite(part, "time series")
        encoded = self.ts_encoder(parts.days)
        shared: Tensor = self.shared_fusion(encoded, self._encoded_charts(charts, encoded), parts.means)
        return shared

    def _parts_of(self, time_series: Tensor) -> WindowParts:
        check_finite(time_series, "time series")
        if time_series.ndim != 3 or time_series.shape[2] != self.ts_input_dim or not time_series.shape[1]:
            raise ValueError(
                f"time series: expected (B, T, {self.ts_input_dim}) with T > 0, got "
                f"{tuple(time_series.shape)}; the model was made for {self.ts_input_dim} features"
            )
        return parts_of(time_series, self.encoder_columns)

    def _encoded_charts(self, charts: Tensor, encoded: Tensor) -> Tensor:
        if not self.reads.charts:
            return encoded.new_zeros(len(encoded), self.cnn.output.out_features)
        if charts.dtype == torch.uint8:
            charts = charts.float().div_(255)
        else:
            check_finite(charts, "charts")
        found: Tensor = self.cnn(charts)
        return found

    def classify(self, shared: Tensor, sector_ids: Tensor | None = None, phase: int = 3) -> Tensor:
        """Shared features (B, 128) -> logits (B, C) float32, outside any autocast; see `forward`."""
        if phase not in PHASES:
            raise ValueError(f"phase: expected 1 (common head), 2 or 3 (sector heads), got {phase!r}")
        with torch.autocast(shared.device.type, enabled=False):
            if phase != 1:
                return self._through_sector_heads(shared.float(), self._checked_sectors(sector_ids, len(shared)))
            logits: Tensor = self.common_head(shared.float())
            return logits

    def _through_sector_heads(self, shared: Tensor, sector_ids: Tensor) -> Tensor:
        """Each sample through its sector's head, one call per head that occurs: (B, 128), (B,) -> (B, C)."""
        order = torch.argsort(sector_ids, stable=True)
        counts = torch.bincount(sector_ids, minlength=self.num_sectors).tolist()
        parts = torch.split(shared[order], counts)
        logits = torch.cat([head(part) for head, part in zip(self.sector_heads, parts, strict=True) if len(part)])
        return logits[torch.argsort(order)]

    def _checked_sectors(self, sector_ids: Tensor | None, batch: int) -> Tensor:
        if sector_ids is None or sector_ids.shape != (batch,) or sector_ids.is_floating_point():
            got = "None" if sector_ids is None else f"{sector_ids.dtype} {tuple(sector_ids.shape)}"
            raise ValueError(f"sector ids: expected int64 ({batch},), one per sample, got {got}")
        if batch == 0:
            raise ValueError("the batch is empty")
        low, high = torch.aminmax(sector_ids)
        if int(low) < 0 or int(high) >= self.num_sectors:
            raise ValueError(
                f"sector ids: expected 0..{self.num_sectors - 1}, got {int(low)}..{int(high)}; "
                f"the model has {self.num_sectors} sector heads"
            )
        return sector_ids.long()

    # ------------------------------------------------------------------------------------------------ phases

    def freeze_backbone(self) -> None:
        """Hold ts_encoder, cnn, shared_fusion and the common head: no gradient, and eval mode even after train()."""
        self.frozen = True
        for name in BACKBONE:
            self.get_submodule(name).requires_grad_(False).eval()

    def unfreeze_backbone(self) -> None:
        """Let them be trained again; they return to the model's own mode."""
        self.frozen = False
        for name in BACKBONE:
            self.get_submodule(name).requires_grad_(True).train(self.training)

    def train(self, mode: bool = True) -> SectorAwareFusionModel:
        """As nn.Module.train, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if getattr(self, "frozen", False):
            for name in BACKBONE:
                self.get_submodule(name).eval()
        return self

    def get_sector_head_params(self, sector_id: int) -> list[nn.Parameter]:
        """The parameters of one sector's head.

        Raises:
            ValueError: the sector is not one of 0..S-1.
        """
        if not 0 <= sector_id < self.num_sectors:
            raise ValueError(f"sector: expected 0..{self.num_sectors - 1}, got {sector_id}")
        return list(self.sector_heads[sector_id].parameters())

    def init_sector_heads_from_common(self) -> None:
        """Make every sector's head a copy of the common head."""
        for head in self.sector_heads:
            head.load_state_dict(self.common_head.state_dict())

    # ------------------------------------------------------------------------------------------------ state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As nn.Module.load_state_dict.

        Raises:
            ValueError: names or shapes differ; says which, and what to do.
        """
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise ValueError(
                f"the state does not fit this model of {self.num_sectors} sectors and "
                f"{self.ts_input_dim} features: {_differences(error)} Use a state_dict of "
                "SectorAwareFusionModel alone, and a model of its sizes "
                "(SectorAwareFusionModel.from_state_dict(state) reads them off the state)."
            ) from error

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> SectorAwareFusionModel:
        """The model that `state` belongs to, sizes read off the shapes, dropout from MODEL_CONFIG, in eval mode.

        Raises:
            ValueError: `state` is no state of a SectorAwareFusionModel.
        """
        model = cls(**sizes_of(state))
        try:
            nn.Module.load_state_dict(model, state)
        except RuntimeError as error:
            raise ValueError(
                "expected the state_dict of a SectorAwareFusionModel alone, got another set of tensors: "
                f"{_differences(error)} Save that model's state_dict without them."
            ) from error
        return model.eval()


def _without_scores(model: SectorAwareFusionModel, state_dict: Mapping[str, Any], prefix: str, *_: object) -> None:
    """A state of a version before scores has no score columns: it loads as one that has none."""
    state_dict.setdefault(f"{prefix}score_columns", torch.empty(0, dtype=torch.int64))  # type: ignore[attr-defined]


def _differences(error: RuntimeError) -> str:
    """What torch found to differ, its first three lines."""
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    return " ".join(lines[:3])[:600] + (f" ... and {len(lines) - 3} more." if len(lines) > 3 else "")


def check_finite(values: Tensor, name: str) -> None:
    """Raise ValueError naming the first sample with a NaN or an infinity."""
    if not torch.isfinite(values).all():
        sample = int((~torch.isfinite(values)).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(f"{name}: expected finite values, found NaN or infinity in sample {sample} of the batch")


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor's arguments that give a model of the shapes in `state`.

    Raises:
        ValueError: a tensor that every model has is missing or has another number of dimensions.
    """
    try:
        hidden_dim, patch_days, _ = state["ts_encoder.patch_weight"].shape
        scores = state.get("score_columns", torch.empty(0, dtype=torch.int64)).tolist()
        input_dim = state["shared_fusion.skip_projection.weight"].shape[1] // len(SKIP_DAYS) + len(scores)
        encoder_columns, uses_charts = state["encoder_columns"].tolist(), bool(state["uses_charts"])
        num_heads = state["ts_encoder.layers.0.attention.in_weight"].shape[1]
        head_hidden, shared_dim = state["common_head.fc1.weight"].shape
        channels = [state[f"cnn.stages.{i}.0.weight"].shape[0] for i in range(_count(state, "cnn.stages"))]
        output_dim = state["cnn.output.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"expected the state_dict of a SectorAwareFusionModel, got {len(state)} tensors "
            f"({', '.join(list(state)[:3])}, ...) without a fitting {error}"
        ) from error
    return {
        "num_sectors": _count(state, "sector_heads"),
        "ts_input_dim": input_dim,
        "encoder_columns": encoder_columns,
        "score_columns": scores,
        "uses_charts": uses_charts,
        "encoder": {
            "hidden_dim": hidden_dim,
            "num_layers": _count(state, "ts_encoder.layers"),
            "num_heads": num_heads,
            "patch_days": patch_days,
        },
        "cnn": {"conv_channels": channels, "output_dim": output_dim},
        "fusion": {"shared_dim": shared_dim, "head_hidden": head_hidden},
    }


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered children `prefix` has in `state`."""
    numbers = {name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(prefix + ".")}
    return len({number for number in numbers if number.isdigit()})
