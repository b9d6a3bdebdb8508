/* The launcher's fork loop in C: what `forkloop.py` does, without dirtying the interpreter's pages.
 *
 * A page that the launcher writes to between two forks is copied by the kernel once for the launcher and once for the
 * child. This loop lives on its stack: it reads a request, forks, puts the per-program layers on in the child, waits
 * and answers. Records are those of records.py; both are checked against each other by the tests.
 * Python is entered again only in a child.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#define _GNU_SOURCE
#include <Python.h>

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { CONTROL_FD = 3 };
enum { TIMED_OUT = 1, NOT_COMPILED = 2, SETUP_FAILED = 4, LEAVING = 8 };
enum { EVENT_SETUP_FAILED = 1, EVENT_NOT_COMPILED = 2 };
enum { CPU_GRACE_S = 2, SECOND_NS = 1000000000 };

struct request {
    char magic[4];
    uint32_t sequence;
    uint64_t cpu_ns, wall_ns, memory_bytes, output_bytes, open_files;
};

struct result {
    char magic[4];
    uint32_t sequence;
    int32_t wait_status;
    uint32_t flags;
    uint64_t cpu_ns, wall_ns, fork_ns, peak_memory_bytes;
};

struct settings {
    int event, scope, can_kill;
    uint64_t own_bytes;
    const char *guard; /* classic BPF instructions, or NULL */
    Py_ssize_t guard_bytes;
};

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        return 0;
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static int limit(int resource, uint64_t value)
{
    const struct rlimit both = {value, value};
    return setrlimit(resource, &both);
}

static int install_guard(const struct settings *settings)
{
    struct {
        unsigned short length;
        const char *instructions;
    } program = {(unsigned short)(settings->guard_bytes / 8), settings->guard};
    return (int)syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &program);
}

/* The layers that are a program's own; see confinement.confine_child. */
static int confine_child(const struct settings *settings, const struct request *request)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return -1;
    if (settings->scope >= 0 && syscall(SYS_landlock_restrict_self, settings->scope, 0) != 0)
        return -1;
    if (limit(RLIMIT_CPU, request->cpu_ns / SECOND_NS + CPU_GRACE_S) != 0 || limit(RLIMIT_NPROC, 0) != 0 ||
        limit(RLIMIT_FSIZE, request->output_bytes + 1) != 0 || limit(RLIMIT_NOFILE, request->open_files) != 0 ||
        limit(RLIMIT_AS, settings->own_bytes + request->memory_bytes) != 0)
        return -1;
    return settings->guard ? install_guard(settings) : 0;
}

static uint32_t read_event(int event)
{
    uint64_t value;
    if (read(event, &value, sizeof value) != sizeof value)
        return 0;
    return value == EVENT_NOT_COMPILED ? NOT_COMPILED : SETUP_FAILED;
}

/* Wait for the child or its limits; CPU time never exceeds wall time, so one wait is nearly always enough. */
static uint32_t wait_for(pid_t pid, const struct settings *settings, const struct request *request, int64_t deadline_ns,
                         int *status, struct rusage *usage)
{
    const clockid_t cpu_clock = (clockid_t)((~(unsigned)pid << 3) | 2);
    int64_t cpu_left_ns = (int64_t)request->cpu_ns;
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    for (;;) {
        int64_t patience_ns = deadline_ns - now_ns(CLOCK_MONOTONIC);
        if (cpu_left_ns < patience_ns)
            patience_ns = cpu_left_ns;
        if (patience_ns <= 0)
            break;
        const struct timespec patience = {patience_ns / SECOND_NS, patience_ns % SECOND_NS};
        sigtimedwait(&awaited, NULL, &patience);
        if (wait4(pid, status, WNOHANG, usage) == pid)
            return 0;
        cpu_left_ns = (int64_t)request->cpu_ns - now_ns(cpu_clock);
    }
    if (settings->can_kill) {
        kill(pid, SIGKILL);
        wait4(pid, status, 0, usage);
        return TIMED_OUT;
    }
    /* Without a signal scope no program may kill, so neither may we: end, and the child dies with its parent. */
    *status = SIGKILL;
    getrusage(RUSAGE_CHILDREN, usage);
    return TIMED_OUT | LEAVING;
}

static uint64_t seconds_ns(struct timeval value)
{
    return (uint64_t)value.tv_sec * SECOND_NS + (uint64_t)value.tv_usec * 1000;
}

