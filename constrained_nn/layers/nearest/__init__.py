"""Layers that return the nearest point of a convex or smooth set."""

from constrained_nn.layers.nearest.convex_program import ConvexProgram, ProgramSet
from constrained_nn.layers.nearest.curved import NearestPoint
from constrained_nn.layers.nearest.euclidean import EuclideanProjection
from constrained_nn.layers.nearest.hardnet_convex import HardNetConvex
from constrained_nn.layers.nearest.parts import Parts

__all__ = ["ConvexProgram", "EuclideanProjection", "HardNetConvex", "NearestPoint", "Parts", "ProgramSet"]
