/* The launcher's fork loop in C: what `forkloop.py` does, without dirtying the interpreter's pages.
 *
 * A page that the launcher writes to between two forks is copied by the kernel once for the launcher and once for the
 * child. This loop lives on its stack: it reads a request, forks, puts the per-program layers on in the child, waits
 * and answers. Records are those of records.py; both are checked against each other by the tests.
 * Python is entered again only in a child. What a child does for several cases is told in forkloop.py.
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
#include <sys/socket.h>
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

enum { CONTROL_FD = 3, SOURCE_FD = 4 };
enum { TIMED_OUT = 1, NOT_COMPILED = 2, SETUP_FAILED = 4, LEAVING = 8 };
enum { EVENT_SETUP_FAILED = 1, EVENT_NOT_COMPILED = 2 };
enum { CPU_GRACE_S = 2, SECOND_NS = 1000000000, WATCH_SLACK_NS = SECOND_NS / 2 };
enum { MAX_CASES = 16, MAX_DESCRIPTORS = 3 * (MAX_CASES - 1) };

struct request {
    char magic[4];
    uint32_t sequence;
    uint64_t cpu_ns, wall_ns, memory_bytes, output_bytes, open_files;
    uint32_t cases, is_shared;
};

struct result {
    char magic[4];
    uint32_t sequence;
    int32_t wait_status;
    uint32_t flags;
    uint64_t cpu_ns, wall_ns, fork_ns, peak_memory_bytes;
};

/* What a child with several cases tells the launcher. Out of reach of the program, unless its cases share a process. */
struct stage {
    uint32_t done;             /* cases with a result below */
    uint32_t is_watched;       /* the child itself waits for the case that runs */
    int64_t started_ns;        /* when compiling or the case began */
    int64_t cpu_base_ns;       /* the child's own CPU time then */
    uint64_t usage_base_ns;    /* the same, with what it has waited for */
    struct result results[MAX_CASES];
};

struct settings {
    int event, scope, can_kill;
    uint64_t own_bytes;
    const char *guard; /* classic BPF instructions, or NULL */
    Py_ssize_t guard_bytes;
};

struct loop {
    struct settings settings;
    struct request request; /* the one at hand */
    struct stage *stage;    /* NULL for one case */
    int descriptors[MAX_DESCRIPTORS];
    int64_t fork_ns;
};

/* Written only in a child that has several cases; all zero elsewhere, and on a page that is not touched. */
static struct loop kept;

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        return 0;
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static uint64_t seconds_ns(struct timeval value)
{
    return (uint64_t)value.tv_sec * SECOND_NS + (uint64_t)value.tv_usec * 1000;
}

static uint64_t cpu_of(const struct rusage *usage) { return seconds_ns(usage->ru_utime) + seconds_ns(usage->ru_stime); }

static int limit(int resource, uint64_t value)
{
    const struct rlimit both = {value, value};
    return setrlimit(resource, &both);
}

static int forbid_processes(const struct settings *settings)
{
    struct {
        unsigned short length;
        const char *instructions;
    } program = {(unsigned short)(settings->guard_bytes / 8), settings->guard};
    if (limit(RLIMIT_NPROC, 0) != 0)
        return -1;
    return settings->guard ? (int)syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &program) : 0;
}

/* A process of its own: dies with its parent, and cannot signal it. */
static int separate(const struct settings *settings)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return -1;
    return settings->scope >= 0 ? (int)syscall(SYS_landlock_restrict_self, settings->scope, 0) : 0;
}

/* The layers that are a program's own; see confinement.confine_child. */
static int confine_child(const struct loop *loop)
{
    const struct request *const request = &loop->request;
    const uint64_t parts = request->cases == 1 ? 1 : request->is_shared ? request->cases : 2;
    if (separate(&loop->settings) != 0 ||
        limit(RLIMIT_CPU, (request->cpu_ns / SECOND_NS + CPU_GRACE_S) * parts) != 0 ||
        limit(RLIMIT_FSIZE, request->output_bytes + 1) != 0 || limit(RLIMIT_NOFILE, request->open_files) != 0 ||
        limit(RLIMIT_AS, loop->settings.own_bytes + request->memory_bytes) != 0)
        return -1;
    return request->cases > 1 && !request->is_shared ? 0 : forbid_processes(&loop->settings);
}

