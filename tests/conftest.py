"""Every test starts without MLflow's variables, with one thread a worker that does not spin."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[_name]
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
