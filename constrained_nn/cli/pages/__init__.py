"""The page that `constrained-nn report` writes."""

from constrained_nn.cli.pages.html import page

__all__ = ["page"]