static void exit_unconfined(const struct loop *loop)
{
    const uint64_t event = EVENT_SETUP_FAILED;
    (void)!write(loop->settings.event, &event, sizeof event);
    _exit(1);
}

/* What a child that exited with 1 has said about it. */
static uint32_t read_event(const struct loop *loop, int status)
{
    uint64_t value;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 ||
        read(loop->settings.event, &value, sizeof value) != sizeof value)
        return 0;
    return value == EVENT_NOT_COMPILED ? NOT_COMPILED : SETUP_FAILED;
}

/* Nanoseconds until what runs has met its limits. */
static int64_t patience_ns(const struct request *request, pid_t pid, int64_t started_ns, const struct stage *stage)
{
    const clockid_t cpu_clock = (clockid_t)((~(unsigned)pid << 3) | 2);
    int64_t cpu_base_ns = 0, slack_ns = 0;
    if (stage) {
        started_ns = __atomic_load_n(&stage->started_ns, __ATOMIC_ACQUIRE);
        cpu_base_ns = stage->cpu_base_ns;
        slack_ns = stage->is_watched ? WATCH_SLACK_NS : 0;
    }
    const int64_t wall_ns = started_ns + (int64_t)request->wall_ns + slack_ns - now_ns(CLOCK_MONOTONIC);
    const int64_t cpu_ns = (int64_t)request->cpu_ns + cpu_base_ns - now_ns(cpu_clock);
    return cpu_ns < wall_ns ? cpu_ns : wall_ns;
}

/* Wait for a child or its limits; CPU time never exceeds wall time, so one wait is nearly always enough.
 * `last_ns` is the end of all patience whatever the stage says, since a program may have written to that. */
static uint32_t wait_for(const struct loop *loop, pid_t pid, int64_t started_ns, int64_t last_ns,
                         const struct stage *stage, int *status, struct rusage *usage)
{
    const struct request *const request = &loop->request;
    int64_t left_ns = (int64_t)(request->cpu_ns < request->wall_ns ? request->cpu_ns : request->wall_ns);
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    while (left_ns > 0) {
        const struct timespec patience = {left_ns / SECOND_NS, left_ns % SECOND_NS};
        sigtimedwait(&awaited, NULL, &patience);
        if (wait4(pid, status, WNOHANG, usage) == pid)
            return 0;
        left_ns = patience_ns(request, pid, started_ns, stage);
        const int64_t most_ns = last_ns - now_ns(CLOCK_MONOTONIC);
        left_ns = left_ns < most_ns ? left_ns : most_ns;
    }
    if (loop->settings.can_kill) {
        kill(pid, SIGKILL);
        wait4(pid, status, 0, usage);
        return TIMED_OUT;
    }
    /* Without a signal scope no program may kill, so neither may we: end, and the child dies with its parent. */
    *status = SIGKILL;
    getrusage(RUSAGE_CHILDREN, usage);
    return TIMED_OUT | LEAVING;
}

static struct result describe(const struct loop *loop, int status, uint32_t flags, const struct rusage *usage,
                              int64_t started_ns)
{
    return (struct result){
        .magic = {'A', 'L', 'r', '3'},
        .sequence = loop->request.sequence,
        .wait_status = status,
        .flags = flags,
        .cpu_ns = cpu_of(usage),
        .wall_ns = (uint64_t)(now_ns(CLOCK_MONOTONIC) - started_ns),
        .fork_ns = (uint64_t)loop->fork_ns,
        .peak_memory_bytes = (uint64_t)usage->ru_maxrss * 1024,
    };
}

