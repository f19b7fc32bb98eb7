"""The version, for the package and for the logs that it writes."""

__version__ = "0.1.0"
