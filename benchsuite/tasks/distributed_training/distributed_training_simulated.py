"""Data-parallel training on up to a thousand workers, in one process.

What the workers learn is emulated exactly: row i of one tensor (workers, parameters) is worker i's model,
trained on its own batches and combined with the others' just as the algorithm says. What it costs comes
from a model of the network (see ``cost_model``) for a published workload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchsuite.core import Constraint, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.tabular_digits.reader import TabularDataset
from benchsuite.metrics import classification
from benchsuite.tasks.distributed_training.cost_model import WORKLOADS, Network, Stragglers, run_clocks
from benchsuite.tasks.distributed_training.simulated_contract import EmulatedAlgorithm, SimulatedTrainingProtocol


class DistributedTrainingSimulated(Task[EmulatedAlgorithm, TabularDataset, SimulatedTrainingProtocol]):
    """See the module's description."""

    name = "distributed-training-simulated"
    version = "1"
    Protocol = SimulatedTrainingProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(),
        "paper": Preset({"workers": 16, "workload": "bert-large", "bandwidth_gbps": 100.0}),
    }
    seed_axes = ("run",)
    metrics = (
        Metric("accuracy", "max", doc="share of test samples that the mean of all models classifies correctly"),
        Metric("consensus_distance", "min", unit="", doc="as in distributed-training"),
        Metric("bytes_per_step", "min", unit="B", doc="payload sent by a worker in a step of the workload"),
        Metric("epoch_time", "min", unit="s", doc="simulated seconds of an epoch of the workload"),
        Metric("time_to_loss", "min", unit="s", doc="simulated seconds until the mean training loss is at the target"),
    )
    ranking = Ranking("epoch_time", Constraint("accuracy", "ddp", 0.015))
    reference = "ddp"
    data_type = "benchsuite.datasets.tabular_digits.reader:TabularDataset"
    method_type = EmulatedAlgorithm
    default_data = "digits-table"

    def evaluate(
        self,
        method: EmulatedAlgorithm,
        data: Mapping[str, TabularDataset],
        protocol: SimulatedTrainingProtocol,
        ctx: RunContext,
    ) -> Outcome:
        """Emulate the training, then put the workload's price on it."""
        from benchsuite.tasks.distributed_training import emulation, pictures
        from benchsuite.tasks.distributed_training.judge import consensus_distance, time_to_loss, write_predictions

        dataset = data["test"]
        with ctx.phase("fit"):
            trained = emulation.train(method, dataset, protocol, ctx)
        samples = dataset.test if ctx.split == "test" else dataset.validation
        probabilities = emulation.mean_model_probabilities(trained, dataset.features[samples])
        write_predictions(ctx.artifact("predictions.csv"), samples, probabilities)
        workload = WORKLOADS[protocol.workload]
        network = Network(protocol.bandwidth_gbps, protocol.latency_ms)
        steps = len(trained.losses)
        exchanges = [method.exchange(workload.elements, protocol.workers, step) for step in range(steps)]
        seconds = run_clocks(
            protocol.workers,
            trained.partners,
            workload.compute_s,
            [network.seconds(exchange) for exchange in exchanges],
            Stragglers(protocol.straggler_probability, protocol.straggler_slowdown),
            np.random.default_rng(ctx.seed_for("run", "stragglers")),
        )
        pictures.draw_epoch_times(
            ctx.artifact("epoch_time.svg"), workload, {"this method": exchanges}, protocol.latency_ms
        )
        scores: dict[str, float | None] = {
            "accuracy": classification.accuracy(probabilities.argmax(axis=1), dataset.labels[samples]),
            "consensus_distance": consensus_distance(trained.weights),
            "bytes_per_step": float(np.mean([exchange.sent_bytes for exchange in exchanges])),
            "epoch_time": float(seconds[-1] / steps * workload.steps_per_epoch),
            "time_to_loss": time_to_loss(trained.losses, list(seconds), protocol.target_loss),
        }
        undefined = {"time_to_loss": f"the training loss never came down to {protocol.target_loss:g}"}
        return Outcome(
            scores=scores,
            undefined={name: reason for name, reason in undefined.items() if scores[name] is None},
            counts={"workers": protocol.workers, "steps": steps},
            parameters=trained.weights.shape[1],
        )

    def with_other_answers(self, data: Mapping[str, TabularDataset]) -> Mapping[str, TabularDataset]:
        """Return the data with the class of every test sample changed."""
        from benchsuite.tasks.distributed_training.judge import with_other_answers

        return dict.fromkeys(data, with_other_answers(data["test"]))
