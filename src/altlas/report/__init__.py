"""Comparing algorithms: many runs of `altlas train`, their results in one CSV file, tables and plots made from it."""
