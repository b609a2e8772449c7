"""Ranges of learned parts over many boxes at once: networks, policies, models, and Lyapunov functions."""

from __future__ import annotations

import torch
from torch import nn

from constrained_nn.certificates import LyapunovFunction, NeuralLyapunov, QuadraticLyapunov
from constrained_nn.control import AffineModel, AnchoredController, AnchoredModel
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence.true_system.ranges import Range, constant, join, spread_to


def range_of_network(network: nn.Module, x: Range) -> Range:
    """The range of affine layers and `tanh`, one after the other.

    Raises:
        SetTypeError: Another kind of layer.
    """
    for layer in network if isinstance(network, nn.Sequential) else [network]:
        if isinstance(layer, nn.Linear):
            x = x.affine(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
        elif isinstance(layer, nn.Tanh):
            x = x.map("tanh")
        else:
            raise SetTypeError(
                f"range_of_network: expected Sequential, Linear and Tanh, got {type(layer).__name__}. Build the "
                f"network of these."
            )
    return x


def range_of_policy(policy: nn.Module, x: Range) -> Range:
    """The range of an `AnchoredController` `(*batch, n) -> (*batch, m)`.

    Raises:
        SetTypeError: Another controller.
    """
    if not isinstance(policy, AnchoredController):
        raise SetTypeError(
            f"range_of_policy: expected an AnchoredController, got {type(policy).__name__}. Its formula is the one "
            f"that is enclosed."
        )
    s = range_of_network(policy.backbone, x)
    s = s + constant(-policy.backbone(policy.origin).detach(), x)
    unlimited = policy.below.isinf() & policy.above.isinf()
    if bool(unlimited.all()):
        return s + constant(policy.hold, x)
    if not torch.equal(policy.below, policy.above):
        raise SetTypeError(
            "range_of_policy: expected limits at equal distances from the hold, got others. Only these are smooth."
        )
    room = torch.diag(policy.above)
    return s.affine(room.inverse()).map("tanh").affine(room, policy.hold)


def range_of_model(model: nn.Module, x: Range, u: Range) -> Range:
    """The range of an `AffineModel` or an `AnchoredModel`.

    Raises:
        SetTypeError: Another model.
    """
    if isinstance(model, AnchoredModel):
        rest = model.backbone(model.anchor).detach()
        return range_of_network(model.backbone, join(x, u)) + constant(-rest, x)
    if not isinstance(model, AffineModel):
        raise SetTypeError(
            f"range_of_model: expected an AffineModel or an AnchoredModel, got {type(model).__name__}. Their formulas "
            f"are the ones that are enclosed."
        )
    n, m = model.state_dim, model.input_dim
    here = range_of_network(model.backbone, x)
    there = model.backbone(model.origin).detach()
    offset = there[:n] + there[n:].unflatten(-1, (n, m)) @ model.hold
    total = here.take(list(range(n))) + constant(-offset, x)
    for j in range(m):
        column = here.take([n + i * m + j for i in range(n)])
        total = total + column * spread_to(u.take([j]), n)
    return total


def range_of_certificate(certificate: LyapunovFunction, x: Range) -> tuple[Range, Range]:
    """Ranges of `V` and of `∇V`; the Jacobian of the second encloses the Hessian.

    Raises:
        SetTypeError: Neither a `NeuralLyapunov` nor a `QuadraticLyapunov`, or one with angles.
    """
    if certificate.embedding is not None or not isinstance(certificate, NeuralLyapunov | QuadraticLyapunov):
        raise SetTypeError(
            f"range_of_certificate: expected a NeuralLyapunov or QuadraticLyapunov without angles, got "
            f"{type(certificate).__name__}. Their gradients are the ones that are enclosed."
        )
    e = x + constant(-certificate.origin, x)
    if isinstance(certificate, QuadraticLyapunov):
        F = certificate.factor.detach()
        gradient = e.affine(2.0 * (F @ F.mT + certificate.floor * torch.eye(len(F), dtype=F.dtype)))
    else:
        gradient = _neural_gradient(certificate, e)
    with torch.no_grad():
        center = certificate.value(x.center).unsqueeze(-1)
    low, high = gradient.low.unsqueeze(1), gradient.high.unsqueeze(1)
    whole = torch.full_like(center, torch.inf)
    value = Range(center, -whole, whole, 0.5 * (low + high), 0.5 * (high - low), x.h).met()
    return value, gradient


def _neural_gradient(V: NeuralLyapunov, e: Range) -> Range:
    """`∇g(e) − ∇g(0) + 2 floor e`, backwards through the network."""
    layers = [m for m in V.direct if isinstance(m, nn.Linear)]
    weights = [torch.nn.functional.softplus(U.detach()) / U.shape[-1] for U in (*V.through, V.last)]
    a = [e.affine(layers[0].weight.detach(), layers[0].bias.detach())]
    for layer, U in zip(layers[1:], weights[:-1], strict=True):
        a.append(e.affine(layer.weight.detach(), layer.bias.detach()) + a[-1].map("softplus").affine(U))
    sensitivity = a[-1].map("sigmoid").affine(torch.diag(weights[-1]))
    total = sensitivity.affine(layers[-1].weight.detach().mT)
    for k in reversed(range(len(layers) - 1)):
        sensitivity = a[k].map("sigmoid") * sensitivity.affine(weights[k].mT)
        total = total + sensitivity.affine(layers[k].weight.detach().mT)
    total = total + e.scaled(2.0 * V.floor)
    # exactly, without the difference of large numbers: the gradient at the centers is known
    with torch.no_grad():
        center = V.gradient(e.center + V.origin)
    shift = center - total.center
    return Range(center, total.low + shift, total.high + shift, total.slope, total.spread, e.h).met()
