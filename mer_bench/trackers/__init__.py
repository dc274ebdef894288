"""Runs followed in TensorBoard, MLflow or Weights & Biases, none of which can harm a run.

`tracker` is the interface of one; `catalogue` says which there are; `child` runs one in a process of its own;
`following` is the listener that hands a run's progress to those processes and drops one that fails.
"""

from mer_bench.trackers.catalogue import TRACKERS, check_trackers
from mer_bench.trackers.following import Following, Several

__all__ = ["TRACKERS", "Following", "Several", "check_trackers"]