/* Read a request and the descriptors of its cases beyond the first; 0 at the end, -1 on an error. */
static int receive(struct loop *loop)
{
    union {
        char bytes[CMSG_SPACE(sizeof loop->descriptors)];
        struct cmsghdr aligned;
    } control;
    struct request *const request = &loop->request;
    struct iovec data = {request, sizeof *request};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size;
    do
        size = recvmsg(CONTROL_FD, &message, 0);
    while (size < 0 && errno == EINTR);
    if (size <= 0)
        return (int)size;
    const struct cmsghdr *const header = CMSG_FIRSTHDR(&message);
    const size_t count = header ? (header->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    if (size != sizeof *request || memcmp(request->magic, "ALq3", 4) != 0 || request->cases < 1 ||
        request->cases > MAX_CASES || count != 3 * (request->cases - 1) ||
        message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        errno = EBADMSG;
        return -1;
    }
    if (count)
        memcpy(loop->descriptors, CMSG_DATA(header), count * sizeof(int));
    return 1;
}

/* Fork the child and answer for it; 1 in the child, 0 to go on, -1 to end. */
static int answer(struct loop *loop)
{
    struct result results[MAX_CASES];
    struct stage *const stage = loop->stage;
    struct rusage usage = {0};
    int status = 0;
    uint32_t flags = SETUP_FAILED, done = 0;
    int64_t began_ns = now_ns(CLOCK_MONOTONIC);
    const int64_t started_ns = began_ns;
    if (stage)
        stage->started_ns = began_ns;
    const pid_t pid = fork();
    if (pid == 0) {
        if (confine_child(loop) != 0)
            exit_unconfined(loop);
        return 1;
    }
    loop->fork_ns = now_ns(CLOCK_MONOTONIC) - started_ns;
    if (pid > 0) {
        const int64_t longest_ns = (int64_t)loop->request.wall_ns + WATCH_SLACK_NS;
        const int64_t last_ns = started_ns + longest_ns * (loop->request.cases + 1);
        flags = wait_for(loop, pid, started_ns, last_ns, stage, &status, &usage);
        flags |= read_event(loop, status);
    }
    if (stage) {
        while (!(flags & LEAVING) && wait4(-1, NULL, 0, NULL) > 0) /* a case whose parent was ended above */
            ;
        done = stage->done < loop->request.cases ? stage->done : loop->request.cases;
        memcpy(results, stage->results, done * sizeof *results);
        for (uint32_t index = 0; index < done && loop->request.is_shared; index++) { /* the program may have written */
            memcpy(results[index].magic, "ALr3", 4);
            results[index].sequence = loop->request.sequence;
            results[index].flags = 0;
            results[index].wait_status &= 0xFF00;
        }
        began_ns = stage->started_ns - loop->fork_ns;
    }
    if (!stage || done < loop->request.cases) {
        results[done] = describe(loop, status, flags, &usage, began_ns);
        if (stage && stage->usage_base_ns <= results[done].cpu_ns)
            results[done].cpu_ns -= stage->usage_base_ns;
        done++;
    }
    const ssize_t size = (ssize_t)(done * sizeof *results);
    return write(CONTROL_FD, results, (size_t)size) != size || flags & LEAVING ? -1 : 0;
}

/* Return 1 in a child that may compile its program, 0 when the supervisor has hung up, -1 on an error in errno. */
static int serve(struct loop *loop)
{
    for (;;) {
        const int received = receive(loop);
        if (received <= 0)
            return received;
        const uint32_t cases = loop->request.cases;
        if (cases > 1) {
            loop->stage = mmap(NULL, sizeof *loop->stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            if (loop->stage == MAP_FAILED)
                return -1;
        }
        const int outcome = answer(loop);
        if (outcome)
            return outcome > 0;
        if (cases > 1) {
            munmap(loop->stage, sizeof *loop->stage);
            loop->stage = NULL;
            for (uint32_t index = 0; index < 3 * (cases - 1); index++)
                close(loop->descriptors[index]);
        }
    }
}

/* Make a case's input and outputs 0, 1 and 2; those of the first are there already. */
static int take_case(const struct loop *loop, uint32_t index)
{
    for (int which = 0; index > 0 && which < 3; which++)
        if (dup2(loop->descriptors[3 * (index - 1) + (uint32_t)which], which) < 0)
            return -1;
    return 0;
}

static void begin_stage(struct stage *stage, int is_watched)
{
    struct rusage own, waited;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &waited);
    stage->is_watched = (uint32_t)is_watched;
    stage->usage_base_ns = cpu_of(&own) + cpu_of(&waited);
    stage->cpu_base_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    __atomic_store_n(&stage->started_ns, now_ns(CLOCK_MONOTONIC), __ATOMIC_RELEASE);
}

/* Run every case but the last in a child each. Return 0 in each process that has a case to run, -1 on an error. */
static int split(struct loop *loop)
{
    struct stage *const stage = loop->stage;
    const pid_t parent = getpid();
    for (uint32_t index = 0; index + 1 < loop->request.cases; index++) {
        begin_stage(stage, 1);
        const int64_t started_ns = stage->started_ns;
        const pid_t pid = fork();
        if (pid == 0)
            return separate(&loop->settings) == 0 && getppid() == parent ? take_case(loop, index) : -1;
        loop->fork_ns = now_ns(CLOCK_MONOTONIC) - started_ns;
        struct rusage usage = {0};
        int status = 0;
        uint32_t flags = SETUP_FAILED;
        if (pid > 0) {
            flags = wait_for(loop, pid, started_ns, INT64_MAX, NULL, &status, &usage);
            flags |= read_event(loop, status);
        }
        stage->results[index] = describe(loop, status, flags, &usage, started_ns);
        stage->done = index + 1;
    }
    begin_stage(stage, 0);
    return take_case(loop, loop->request.cases - 1);
}

static PyObject *py_serve(PyObject *module, PyObject *arguments)
{
    struct loop loop = {0};
    unsigned long long own_bytes;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "iiKpz#", &loop.settings.event, &loop.settings.scope, &own_bytes,
                          &loop.settings.can_kill, &loop.settings.guard, &loop.settings.guard_bytes))
        return NULL;
    loop.settings.own_bytes = own_bytes;
    const int outcome = serve(&loop);
    if (outcome < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (outcome > 0 && loop.request.cases > 1)
        kept = loop;
    return PyLong_FromLong(outcome == 0 ? 0 : loop.request.is_shared ? (long)loop.request.cases : 1);
}

