"""A persistence runtime for Python object graphs: saves what changed, brings back any variable of any version."""

from chipmink._chipmink import __version__

__all__ = ["__version__"]
