"""The languages that programs may be written in: one module each, run inside the launcher.

A language's module is imported by a launcher of its own before that is confined, and must not need the file system
afterwards. It has four functions; each launcher calls the first two once, each program's process the others:

- `prepare()`: import and make what programs need.
- `warm_up()`: run a few programs, so that none pays for what the first one would; called under the final uid.
- `compile(source: bytes) -> object`: raise whatever says best why the source does not compile; its text goes to stderr.
  Nothing of the source may run here. MemoryError is taken as that.
- `run(compiled) -> int`: run it against descriptors 0, 1 and 2, write what went wrong to stderr, flush, and return the
  exit code. A last line of stderr that begins with MemoryError tells that the memory limit was met.

A language may have a fifth, which lets a task's cases share a process where `sandbox.cases = shared` asks for that:

- `reset()`: called before each case in the process; names, streams on 0, 1 and 2 and the like are to be fresh after it.

Others are added by an entry point of the group `altlas.languages`, whose name is the language's and whose value is such
a module. This package is part of the launcher, but for `registry` and `brainf`: standard library only. brainf is not
such a language: its interpreter runs in the evaluator (docs/adr/0008-brainf-outside-the-sandbox.md).
"""