/* Return 1 in a child that may run its program, 0 when the supervisor has hung up, -1 on an error in errno. */
static int serve(const struct settings *settings)
{
    struct request request;
    for (;;) {
        const ssize_t size = read(CONTROL_FD, &request, sizeof request);
        if (size == 0)
            return 0;
        if (size < 0 && errno == EINTR)
            continue;
        if (size != sizeof request || memcmp(request.magic, "ALq2", 4) != 0) {
            errno = size < 0 ? errno : EBADMSG;
            return -1;
        }
        struct result result = {.magic = {'A', 'L', 'r', '2'}, .sequence = request.sequence};
        struct rusage usage = {0};
        const int64_t started_ns = now_ns(CLOCK_MONOTONIC);
        const pid_t pid = fork();
        if (pid == 0) {
            if (confine_child(settings, &request) == 0)
                return 1;
            const uint64_t event = EVENT_SETUP_FAILED;
            (void)!write(settings->event, &event, sizeof event);
            _exit(1);
        }
        const int64_t forked_ns = now_ns(CLOCK_MONOTONIC);
        if (pid < 0) {
            result.flags = SETUP_FAILED;
        } else {
            int status = 0;
            result.flags = wait_for(pid, settings, &request, started_ns + (int64_t)request.wall_ns, &status, &usage);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
                result.flags |= read_event(settings->event);
            result.wait_status = status;
        }
        result.fork_ns = (uint64_t)(forked_ns - started_ns);
        result.wall_ns = (uint64_t)(now_ns(CLOCK_MONOTONIC) - started_ns);
        result.cpu_ns = seconds_ns(usage.ru_utime) + seconds_ns(usage.ru_stime);
        result.peak_memory_bytes = (uint64_t)usage.ru_maxrss * 1024;
        if (write(CONTROL_FD, &result, sizeof result) != sizeof result)
            return 0;
        if (result.flags & LEAVING)
            return 0;
    }
}

static PyObject *py_serve(PyObject *module, PyObject *arguments)
{
    struct settings settings = {0};
    unsigned long long own_bytes;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "iiKpz#", &settings.event, &settings.scope, &own_bytes, &settings.can_kill,
                          &settings.guard, &settings.guard_bytes))
        return NULL;
    settings.own_bytes = own_bytes;
    const int outcome = serve(&settings);
    return outcome < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyBool_FromLong(outcome);
}

static PyObject *py_release(PyObject *module, PyObject *unused)
{
    sigset_t awaited;
    (void)module, (void)unused;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    if (syscall(SYS_close_range, CONTROL_FD, ~0U, 0) != 0 || sigprocmask(SIG_UNBLOCK, &awaited, NULL) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* Move [start, end), which must be aligned to huge pages, into anonymous memory that may be backed by them. */
static PyObject *py_use_huge_pages(PyObject *module, PyObject *arguments)
{
    unsigned long long start, end;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "KK", &start, &end))
        return NULL;
    const size_t huge = 2 << 20, size = end - start;
    char *const spare = mmap(NULL, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (spare == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    char *const aligned = (char *)(((uintptr_t)spare + huge - 1) & ~(huge - 1));
    if (madvise(aligned, size, MADV_HUGEPAGE) != 0)
        goto failed;
    memcpy(aligned, (const void *)start, size);
    if (mprotect(aligned, size, PROT_READ | PROT_EXEC) != 0 ||
        mremap(aligned, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) == MAP_FAILED)
        goto failed;
    if (aligned > spare)
        munmap(spare, (size_t)(aligned - spare));
    munmap(aligned + size, (size_t)(spare + huge - aligned));
    Py_RETURN_NONE;
failed:
    PyErr_SetFromErrno(PyExc_OSError);
    munmap(spare, size + huge);
    return NULL;
}

static PyMethodDef METHODS[] = {
    {"serve", py_serve, METH_VARARGS,
     "serve(event, scope, own_bytes, can_kill, guard) -> True in a child, False when the supervisor hung up."},
    {"release", py_release, METH_NOARGS, "Close the control socket and all above, and unblock SIGCHLD."},
    {"use_huge_pages", py_use_huge_pages, METH_VARARGS, "Put the text in [start, end) into huge pages."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_forkloop", NULL, -1, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__forkloop(void) { return PyModule_Create(&MODULE); }
