/* kernel.c - processes, descriptors, and the scheduler. */
#include "kernel_internal.h"

#include "core/slab.h"
#include "fiber.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES    64u
#define FIRST_PID    1000
#define CPU_US       10u   /* maximum duration of a step */
#define LATE_US      2000u /* a sleeper may wake up this much late */
#define UNWIND_MAX   100000u
#define SIGNALS_MAX  64
#define SMALL_MEMORY 8192u /* up to this size memory never runs out */

struct descriptor {
    struct sim_file *file; /* NULL: not open */
    bool inherited;
};

struct sim_process {
    const char *name;
    uint32_t index;
    struct sim_fiber *fiber;
    int (*body)(void *arg);
    void *arg;
    struct descriptor *fds;
    uint32_t n_fds; /* room in fds */
    uint64_t signals;
    uint64_t wake_us;
    uint64_t stalled_until_us;
    uint64_t turns;
    bool poked;
    bool over, killed, returned;
    int status;
};

struct sim_settings sim_env;
void (*sim_on_exit)(struct sim_process *p);
void (*sim_on_refusal)(const char *what);
void (*sim_after_step)(void);

static struct sim_process host = {.name = "host"};
static struct sim_process *processes[PROCESSES];
static uint32_t n_processes = 1; /* the host is the first */
static struct sim_process *current = &host;
static uint32_t n_files;

/* ---- open files ---- */

struct sim_file *sim_file_new(enum sim_kind kind, void *object)
{
    struct sim_file *f = calloc(1, sizeof(*f));

    MR_CHECK(f != NULL);
    f->kind = kind;
    f->refs = 1;
    f->object = object;
    n_files++;
    return f;
}

struct sim_file *sim_file_get(struct sim_file *f)
{
    f->refs++;
    return f;
}

void sim_file_put(struct sim_file *f)
{
    if (--f->refs > 0)
        return;
    sim_epoll_forget(f);
    switch (f->kind) {
    case SIM_STREAM:
        sim_stream_closed(f->object);
        break;
    case SIM_LISTENER:
        sim_listener_closed(f->object);
        break;
    case SIM_PACKETS:
        sim_packets_closed(f->object);
        break;
    case SIM_EPOLL:
        sim_epoll_closed(f->object);
        break;
    case SIM_SIGNALS:
    case SIM_DEAD:
        break;
    }
    n_files--;
    free(f);
}

uint32_t sim_file_events(const struct sim_file *f)
{
    switch (f->kind) {
    case SIM_STREAM:
        return sim_stream_events(f->object);
    case SIM_LISTENER:
        return sim_listener_events(f->object);
    case SIM_PACKETS:
        return sim_packets_events(f->object);
    case SIM_SIGNALS:
        return current->signals != 0 ? EPOLLIN : 0;
    case SIM_EPOLL:
        return 0;
    case SIM_DEAD:
        break;
    }
    return EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP;
}

void sim_file_changed(struct sim_file *f)
{
    for (uint32_t i = 1; i < n_processes; i++)
        if (f->holders & UINT64_C(1) << i)
            processes[i]->poked = true;
}

void sim_poke(uint32_t index)
{
    if (index > 0)
        processes[index]->poked = true;
}

void sim_announce(struct sim_file *listener)
{
    const uint32_t in_epolls = sim_epoll_exclusive(listener);
    const uint32_t n = in_epolls + sim_ring_exclusive(listener);
    const uint32_t chosen = sim_below(n);

    sim_file_changed(listener);
    if (n == 0)
        return;
    if (chosen < in_epolls)
        sim_epoll_announce(listener, chosen);
    else
        sim_ring_announce(listener, chosen - in_epolls);
}

/* ---- descriptors ---- */

static int lowest_free(struct sim_process *p)
{
    uint32_t i = 0;

    while (i < p->n_fds && p->fds[i].file != NULL)
        i++;
    if (i == p->n_fds) {
        const uint32_t n = p->n_fds * 2 + 16;
        p->fds = realloc(p->fds, n * sizeof(*p->fds));
        MR_CHECK(p->fds != NULL);
        memset(p->fds + p->n_fds, 0, (n - p->n_fds) * sizeof(*p->fds));
        p->n_fds = n;
    }
    return (int)i;
}

/* Of descriptors or memory. */
static bool is_short(void)
{
    return current != &host && (sim_env.refused == NULL || sim_env.refused == current);
}

