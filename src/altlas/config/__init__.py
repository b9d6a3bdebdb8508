"""Configuration: typed sections and the loader."""
