"""README stays one screen: fails where it has more words or numbers than it may.

Code blocks and the addresses of links do not count; tables, lists and captions do.

    python docs/readme_limits.py
"""

from __future__ import annotations

import pathlib
import re
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"
LIMITS = {"words": 400, "numbers": 20}
_CODE = re.compile(r"^```.*?^```$|^    [^\n]*$", re.M | re.S)
_ADDRESS = re.compile(r"\]\([^)]*\)")
_NUMBER = re.compile(r"\d[\d.,:]*")


def counts(text: str) -> dict[str, int]:
    """Words and numbers of a page in Markdown."""
    prose = _ADDRESS.sub("]", _CODE.sub("", text))
    words = [word for word in prose.split() if re.search(r"\w", word)]
    return {"words": len(words), "numbers": len(_NUMBER.findall(prose))}


def main() -> int:
    """1 where README is beyond a limit, with a sentence on stderr."""
    found = counts(README.read_text("utf-8"))
    beyond = [name for name, limit in LIMITS.items() if found[name] > limit]
    for name in beyond:
        print(
            f"README.md has {found[name]} {name}, {LIMITS[name]} at most: move some to docs/.",
            file=sys.stderr,
        )
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
