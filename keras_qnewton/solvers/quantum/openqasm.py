"""Cirq's circuits as OpenQASM 3."""

from __future__ import annotations

import warnings
from typing import Any

_STANDARD_GATES = 'include "stdgates.inc";'
# Cirq writes a gate that OpenQASM's standard gates are without.
_SXDG = "gate sxdg a { h a; sdg a; h a; }"


def as_text(circuit: Any) -> str:
    """A `cirq.Circuit` in OpenQASM 3, angles to 15 digits: up to a phase of all amplitudes."""
    with warnings.catch_warnings():
        # Cirq warns of a default of its own, and of the phase, gate by gate.
        warnings.simplefilter("ignore")
        text: str = circuit.to_qasm(version="3.0", precision=15)
    return text.replace(_STANDARD_GATES, f"{_STANDARD_GATES}\n{_SXDG}", 1)
