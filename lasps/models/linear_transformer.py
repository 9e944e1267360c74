"""A transformer over the days of a window whose attention costs O(T).

Katharopoulos, Vyas, Pappas and Fleuret, "Transformers are RNNs: Fast Autoregressive Transformers with Linear
Attention", ICML 2020. Shapes: B batch, T days, F features, P days per patch, N patches (tokens), D width,
M heads, E = D / M width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lasps.models.dropout import ByteDropout

FEED_FORWARD_FACTOR = 2
"""Hidden width of the feed-forward block over D: 2 instead of the usual 4, for speed (guess, not tuned)."""
POSITION_PERIOD = 10_000.0
"""Longest period of the sinusoids, Vaswani et al. 2017."""


def linear_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention with the feature map phi(x) = elu(x) + 1 in place of the softmax, in O(N).

    out_i = phi(q_i) . sum_j phi(k_j) v_j^T / (phi(q_i) . sum_j phi(k_j)); every token sees every token, which is
    causal here because all of a window's days are past.

    Args:
        queries, keys, values: (B, M, N, E); computed in float32 whatever the autocast.

    Returns:
        (B, M, N, E) float32.
    """
    queries, keys = positive_features(queries.float()), positive_features(keys.float())
    context = keys.transpose(-2, -1) @ values.float()  # (B, M, E, E): N is summed out, this is what makes it linear
    normaliser = queries @ keys.sum(dim=-2).unsqueeze(-1)  # (B, M, N, 1), > 0 because phi > 0
    return (queries @ context) / normaliser


def positive_features(x: Tensor) -> Tensor:
    """phi(x) = elu(x) + 1 > 0, the feature map of Katharopoulos et al. 2020."""
    return functional.elu(x) + 1


def positions_from_end(length: int, width: int) -> Tensor:
    """Sinusoids (N, D) float32 of the distance to the last token, the newest days are alike for any T."""
    distance = torch.arange(length - 1, -1, -1, dtype=torch.float32).unsqueeze(1)
    half = (width + 1) // 2
    rates = torch.exp(-math.log(POSITION_PERIOD) * torch.arange(half, dtype=torch.float32) / half)
    return torch.cat([torch.sin(distance * rates), torch.cos(distance * rates)], dim=1)[:, :width]


class LinearAttention(nn.Module):
    """Multi-head linear attention, (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        # 4 dimensions, so that a bare state_dict tells the number of heads
        self.in_weight = nn.Parameter(torch.empty(3, num_heads, width // num_heads, width))
        self.in_bias = nn.Parameter(torch.zeros(3, num_heads, width // num_heads))
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_weight.data.view(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        _, heads, head_width, _ = self.in_weight.shape
        projected = functional.linear(x, self.in_weight.flatten(0, 2), self.in_bias.flatten())
        queries, keys, values = projected.view(*x.shape[:2], 3, heads, head_width).permute(2, 0, 3, 1, 4).contiguous()
        attended = linear_attention(queries, keys, values)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each normalised before and added after (Xiong et al. 2020)."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = LinearAttention(width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, FEED_FORWARD_FACTOR * width),
            nn.GELU(),
            nn.Linear(FEED_FORWARD_FACTOR * width, width),
        )
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        added: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return added


class LinearTransformerEncoder(nn.Module):
    """A window of daily features -> one vector: (B, T, F) -> (B, D), any T.

    `patch_days` consecutive days become one token, counted from the newest day backwards; where T is no multiple of
    them, the first day is repeated in front. The result joins the mean over the tokens and the newest token.

    Args:
        input_dim: F.
        hidden_dim: D, a multiple of num_heads.
        patch_days: P, days per token; 5 trains 4-7 times faster than 1.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        patch_days: int = 5,
    ) -> None:
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(f"hidden_dim must be a multiple of num_heads, got {hidden_dim} and {num_heads}")
        self.input_dim, self.hidden_dim, self.patch_days = input_dim, hidden_dim, patch_days
        # 3 dimensions, so that a bare state_dict tells the days per patch
        self.patch_weight = nn.Parameter(torch.empty(hidden_dim, patch_days, input_dim))
        self.patch_bias = nn.Parameter(torch.zeros(hidden_dim))
        nn.init.xavier_uniform_(self.patch_weight.data.view(hidden_dim, patch_days * input_dim))
        self.layers = nn.ModuleList(TransformerLayer(hidden_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_dim)
        self.pool = nn.Linear(2 * hidden_dim, hidden_dim)

    def forward(self, time_series: Tensor) -> Tensor:
        """(B, T, F) -> (B, D)."""
        if time_series.ndim != 3 or time_series.shape[2] != self.input_dim or not time_series.shape[1]:
            raise ValueError(
                f"time series: expected (B, T, {self.input_dim}) with T > 0, got "
                f"{tuple(time_series.shape)}; the model was made for {self.input_dim} features"
            )
        x = functional.linear(self._patches(time_series), self.patch_weight.flatten(1), self.patch_bias)
        x = x + positions_from_end(x.shape[1], self.hidden_dim).to(x.device)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        pooled: Tensor = self.pool(torch.cat([x.mean(dim=1), x[:, -1]], dim=1))
        return pooled

    def _patches(self, x: Tensor) -> Tensor:
        """(B, T, F) -> (B, N, P * F), the newest day last."""
        missing = -x.shape[1] % self.patch_days
        if missing:
            x = torch.cat([x[:, :1].expand(-1, missing, -1), x], dim=1)
        return x.reshape(x.shape[0], -1, self.patch_days * x.shape[2])
