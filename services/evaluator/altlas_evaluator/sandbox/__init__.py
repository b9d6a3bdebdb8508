"""Runs untrusted programs, each in a process of its own, confined by the kernel.

The supervisor (our process) drives one launcher per slot; a launcher confines itself once and forks a child per
program.
The modules that a launcher imports (kernel, syscalls, seccomp, landlock, namespaces, privileges, interpreter, records,
confinement, launcher) use the standard library only, so that nothing of ours which holds tasks, expected outputs or
secrets is ever in its process.
"""
