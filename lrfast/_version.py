"""The version of lrfast, once."""

__version__ = "0.1.0"
