"""python -m examples.paper --out results/paper [--profile offline|online|smoke] [--only FAMILY]"""

from __future__ import annotations

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from rich.console import Console

from . import study

# Each block size is a graph of its own, of which TensorFlow warns.
tf.get_logger().setLevel("ERROR")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.paper", description=study.__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--profile", choices=("offline", "online", "smoke"), default="offline")
    parser.add_argument("--text", help="text file for the language model")
    parser.add_argument("--only", choices=("mlp", "bert", "gpt"), help="one family of models")
    arguments = parser.parse_args()
    console = Console()
    results = study.run(arguments.profile, arguments.out, console, arguments.text, arguments.only)
    for claim in results["claims"]:
        verdict = {True: "yes", False: "no", None: "not seen"}[claim["holds"]]
        console.print(f"[bold]{claim['claim']}[/] {verdict}. {claim['answer']}")
    page = arguments.out / "report.html"
    console.print(f"[bold green]PASS[/]: {results['seconds']:.0f} s; {page}")


if __name__ == "__main__":
    main()
