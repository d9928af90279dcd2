"""MLflow's monitor of the machine (`system/…` metrics) on the run of a stage while it trains."""

from __future__ import annotations

from typing import Any

from pipeline.tracking.target import TrackingTarget


def monitor(target: TrackingTarget, run_id: str, device: str) -> Any | None:
    """A started monitor, which `finish()` ends; None unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    asks for it. Of several GPUs only that of the run (`cuda:1`) is measured."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    found = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=target.uri)
    found.monitors = [one for one in found.monitors if _is_of(one, device)]
    found.start()
    return found


def _is_of(one: Any, device: str) -> bool:
    """Whether a monitor measures what a run uses; one of GPUs is reduced to the run's own."""
    handles = getattr(one, "gpu_handles", None)
    if handles is None:
        return True
    if not device.startswith("cuda"):
        return False
    import pynvml
    import torch

    own = str(torch.cuda.get_device_properties(device).uuid)  # its number may be another here
    one.gpu_handles = [h for h in handles if own in str(pynvml.nvmlDeviceGetUUID(h))]
    return bool(one.gpu_handles)
