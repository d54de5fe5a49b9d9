"""Fair knowledge distillation for graph neural networks."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

TASKS = (
    TaskSpec(
        name="fair-distillation",
        title="Fair knowledge distillation for graph neural networks",
        load="benchsuite.tasks.fair_distillation.task:FairDistillation",
        requires=("torch", "torch_geometric"),
        install="pip install 'benchsuite[graph]'",
        scaffold="benchsuite.tasks.fair_distillation:scaffold.txt",
        shown=Presentation(
            headline=("statistical_parity_difference", "accuracy", "equal_opportunity_difference"),
            names={
                "statistical_parity_difference": "SPD",
                "equal_opportunity_difference": "EOD",
                "f1": "F1",
                "auroc": "AUROC",
            },
        ),
        published=Publication(seeds={"run": 18}),
    ),
)
