"""AltLAS learns to write programs from nothing but execution feedback."""

__version__ = "0.1.0"
