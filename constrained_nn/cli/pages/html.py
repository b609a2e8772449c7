"""The page that `constrained-nn report` writes: it calls confirmed what the checker confirmed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from constrained_nn.cli.pages.figures import Figure, figures_of
from constrained_nn.verify import Finding, Outcome

_WORDS = {
    Outcome.HOLDS: ("good", "confirmed by the checker"),
    Outcome.COUNTEREXAMPLE: ("bad", "refuted: a counterexample"),
    Outcome.INCONCLUSIVE: ("open", "not confirmed"),
}
_GRADES = {
    "proof": "proof: every inequality was checked again in exact or ball arithmetic, from the file alone",
    "sampled": "sampled: falsification failed so far, with a bound on the probability; this is not a proof",
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.banner { border-left: 6px solid; padding: .6rem 1rem; margin: 1rem 0; }
.good { border-color: #009E73; background: #eef8f4; } .bad { border-color: #D55E00; background: #fdf1ea; }
.open { border-color: #E69F00; background: #fdf7e8; }
.badge { border-radius: .3rem; padding: .05rem .5rem; font-size: .85rem; border: 1px solid; }
table { border-collapse: collapse; font-size: .92rem; }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
td.key { color: #555; white-space: nowrap; }
code, pre { font-size: .85rem; background: #f4f4f4; overflow-wrap: anywhere; }
pre { padding: .6rem; white-space: pre-wrap; }
figure { margin: 1rem 0; } figcaption { font-size: .88rem; color: #444; }
img { max-width: 100%; } .quiet { color: #555; font-size: .92rem; }
"""


def page(certificate: dict[str, Any], findings: Sequence[Finding], file: Path) -> str:
    """The HTML text for a certificate that was read and checked just now.

    Args:
        certificate: The certificate.
        findings: What the checker found of its claims, in their order.
        file: Where it lies, for the commands.
    """
    task = certificate["task"]
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>Certificate: {escape(task["name"])}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Certificate about {escape(task['name'])}</h1>",
        f'<p class="quiet">Task version {task["version"]}, controller: {escape(certificate["controller"]["method"])}. '
        f"This page was written by <code>constrained-nn report</code>, which ran the checker on the file; only what "
        f"the checker confirmed is called confirmed.</p>",
        _banner(findings),
    ]
    for number, (claim, finding) in enumerate(zip(certificate["claims"], findings, strict=True), 1):
        parts.append(_claim(number, claim, finding, certificate))
    parts += [_origin(certificate), _again(certificate, file), "</body></html>"]
    return "\n".join(parts) + "\n"


def _banner(findings: Sequence[Finding]) -> str:
    outcomes = [f.outcome for f in findings]
    if Outcome.COUNTEREXAMPLE in outcomes:
        style, words = "bad", "A claim of this file is false: the checker found a counterexample."
    elif Outcome.INCONCLUSIVE in outcomes:
        style, words = "open", "Not every claim of this file was confirmed."
    elif all(f.grade == "proof" for f in findings):
        style, words = "good", "Every claim of this file is proved."
    else:
        style = "good"
        words = "No claim of this file was refuted; those of grade sampled are not proofs."
    return f'<div class="banner {style}"><strong>{words}</strong></div>'


def _claim(number: int, claim: dict[str, Any], finding: Finding, certificate: dict[str, Any]) -> str:
    style, words = _WORDS[finding.outcome]
    if finding.outcome is Outcome.HOLDS and finding.grade != "proof":
        words = "its counts and bounds follow from its recorded numbers; the runs were not repeated"
    parts = [
        f"<h2>Claim {number}: {escape(claim['kind'])}</h2>",
        f'<p><span class="badge">{escape(finding.grade)}</span> '
        f'<span class="quiet">{escape(_GRADES.get(finding.grade, ""))}</span></p>',
        f'<div class="banner {style}"><strong>{words}.</strong> {escape(finding.text)}</div>',
    ]
    if finding.outcome is not Outcome.HOLDS:
        parts.append(
            '<p class="quiet">What the file says of this claim, its numbers and its pictures are left out: none of it '
            "was confirmed.</p>"
        )
        return "\n".join(parts)
    parts.append(f"<p>{escape(finding.statement)}</p>")
    parts.append(_list("What is assumed", claim["assumptions"]))
    parts.append(_margins(claim))
    parts += [_figure(f) for f in figures_of(claim, certificate)]
    return "\n".join(parts)


def _list(heading: str, items: Sequence[str]) -> str:
    return f"<p><strong>{heading}</strong></p><ul>{''.join(f'<li>{escape(i)}</li>' for i in items)}</ul>"


def _margins(claim: dict[str, Any]) -> str:
    """The worst margins that the claim states; the checker compared them with its own."""
    worst = claim.get("worst")
    items = worst.items() if isinstance(worst, dict) else [("worst", worst)] if worst is not None else []
    rows = "".join(
        f'<tr><td class="key">{escape(k)}</td><td>{escape(_number(v))}</td></tr>' for k, v in items
    )
    return f"<p><strong>Worst margins</strong></p><table>{rows}</table>" if rows else ""


def _number(value: Any) -> str:
    """A hexadecimal float, or several, also in decimals."""
    if not isinstance(value, str):
        return str(value)
    try:
        return " ".join(f"{float.fromhex(token):.6g}" for token in value.split()) + f"  ({value})"
    except ValueError:
        return value


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    caption = escape(figure.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _origin(certificate: dict[str, Any]) -> str:
    task, controller = certificate["task"], certificate["controller"]
    rows = {
        "file digest": certificate["digest"],
        "weights": f"{controller['weights']} (sha256 {controller['sha256']})",
        "precision": controller["dtype"],
        "step, horizon": f"{float.fromhex(task['dt']):g} s, {task['horizon']} steps",
        "state": ", ".join(task["state"]) or "none",
        "input": ", ".join(task["input"]) or "none",
        "command": certificate["command"],
        "seed": str(certificate["seed"]),
        "versions": ", ".join(f"{k} {v}" for k, v in certificate["versions"].items()),
    }
    body = "".join(
        f'<tr><td class="key">{escape(k)}</td><td><code>{escape(v)}</code></td></tr>' for k, v in rows.items()
    )
    return f"<h2>Where it comes from</h2><table>{body}</table>"


def _again(certificate: dict[str, Any], file: Path) -> str:
    sampled = any(claim["grade"] == "sampled" for claim in certificate["claims"])
    accept = " --accept sampled" if sampled else ""
    return (
        "<h2>Check it again</h2><p>The checker reads the file and nothing else; it needs NumPy and python-flint, no "
        "simulator and no network. Exit code 0: all claims hold; 3: a counterexample; 2: inconclusive or damaged.</p>"
        f"<pre>pip install constrained-nn\nconstrained-nn check {escape(file.name)}{accept}</pre>"
        f"<p>Or with the checker in one file, which <code>make checker</code> packs from the sources:</p>"
        f"<pre>pip install numpy python-flint\npython constrained-nn-check.pyz {escape(file.name)}{accept}</pre>"
        f'<p class="quiet">The digest covers the whole file: an edited one is refused. This page is not evidence by '
        f"itself; the file is.</p>"
    )
