"""J, the objective of the alternation, as it is logged at every step boundary.

On unmixed validation images, with final weights: no ramps, no sampling, no smoothing.
"""

from __future__ import annotations

import torch

from trainers import losses, metrics
from trainers.distillation.state import StepInputs
from trainers.methods.alternating import AlternatingMethod, preservation
from trainers.view_bank import ViewOutputs


@torch.no_grad()
def objective(
    inputs: StepInputs, method: AlternatingMethod, student: ViewOutputs, teachers: list[ViewOutputs]
) -> dict[str, float]:
    """J = E[ce_alpha·CE(s, y) + w_ce·CE(g(μ), y) + β·R + γ·τ²·½(KL(s‖v) + KL(v‖s))
    + λ_pres·L_pres], γ = w_kd + α_cccp, and its parts unweighted.

    Alternation lowers it in exact block-coordinate descent; with gradient steps on training
    images that is observed, not guaranteed. Of several fusions it is the mean of each one's.
    """
    method.eval()
    found = [_of_one(inputs, one, student, teachers) for one in method.members]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def _of_one(
    inputs: StepInputs, method: AlternatingMethod, student: ViewOutputs, teachers: list[ViewOutputs]
) -> dict[str, float]:
    c, labels = method.config, inputs.data.val.labels
    latent = method.fuse(student.pooled.float(), [t.pooled.float() for t in teachers])
    s = student.logits.float()
    v = method.synergy_logits(latent.mu, [t.logits.float() for t in teachers])
    start = [t.bank.val.logits.float() for t in inputs.teachers]
    parts = {
        "ce_student": losses.cross_entropy(s, labels).mean(),
        "ce_synergy": losses.cross_entropy(v, labels).mean(),
        "kl_student_synergy": losses.kd(v, s, c.tau).mean(),
        "kl_synergy_student": losses.kd(s, v, c.tau).mean(),
        "preserve": preservation([t.logits.float() for t in teachers], start, c.tau),
    }
    gamma = c.w_kd + c.cccp_alpha if c.num_stages > 1 else 0.0
    weights = {
        "ce_student": c.ce_alpha,
        "ce_synergy": c.w_ce,
        "kl_student_synergy": gamma / 2,
        "kl_synergy_student": gamma / 2,
        "preserve": c.lambda_pres,
    }
    if latent.logvar is not None:
        parts["rate"] = losses.gaussian_rate(latent.mu, latent.logvar).mean()
        weights["rate"] = c.ib_beta
    values = {name: float(value) for name, value in parts.items()}
    total = sum(weights[name] * value for name, value in values.items())
    return {metrics.OBJECTIVE: total} | {
        metrics.OBJECTIVE_PARTS + name: value for name, value in values.items()
    }
