"""Programs that reach for calls of the kernel that no program needs."""

from __future__ import annotations

from hostile_programs import FORBIDDEN, LIBC, OK, RUNTIME, Hostile

# Calls whatever bytes it is given.
MACHINE_CODE = """
import ctypes, mmap, os
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("@CODE@"))
result = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""

# Numbers are those of x86-64, as in all of these programs.
KILLED = """
userfaultfd:323 io_uring_setup:425 io_uring_enter:426 io_uring_register:427 bpf:321 perf_event_open:298 add_key:248
request_key:249 keyctl:250 kexec_load:246 kexec_file_load:320 init_module:175 finit_module:313 delete_module:176
reboot:169 swapon:167 acct:163 mount:165 umount2:166 pivot_root:155 fsopen:430 fsmount:432 move_mount:429
open_tree:428 mount_setattr:442 setns:308 unshare:272 iopl:172 ioperm:173 modify_ldt:154 settimeofday:164
adjtimex:159 clock_adjtime:305 syslog:103 quotactl:179 lookup_dcookie:212 vhangup:153 fanotify_init:300 kcmp:312
process_madvise:440 pidfd_getfd:438 process_mrelease:448 memfd_secret:447 mbind:237 move_pages:279 migrate_pages:256
remap_file_pages:216 vmsplice:278 uselib:134 ustat:136 sysfs:139 set_mempolicy:238 get_mempolicy:239 io_setup:206
io_submit:209 mq_timedsend:242 timer_settime:223 fanotify_mark:301 sync_file_range:277 readahead:187 pkey_alloc:330
cachestat:451 futex_wait:455 map_shadow_stack:453 statmount:457 lsm_get_self_attr:459
"""
REFUSED = """
memfd_create:319 seccomp:317 personality:135 arch_prctl:158 capset:126 splice:275 tee:276 sendfile:40
copy_file_range:326 flock:73 fallocate:285 mlockall:151 timer_create:222 timerfd_create:283 signalfd4:289
inotify_init1:294 setsid:112 setpgid:109 setuid:105 setgroups:116 setresuid:117 setfsuid:122 sethostname:170
setdomainname:171 landlock_create_ruleset:444 landlock_add_rule:445 sched_setaffinity:203 setpriority:141
ioprio_set:251 sync:162 chmod:90 creat:85 fchmod:91 setrlimit:160
"""

PROGRAMS: dict[str, Hostile] = {
    "new user namespace": Hostile(LIBC + "libc.unshare(0x10000000)", {FORBIDDEN}, b""),
    "mounts": Hostile(LIBC + "libc.mount(b'x', b'/', b'tmpfs', 0, None)", {FORBIDDEN}, b""),
    "io_uring": Hostile(LIBC + "libc.syscall(425, 8, 0)", {FORBIDDEN}, b""),
    "bpf": Hostile(LIBC + "libc.syscall(321, 0, 0, 0)", {FORBIDDEN}, b""),
    "keyring": Hostile(LIBC + "libc.syscall(250, 0, 0)", {FORBIDDEN}, b""),
    "perf events": Hostile(LIBC + "libc.syscall(298, 0, 0, 0, 0, 0)", {FORBIDDEN}, b""),
    "unknown system call": Hostile(LIBC + "libc.syscall(9999)", {FORBIDDEN}, b""),
    "x32 system call": Hostile(LIBC + "libc.syscall(0x40000000 + 39)", {FORBIDDEN}, b""),
    "process_vm_readv": Hostile(
        LIBC + "import os\nlibc.process_vm_readv(os.getppid(), None, 0, None, 0, 0)",
        {FORBIDDEN},
        b"",
    ),
    "becomes root": Hostile("import os\nos.setuid(0)", {RUNTIME}, b""),
    "32-bit call from machine code": Hostile(
        # mov eax, 20; int 0x80; ret
        MACHINE_CODE.replace("@CODE@", "b814000000cd80c3"),
        {FORBIDDEN},
    ),
    "32-bit call by sysenter": Hostile(
        # mov eax, 20; xor ebp, ebp; sysenter
        MACHINE_CODE.replace("@CODE@", "b81400000031ed0f34c3"),
        {FORBIDDEN, RUNTIME},
    ),
    "unlisted call from machine code": Hostile(
        # mov eax, 165; syscall; ret
        MACHINE_CODE.replace("@CODE@", "b8a50000000f05c3"),
        {FORBIDDEN},
    ),
    "listed call from machine code": Hostile(
        # mov eax, 39; syscall; ret
        MACHINE_CODE.replace("@CODE@", "b8270000000f05c3") + "print(result == os.getpid())",
        {OK},
        b"True\n",
    ),
    "privileged instruction": Hostile(MACHINE_CODE.replace("@CODE@", "f4c3"), {RUNTIME}),
    "port of the machine": Hostile(MACHINE_CODE.replace("@CODE@", "e664c3"), {RUNTIME}),
    "call through the old page of calls": Hostile(
        "import ctypes\nctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p, "
        "ctypes.c_void_p)(0xFFFFFFFFFF600000)(None, None)",
        {OK, RUNTIME},
    ),
    "changes the root": Hostile("import os\nos.chroot('/')", {FORBIDDEN}),
    "sets the clock": Hostile("import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)", {FORBIDDEN}),
    "sets the host's name": Hostile("import socket\nsocket.sethostname('altlas-was-here')", {RUNTIME}),
    "reads at a position": Hostile("import os\nprint(os.preadv(0, [bytearray(9)], 0))", {OK}, b"0\n"),
    "writes at a position": Hostile("import os\nos.pwritev(1, [b'abc'], 2)", {OK}, b"\0\0abc"),
    "number with bits above": Hostile(LIBC + "libc.syscall(ctypes.c_long(39 + (1 << 31)))", {FORBIDDEN}),
    "negative number": Hostile(LIBC + "libc.syscall(ctypes.c_long(-5))", {FORBIDDEN}),
    "calls that are refused politely": Hostile(
        LIBC + "for item in '''" + REFUSED + "'''.split():\n    name, number = item.split(':')\n"
        "    ctypes.set_errno(0)\n    result = libc.syscall(int(number), 0, 0, 0, 0, 0, 0), ctypes.get_errno()\n"
        "    if result != (-1, 1): print(name, result)",
        {OK},
    ),
} | {
    f"call {name}": Hostile(LIBC + f"libc.syscall({number}, 0, 0, 0, 0, 0, 0)", {FORBIDDEN})
    for name, _, number in (item.partition(":") for item in KILLED.split())
}
