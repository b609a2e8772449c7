"""The installed wheel: outside of the checkout, complete, and able to enforce a constraint."""

import sys
from importlib.metadata import files
from importlib.resources import files as resources
from pathlib import Path

import constrained_nn
import control_envs

checkout = Path(sys.argv[1]).resolve()
for package in (constrained_nn, control_envs):
    assert checkout not in Path(package.__file__).resolve().parents, f"{package.__name__} is the checkout's"
    assert resources(package.__name__).joinpath("py.typed").is_file(), f"{package.__name__} has no py.typed"
listed = {str(path) for path in files("constrained-nn")}
for package in ("constrained_nn", "control_envs"):
    for path in (checkout / package).rglob("*.py"):
        assert str(path.relative_to(checkout)) in listed, f"{path} is missing from the wheel"
stray = [path for path in listed if path.startswith(("tests/", "docs/", "examples/", "build/"))]
assert not stray, f"the wheel holds {stray[:3]}"

import torch  # noqa: E402

box = constrained_nn.Fixed(constrained_nn.Box(-torch.ones(2), torch.ones(2)))
network = constrained_nn.Constrained(torch.nn.Linear(3, 2), box, constrained_nn.HardNetAffine())
assert network(100 * torch.randn(8, 3)).abs().max() <= 1
print(f"wheel of constrained-nn {constrained_nn.__version__}: {len(listed)} files")
