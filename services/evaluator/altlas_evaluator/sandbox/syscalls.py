"""Names and numbers of system calls, and what a program gets for each. Data only; `seccomp` makes a filter of it.

Part of the launcher: standard library only. A call in none of the groups kills the process. Groups by argument are in
`seccomp`. A number of -1: the machine has no such call.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ALLOWED = _words("""
read write pread64 pwrite64 readv writev preadv pwritev lseek close dup dup2 dup3 pipe pipe2 fsync fdatasync
ftruncate fadvise64 open openat stat fstat lstat newfstatat statx getdents64 readlink readlinkat access
faccessat faccessat2 getcwd chdir fchdir umask fstatfs statfs mmap munmap mremap mprotect madvise brk msync
mincore rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack
restart_syscall pause alarm setitimer getitimer exit exit_group wait4 waitid getpid getppid gettid getuid
geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid capget gettimeofday time times
clock_gettime clock_getres clock_nanosleep nanosleep getrusage getrlimit sysinfo uname getpriority sched_yield
sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min futex
set_robust_list get_robust_list set_tid_address rseq membarrier getrandom getcpu poll ppoll select pselect6
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd eventfd2 sendto recvfrom sendmsg recvmsg
shutdown getsockname getpeername getsockopt close_range landlock_restrict_self
""")
# Refused politely: an ordinary program sees PermissionError and can go on.
REFUSED_EACCES = _words("""
execve execveat socket connect bind listen accept accept4
""")
REFUSED_EPERM = _words("""
fork vfork rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal setsockopt sendmmsg recvmmsg setrlimit
personality arch_prctl creat truncate fallocate mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
link linkat symlink symlinkat mknod mknodat chmod fchmod fchmodat chown fchown lchown fchownat utime utimes
utimensat futimesat setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
removexattr lremovexattr fremovexattr flock sync syncfs setuid setgid setreuid setregid setresuid setresgid
setgroups setfsuid setfsgid capset setpgid setsid setpriority sched_rr_get_interval sched_setaffinity
sched_setscheduler sched_setparam sched_setattr ioprio_set sethostname setdomainname memfd_create inotify_init
inotify_init1 timerfd_create signalfd4 timer_create mlock mlock2 mlockall munlock munlockall sendfile copy_file_range
splice tee shmget shmat shmctl shmdt semget semop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink seccomp
landlock_create_ruleset landlock_add_rule
""")
# Refused so that libc falls back to an older call.
REFUSED_ENOSYS = _words("""
clone3 openat2 preadv2 pwritev2
""")

# name:x86_64:aarch64, from asm/unistd_64.h and asm-generic/unistd.h.
_TABLE = """
accept:43:202 accept4:288:242 access:21:-1 alarm:37:-1 arch_prctl:158:-1 bind:49:200 brk:12:214 capget:125:90
capset:126:91 chdir:80:49 chmod:90:-1 chown:92:-1 clock_getres:229:114 clock_gettime:228:113 clock_nanosleep:230:115
clone:56:220 clone3:435:435 close:3:57 close_range:436:436 connect:42:203 copy_file_range:326:285 creat:85:-1
dup:32:23 dup2:33:-1 dup3:292:24 epoll_create:213:-1 epoll_create1:291:20 epoll_ctl:233:21 epoll_pwait:281:22
epoll_wait:232:-1 eventfd:284:-1 eventfd2:290:19 execve:59:221 execveat:322:281 exit:60:93 exit_group:231:94
faccessat:269:48 faccessat2:439:439 fadvise64:221:223 fallocate:285:47 fchdir:81:50 fchmod:91:52 fchmodat:268:53
fchown:93:55 fchownat:260:54 fcntl:72:25 fdatasync:75:83 fgetxattr:193:10 flistxattr:196:13 flock:73:32 fork:57:-1
fremovexattr:199:16 fsetxattr:190:7 fstat:5:80 fstatfs:138:44 fsync:74:82 ftruncate:77:46 futex:202:98
futimesat:261:-1 get_robust_list:274:100 getcpu:309:168 getcwd:79:17 getdents64:217:61 getegid:108:177
geteuid:107:175 getgid:104:176 getgroups:115:158 getitimer:36:102 getpeername:52:205 getpgid:121:155 getpgrp:111:-1
getpid:39:172 getppid:110:173 getpriority:140:141 getrandom:318:278 getresgid:120:150 getresuid:118:148
getrlimit:97:163 getrusage:98:165 getsid:124:156 getsockname:51:204 getsockopt:55:209 gettid:186:178
gettimeofday:96:169 getuid:102:174 getxattr:191:8 inotify_init:253:-1 inotify_init1:294:26 ioctl:16:29
ioprio_set:251:30 kill:62:129 landlock_add_rule:445:445 landlock_create_ruleset:444:444
landlock_restrict_self:446:446 lchown:94:-1 lgetxattr:192:9 link:86:-1 linkat:265:37 listen:50:201 listxattr:194:11
llistxattr:195:12 lremovexattr:198:15 lseek:8:62 lsetxattr:189:6 lstat:6:-1 madvise:28:233 membarrier:324:283
memfd_create:319:279 mincore:27:232 mkdir:83:-1 mkdirat:258:34 mknod:133:-1 mknodat:259:33 mlock:149:228
mlock2:325:284 mlockall:151:230 mmap:9:222 mprotect:10:226 mq_open:240:180 mq_unlink:241:181 mremap:25:216
msgctl:71:187 msgget:68:186 msgrcv:70:188 msgsnd:69:189 msync:26:227 munlock:150:229 munlockall:152:231
munmap:11:215 nanosleep:35:101 newfstatat:262:79 open:2:-1 openat:257:56 openat2:437:437 pause:34:-1
personality:135:92 pidfd_open:434:434 pidfd_send_signal:424:424 pipe:22:-1 pipe2:293:59 poll:7:-1 ppoll:271:73
prctl:157:167 pread64:17:67 preadv:295:69 preadv2:327:286 prlimit64:302:261 pselect6:270:72 pwrite64:18:68
pwritev:296:70 pwritev2:328:287 read:0:63
readlink:89:-1 readlinkat:267:78 readv:19:65 recvfrom:45:207 recvmmsg:299:243 recvmsg:47:212 removexattr:197:14
rename:82:-1 renameat:264:38 renameat2:316:276 restart_syscall:219:128 rmdir:84:-1 rseq:334:293 rt_sigaction:13:134
rt_sigpending:127:136 rt_sigprocmask:14:135 rt_sigqueueinfo:129:138 rt_sigreturn:15:139 rt_sigsuspend:130:133
rt_sigtimedwait:128:137 rt_tgsigqueueinfo:297:240 sched_get_priority_max:146:125 sched_get_priority_min:147:126
sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120 sched_rr_get_interval:148:127
sched_setaffinity:203:122
sched_setattr:314:274 sched_setparam:142:118 sched_setscheduler:144:119 sched_yield:24:124 seccomp:317:277
select:23:-1 semctl:66:191 semget:64:190 semop:65:193 sendfile:40:71 sendmmsg:307:269 sendmsg:46:211 sendto:44:206
set_robust_list:273:99 set_tid_address:218:96 setdomainname:171:162 setfsgid:123:152 setfsuid:122:151 setgid:106:144
setgroups:116:159 sethostname:170:161 setitimer:38:103 setpgid:109:154 setpriority:141:140 setregid:114:143
setresgid:119:149 setresuid:117:147 setreuid:113:145 setrlimit:160:164 setsid:112:157 setsockopt:54:208
setuid:105:146 setxattr:188:5 shmat:30:196 shmctl:31:195 shmdt:67:197 shmget:29:194 shutdown:48:210
sigaltstack:131:132 signalfd4:289:74 socket:41:198 socketpair:53:199 splice:275:76 stat:4:-1 statfs:137:43
statx:332:291 symlink:88:-1 symlinkat:266:36 sync:162:81 syncfs:306:267 sysinfo:99:179 tee:276:77 tgkill:234:131
time:201:-1 timer_create:222:107 timerfd_create:283:85 times:100:153 tkill:200:130 truncate:76:45 umask:95:166
uname:63:160 unlink:87:-1 unlinkat:263:35 utime:132:-1 utimensat:280:88 utimes:235:-1 vfork:58:-1 wait4:61:260
waitid:247:95 write:1:64 writev:20:66
"""


def numbers(machine: str) -> dict[str, int]:
    """Return the numbers of the named calls on `machine` ("x86_64" or "aarch64"); calls it lacks are left out."""
    column = {"x86_64": 1, "aarch64": 2}[machine]
    rows = [entry.split(":") for entry in _TABLE.split()]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-1"}
