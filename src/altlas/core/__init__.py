"""The pure core: no files, no network, no clock.

Nothing is re-exported here, so that importing one part loads no other.
"""