static PyObject *py_begin(PyObject *module, PyObject *unused)
{
    const int is_shared = kept.request.cases > 1 && kept.request.is_shared;
    const int is_split = kept.request.cases > 1 && !is_shared;
    int failed = 0;
    (void)module, (void)unused;
    if (is_split && (split(&kept) != 0 || forbid_processes(&kept.settings) != 0 ||
                     munmap(kept.stage, sizeof *kept.stage) != 0))
        exit_unconfined(&kept);
    if (is_shared) /* the descriptors of the cases to come stay */
        failed = close(CONTROL_FD) | close(SOURCE_FD) | close(kept.settings.event) |
                 (kept.settings.scope >= 0 ? close(kept.settings.scope) : 0);
    else
        failed = (int)syscall(SYS_close_range, CONTROL_FD, ~0U, 0);
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    if (failed || sigprocmask(SIG_UNBLOCK, &awaited, NULL) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *py_enter_case(PyObject *module, PyObject *argument)
{
    (void)module;
    const long index = PyLong_AsLong(argument);
    if (index < 0 || index >= (long)kept.request.cases) {
        PyErr_SetString(PyExc_ValueError, "no such case");
        return NULL;
    }
    kept.fork_ns = 0;
    begin_stage(kept.stage, 0);
    if (take_case(&kept, (uint32_t)index) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    for (int which = 0; index > 0 && which < 3; which++)
        close(kept.descriptors[3 * (index - 1) + which]);
    Py_RETURN_NONE;
}

static PyObject *py_leave_case(PyObject *module, PyObject *arguments)
{
    int index, code;
    struct rusage usage;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "ii", &index, &code))
        return NULL;
    if (index < 0 || index >= (int)kept.request.cases) {
        PyErr_SetString(PyExc_ValueError, "no such case");
        return NULL;
    }
    getrusage(RUSAGE_SELF, &usage);
    kept.stage->results[index] = describe(&kept, (code & 0xFF) << 8, 0, &usage, kept.stage->started_ns);
    kept.stage->results[index].cpu_ns -= kept.stage->usage_base_ns;
    kept.stage->done = (uint32_t)index + 1;
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
     "serve(event, scope, own_bytes, can_kill, guard) -> cases that this child runs; 0: the supervisor hung up."},
    {"begin", py_begin, METH_NOARGS, "Return in each process that is to run a case, the last layers on."},
    {"enter_case", py_enter_case, METH_O, "enter_case(index): its input and outputs become 0, 1 and 2."},
    {"leave_case", py_leave_case, METH_VARARGS, "leave_case(index, exit code): note how it ended."},
    {"use_huge_pages", py_use_huge_pages, METH_VARARGS, "Put the text in [start, end) into huge pages."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_forkloop", NULL, -1, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__forkloop(void) { return PyModule_Create(&MODULE); }