int sim_fd_install(struct sim_file *f, bool may_fail)
{
    if (current->killed || (may_fail && is_short() && sim_once_in(sim_env.no_descriptor))) {
        sim_note("%s: no descriptor left", current->name);
        if (sim_on_refusal != NULL)
            sim_on_refusal("no descriptor");
        sim_file_put(f);
        errno = EMFILE;
        return -1;
    }
    const int i = lowest_free(current);
    current->fds[i] = (struct descriptor){.file = f};
    f->holders |= UINT64_C(1) << current->index;
    return SIM_FD_BASE + i;
}

static struct descriptor *descriptor_of(int fd)
{
    const uint32_t i = (uint32_t)(fd - SIM_FD_BASE);

    SIM_CHECK(fd >= SIM_FD_BASE && i < current->n_fds && current->fds[i].file != NULL,
              "%s uses the descriptor %d, which is not open", current->name, (int)i);
    return &current->fds[i];
}

struct sim_file *sim_fd_file(int fd)
{
    return descriptor_of(fd)->file;
}

static void close_fd(int fd)
{
    struct descriptor *d = descriptor_of(fd);
    struct sim_file *f = d->file;

    d->file = NULL;
    if (f->kind == SIM_DEAD)
        sim_epoll_close_dead(current->index, fd);
    sim_file_put(f);
}

void sim_keep_fds(const int *fds, size_t n)
{
    for (uint32_t i = 0; i < current->n_fds; i++) {
        bool keep = current->fds[i].file == NULL;
        for (size_t k = 0; k < n && !keep; k++)
            keep = fds[k] == SIM_FD_BASE + (int)i;
        if (!keep)
            close_fd(SIM_FD_BASE + (int)i);
    }
}

int __real_close(int fd);
int __wrap_close(int fd)
{
    if (fd < SIM_FD_BASE)
        return __real_close(fd);
    close_fd(fd);
    return 0;
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;

    va_start(args, command);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (fd < SIM_FD_BASE)
        return __real_fcntl(fd, command, arg);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        return sim_fd_install(sim_file_get(sim_fd_file(fd)), true);
    return 0;
}

/* its name with large file support */
int __wrap_fcntl64(int fd, int command, ...) __attribute__((alias("__wrap_fcntl")));

/* ---- processes ---- */

struct sim_process *sim_self(void)
{
    return current == &host ? NULL : current;
}

int sim_pid(const struct sim_process *p)
{
    return FIRST_PID + (int)(p != NULL ? p->index : 0);
}

const char *sim_name(const struct sim_process *p)
{
    return p != NULL ? p->name : host.name;
}

bool sim_is_over(const struct sim_process *p)
{
    return p->over;
}

bool sim_was_killed(const struct sim_process *p)
{
    return p->killed;
}

int sim_status(const struct sim_process *p)
{
    return p->status;
}

bool sim_has_conn(const struct sim_process *p, const struct sim_conn *c)
{
    for (uint32_t i = 0; i < p->n_fds && c->file != NULL; i++)
        if (p->fds[i].file == c->file)
            return true;
    return false;
}

bool sim_is_waiting(const struct sim_process *p)
{
    return !p->poked && p->wake_us > sim_now_us;
}

uint64_t sim_turns(const struct sim_process *p)
{
    return p->turns;
}

bool sim_self_killed(void)
{
    return current->killed;
}

uint32_t sim_self_index(void)
{
    return current->index;
}

int __wrap_getpid(void)
{
    return sim_pid(current);
}

static void check_leaks(const struct sim_process *p)
{
    for (uint32_t i = 0; i < p->n_fds; i++)
        SIM_CHECK(p->fds[i].file == NULL || p->fds[i].inherited,
                  "%s ends with its descriptor %u still open", p->name, i);
}

static void close_all(struct sim_process *p)
{
    for (uint32_t i = 0; i < p->n_fds; i++)
        if (p->fds[i].file != NULL) {
            sim_file_put(p->fds[i].file);
            p->fds[i].file = NULL;
        }
}

static void process_main(void *arg)
{
    struct sim_process *p = arg;

    p->status = p->body(p->arg);
    if (!p->killed)
        check_leaks(p);
    close_all(p);
    p->returned = p->over = true;
}

