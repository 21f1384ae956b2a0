"""The version of keisei."""

__version__ = "0.1.0"
