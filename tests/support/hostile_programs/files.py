"""Programs that look for files and secrets, or try to leave something behind."""

from __future__ import annotations

from hostile_programs import FORBIDDEN, LIBC, OK, RUNTIME, SECRET, WAS_HERE, Hostile, which

PROGRAMS: dict[str, Hostile] = {
    "reads the passwords": Hostile("print(open('/etc/passwd').read())", {RUNTIME}, b""),
    "reads a secret file": Hostile("print(open('@FILE@').read())", {RUNTIME}, b""),
    "overwrites a file": Hostile("open('@FILE@', 'w').write('gone')", {RUNTIME}, b""),
    "removes a file": Hostile("import os\nos.unlink('@FILE@')", {RUNTIME}, b""),
    "renames a file": Hostile("import os\nos.rename('@FILE@', '@FILE@.moved')", {RUNTIME}, b""),
    "changes a file's mode": Hostile("import os\nos.chmod('@FILE@', 0)", {RUNTIME}, b""),
    "links to a file": Hostile("import os\nos.symlink('@FILE@', '/tmp/altlas-link')", {RUNTIME}, b""),
    "writes to /tmp": Hostile("open('/tmp/altlas-was-here', 'w').write('x')", {RUNTIME}, b""),
    "writes to shared memory": Hostile("open('/dev/shm/altlas-was-here', 'w').write('x')", {RUNTIME}, b""),
    "writes a temporary file": Hostile("import tempfile\ntempfile.NamedTemporaryFile()", {RUNTIME}, b""),
    "writes beside the standard library": Hostile(
        "import os\nopen(os.path.join(os.path.dirname(os.__file__), 'x.py'), 'w')",
        {RUNTIME},
        b"",
    ),
    "lists the root": Hostile("import os\nprint(os.listdir('/'))", {RUNTIME}, b""),
    "reads our source": Hostile("import altlas", {RUNTIME}, b""),
    "reads the sandbox's source": Hostile("import altlas_evaluator.sandbox", {RUNTIME}, b""),
    "reads the environment": Hostile("import os\nprint(dict(os.environ))", {OK}, b"{}\n"),
    "reads the arguments": Hostile("import sys\nprint(sys.argv, sys.orig_argv)", {OK}, b"[''] ['']\n"),
    "reopens its input to write": Hostile(
        "import os\nfor n in range(5):\n    try: open(f'/proc/self/fd/{n}', 'r+b').write(b'x')\n"
        "    except OSError: pass",
        {OK},
        b"",
    ),
    "writes to its input": Hostile("import os\nos.write(0, b'x')", {RUNTIME}, b""),
    "reads the environment by libc": Hostile(
        LIBC + "libc.getenv.restype = ctypes.c_char_p\nprint(libc.getenv(b'ALTLAS_TEST_SECRET'), libc.getenv(b'PATH'))",
        {OK},
        b"None None\n",
    ),
    # write(2) tells of memory that is not there instead of ending the process.
    "searches memory for the secret": Hostile(
        LIBC + "import os\nends, word = os.pipe(), bytes.fromhex('" + SECRET.encode()[::-1].hex() + "')[::-1]\n"
        "stack = ctypes.c_void_p.in_dll(libc, 'environ').value or id(word)\nfound = 0\n"
        "for start in (id(word) - (8 << 20), stack - (1 << 16)):\n"
        "    for page in range(start & ~4095, start + (16 << 20), 4096):\n"
        "        if libc.write(ends[1], ctypes.c_void_p(page), 4096) == 4096:\n"
        "            found += os.read(ends[0], 4096).count(word)\nprint(found < 9)",
        {OK},
        b"True\n",
    ),
    "reads what /proc has": Hostile(
        which(
            "[(who, name) for who in ('self', 'thread-self', '1', os.getppid(), @PID@) for name in (\n"
            "    'environ', 'cmdline', 'mem', 'maps', 'smaps', 'auxv', 'status', 'mounts', 'cgroup', 'net/unix', "
            "'pagemap')]",
            "open(f'/proc/{item[0]}/{item[1]}', 'rb').read(1)",
            "import os",
        ),
        {OK},
        b"[]\n",
    ),
    "lists others' descriptors": Hostile(
        which(
            "[(who, name) for who in ('self', '1', os.getppid(), @PID@) for name in ('fd', 'task', 'map_files', 'ns')]",
            "os.listdir(f'/proc/{item[0]}/{item[1]}')",
            "import os",
        ),
        {OK},
        b"[]\n",
    ),
    "reads system files": Hostile(
        which(
            "'''/etc/shadow /etc/passwd /etc/hosts /etc/hostname /etc/machine-id /etc/ld.so.cache /proc/cpuinfo "
            "/proc/kcore\n"
            "    /proc/kallsyms /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/mounts /proc/version "
            "/sys/kernel/uevent_helper\n"
            "    /root/.bashrc /root/.ssh/id_rsa /run/secrets /run/docker.sock /var/run/docker.sock "
            "/var/log/syslog /bin/sh\n"
            "    /var/run/secrets/kubernetes.io/serviceaccount/token /proc/self/root/etc/passwd "
            "/proc/self/cwd/../../etc/passwd\n"
            "    ../../../../../etc/passwd'''.split()",
            "open(item, 'rb').read(1)",
        ),
        {OK},
        b"[]\n",
    ),
    "opens devices": Hostile(
        which(
            "'''mem kmem port kmsg kvm fuse tty ptmx null zero full random urandom net/tun vhost-vsock "
            "loop-control vda sda'''.split()",
            "open('/dev/' + item, 'rb').read(1)",
        ),
        {OK},
        b"[]\n",
    ),
    # Where programs have the uid of the service and /proc is there they may be read, which shows nothing new.
    "writes to its files by their names": Hostile(
        which(
            "[f'{name}{n}' for n in range(5) for name in ('/dev/fd/', '/proc/self/fd/', '/proc/thread-self/fd/')]",
            "os.open(item, os.O_RDWR)",
            "import os",
        ),
        {OK},
        b"[]\n",
    ),
    "writes to every directory it can think of": Hostile(
        which(
            "['/', '/dev/shm', '/dev/mqueue', '/tmp', '/var/tmp', '/run', '/run/lock', '/home', '/root', "
            "os.path.expanduser('~'),\n"
            "    os.getcwd(), '.', '@DIR@', os.path.dirname(os.__file__), '/proc/self', '/sys/fs/cgroup']",
            "open(f'{item}/" + WAS_HERE + "', 'w').write('x')",
            "import os",
        ),
        {OK},
        b"[]\n",
    ),
    "makes files without a name": Hostile(
        which(
            "['/dev/shm', '/tmp', '/var/tmp', '/run', '.', '@DIR@']",
            "os.open(item, os.O_TMPFILE | os.O_RDWR)",
            "import os",
        ),
        {OK},
        b"[]\n",
    ),
    "makes what is not a file": Hostile(
        which(
            "[lambda: os.mkdir(name), lambda: os.mkfifo(name), lambda: os.mknod(name), lambda: os.link('@FILE@', "
            "name),\n"
            "    lambda: os.symlink('@FILE@', name), lambda: os.rename('@FILE@', name), lambda: os.mknod(name, "
            "0o20666, 259)]",
            "item()",
            "import os\nname = '@DIR@/" + WAS_HERE + "'",
        ),
        {OK},
        b"[]\n",
    ),
    "changes all that can be changed about a file": Hostile(
        which(
            "[lambda: os.utime(name), lambda: os.chown(name, 0, 0), lambda: os.truncate(name, 0), "
            "lambda: os.chmod(name, 0o777),\n"
            "    lambda: os.setxattr(name, 'user.x', b'y'), lambda: os.remove(name), lambda: os.open(name, "
            "os.O_WRONLY),\n"
            "    lambda: os.open(name, os.O_RDONLY | os.O_TRUNC), lambda: os.rmdir('@DIR@'), "
            "lambda: os.replace(name, name + '2')]",
            "item()",
            "import os\nname = '@FILE@'",
        ),
        {OK},
        b"[]\n",
    ),
    "shared memory by name": Hostile(
        "from multiprocessing import shared_memory\nshared_memory.SharedMemory('"
        + WAS_HERE
        + "', create=True, size=99)",
        {RUNTIME},
    ),
    "semaphore by name": Hostile("import multiprocessing\nmultiprocessing.Lock()", {RUNTIME}),
    "database in a file": Hostile(
        "import sqlite3\nsqlite3.connect('/tmp/" + WAS_HERE + "').execute('create table t (x)')", {RUNTIME}
    ),
    "imports what lies elsewhere": Hostile("import sys\nsys.path.insert(0, '@DIR@')\nimport planted", {RUNTIME}),
    "imports installed packages": Hostile(
        "found = []\nfor name in ('pip', 'grpc', 'numpy', 'redis', 'pydantic', '_quickjs', 'altlas', 'hostile'):\n"
        "    try: found.append(__import__(name))\n    except ImportError: pass\nprint(found)",
        {OK},
        b"[]\n",
    ),
    "runs a file": Hostile("import runpy\nrunpy.run_path('@FILE@')", {RUNTIME}),
    "loads a file as a library": Hostile("import ctypes\nctypes.CDLL('@FILE@')", {RUNTIME}),
    "has a traceback show a file": Hostile("exec(compile('1 / 0', '@FILE@', 'exec'))", {RUNTIME}),
    "reads the launcher": Hostile(
        "import sys\nframe = sys._getframe()\n"
        "while frame.f_back and 'launcher' not in frame.f_code.co_filename: frame = frame.f_back\n"
        "name = frame.f_code.co_filename\nprint('launcher' in name)\nopen(name)",
        {RUNTIME},
        b"True\n",
    ),
    "lists what the launcher lies beside": Hostile(
        "import os, sys\nframe = sys._getframe()\n"
        "while frame.f_back and 'launcher' not in frame.f_code.co_filename: frame = frame.f_back\n"
        "os.listdir(os.path.dirname(frame.f_code.co_filename))",
        {RUNTIME},
    ),
    "walks up by descriptors": Hostile(
        "import os\nitem = os.open('.', os.O_PATH)\nfor _ in range(40):\n"
        "    item = os.open('..', os.O_PATH, dir_fd=item)\n"
        "print(os.open('etc/passwd', os.O_RDONLY, dir_fd=item))",
        {RUNTIME},
    ),
    "opens a file by handle": Hostile(LIBC + "libc.syscall(304, 0, bytes(64), 0)", {FORBIDDEN}),
    "asks for a file's handle": Hostile(
        LIBC + "libc.syscall(303, -100, b'@FILE@', bytes(64), bytes(8), 0)", {FORBIDDEN}
    ),
    "watches files": Hostile(LIBC + "print(libc.inotify_init())", {OK}, b"-1\n"),
}
