"""The version of lrfast, once."""

__version__ = "0.2.0"
