"""Every test starts without MLflow's variables and with OpenMP threads that do not spin."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for _name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    if _name != "MLFLOW_DISABLE_TELEMETRY":
        del os.environ[_name]
