"""A small CNN over candlestick charts. Shapes: B batch, H x W chart, K channels, D output width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

STEM = (8, 6)
"""Height and width of the stem's patches in pixels: two days of 3 px. A stem of 4 x 3 is 3-4 times slower."""
GROUPS = 8
"""GroupNorm's groups, as far as they divide the channels (guess, not tuned)."""
POOLED = (2, 4)
"""The last feature map is averaged to 2 rows x 4 columns, so that *when* something stood in the chart survives."""


class ChartCNN(nn.Module):
    """A chart -> one vector: (B, 3, H, W) -> (B, D), any H and W.

    A strided patch stem, then 3 x 3 convolutions of stride 2, each with GroupNorm (no batch statistics: a frozen
    CNN has nothing that could move). A size that is no multiple of the stem is padded with black at the top and left,
    so that the newest day keeps its place at the right edge.

    Args:
        conv_channels: channels of the stem and of each following convolution.
        output_dim: D.
    """

    def __init__(self, conv_channels: Sequence[int] = (16, 32, 64), output_dim: int = 64) -> None:
        super().__init__()
        stages: list[nn.Module] = [stage(3, conv_channels[0], kernel=STEM, stride=STEM, padding=0)]
        for before, after in zip(conv_channels, conv_channels[1:], strict=False):
            stages.append(stage(before, after, kernel=(3, 3), stride=(2, 2), padding=1))
        self.stages = nn.Sequential(*stages)
        self.output = nn.Linear(conv_channels[-1] * POOLED[0] * POOLED[1], output_dim)

    def forward(self, charts: Tensor) -> Tensor:
        """Float charts (B, 3, H, W) in 0..1 -> (B, D)."""
        if charts.ndim != 4 or charts.shape[1] != 3 or 0 in charts.shape[2:]:
            raise ValueError(f"charts: expected (B, 3, H, W), got {tuple(charts.shape)}")
        top, left = -charts.shape[2] % STEM[0], -charts.shape[3] % STEM[1]
        if top or left:
            charts = functional.pad(charts, (left, 0, top, 0))
        maps = functional.adaptive_avg_pool2d(self.stages(charts), POOLED)
        pooled: Tensor = self.output(maps.flatten(1))
        return pooled


def stage(before: int, after: int, kernel: tuple[int, int], stride: tuple[int, int], padding: int) -> nn.Sequential:
    """Convolution, GroupNorm, ReLU: (B, before, h, w) -> (B, after, h / stride, w / stride)."""
    groups = next(g for g in range(min(GROUPS, after), 0, -1) if after % g == 0)
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding), nn.GroupNorm(groups, after), nn.ReLU())