struct sim_process *sim_fork(const char *name, struct sim_process *parent, int (*body)(void *arg),
                             void *arg)
{
    const struct sim_process *from = parent != NULL ? parent : &host;
    struct sim_process *p = sim_alloc(sizeof(*p));

    MR_CHECK(n_processes < PROCESSES);
    *p = (struct sim_process){.name = name,
                              .index = n_processes,
                              .body = body,
                              .arg = arg,
                              .n_fds = from->n_fds,
                              .poked = true};
    p->fds = calloc(from->n_fds + 1, sizeof(*p->fds));
    MR_CHECK(p->fds != NULL);
    for (uint32_t i = 0; i < from->n_fds; i++)
        if (from->fds[i].file != NULL) {
            p->fds[i] =
                (struct descriptor){.file = sim_file_get(from->fds[i].file), .inherited = true};
            p->fds[i].file->holders |= UINT64_C(1) << p->index;
        }
    p->fiber = sim_fiber_new(process_main, p);
    processes[n_processes++] = p;
    sim_note("%s: started", name);
    return p;
}

/* Its memory stays until the end of the run, because shared parts must not change. */
void sim_kill(struct sim_process *p)
{
    if (p->over)
        return;
    sim_note("%s: killed", p->name);
    struct sim_file *dead = sim_file_new(SIM_DEAD, NULL);
    p->killed = p->over = true;
    sim_epoll_kill(p->index, dead);
    sim_ring_kill(p->index, dead);
    for (uint32_t i = 0; i < p->n_fds; i++) {
        struct sim_file *f = p->fds[i].file;
        if (f == NULL || f->kind == SIM_EPOLL)
            continue;
        p->fds[i].file = sim_file_get(dead);
        sim_file_put(f);
    }
    sim_file_put(dead);
    if (sim_on_exit != NULL)
        sim_on_exit(p);
}

void sim_stall(struct sim_process *p, uint64_t us)
{
    sim_note("%s: stands still for %llu us", p->name, (unsigned long long)us);
    p->stalled_until_us = sim_now_us + us;
}

void sim_signal(struct sim_process *p, int signo)
{
    MR_CHECK(signo > 0 && signo < SIGNALS_MAX);
    p->signals |= UINT64_C(1) << signo;
    p->poked = true;
}

int __wrap_mr_signal_fd(void)
{
    return sim_fd_install(sim_file_new(SIM_SIGNALS, NULL), false);
}

int __wrap_mr_next_signal(int fd)
{
    (void)sim_fd_file(fd);
    if (current->signals == 0)
        return 0;
    const int signo = __builtin_ctzll(current->signals);
    current->signals &= current->signals - 1;
    return signo;
}

/* ---- memory whose size a peer controls ---- */

static bool memory_is_short(size_t size)
{
    if (!is_short() || current->killed || size <= SMALL_MEMORY || !sim_once_in(sim_env.no_memory))
        return false;
    sim_note("%s: no memory for %zu bytes", current->name, size);
    if (sim_on_refusal != NULL)
        sim_on_refusal("no memory");
    return true;
}

void *__real_mr_slab_try(struct mr_slab *slab, size_t size);
void *__wrap_mr_slab_try(struct mr_slab *slab, size_t size)
{
    return memory_is_short(size) ? NULL : __real_mr_slab_try(slab, size);
}

void *__real_mr_slab_regrow(struct mr_slab *slab, void *block, size_t old_size, size_t size);
void *__wrap_mr_slab_regrow(struct mr_slab *slab, void *block, size_t old_size, size_t size)
{
    return memory_is_short(size) ? NULL : __real_mr_slab_regrow(slab, block, old_size, size);
}

/* ---- the scheduler ---- */

void sim_block(uint64_t deadline_us)
{
    struct sim_process *self = current;

    if (self == &host)
        return;
    self->poked = false;
    self->wake_us = deadline_us;
    sim_fiber_yield(self->fiber);
}

static void resume(struct sim_process *p)
{
    current = p;
    p->poked = false;
    p->turns++;
    sim_fiber_run(p->fiber);
    current = &host;
    if (!p->returned)
        return;
    sim_fiber_free(p->fiber);
    p->fiber = NULL;
    if (p->killed)
        return;
    sim_note("%s: ended, status %d", p->name, p->status);
    if (sim_on_exit != NULL)
        sim_on_exit(p);
}

