"""Small synthetic tracking stores, made once for all tests of the analysis."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from analysis import tags
from trainers import metrics

START = 1_700_000_000_000  # ms


@pytest.fixture(scope="session", autouse=True)
def no_mlflow_environment() -> Iterator[None]:
    """Nothing of the surroundings, such as a run that these tests are part of, may leak in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@dataclass
class Store:
    """Writes runs as the pipeline does; each starts a second after the one before it."""

    client: object
    uri: str
    started: int = START
    experiments: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        experiment: str,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float | list[tuple[int, float]]] | None = None,
        status: str = "FINISHED",
    ) -> str:
        """Metrics are one value at step 0, or a list of (step, value). Returns the run id."""
        from mlflow.entities import Metric, Param

        if experiment not in self.experiments:
            self.experiments[experiment] = self.client.create_experiment(experiment)
        self.started += 1000
        run_id = self.client.create_run(
            self.experiments[experiment],
            run_name=name,
            start_time=self.started,
            tags=dict(tags or {}),
        ).info.run_id
        points = [
            Metric(key, value, self.started + order, step)
            for key, logged in (metrics or {}).items()
            for order, (step, value) in enumerate(
                logged if isinstance(logged, list) else [(0, logged)]
            )
        ]
        self.client.log_batch(
            run_id, metrics=points, params=[Param(*item) for item in (params or {}).items()]
        )
        if status != "RUNNING":
            self.client.set_terminated(run_id, status, self.started + 500)
        return run_id

    def distill(self, experiment: str, rung: str, seed: int, test: float | None, **more) -> str:
        """A distillation run; `tags`, `params`, `metrics` add to what it has."""
        run_tags = {
            tags.STAGE: "distill",
            tags.RUNG: rung,
            tags.BENCH: "toy",
            tags.SEED: str(seed),
            tags.RUN_KEY: f"{rung}-{seed}",
            tags.PARENT: "launch",
        } | more.pop("tags", {})
        params = {"seed": str(seed), "runtime.device": f"cuda:{seed}"} | more.pop("params", {})
        values = ({} if test is None else {metrics.TEST_TOP1: test}) | more.pop("metrics", {})
        name = f"distill-{rung}-{run_tags[tags.BENCH]}-s{seed}"
        return self.run(experiment, name, tags=run_tags, params=params, metrics=values, **more)


@pytest.fixture(scope="session")
def store(tmp_path_factory, no_mlflow_environment) -> Store:
    """An empty SQLite store, shared: every test module fills experiments of its own."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    return Store(MlflowClient(tracking_uri=uri), uri)
