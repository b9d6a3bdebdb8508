"""The evaluator role."""
