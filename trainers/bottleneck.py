"""The fusion module: adapters, the information bottleneck IB_MBM, and the synergy head.

Shapes: B examples, K teachers, T token width, D latent width, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.losses import wide

MIN_TEMPERATURE = 1e-4


class Bottleneck(NamedTuple):
    """z: the latent that was drawn, mu: its mean, logvar: its log-variance; all [B, D], float32.

    `logvar` is None where the module was built without a bottleneck (z is mu then).
    """

    z: Tensor
    mu: Tensor
    logvar: Tensor | None


class Adapter(nn.Sequential):
    """Linear(in → hidden) → ReLU → Linear(hidden → out), hidden = max(in // 2, out)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        hidden = max(in_dim // 2, out_dim)
        super().__init__(nn.Linear(in_dim, hidden), nn.ReLU(), nn.Linear(hidden, out_dim))


class IBMBM(nn.Module):
    """Information-Bottleneck Manifold Bridging Module.

    The student's query token attends to the K teacher tokens; the result gives the mean and the
    log-variance of a Gaussian latent. `stochastic=False` builds it without the log-variance
    head: a plain attention fusion.

    Raises:
        ValueError: `latent_dim` is no multiple of `heads`.
    """

    def __init__(
        self,
        query_dim: int,
        token_dim: int,
        latent_dim: int,
        heads: int = 4,
        logvar_clip: float = 4.0,
        min_std: float = 0.01,
        *,
        stochastic: bool = True,
    ) -> None:
        super().__init__()
        if latent_dim % heads:
            raise ValueError(f"latent_dim {latent_dim} is not a multiple of heads {heads}")
        self.logvar_clip, self.min_std = logvar_clip, min_std
        self.query_in = nn.Linear(query_dim, latent_dim)
        self.query_norm = nn.LayerNorm(latent_dim)
        self.token_in = nn.Linear(token_dim, latent_dim)
        self.token_norm = nn.LayerNorm(latent_dim)
        self.attention = nn.MultiheadAttention(latent_dim, heads, batch_first=True)
        self.out_norm = nn.LayerNorm(latent_dim)
        self.to_mu = nn.Linear(latent_dim, latent_dim)
        self.to_logvar = nn.Linear(latent_dim, latent_dim) if stochastic else None

    def forward(
        self, query_BQ: Tensor, tokens_BKT: Tensor, *, sample: bool | None = None
    ) -> Bottleneck:
        """Fuse one query with K ≥ 1 tokens.

        `sample=None` draws z in training mode and returns z = mu in evaluation; a bool decides.
        """
        q = self.query_norm(self.query_in(query_BQ))[:, None]
        kv = self.token_norm(self.token_in(tokens_BKT))
        u, _ = self.attention(q, kv, kv, need_weights=False)
        y = self.out_norm(u + q)[:, 0]
        mu = wide(self.to_mu(y))
        if self.to_logvar is None:
            return Bottleneck(mu, mu, None)
        logvar = self.floored(wide(self.to_logvar(y)))
        if not (self.training if sample is None else sample):
            return Bottleneck(mu, mu, logvar)
        return Bottleneck(mu + (logvar / 2).exp() * torch.randn_like(mu), mu, logvar)

    def floored(self, logvar_BD: Tensor) -> Tensor:
        """Clip to ±logvar_clip and floor σ at min_std, so that rate and sample share one σ."""
        return logvar_BD.clamp(self._low, self.logvar_clip)

    @property
    def sigma_floor(self) -> float:
        """The least σ that min_std and logvar_clip allow."""
        return math.exp(self._low / 2)

    @property
    def _low(self) -> float:
        return max(-self.logvar_clip, 2 * math.log(self.min_std))


class SynergyHead(nn.Module):
    """g(x) = Linear(D → C)(Dropout(GELU(LN(x)))): the latent's logits, [B, C], float32.

    With `log_temperature` they are divided by max(e^θ, 1e-4), θ a parameter that starts there.
    """

    def __init__(
        self,
        latent_dim: int,
        num_classes: int,
        dropout: float = 0.05,
        *,
        log_temperature: float | None = None,
    ) -> None:
        super().__init__()
        start = None if log_temperature is None else torch.tensor(log_temperature)
        self.log_temperature = None if start is None else nn.Parameter(start)
        self.layers = nn.Sequential(
            nn.LayerNorm(latent_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(latent_dim, num_classes),
        )

    def start_at_zero(self) -> None:
        """Make the logits 0 for every latent, until the last layer learns."""
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent_BD: Tensor) -> Tensor:
        logits = wide(self.layers(latent_BD))
        if self.log_temperature is None:
            return logits
        return logits / self.log_temperature.exp().clamp_min(MIN_TEMPERATURE)
