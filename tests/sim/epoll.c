/* epoll.c - epoll over simulated files. */
#include "kernel_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EPOLLS 64u

struct entry {
    int fd;
    struct sim_file *file; /* not counted: as in the kernel, the last close removes it */
    uint32_t events;
    epoll_data_t data;
    bool announced; /* exclusive: already woken */
};

struct sim_epoll {
    struct entry *entries;
    uint32_t n, size;
    uint32_t process;
};

static struct sim_epoll *all[EPOLLS];
static uint32_t n_all;

static bool is_exclusive(const struct entry *e)
{
    return e->events & EPOLLEXCLUSIVE;
}

int __wrap_epoll_create1(int flags)
{
    struct sim_epoll *ep = calloc(1, sizeof(*ep));

    (void)flags;
    MR_CHECK(ep != NULL && n_all < EPOLLS);
    ep->process = sim_self_index();
    all[n_all++] = ep;
    return sim_fd_install(sim_file_new(SIM_EPOLL, ep), false);
}

void sim_epoll_closed(void *epoll)
{
    struct sim_epoll *ep = epoll;

    for (uint32_t i = 0; i < n_all; i++)
        if (all[i] == ep)
            all[i] = all[--n_all];
    for (uint32_t i = 0; i < ep->n; i++)
        if (ep->entries[i].file->kind == SIM_DEAD)
            sim_file_put(ep->entries[i].file);
    free(ep->entries);
    free(ep);
}

/* Replaces the files of a killed process by `dead`. */
void sim_epoll_kill(uint32_t process, struct sim_file *dead)
{
    for (uint32_t i = 0; i < n_all; i++)
        for (uint32_t k = 0; all[i]->process == process && k < all[i]->n; k++)
            all[i]->entries[k].file = sim_file_get(dead);
}

static void take_out(struct sim_epoll *ep, struct entry *e)
{
    if (e->file->kind == SIM_DEAD)
        sim_file_put(e->file);
    *e = ep->entries[--ep->n];
}

void sim_epoll_close_dead(uint32_t process, int fd)
{
    for (uint32_t i = 0; i < n_all; i++)
        for (uint32_t k = 0; all[i]->process == process && k < all[i]->n;)
            if (all[i]->entries[k].fd == fd)
                take_out(all[i], &all[i]->entries[k]);
            else
                k++;
}

static struct entry *find(struct sim_epoll *ep, int fd, const struct sim_file *file)
{
    for (uint32_t i = 0; i < ep->n; i++)
        if (ep->entries[i].fd == fd && ep->entries[i].file == file)
            return &ep->entries[i];
    return NULL;
}

static int add(struct sim_epoll *ep, int fd, struct sim_file *file, const struct epoll_event *ev)
{
    if (ep->n == ep->size) {
        ep->size = ep->size * 2 + 16;
        ep->entries = realloc(ep->entries, ep->size * sizeof(*ep->entries));
        MR_CHECK(ep->entries != NULL);
    }
    ep->entries[ep->n++] = (struct entry){
        .fd = fd, .file = file, .events = ev->events, .data = ev->data, .announced = true};
    sim_poke(ep->process);
    return 0;
}

int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    struct sim_epoll *ep = sim_fd_file(epfd)->object;
    struct sim_file *file = sim_fd_file(fd);
    struct entry *e = find(ep, fd, file);

    if (sim_self_killed() && (op == EPOLL_CTL_ADD || e == NULL))
        return 0;
    if (op == EPOLL_CTL_ADD && e == NULL)
        return add(ep, fd, file, ev);
    if (op == EPOLL_CTL_ADD || e == NULL) {
        errno = e == NULL ? ENOENT : EEXIST;
        return -1;
    }
    if (op == EPOLL_CTL_DEL) {
        take_out(ep, e);
    } else {
        e->events = ev->events;
        e->data = ev->data;
        sim_poke(ep->process);
    }
    return 0;
}

static int collect(struct sim_epoll *ep, struct epoll_event *events, int max)
{
    int n = 0;

    for (uint32_t i = 0; i < ep->n && n < max; i++) {
        struct entry *e = &ep->entries[i];
        if (is_exclusive(e) && !e->announced)
            continue;
        const uint32_t now = sim_file_events(e->file) &
                             ((e->events & ~(uint32_t)EPOLLEXCLUSIVE) | EPOLLERR | EPOLLHUP);
        e->announced = now != 0;
        if (now != 0)
            events[n++] = (struct epoll_event){.events = now, .data = e->data};
    }
    for (int i = n - 1; i > 0; i--) { /* in random order */
        const int k = (int)sim_below((uint32_t)i + 1);
        const struct epoll_event swap = events[i];
        events[i] = events[k];
        events[k] = swap;
    }
    return n > 1 && sim_once_in(4) ? 1 + (int)sim_below((uint32_t)n) : n; /* the rest come later */
}

static int wait_until(int epfd, struct epoll_event *events, int max, uint64_t deadline_us)
{
    int n;

    for (sim_block(sim_now_us);; sim_block(deadline_us)) {
        if (sim_once_in(sim_env.interrupted)) {
            errno = EINTR;
            return -1;
        }
        n = collect(sim_fd_file(epfd)->object, events, max);
        if (n > 0 || sim_now_us >= deadline_us)
            return n;
    }
}

int __wrap_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms)
{
    return wait_until(epfd, events, max,
                      timeout_ms < 0 ? UINT64_MAX : sim_now_us + (uint64_t)timeout_ms * 1000u);
}

int __wrap_epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *ts,
                        const void *mask)
{
    (void)mask;
    return wait_until(epfd, events, max,
                      sim_now_us + (uint64_t)ts->tv_sec * 1000000u + (uint64_t)ts->tv_nsec / 1000u);
}

uint32_t sim_epoll_exclusive(const struct sim_file *listener)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < n_all; i++)
        for (uint32_t k = 0; k < all[i]->n; k++)
            count += all[i]->entries[k].file == listener && is_exclusive(&all[i]->entries[k]);
    return count;
}

void sim_epoll_announce(struct sim_file *listener, uint32_t number)
{
    for (uint32_t i = 0; i < n_all; i++)
        for (uint32_t k = 0; k < all[i]->n; k++) {
            struct entry *e = &all[i]->entries[k];
            if (e->file == listener && is_exclusive(e) && number-- == 0)
                e->announced = true;
        }
}

/* Called when the last reference to a file goes. */
void sim_epoll_forget(const struct sim_file *f)
{
    for (uint32_t i = 0; i < n_all; i++)
        for (uint32_t k = 0; k < all[i]->n;)
            if (all[i]->entries[k].file == f)
                all[i]->entries[k] = all[i]->entries[--all[i]->n];
            else
                k++;
}
