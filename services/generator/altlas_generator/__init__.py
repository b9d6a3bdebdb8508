"""The generator role."""
