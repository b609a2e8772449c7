"""Tables of energy-constrained operators."""
