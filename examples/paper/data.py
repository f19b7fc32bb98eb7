"""Real data: scikit-learn's digits and the standard library's docstrings; or Keras's downloads."""

from __future__ import annotations

import ast
import collections
import dataclasses
import pathlib
import re
import sysconfig

import numpy as np

# Pure Python parts of the standard library with a few hundred lines of documentation each.
_SOURCES = ("_pydecimal.py", "asyncio", "email", "unittest")
_PADDING, _UNKNOWN = 0, 1


@dataclasses.dataclass(frozen=True)
class Data:
    """Inputs and classes for training and for the test.

    Attributes:
        x: float32 `[B, 64]` pixels, or int32 `[B, T]` tokens.
        y: int32 `[B]`, or `[B, T]` for a language model.
        x_test, y_test: Likewise.
        classes: Number of classes.
        tokens: Size of the vocabulary; 0 for pixels.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    tokens: int = 0


def digits() -> Data:
    """1,797 images of 8x8 pixels in [0, 1], 360 of them for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        (x / 16).astype("float32"), y.astype("int32"), test_size=0.2, random_state=0
    )
    return Data(x, y, x_test, y_test, classes=10)


def mnist() -> Data:
    """MNIST at 8x8 pixels, means of 3x3 after the frame of 2 is cut off."""
    import keras

    (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()

    def small(images: np.ndarray) -> np.ndarray:
        cut = images[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean((2, 4)) / 255
        return cut.reshape(-1, 64).astype("float32")

    return Data(small(x), y.astype("int32"), small(x_test), y_test.astype("int32"), classes=10)


def docstring_lines(words: int, length: int) -> Data:
    """Which part of the standard library a line of a docstring is from.

    Args:
        words: Size of the vocabulary: the most frequent words of the training lines.
        length: T, words a line; longer ones are cut.
    """
    by_class = [_lines(source) for source in _SOURCES]
    least = min(map(len, by_class))
    rng = np.random.default_rng(0)
    lines, labels = [], []
    for label, own in enumerate(by_class):
        lines += [own[k] for k in sorted(rng.choice(len(own), least, replace=False))]
        labels += [label] * least
    order = rng.permutation(len(lines))
    texts = [re.findall(r"[a-z]+|[^a-z\s]", lines[k].lower()) for k in order]
    y, cut = np.array(labels, "int32")[order], len(order) // 5
    counts = collections.Counter(word for text in texts[cut:] for word in text)
    index = {word: k + 2 for k, (word, _) in enumerate(counts.most_common(words - 2))}
    x = np.full((len(texts), length), _PADDING, "int32")
    for row, text in zip(x, texts, strict=True):
        found = [index.get(word, _UNKNOWN) for word in text[:length]]
        row[: len(found)] = found
    return Data(x[cut:], y[cut:], x[:cut], y[:cut], len(_SOURCES), words)


def imdb(words: int, length: int) -> Data:
    """Whether a review is a good one: its first `length` words; 2,000 to train, 1,000 to test."""
    import keras

    (x, y), (x_test, y_test) = keras.datasets.imdb.load_data(num_words=words, maxlen=None)

    def padded(reviews: np.ndarray, count: int) -> np.ndarray:
        return keras.utils.pad_sequences(reviews[:count], length, truncating="post").astype("int32")

    train, test = padded(x, 2000), padded(x_test, 1000)
    return Data(train, y[:2000].astype("int32"), test, y_test[:1000].astype("int32"), 2, words)


def characters(tokens: int, length: int, path: str | None = None) -> Data:
    """The next character of a text, after each of `length` ones.

    Args:
        tokens: Size of the vocabulary: the most frequent characters; others become one more.
        length: T.
        path: A text file; None for the standard library's docstrings.
    """
    if path is None:
        text = "\n".join(line for source in _SOURCES for line in _lines(source))
    else:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    frequent = collections.Counter(text).most_common(tokens - 1)
    index = {character: k + 1 for k, (character, _) in enumerate(frequent)}
    codes = np.array([index.get(character, 0) for character in text], "int32")
    count = (len(codes) - 1) // length
    x = codes[: count * length].reshape(count, length)
    y = codes[1 : count * length + 1].reshape(count, length)
    order, cut = np.random.default_rng(0).permutation(count), count // 5
    train, test = order[cut:], order[:cut]
    return Data(x[train], y[train], x[test], y[test], tokens, tokens)


def _lines(source: str) -> list[str]:
    """Lines of at least four words of all docstrings in a module or a package."""
    root = pathlib.Path(sysconfig.get_path("stdlib")) / source
    files = sorted(root.glob("*.py")) if root.is_dir() else [root]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [
        ast.get_docstring(node) or ""
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    ]
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [line for line in dict.fromkeys(lines) if len(line.split()) >= 4]
