"""What the documentation has of the study: its claims, prices and machines, and their origin."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sys
from typing import Any

from keras_qnewton.scheduling import calibration

_PACKAGES = ("keras-qnewton", "tensorflow", "keras", "numpy")


def of(results: dict[str, Any]) -> dict[str, Any]:
    """Rows with a "part" each, in the form of the benchmarks' files."""
    rows: list[dict[str, Any]] = [{"part": "claim", **claim} for claim in results["claims"]]
    for family, own in results["families"].items():
        for block in own["blocks"]:
            kept = ("block", "size", "sparsity", "kappa", "break_even")
            rows.append({"part": "block", "family": family} | {k: block[k] for k in kept})
        prices = own["prices"]
        for name, model in prices["models"].items():
            rows.append(
                {
                    "part": "price",
                    "family": family,
                    "model": name,
                    "gate_times": prices["gate_times"],
                    "saved_against_lu": model["saved_against_lu"],
                    "saved_against_best_classical": model["saved_against_best_classical"],
                }
            )
        rows += [{"part": "rows", "family": family} | row for row in own["rows"]]
        rows.append({"part": "runs", "family": family, **own["runs"]})
    rows += [{"part": "machine", **row} for row in results["machines"]]
    rows += [{"part": "circuit", **row} for row in results["circuits"]]
    return {"about": _about(results["seconds"]), "runs": rows}


def _about(seconds: float) -> dict[str, str]:
    model = calibration.processor().rpartition(": ")[2] or platform.machine()
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    return {
        "command": " ".join(["python -m examples.paper", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{model}, {platform.system()}, {seconds:.0f} s",
        "versions": f"Python {platform.python_version()}, {', '.join(versions)}",
    }
