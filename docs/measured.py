"""Tables of the pages that are made of committed results: `python docs/measured.py` writes them,
and draws the figures of `plotted.py`.

A table stands between two comments, the first with its name in `TABLES`:

    <!-- measured: whole_wait -->
    ...
    <!-- end of measured -->
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable

import plotted
from result_tables import quantum, scheduling, steps, training
from result_tables.cells import Runs, Table

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS / "measured"
_TABLE = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end of measured -->)", re.S)


# By what a page calls it: the file of its results, and how it is made of them.
TABLES: dict[str, tuple[str, Callable[[Runs], Table]]] = {
    "paper": ("paper", quantum.paper),
    "paper_rows": ("paper", quantum.paper_rows),
    "peers_quantum": ("peers_quantum", quantum.peers_quantum),
    "whole_wait": ("whole_wait", training.whole_wait),
    "models": ("models", training.models),
    "first_step": ("first_step", training.first_step),
    "quasi_newton_cost": ("quasi_newton_cost", training.quasi_newton_cost),
    "random_problems": ("random_problems", training.random_problems),
    "many_models": ("many_models", training.many_models),
    "classics": ("classics", training.classics),
    "classics_scaling": ("classics", training.classics_scaling),
    "encodings": ("encodings", quantum.encodings),
    "kinks": ("kinks", training.kinks),
    "prices_solvers": ("prices", quantum.prices_solvers),
    "inexact": ("inexact", quantum.inexact),
    "inexact_digits": ("inexact_digits", quantum.inexact),
    "jacobian": ("jacobian", quantum.jacobian),
    "kills": ("kills", training.kills),
    "deepxde": ("deepxde", training.deepxde),
    "quasi_newton": ("quasi_newton", training.quasi_newton),
    "rathore": ("rathore", training.rathore),
    "fronts": ("fronts", training.fronts),
    "quasi_newton_race": ("quasi_newton_race", training.quasi_newton_race),
    "pinn": ("pinn", training.pinn),
    "small_batches": ("small_batches", training.small_batches),
    "small_batches_memory": ("small_batches", training.small_batches_memory),
    "hessian": ("hessian", steps.compared),
    "step": ("step", steps.compared),
    "fisher": ("fisher", steps.compared),
    "solve": ("solve", steps.solve),
    "race": ("race", steps.race),
    "replicas": ("replicas", steps.replicas),
    "bookkeeping": ("bookkeeping", steps.bookkeeping),
    "quantum": ("quantum", quantum.solvers),
    "scheduling_lu": ("scheduling", scheduling.lu),
    "scheduling_condition": ("scheduling", scheduling.condition),
    "scheduling_reshape": ("scheduling", scheduling.reshape),
}


def table(name: str) -> str:
    """A table of committed results, in Markdown, with what their file says of its origin."""
    file, made = TABLES[name]
    stored = json.loads((RESULTS / f"{file}.json").read_text("utf-8"))
    about = stored["about"]
    head, *rows = made(stored["runs"])
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    # A class for the site's styles; elsewhere the lines are a table, too.
    lines = ['<div class="measured" markdown>', "", *lines, "", "</div>"]
    origin = "; ".join(about[of] for of in ("date", "machine", "versions"))
    busy = f"; load {about['load']}" if "load" in about else ""
    return "\n".join(
        [*lines, "", f"From `docs/measured/{file}.json`, by `{about['command']}`: {origin}{busy}."]
    )


def rewritten(page: str) -> str:
    """The page with its tables as they are to be."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}", page)


def main() -> None:
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text("utf-8")
        new = plotted.rewritten(path, rewritten(text))
        if new != text:
            path.write_text(new, "utf-8")
    plotted.main()


if __name__ == "__main__":
    main()
