"""What can be proved, one module a kind, as in `verify.claims`; and the files that claims are made from."""

from constrained_nn.evidence.claims.barrier import certify_barrier, save_barrier
from constrained_nn.evidence.claims.energy import certify_evolution, save_evolution
from constrained_nn.evidence.claims.lmi import certify_decisions, load_decisions, save_decisions
from constrained_nn.evidence.claims.loops import certify_loop, load_loop, replay_loop, save_loop
from constrained_nn.evidence.claims.lyapunov import ClosedLoop, quadratic_value, suggest_level
from constrained_nn.evidence.claims.model_decrease import certify_model, save_model
from constrained_nn.evidence.claims.outputs import certify_outputs, save_network
from constrained_nn.evidence.claims.records import RECORDS, REPEATS, SEARCHES, Effort, record_in

__all__ = [
    "RECORDS",
    "REPEATS",
    "SEARCHES",
    "ClosedLoop",
    "Effort",
    "certify_barrier",
    "certify_decisions",
    "certify_evolution",
    "certify_loop",
    "certify_model",
    "certify_outputs",
    "load_decisions",
    "load_loop",
    "quadratic_value",
    "record_in",
    "replay_loop",
    "save_barrier",
    "save_decisions",
    "save_evolution",
    "save_loop",
    "save_model",
    "save_network",
    "suggest_level",
]