static uint64_t runs_at(const struct sim_process *p)
{
    const uint64_t at = p->poked ? sim_now_us : p->wake_us;

    return p->over ? UINT64_MAX : at > p->stalled_until_us ? at : p->stalled_until_us;
}

/* No process can run, so time passes. */
static bool pass_time(void)
{
    uint64_t at = sim_next_event_us();

    for (uint32_t i = 1; i < n_processes; i++)
        if (runs_at(processes[i]) < at)
            at = runs_at(processes[i]);
    if (at == UINT64_MAX)
        return false;
    if (at > sim_now_us)
        sim_now_us = at;
    if (sim_once_in(8))
        sim_now_us += sim_below(LATE_US);
    return true;
}

bool sim_run_step(void)
{
    struct sim_process *can[PROCESSES];
    uint32_t n = 0;

    for (;;) {
        const bool event = sim_next_event_us() <= sim_now_us;
        for (uint32_t i = 1; i < n_processes; i++)
            if (runs_at(processes[i]) <= sim_now_us)
                can[n++] = processes[i];
        if (n > 0 || event) {
            const uint32_t chosen = sim_below(n + event);
            if (chosen < n)
                resume(can[chosen]);
            else
                (void)sim_fire_event();
            break;
        }
        if (!pass_time())
            return false;
    }
    sim_now_us += sim_below(CPU_US);
    sim_step();
    if (sim_after_step != NULL)
        sim_after_step();
    return true;
}

static void nothing(void *arg)
{
    (void)arg;
}

void sim_run_until(uint64_t deadline_us)
{
    static struct sim_event end; /* keeps time from passing it */

    if (deadline_us != UINT64_MAX && deadline_us > sim_now_us)
        sim_event_set(&end, deadline_us - sim_now_us, nothing, NULL);
    while (sim_now_us < deadline_us && sim_run_step())
        ;
}

void sim_kernel_begin(void)
{
    n_processes = 1;
    host.n_fds = 0;
    sim_env = (struct sim_settings){
        .latency_us = 100, .socket_bytes = 65536, .packet_bytes = 212992, .ring_entries = 8192};
    sim_sockets_begin();
}

/* Runs a killed process to its end on dead descriptors, so that it frees its memory. */
static void unwind(struct sim_process *p)
{
    for (uint32_t n = 0; !p->returned; n++) {
        SIM_CHECK(n < UNWIND_MAX, "%s cannot be taken apart", p->name);
        if (n % 8 == 7)
            sim_now_us += 100000;
        resume(p);
    }
}

void sim_kernel_end(void)
{
    sim_after_step = NULL;
    sim_on_exit = NULL;
    sim_on_refusal = NULL;
    for (uint32_t i = 1; i < n_processes; i++) {
        sim_kill(processes[i]);
        if (!processes[i]->returned)
            unwind(processes[i]);
        free(processes[i]->fds);
    }
    sim_rings_end();
    close_all(&host);
    free(host.fds);
    host.fds = NULL;
    sim_sockets_end();
    SIM_CHECK(n_files == 0, "%u open files are left over", n_files);
}

/* ---- blocking calls ---- */

int __real_usleep(useconds_t us);
int __wrap_usleep(useconds_t us)
{
    const uint64_t until = sim_now_us + us;

    while (sim_now_us < until && current != &host && !current->killed)
        sim_block(until);
    return 0;
}

static int poll_once(struct pollfd *fds, nfds_t n)
{
    int ready = 0;

    for (nfds_t i = 0; i < n; i++) {
        const uint32_t events = fds[i].fd < 0 ? 0 : sim_file_events(sim_fd_file(fds[i].fd));
        fds[i].revents = (short)(events & ((uint32_t)(uint16_t)fds[i].events | POLLERR | POLLHUP));
        ready += fds[i].revents != 0;
    }
    return ready;
}

int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    const uint64_t until = timeout_ms < 0 ? UINT64_MAX : sim_now_us + (uint64_t)timeout_ms * 1000u;
    int ready;

    if (n > 0 && fds[0].fd >= 0 && fds[0].fd < SIM_FD_BASE)
        return __real_poll(fds, n, timeout_ms);
    while ((ready = poll_once(fds, n)) == 0 && sim_now_us < until && current != &host &&
           !current->killed)
        sim_block(until);
    return ready;
}
