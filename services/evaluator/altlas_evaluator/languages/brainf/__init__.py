"""The brainf language, run in the evaluator's own process (docs/adr/0008-brainf-outside-the-sandbox.md).

`runner` is what the rest of the evaluator calls and loads quickly; `kernel` is the interpreter, which needs numba.
"""
