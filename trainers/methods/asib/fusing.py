"""The fusion of ASIB and its A-Step: adapters, fusion module and head (φ), and what they minimise.

Shapes: B examples, C classes, D latent width, K teachers.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from trainers import losses, metrics, targets
from trainers.bottleneck import IBMBM, Adapter, Bottleneck, SynergyHead
from trainers.loop import Terms
from trainers.methods.alternating import AlternatingMethod, preservation
from trainers.methods.asib.config import AsibConfig, fused
from trainers.methods.base import Dims, StepPosition
from trainers.models import Outputs
from trainers.options import span
from trainers.schedules import ramp, rise_from_zero


class Fusing(AlternatingMethod):
    """φ: the fusion module with its adapters and head, or one such for every fold."""

    config: AsibConfig
    config_type = AsibConfig

    def __init__(self, config: AsibConfig, dims: Dims) -> None:
        super().__init__(config, dims)
        if not self.fuses:
            return
        if config.folds > 1:
            one = replace(config, folds=1)
            self.folds = nn.ModuleList(type(self)(one, dims) for _ in range(config.folds))
            return
        token, latent = config.widths(dims.student)
        adapter = Adapter(dims.student, token)  # built always: the others start alike without it
        if self.reads_query:
            self.query_adapter = adapter
        if config.query == "none" or config.query_dropout > 0:
            self.query_token = nn.Parameter(torch.zeros(token))
        self.teacher_adapters = nn.ModuleList(Adapter(dim, token) for dim in dims.teachers)
        self.fusion = IBMBM(
            token,
            token,
            latent,
            config.heads,
            config.logvar_clip,
            config.min_std,
            stochastic=config.bottleneck,
        )
        start = config.synergy_temp_init if config.synergy_temp_learnable else None
        self.head = SynergyHead(latent, dims.classes, config.dropout, log_temperature=start)
        if config.residual:
            self.head.start_at_zero()

    @property
    def fuses(self) -> bool:
        return fused(self.config)

    @property
    def members(self) -> list[AlternatingMethod]:
        return [self] if self.config.folds == 1 else [*self.folds]

    @property
    def reads_query(self) -> bool:
        return self.config.query != "none"

    def fuse(
        self,
        query_BD: Tensor | None,
        pooled: list[Tensor],
        *,
        sample: bool = False,
        which: list[int] | None = None,
    ) -> Bottleneck:
        tokens = [a(p) for a, p in zip(self.teacher_adapters, pooled, strict=True)]
        tokens = tokens if which is None else [tokens[k] for k in sorted(which)]
        query_BT = self._query(query_BD, len(tokens[0]))
        return self.fusion(query_BT, torch.stack(tokens, 1), sample=sample)

    def _query(self, query_BD: Tensor | None, count: int) -> Tensor:
        """The adapted features of the student, or the learned constant in their place: of all
        images without a query, and while it learns of some where the query is dropped. [B, T]."""
        if query_BD is None or not self.reads_query:
            return self.query_token.expand(count, -1)
        query_BT, rate = self.query_adapter(query_BD), self.config.query_dropout
        if rate == 0 or not self.training:
            return query_BT
        dropped_B = torch.rand(count, device=query_BT.device) < rate
        return torch.where(dropped_B[:, None], self.query_token.to(query_BT.dtype), query_BT)

    def synergy_logits(
        self, latent_BD: Tensor, teachers: list[Tensor], *, which: list[int] | None = None
    ) -> Tensor:
        found = self.head(latent_BD)
        if not self.config.residual:
            return found
        shares = self.config.teacher_weights
        if which is not None:
            teachers = [teachers[k] for k in sorted(which)]
            shares = shares and [shares[k] for k in sorted(which)]
        return found + targets.average_logits(losses.wide(torch.stack(teachers)), shares)

    def trainable(self, step: str) -> list[tuple[str, nn.Parameter]]:
        if step != "A" or not self.fuses:
            return []
        fixed = ".teacher_adapters." if self.config.adapt == "none" else "\0"
        return [(n, p) for n, p in self.named_parameters() if fixed not in f".{n}"]

    def synergy_only(self, position: StepPosition) -> bool:
        """Whether this A-Step epoch trains on the labels alone."""
        alone = round(span(self.config.synergy_only_epochs, position.step_total))
        return position.in_step < alone

    def beta(self, position: StepPosition) -> float:
        """β of an A-Step epoch; its warm-up counts A-Step epochs over all stages."""
        if not self.config.bottleneck or self.synergy_only(position):
            return 0.0
        length = span(self.config.ib_beta_warmup_epochs, position.total)
        return self.config.ib_beta * rise_from_zero(position.epoch, length)

    def surrogate_weights(self, position: StepPosition) -> tuple[float, float]:
        """(w_kd, α_cccp·ramp): both 0 in the first stage, whose student teaches nothing."""
        if position.stage == 0:
            return 0.0, 0.0
        alone = round(span(self.config.synergy_only_epochs, position.step_total))
        rise = ramp(position.in_step - alone, self.config.cccp_ramp_epochs)
        return self.config.w_kd, self.config.cccp_alpha * rise

    def teacher_terms(
        self,
        student: Outputs,
        teachers: list[Outputs],
        start_logits: list[Tensor] | None,
        labels_B: Tensor,
        position: StepPosition,
    ) -> Terms:
        """CE of g(z), the pull towards the student, the rate, the preservation of teachers."""
        c, sampled = self.config, self.training and self.config.a_step_sample
        latent = self.fuse(student.pooled, [t.pooled for t in teachers], sample=sampled)
        logits = self.synergy_logits(latent.z, [t.logits for t in teachers])
        ce_B = losses.cross_entropy(logits, labels_B, c.a_label_smoothing)
        rate = _rate(latent)
        seen = _latent_facts(latent, rate) | {metrics.DISTORTION: ce_B.mean()}
        seen[metrics.TRAIN_TOP1] = (logits.argmax(1) == labels_B).float().mean()
        seen[metrics.DISAGREEMENT] = targets.disagreement(torch.stack([t.logits for t in teachers]))
        kept = {}  # teachers that learn stay near their start in every epoch
        if start_logits is not None:
            now = [t.logits for t in teachers]
            kept["preserve"] = c.lambda_pres * preservation(now, start_logits, c.tau)
        if self.synergy_only(position):
            return Terms({"ce": ce_B.mean()} | kept, seen)
        weight_B = self._certainty_weight(latent)
        terms = {"ce": c.w_ce * (weight_B * ce_B).mean()}
        kd_weight, cccp_weight = self.surrogate_weights(position)
        if kd_weight + cccp_weight > 0:
            pull = (weight_B * losses.kd(logits, student.logits.detach(), c.tau)).mean()
            terms |= {"kd": kd_weight * pull, "cccp": cccp_weight * pull}
        if rate is not None:
            terms["rate"] = self.beta(position) * rate
        if c.w_feat > 0:
            query = self.query_adapter(student.pooled).detach()
            terms["feat"] = c.w_feat * (weight_B * losses.hint(query, latent.mu)).mean()
        if self.head.log_temperature is not None:
            terms["temperature"] = c.synergy_temp_reg * self.head.log_temperature.square()
            seen[metrics.SYNERGY_TEMPERATURE] = self.head.log_temperature.exp()
        return Terms(terms | kept, seen)

    def _certainty_weight(self, latent: Bottleneck) -> Tensor:
        if latent.logvar is None:
            return torch.ones_like(latent.mu[:, 0])
        precision = targets.certainty(latent.logvar)
        return targets.certainty_weight(precision, self.config.min_cw, self.config.max_cw)

    def clamp_loss(self, loss: Tensor, position: StepPosition) -> Tensor:
        """The A-Step's loss, bounded: scaled to the bound (soft) or clipped at it (hard)."""
        c = self.config
        if position.epoch < span(c.loss_clamp_warmup_epochs, position.total):
            return loss
        if c.loss_clamp == "none":
            return loss
        if c.loss_clamp == "hard":
            return loss.clamp(max=c.loss_clamp_max)
        return loss * (c.loss_clamp_max / loss.detach().clamp(min=c.loss_clamp_max))


def _rate(latent: Bottleneck) -> Tensor | None:
    """Mean rate of the batch, in nats; None without a bottleneck. Scalar."""
    if latent.logvar is None:
        return None
    return losses.gaussian_rate(latent.mu, latent.logvar).mean()


def _latent_facts(latent: Bottleneck, rate: Tensor | None) -> dict[str, Tensor]:
    if latent.logvar is None or rate is None:
        return {}
    sigma = (latent.logvar.detach() / 2).exp()
    least, largest = sigma.aminmax()
    return {
        metrics.RATE: rate,
        metrics.SIGMA_MEAN: sigma.mean(),
        metrics.SIGMA_MIN: least,
        metrics.SIGMA_MAX: largest,
    }
