"""The rivals' implementations, and the workloads on which they are timed."""

from constrained_nn.bench.rivals.peers import BUILDERS, MODULES
from constrained_nn.bench.rivals.planning_layers import MARK
from constrained_nn.bench.rivals.workloads import NAMES, reference, workload

__all__ = ["BUILDERS", "MARK", "MODULES", "NAMES", "reference", "workload"]
