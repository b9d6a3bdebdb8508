"""Programs that start others, outlive their run, or signal, trace and reschedule what is not theirs."""

from __future__ import annotations

from hostile_programs import FORBIDDEN, LIBC, MEMORY, OK, RUNTIME, TIMEOUT, Hostile, which

PROGRAMS: dict[str, Hostile] = {
    "fork": Hostile("import os\nos.fork()", {RUNTIME}, b""),
    "fork bomb": Hostile("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", {TIMEOUT}, b""),
    "fork by libc": Hostile(LIBC + "print(libc.fork())", {OK}, b"-1\n"),
    "subprocess": Hostile("import subprocess\nsubprocess.run(['/bin/sh', '-c', 'echo hi'])", {RUNTIME}, b""),
    "system": Hostile("import os\nprint(os.system('echo hi') == 0)", {OK, RUNTIME}, None),
    "exec": Hostile("import os\nos.execv('/bin/sh', ['sh', '-c', 'echo hi'])", {RUNTIME}, b""),
    "thread": Hostile("import threading\nthreading.Thread(target=print).start()", {RUNTIME}, b""),
    "background process": Hostile(
        "import os\ntry:\n    if os.fork() == 0:\n        os.setsid()\n        while True: pass\n"
        "except OSError: print('refused')",
        {OK},
        b"refused\n",
    ),
    "new session": Hostile("import os\nos.setsid()", {RUNTIME}, b""),
    "kills its parent": Hostile("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", {RUNTIME, OK}, b""),
    "kills everybody": Hostile(
        "import os, signal\nos.kill(-1, signal.SIGKILL)\nprint('alive')", {OK, RUNTIME, MEMORY}, None
    ),
    "kills its group": Hostile("import os, signal\nos.killpg(0, signal.SIGKILL)", {MEMORY, RUNTIME}, b""),
    "kills the service": Hostile("import os, signal\nos.kill(@PID@, signal.SIGTERM)", {RUNTIME}, b""),
    "stops its parent": Hostile("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)", {RUNTIME, OK}, b""),
    "limits its parent": Hostile(
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        {RUNTIME},
        b"",
    ),
    "traces its parent": Hostile(LIBC + "import os\nlibc.ptrace(16, os.getppid(), 0, 0)", {FORBIDDEN}, b""),
    "reads its parent's memory": Hostile("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')", {RUNTIME}, b""),
    "reads its parent's environment": Hostile(
        "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())",
        {RUNTIME},
        b"",
    ),
    "reads the service's environment": Hostile("print(open('/proc/@PID@/environ').read())", {RUNTIME}, b""),
    "outlives its parent": Hostile(LIBC + "print(libc.prctl(1, 0, 0, 0, 0))", {OK}, b"-1\n"),
    "vfork by libc": Hostile(LIBC + "print(libc.vfork())", {OK}, b"-1\n"),
    "clone3": Hostile(LIBC + "print(libc.syscall(435, 0, 0), ctypes.get_errno())", {OK}, b"-1 38\n"),
    "clone with the flags of a thread": Hostile(
        LIBC + "print(libc.syscall(56, 0x3D0F00, 0, 0, 0, 0), ctypes.get_errno())", {OK}, b"-1 1\n"
    ),
    "clone with the flags of a container": Hostile(
        LIBC + "print(libc.syscall(56, 0x7E020011, 0, 0, 0, 0), ctypes.get_errno())", {OK}, b"-1 1\n"
    ),
    "clone with the flags of fork": Hostile(
        LIBC + "print(libc.syscall(56, 0x1200011, 0, 0, 0, 0) < 0)", {OK}, b"True\n"
    ),
    "native thread": Hostile(
        LIBC + "START = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)\nstart = START(lambda _: None)\n"
        "print(libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, start, None) != 0)",
        {OK},
        b"True\n",
    ),
    "spawn": Hostile("import os\nos.posix_spawn('/bin/true', ['true'], {})", {RUNTIME}),
    "pool of threads": Hostile(
        "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor().submit(print, 1).result()", {RUNTIME}
    ),
    "pool of processes": Hostile("import multiprocessing\nmultiprocessing.Pool(2).map(abs, [1])", {RUNTIME}),
    "terminal of its own": Hostile("import pty\npty.fork()", {RUNTIME}),
    "watchdog thread": Hostile("import faulthandler\nfaulthandler.dump_traceback_later(1)", {RUNTIME}),
    "runs what it printed": Hostile(
        "import os, sys\nos.write(1, b'#!/bin/sh\\n')\nos.execve(1, ['sh'], {})", {RUNTIME}, b"#!/bin/sh\n"
    ),
    "runs a file from memory": Hostile("import os\nos.execve(os.memfd_create('x'), ['x'], {})", {RUNTIME}),
    "execveat": Hostile(LIBC + "print(libc.syscall(322, 1, b'', 0, 0, 0x1000), ctypes.get_errno())", {OK}, b"-1 13\n"),
    "starts again with an environment": Hostile(
        "import os, sys\nos.environ['PYTHONPATH'] = '@DIR@'\n"
        "os.execv(sys.executable or '/usr/bin/python3', ['python3'])",
        {RUNTIME},
    ),
    "signals everybody it can name": Hostile(
        which(
            "[n for n in [*range(1, 400), @PID@] if n != os.getpid()]",
            "os.kill(item, signal.SIGTERM)",
            "import os, signal",
        ),
        {OK},
        b"[]\n",
    ),
    "sends its parent every signal": Hostile(
        which("range(1, 65)", "os.kill(os.getppid(), item)", "import os"), {OK}, b"[]\n"
    ),
    "sends its parent a signal by other calls": Hostile(
        LIBC + "import os\nparent = os.getppid()\n"
        "print([libc.syscall(*items) for items in ((200, parent, 9), (234, parent, parent, 9), (129, parent, 9, "
        "bytes(128)),"
        "\n    (297, parent, parent, 9, bytes(128)), (434, parent, 0), (424, 1, 9, 0, 0))])",
        {OK},
        b"[-1, -1, -1, -1, -1, -1]\n",
    ),
    "has a descriptor send signals": Hostile(
        which(
            "[fcntl.F_SETOWN, fcntl.F_SETSIG, fcntl.F_SETLEASE, fcntl.F_NOTIFY, fcntl.F_SETFL]",
            "fcntl.fcntl(1, item, os.getppid())",
            "import fcntl, os",
        ),
        {OK},
        b"[]\n",
    ),
    "joins its parent's group": Hostile("import os\nos.setpgid(0, os.getppid())", {RUNTIME}),
    "changes itself by prctl": Hostile(
        LIBC + "options = (4, 8, 14, 15, 22, 23, 24, 26, 28, 29, 31, 33, 35, 36, 38, 41, 47, 50, 53, 55, 59, 62, "
        "0x59616d61)\n"
        "print({libc.prctl(option, 1, 0, 0, 0) for option in options})",
        {OK},
        b"{-1}\n",
    ),
    "changes how it and others are scheduled": Hostile(
        LIBC + "import os\nzeros = bytes(64)\ncalls = [(144, who, 1, zeros) for who in (0, os.getppid())]\n"
        "calls += [(141, 0, os.getppid(), -5), (141, 0, 0, 5), (251, 1, 0, 0), (203, 0, 8, b'\\1' + zeros), "
        "(314, 0, zeros, 0)]\n"
        "print({libc.syscall(*items) for items in calls})",
        {OK},
        b"{-1}\n",
    ),
    "nice": Hostile("import os\nos.nice(5)", {RUNTIME}),
    "asks to be traced": Hostile(LIBC + "libc.ptrace(0, 0, 0, 0)", {FORBIDDEN}),
    "writes to its parent's memory": Hostile(
        LIBC + "import os\nlibc.process_vm_writev(os.getppid(), None, 0, None, 0, 0)", {FORBIDDEN}
    ),
    "waits for its parent": Hostile("import os\nos.waitpid(os.getppid(), 0)", {RUNTIME}),
    "interrupts itself": Hostile("import os, signal\nos.kill(os.getpid(), signal.SIGINT)", {RUNTIME}),
    "kills itself": Hostile("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", {MEMORY, RUNTIME}),
    "pretends a segmentation fault": Hostile("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", {RUNTIME}),
    "sends the signal of the filter": Hostile("import os, signal\nos.kill(os.getpid(), signal.SIGSYS)", {FORBIDDEN}),
    "sends the signal of the CPU limit": Hostile("import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)", {TIMEOUT}),
    "leaves an alarm": Hostile("import signal\nsignal.alarm(1)", {OK}),
    "leaves signals blocked and pending": Hostile(
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "os.kill(os.getpid(), signal.SIGTERM)",
        {OK},
    ),
}
