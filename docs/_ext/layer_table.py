"""Directive `layer-table`: every layer with the sets that it accepts and what it guarantees.

Written from the class attributes `accepts` and `guarantee`, so that the table cannot disagree with the code.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class LayerTable(SphinxDirective):
    """A table with one row for each layer."""

    def run(self) -> list[nodes.Node]:
        rows = [("layer", "sets that it accepts", "guarantee")]
        rows += [
            (layer.__name__, ", ".join(kind.__name__ for kind in layer.accepts), layer.guarantee)
            for layer in _layers()
        ]
        group = nodes.tgroup("", *(nodes.colspec(colwidth=w) for w in (2, 4, 4)), cols=3)
        head, body = nodes.thead(), nodes.tbody()
        for k, row in enumerate(rows):
            (body if k else head).append(
                nodes.row("", *(_cell(text, code=k > 0 and j < 2) for j, text in enumerate(row)))
            )
        group += [head, body]
        return [nodes.table("", group, classes=["layers"])]


def _layers() -> list[type]:
    from constrained_nn import layers

    public = [getattr(layers, name) for name in layers.__all__]
    return [kind for kind in public if isinstance(kind, type) and hasattr(kind, "accepts")]


def _cell(text: str, *, code: bool) -> nodes.entry:
    words = [nodes.literal(text=word) for word in text.split(", ")] if code else [nodes.Text(text)]
    line = nodes.paragraph()
    for k, word in enumerate(words):
        line += [nodes.Text(", "), word] if k else [word]
    return nodes.entry("", line)


def setup(app) -> dict[str, bool]:
    app.add_directive("layer-table", LayerTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
