"""What a module declares so that `check` knows a kind of claim."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Account(Protocol):
    """What the data of one claim give, computed from the file alone."""

    @property
    def verdict(self) -> str:
        """`holds` or `consistent` (the claim stands), `counterexample`, or `inconclusive`."""
        ...

    @property
    def counterexample(self) -> str | None:
        """Where the claim fails, in words: the place, the state, the numbers. None unless it fails."""
        ...

    @property
    def line(self) -> str:
        """One line on what was found (`holds: ...`); for `inconclusive`, on what is missing."""
        ...


class Covered:
    """The verdict of an account whose claim is refuted at a point, proved by a cover, or lacks something."""

    counterexample: str | None
    missing: str | None

    @property
    def verdict(self) -> str:
        if self.counterexample is not None:
            return "counterexample"
        return "holds" if self.missing is None else "inconclusive"


@runtime_checkable
class ClaimModule(Protocol):
    """A kind of claim: a module of `verify.claims` with these names, listed in its `KINDS`. Nothing else is touched.

    `check` does for each claim, in this order:

    1. the claim has exactly the keys `KEYS`, which contain `COMMON`;
    2. `evaluate` derives an account from `claim` and the certificate's head, and trusts no number that it can derive;
    3. a counterexample or an inconclusive account is reported at once, whatever the claim says of itself;
    4. `check_stated` compares every number that the claim states (worst margins, counts) with the account;
    5. `statement`, `ASSUMPTIONS` and the verdict must be word for word those in the file.

    Numbers in the file are strings that `encode` wrote (hexadecimal floats); `decode`, `integer`,
    `mapping`, `sequence` and `text` of `verify.file` read them and raise `FileFormatError` with the
    place. Any other exception is a bug of the module. All imports: NumPy, python-flint,
    `constrained_nn.errors`, and other modules of `verify`.
    """

    @property
    def KIND(self) -> str:
        """As in `claim["kind"]`."""
        ...

    @property
    def GRADE(self) -> str:
        """`proof` or `sampled`."""
        ...

    @property
    def KEYS(self) -> tuple[str, ...]:
        """Keys of the claim, exactly."""
        ...

    @property
    def ASSUMPTIONS(self) -> tuple[str, ...]:
        """What is assumed, word for word as in the file."""
        ...

    def evaluate(self, claim: dict[str, Any], certificate: dict[str, Any]) -> Any:
        """The `Account` of the claim's data."""
        ...

    def check_stated(self, claim: dict[str, Any], found: Any) -> None:
        """Raises `FileFormatError` unless every number that the claim states is that of its account."""
        ...

    def statement(self, claim: dict[str, Any], certificate: dict[str, Any]) -> str:
        """The claim in words, made from its numbers."""
        ...


COMMON = ("kind", "grade", "statement", "assumptions", "verdict")
