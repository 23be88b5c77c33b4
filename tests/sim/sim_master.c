/*
 * sim_master.c - a whole proxy: masters as they are, with the workers they start, through reloads,
 * upgrades, signals, deaths and processes that stand still. What is checked: see
 * docs/ARCHITECTURE.md, "Tests".
 *
 * What a process is, is the simulated kernel's: starting, ending and signalling one are replaced
 * here (the functions of proc/child.h), as are the sockets of listeners.c, what is written to
 * files, and what one master gives to the next. A team that is freed lives on until the end of the
 * run, for processes that were killed.
 */
#include "client.h"
#include "server.h"

#include "config/diff.h"
#include "proc/master.h"
#include "proc/process.h"
#include "proc/team.h"
#include "proc/transition.h"
#include "proc/upgrade.h"
#include "proc/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENTS_MAX 40u
#define FIRST_MAX   10u /* maximum number of servers, at the start */
#define SERVERS_MAX 4u
#define SLOTS_MAX   4u
#define TEAMS_MAX   64u
#define MASTERS_MAX 4u
#define DEATHS_MAX  60u
#define CALM_AT     36u /* processes; beyond this nothing new is started, so that all fit */
#define SERVER_PORT 7000u
#define SECOND_US   UINT64_C(1000000)
#define PATIENCE_US 1500000u /* servers up to this slow count as healthy */
#define REST_US     (150 * SECOND_US)
#define LIMIT_MS    20000u /* worker_shutdown_timeout */

/* Which server has a key in a configuration. */
struct map {
    struct mr_ring ring;
    mr_hash_fn hash;             /* NULL: no map */
    uint32_t ports[SERVERS_MAX]; /* by position in the ring */
};

/* A master: the first one, or one started by an upgrade. */
struct master {
    struct sim_process *process;
    struct mr_master *m; /* NULL before it starts and after it ends */
    struct mr_generation first;
    struct mr_inheritance inheritance;
    struct mr_pidfile pidfile;
    struct {
        int pid, status;
    } deaths[DEATHS_MAX];
    uint32_t n_deaths;
    enum mr_transition_step step;  /* when last checked */
    uint64_t told_us;              /* when it was told to stop; 0: it was not */
    uint64_t arrived[CLIENTS_MAX]; /* per client: bytes that had arrived by then */
};

static struct {
    struct master masters[MASTERS_MAX];
    uint32_t n_masters;
    struct sim_server *servers[SERVERS_MAX];
    uint32_t n_servers;
    int listeners[SLOTS_MAX]; /* of the host: one per possible slot */
    uint32_t n_open;          /* slots that get new connections */
    const char *text;         /* the configuration file */
    uint32_t text_timeout_ms;
    bool times_out; /* some configuration had a time-out */
    struct mr_options options;
    struct mr_team *teams[TEAMS_MAX]; /* freed */
    uint32_t n_teams;
    struct sim_process *processes[DEATHS_MAX]; /* children, including dead ones */
    struct master *parents[DEATHS_MAX];        /* of them */
    uint32_t n_processes;
    struct map map;     /* the current map */
    uint64_t killed_us; /* when a worker was last killed */
    uint32_t n_killed;  /* clients that may be lost between two workers */
    bool at_once;       /* a master was told to stop at once: handing over to it loses clients */
    bool deserted;      /* the new master died after taking over */
    bool kills;         /* kills workers */
    bool upgrades;      /* tries upgrades */
    bool fails;         /* every new master fails */
    bool calm;          /* starts nothing new */
    uint32_t client_idle_ms;
    struct sim_event disturbance;
    struct sim_event aimed;   /* for the middle of a transition */
    struct sim_event arrival; /* of a client */
    uint32_t n_clients;
} w;

/* ---- the configuration ---- */

static void build_map(struct map *map, const struct mr_config *config)
{
    const struct mr_pool_config *pool = &config->pools[0];
    struct mr_ring_member *members = mr_config_ring_members(pool);
    struct mr_error err;

    MR_CHECK(mr_ring_build(&map->ring, pool->distribution, members, pool->servers.n, &err) ==
             MR_OK);
    free(members);
    map->hash = mr_hash_function(pool->hash);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        map->ports[i] = pool->servers.at[i].port;
}

static void drop_map(struct map *map)
{
    mr_ring_free(&map->ring);
    *map = (struct map){.hash = NULL};
}

/* In force from now on. What servers were sent before went through the old map. */
static void put_in_force(const struct mr_config *config)
{
    drop_map(&w.map);
    build_map(&w.map, config);
    for (uint32_t i = 0; i < w.n_servers; i++)
        for (struct sim_server_conn *sc = w.servers[i]->conns; sc != NULL; sc = sc->next)
            sc->mark = sim_sent(sc->conn);
}

static uint32_t port_of(const struct map *map, struct mr_slice key)
{
    return map->ports[mr_ring_pick(&map->ring, map->hash(key.at, key.len), 0)];
}

static const char *one_of(const char *a, const char *b, const char *c)
{
    const char *const all[] = {a, b, c};

    return all[sim_below(3)];
}

/* Writes another file; occasionally an invalid one. */
static void write_file(bool may_be_bad)
{
    static const uint32_t TIMEOUTS[] = {0, 1000, 5000};
    struct sim_bytes text = {0};
    const uint32_t first = sim_below(w.n_servers);

    w.text_timeout_ms = w.upgrades ? 0 : TIMEOUTS[sim_below(3)];
    w.times_out |= w.text_timeout_ms > 0;
    sim_bytes_addf(&text,
                   "global:\n  worker_processes: %u\n  worker_shutdown_timeout: %ums\n"
                   "  engine: %s\n  accept_balance: %s\n  accept: %s\n",
                   sim_between(1 + w.upgrades, SLOTS_MAX), LIMIT_MS,
                   sim_once_in(2) ? "epoll" : "io_uring", sim_once_in(2) ? "true" : "false",
                   "reuseport");
    sim_bytes_addf(&text,
                   "p:\n  listen: 127.0.0.1:1\n  redis: true\n  hash: %s\n"
                   "  distribution: ketama\n  timeout: %u\n  coalesce: %s\n"
                   "  max_pipeline: %u\n  servers:\n",
                   one_of("murmur", "crc32a", "fnv1_64"), w.text_timeout_ms,
                   one_of("off", "auto", "300us"), sim_once_in(2) ? 1024 : sim_between(2, 30));
    for (uint32_t i = first; i < w.n_servers; i++)
        sim_bytes_addf(&text, "   - 127.0.0.1:%u:1\n", SERVER_PORT + i);
    if (may_be_bad && sim_once_in(8))
        sim_bytes_addf(&text, "  nonsense: 1\n");
    w.text = sim_text("%.*s", (int)(text.end - text.start), text.memory + text.start);
}

enum mr_result __wrap_mr_config_load(struct mr_config **out, const char *path,
                                     uint32_t max_key_bytes, struct mr_findings *found,
                                     struct mr_error *err);
enum mr_result __wrap_mr_config_load(struct mr_config **out, const char *path,
                                     uint32_t max_key_bytes, struct mr_findings *found,
                                     struct mr_error *err)
{
    return mr_config_parse(out, path, mr_slice_of(w.text), max_key_bytes, found, err);
}

/* ---- sockets and files ---- */

enum mr_result __wrap_mr_listeners_open(struct mr_listeners *l, const struct mr_config *config,
                                        uint32_t n_slots, const struct mr_listeners *before,
                                        struct mr_error *err);
enum mr_result __wrap_mr_listeners_open(struct mr_listeners *l, const struct mr_config *config,
                                        uint32_t n_slots, const struct mr_listeners *before,
                                        struct mr_error *err)
{
    *l = (struct mr_listeners){.config = config, .n_slots = n_slots, .n = 1};
    l->fds = malloc(n_slots * sizeof(int));
    MR_CHECK(l->fds != NULL);
    (void)before;
    memset(l->fds, 0xff, n_slots * sizeof(int));
    for (uint32_t i = 0; i < n_slots; i++) {
        l->fds[i] = fcntl(w.listeners[i], F_DUPFD_CLOEXEC, 0);
        if (l->fds[i] < 0)
            return mr_fail_sys(err, "dup of a socket");
    }
    return MR_OK;
}

void __wrap_mr_listeners_steer(const struct mr_listeners *l, const struct mr_listeners *before);
void __wrap_mr_listeners_steer(const struct mr_listeners *l, const struct mr_listeners *before)
{
    (void)before;
    w.n_open = l->n_slots;
}

enum mr_result __wrap_mr_ports_open(struct mr_ports *ports, const struct mr_config *config,
                                    const struct mr_options *options, const struct mr_ports *before,
                                    struct mr_error *err);
enum mr_result __wrap_mr_ports_open(struct mr_ports *ports, const struct mr_config *config,
                                    const struct mr_options *options, const struct mr_ports *before,
                                    struct mr_error *err)
{
    (void)config;
    (void)options;
    (void)before;
    (void)err;
    *ports = (struct mr_ports){
        .addrs = calloc(1, sizeof(*ports->addrs)), .fds = malloc(sizeof(int)), .n = 1};
    MR_CHECK(ports->addrs != NULL && ports->fds != NULL);
    ports->fds[0] = -1;
    return MR_OK;
}

void __wrap_mr_generation_log_started(const struct mr_generation *g);
void __wrap_mr_generation_log_started(const struct mr_generation *g)
{
    put_in_force(g->config); /* for a start and an upgrade; a reload follows the files instead */
}

void __wrap_mr_files_reopen_log(void);
void __wrap_mr_files_reopen_log(void)
{
}

void __wrap_mr_files_follow(const struct mr_options *options, const struct mr_config *now,
                            const struct mr_config *before, struct mr_pidfile *pidfile);
void __wrap_mr_files_follow(const struct mr_options *options, const struct mr_config *now,
                            const struct mr_config *before, struct mr_pidfile *pidfile)
{
    (void)options;
    (void)before;
    (void)pidfile;
    put_in_force(now); /* a reload does this after telling the new workers to go on */
}

void __wrap_mr_team_share_log(struct mr_team *team);
void __wrap_mr_team_share_log(struct mr_team *team)
{
    (void)team;
}

/* ---- the life of a team ---- */

static void close_in(int *fds, uint32_t n)
{
    for (uint32_t i = 0; fds != NULL && i < n; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
        fds[i] = -1;
    }
}

void __real_mr_team_free(struct mr_team *team, const struct mr_generation *heir);
void __wrap_mr_team_free(struct mr_team *team, const struct mr_generation *heir);
void __wrap_mr_team_free(struct mr_team *team, const struct mr_generation *heir)
{
    (void)heir;
    if (team == NULL)
        return;
    SIM_CHECK(mr_team_alive(team, -1) == 0 || sim_was_killed(sim_self()),
              "a team is freed that has processes");
    mr_timer_cancel(&team->pulse);
    mr_timer_cancel(&team->resolve_wait);
    for (uint32_t i = 0; i < team->n_children; i++)
        mr_timer_cancel(&team->children[i].respawn);
    mr_ways_close(&team->ways_in);
    close_in(team->generation.listeners.fds, team->generation.listeners.n_slots);
    close_in(team->generation.runtime.balance_in, team->generation.runtime.n_slots);
    close_in(team->generation.runtime.balance_out, team->generation.runtime.n_slots);
    MR_CHECK(w.n_teams < TEAMS_MAX);
    w.teams[w.n_teams++] = team;
}

/* ---- processes ---- */

/* What a child gets from its master. */
struct birth {
    struct mr_team *team;
    enum mr_child_kind kind;
    uint32_t index;
    int channel;
    int *ways;
    uint32_t n_ways;
    bool closed;
};

static void tell_ready(void *arg)
{
    mr_channel_tell(*(int *)arg, MR_MSG_READY_TYPE);
}

static void keep_own(const struct birth *b)
{
    const struct mr_runtime *rt = &b->team->generation.runtime;
    int keep[4 + 4 * SLOTS_MAX];
    size_t n = 0;

    keep[n++] = b->channel;
    if (b->kind == MR_WORKER) {
        keep[n++] = b->team->generation.listeners.fds[b->index];
        for (uint32_t i = b->index; i < b->n_ways; i += rt->n_slots)
            if (b->ways[i] >= 0)
                keep[n++] = b->ways[i];
        for (uint32_t i = 0; rt->balance_out != NULL && i < rt->n_slots; i++)
            keep[n++] = rt->balance_out[i];
        if (rt->balance_in != NULL)
            keep[n++] = rt->balance_in[b->index];
    }
    sim_keep_fds(keep, n);
}

static void quit(struct mr_process *p)
{
    p->loop.stop = true;
}

static int run_helper(struct birth *b)
{
    struct mr_process p = {.channel = {.fd = b->channel}, .on_terminate = quit, .on_quit = quit};
    struct mr_error err;

    if (mr_process_init(&p, "epoll", &err) != MR_OK)
        return 1;
    mr_channel_tell(b->channel, MR_MSG_READY_TYPE);
    mr_loop_run(&p.loop);
    mr_process_fini(&p);
    return 0;
}

static int child_body(void *arg)
{
    struct birth *b = arg;

    keep_own(b);
    if (b->kind != MR_WORKER)
        return run_helper(b);
    const struct mr_worker_setup setup = {.runtime = &b->team->generation.runtime,
                                          .slot = b->index,
                                          .listen_fds =
                                              &b->team->generation.listeners.fds[b->index],
                                          .ways_in = b->ways,
                                          .n_ways = b->n_ways,
                                          .closed = b->closed,
                                          .channel = b->channel,
                                          .on_ready = tell_ready,
                                          .arg = &b->channel};
    return mr_worker_run(&setup);
}

static struct birth *describe(const struct mr_child *child, int channel)
{
    struct birth *b = sim_alloc(sizeof(*b));

    *b = (struct birth){.team = child->team,
                        .kind = child->kind,
                        .index = child->index,
                        .channel = channel,
                        .n_ways = child->team->ways_in.n,
                        .closed = child->team->state == MR_TEAM_STARTING};
    b->ways = sim_alloc((b->n_ways + 1) * sizeof(int));
    if (b->n_ways > 0)
        memcpy(b->ways, child->team->ways_in.fds, b->n_ways * sizeof(int));
    return b;
}

static struct master *master_of(const struct sim_process *p)
{
    for (uint32_t i = 0; i < w.n_masters; i++)
        if (w.masters[i].process == p)
            return &w.masters[i];
    return NULL;
}

/* Registers a child of the current process. */
static void add_process(struct sim_process *p)
{
    w.parents[w.n_processes] = master_of(sim_self());
    w.processes[w.n_processes++] = p;
}

enum mr_result __wrap_mr_child_fork(struct mr_child *child, struct mr_error *err);
enum mr_result __wrap_mr_child_fork(struct mr_child *child, struct mr_error *err)
{
    int ends[2];
    const enum mr_result rc = mr_channel_open(ends, err);

    if (rc != MR_OK)
        return rc;
    if (w.n_processes == DEATHS_MAX || sim_was_killed(sim_self()) || sim_once_in(200)) {
        mr_channel_close(ends[0]);
        mr_channel_close(ends[1]);
        return mr_fail(err, MR_ESYS, "no more processes");
    }
    struct sim_process *p = sim_fork(sim_text("%s/%u.%u", mr_child_kind_name(child->kind),
                                              child->index, child->team->generation.number),
                                     sim_self(), child_body, describe(child, ends[1]));
    mr_channel_close(ends[1]);
    add_process(p);
    child->pid = sim_pid(p);
    child->channel.fd = ends[0];
    return MR_OK;
}

static struct sim_process *process_of(int pid)
{
    for (uint32_t i = 0; i < w.n_processes; i++)
        if (sim_pid(w.processes[i]) == pid)
            return w.processes[i];
    return sim_pid(w.masters[0].process) == pid ? w.masters[0].process : NULL;
}

/* Marks its clients as lost. */
static void lose_clients_of(const struct sim_process *p)
{
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next)
        c->lost |= sim_has_conn(p, c->conn);
}

/* One more client may be lost: the one being sent, of which it got the first part. */
static void kill_worker(struct sim_process *p)
{
    if (sim_is_over(p))
        return;
    if (strncmp(sim_name(p), "admin", 5) != 0) {
        sim_trouble("%s is killed", sim_name(p));
        w.killed_us = sim_now_us;
        w.n_killed++;
        lose_clients_of(p);
    }
    sim_kill(p);
}

void __wrap_mr_child_kill(const struct mr_child *child);
void __wrap_mr_child_kill(const struct mr_child *child)
{
    if (child->pid != 0)
        kill_worker(process_of(child->pid));
}

void __wrap_mr_signal(pid_t pid, int signo);
void __wrap_mr_signal(pid_t pid, int signo)
{
    struct sim_process *p = process_of(pid);

    if (signo == SIGKILL)
        kill_worker(p);
    else if (!sim_is_over(p))
        sim_signal(p, signo);
}

/* ---- a new master that will fail, early or late ---- */

struct successor {
    int link;
    struct mr_ways ways_in;
    bool hurries; /* dies before requesting the clients */
};

/* Marks clients that no worker has as lost. */
static void lose_travellers(void)
{
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next) {
        bool has = false;
        for (uint32_t i = 0; i < w.n_processes; i++)
            has |= !sim_is_over(w.processes[i]) && sim_has_conn(w.processes[i], c->conn);
        c->lost |= !has;
    }
}

static int *copy_fds(const int *fds, uint32_t n)
{
    int *copy = sim_alloc(n * sizeof(int));

    memcpy(copy, fds, n * sizeof(int));
    return copy;
}

/* Requests the clients, and dies before or when the old workers are quiesced. */
static int successor_body(void *arg)
{
    struct successor *s = arg;
    struct mr_message msg = {.type = MR_MSG_TAKEOVER_TYPE};
    struct mr_error err;
    int keep[1 + SLOTS_MAX];

    keep[0] = s->link;
    memcpy(keep + 1, s->ways_in.fds, s->ways_in.n * sizeof(int));
    sim_keep_fds(keep, 1 + s->ways_in.n);
    (void)usleep(sim_magnitude(1000, 500000));
    if (s->hurries)
        return 1;
    msg.body.TAKEOVER.slots = s->ways_in.n;
    memset(msg.body.TAKEOVER.moves, 0xff, sizeof(msg.body.TAKEOVER.moves));
    if (mr_channel_send(s->link, &msg, -1, &err) != MR_OK)
        return 1;
    for (uint32_t ms = sim_magnitude(1, 3000); ms > 0; ms--) {
        (void)usleep(1000);
        const enum mr_result rc = mr_channel_recv(s->link, &msg, &err);
        if (rc != MR_AGAIN && (rc != MR_OK || msg.type != MR_MSG_OPEN_TYPE))
            break;
    }
    return 1;
}

static struct sim_process *start_failing(int link, const struct mr_ways *ways_in)
{
    struct successor *s = sim_alloc(sizeof(*s));

    *s = (struct successor){.link = link, .ways_in.n = ways_in->n, .hurries = sim_once_in(4)};
    s->ways_in.fds = copy_fds(ways_in->fds, ways_in->n);
    return sim_fork("successor", sim_self(), successor_body, s);
}

/* ---- masters ---- */

/* What a master passes to the next. */
struct estate {
    struct master *heir;
    int link;
    pid_t pid;
    const char *text;
    uint32_t number, n_slots;
    int *listeners, *ways, *slots, *bases; /* descriptors */
};

static void nothing(void *arg)
{
    (void)arg;
}

/* Runs until it ends or is killed. */
static int run_master(struct master *x)
{
    const struct mr_master_setup setup = {.generation = &x->first,
                                          .options = &w.options,
                                          .conf_file = "sim",
                                          .exe = "sim",
                                          .pidfile = &x->pidfile,
                                          .inheritance = &x->inheritance,
                                          .on_ready = nothing,
                                          .on_handed_over = nothing,
                                          .in_child = nothing};
    x->m = mr_master_new(&setup);
    MR_CHECK(x->m != NULL);
    do
        mr_loop_turn(mr_master_loop(x->m), -1);
    while (!sim_was_killed(x->process) && mr_master_act(x->m));
    struct mr_master *m = x->m;
    x->m = NULL;
    return mr_master_free(m);
}

static int first_body(void *arg)
{
    struct master *x = arg;
    struct mr_error err;

    x->inheritance = (struct mr_inheritance){.link = -1, .pidfile = -1};
    if (mr_generation_load(&x->first, &w.options, "sim", &err) != MR_OK ||
        mr_generation_open(&x->first, &w.options, NULL, &err) != MR_OK)
        sim_fail("the start fails: %s", err.text);
    return run_master(x);
}

static int *mallocked(const int *fds, uint32_t n)
{
    int *copy = malloc(n * sizeof(int));

    MR_CHECK(copy != NULL);
    memcpy(copy, fds, n * sizeof(int));
    return copy;
}

static void attach(struct mr_metrics *m, int fd, const struct mr_config *config)
{
    struct mr_error err;

    MR_CHECK(mr_metrics_attach(m, dup(fd), config->n_pools, config->n_servers, &err) == MR_OK);
}

/* As mr_inheritance_receive would from the link. */
static void inherit(struct mr_inheritance *in, const struct estate *e)
{
    struct mr_generation *g = &in->previous;
    struct mr_runtime *rt = &g->runtime;
    struct mr_error err;

    *in = (struct mr_inheritance){.link = e->link, .pid = e->pid, .pidfile = -1};
    MR_CHECK(mr_config_parse(&g->config, "sim", mr_slice_of(e->text), MR_KEY_BYTES_DEFAULT, NULL,
                             &err) == MR_OK);
    g->number = e->number;
    rt->config = g->config;
    rt->n_slots = e->n_slots;
    MR_CHECK(mr_generation_share_health(g, &err) == MR_OK);
    g->listeners = (struct mr_listeners){.config = g->config,
                                         .n_slots = e->n_slots,
                                         .n = 1,
                                         .fds = mallocked(e->listeners, e->n_slots)};
    in->ways_in = (struct mr_ways){mallocked(e->ways, e->n_slots), e->n_slots};
    rt->slots = calloc(e->n_slots, sizeof(*rt->slots));
    rt->bases = calloc(e->n_slots, sizeof(*rt->bases));
    rt->addresses = calloc(g->config->n_servers + 1, sizeof(*rt->addresses));
    MR_CHECK(rt->slots != NULL && rt->bases != NULL && rt->addresses != NULL);
    for (uint32_t i = 0; i < e->n_slots; i++) {
        attach(&rt->slots[i], e->slots[i], g->config);
        attach(&rt->bases[i], e->bases[i], g->config);
    }
}

/* The same steps as in main.c. */
static int heir_body(void *arg)
{
    const struct estate *e = arg;
    struct master *x = e->heir;
    struct mr_error err;
    int keep[1 + 3 * SLOTS_MAX];
    uint32_t n = 0;

    keep[n++] = e->link;
    for (uint32_t i = 0; i < SLOTS_MAX; i++)
        keep[n++] = w.listeners[i];
    for (uint32_t i = 0; i < e->n_slots; i++) {
        keep[n++] = e->ways[i];
        keep[n++] = e->listeners[i];
    }
    sim_keep_fds(keep, n);
    (void)usleep(sim_magnitude(1000, 500000));
    if (sim_was_killed(x->process))
        return 1;
    if (mr_generation_load(&x->first, &w.options, "sim", &err) != MR_OK) {
        mr_findings_fini(&x->first.findings);
        return 1;
    }
    inherit(&x->inheritance, e);
    if (mr_generation_open(&x->first, &w.options, &x->inheritance.previous, &err) == MR_OK)
        return run_master(x);
    mr_ways_close(&x->inheritance.ways_in);
    mr_generation_close(&x->first, &x->inheritance.previous);
    mr_inheritance_close(&x->inheritance, NULL);
    return 1;
}

static struct sim_process *start_heir(const struct mr_generation *g, int link,
                                      const struct mr_ways *ways_in)
{
    const struct mr_runtime *rt = &g->runtime;
    struct master *x = &w.masters[w.n_masters++];
    struct estate *e = sim_alloc(sizeof(*e));

    *e = (struct estate){.heir = x,
                         .link = link,
                         .pid = sim_pid(sim_self()),
                         .text = sim_text("%s", g->config->source),
                         .number = g->number,
                         .n_slots = rt->n_slots,
                         .listeners = copy_fds(g->listeners.fds, rt->n_slots),
                         .ways = copy_fds(ways_in->fds, rt->n_slots),
                         .slots = sim_alloc(rt->n_slots * sizeof(int)),
                         .bases = sim_alloc(rt->n_slots * sizeof(int))};
    for (uint32_t i = 0; i < rt->n_slots; i++) {
        e->slots[i] = rt->slots[i].fd;
        e->bases[i] = rt->bases[i].fd;
    }
    x->process = sim_fork(sim_text("master.%u", w.n_masters), sim_self(), heir_body, e);
    return x->process;
}

enum mr_result __wrap_mr_upgrade_start(const struct mr_upgrade *u, const struct mr_generation *g,
                                       const struct mr_ways *ways_in, pid_t *pid, int *link,
                                       struct mr_error *err);
enum mr_result __wrap_mr_upgrade_start(const struct mr_upgrade *u, const struct mr_generation *g,
                                       const struct mr_ways *ways_in, pid_t *pid, int *link,
                                       struct mr_error *err)
{
    int ends[2];

    (void)u;
    if (w.n_processes >= CALM_AT)
        return mr_fail(err, MR_ESYS, "no more processes");
    const enum mr_result rc = mr_channel_open(ends, err);
    if (rc != MR_OK)
        return rc;
    struct sim_process *p = w.fails || w.n_masters == MASTERS_MAX ? start_failing(ends[1], ways_in)
                                                                  : start_heir(g, ends[1], ways_in);
    mr_channel_close(ends[1]);
    add_process(p);
    *pid = sim_pid(p);
    *link = ends[0];
    return MR_OK;
}

/* Its clients belong, or will belong, to another master. */
static bool gives_away(const struct master *x)
{
    const struct mr_transition *t = x->m != NULL ? mr_master_transition(x->m) : NULL;

    return t != NULL && t->number > 1 && strcmp(t->plan.kind->name, "upgrade") == 0 && t->released;
}

/* The master of the worker that has the client, or that had it at the end. NULL: nobody has had it.
 */
static const struct master *keeper_of(const struct sim_client *c)
{
    const struct sim_process *by = c->conn->closed_by;

    for (uint32_t i = 0; i < w.n_processes; i++)
        if (w.processes[i] == by ||
            (by == NULL && !sim_is_over(w.processes[i]) && sim_has_conn(w.processes[i], c->conn)))
            return w.parents[i];
    return NULL;
}

static bool is_told(const struct master *x)
{
    return x->told_us != 0;
}

static bool any_told(void)
{
    bool any = false;

    for (uint32_t i = 0; i < w.n_masters; i++)
        any |= is_told(&w.masters[i]);
    return any;
}

/* Those that are there: nobody takes new clients. */
static bool all_told(void)
{
    bool all = true;

    for (uint32_t i = 0; i < w.n_masters; i++)
        all &= sim_is_over(w.masters[i].process) || is_told(&w.masters[i]);
    return all;
}

static uint32_t masters_alive(void)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w.n_masters; i++)
        n += !sim_is_over(w.masters[i].process);
    return n;
}

/* A running master, most often the last; NULL if all have ended. */
static struct master *some_master(void)
{
    struct master *x = NULL;

    for (uint32_t i = 0; i < w.n_masters; i++)
        if (!sim_is_over(w.masters[i].process) && (x == NULL || !sim_once_in(4)))
            x = &w.masters[i];
    return x;
}

static void after_master(const struct master *x, const struct sim_process *p)
{
    bool served = false;

    for (uint32_t i = 0; i < w.n_processes; i++) /* they die with it, unless another has them */
        if (w.parents[i] == x && strcmp(sim_name(w.processes[i]), "successor") != 0 &&
            master_of(w.processes[i]) == NULL)
            kill_worker(w.processes[i]);
    for (uint32_t i = 0; i < w.n_masters; i++)
        served |= !sim_is_over(w.masters[i].process) && !gives_away(&w.masters[i]);
    w.deserted |= !served && (sim_was_killed(p) || sim_status(p) != 0);
    if (x == NULL || sim_was_killed(p) || sim_status(p) != 0)
        lose_travellers();
}

static void come_after_failure(void *arg);

static void on_exit_of(struct sim_process *p)
{
    const struct master *x = master_of(p);
    struct master *parent = NULL;

    if (x != NULL || strcmp(sim_name(p), "successor") == 0) {
        after_master(x, p);
        if (x == NULL && !w.calm && !sim_once_in(4))
            sim_event_set(&w.aimed, 0, come_after_failure, NULL);
    }
    for (uint32_t i = 0; i < w.n_processes; i++)
        if (w.processes[i] == p)
            parent = w.parents[i];
    if (parent == NULL || sim_is_over(parent->process))
        return;
    MR_CHECK(parent->n_deaths < DEATHS_MAX);
    parent->deaths[parent->n_deaths].pid = sim_pid(p);
    parent->deaths[parent->n_deaths++].status = sim_was_killed(p) ? SIGKILL : sim_status(p) << 8;
    sim_signal(parent->process, SIGCHLD);
}

pid_t __wrap_mr_reap(int *status);
pid_t __wrap_mr_reap(int *status)
{
    struct master *x = master_of(sim_self());

    if (x->n_deaths == 0)
        return 0;
    const int pid = x->deaths[0].pid;
    *status = x->deaths[0].status;
    memmove(&x->deaths[0], &x->deaths[1], --x->n_deaths * sizeof(x->deaths[0]));
    return pid;
}

static void tell(struct master *x, int signo)
{
    sim_note("signal %d for %s", signo, sim_name(x->process));
    sim_signal(x->process, signo);
}

static void signal_master(int signo)
{
    struct master *x = some_master();

    if (x != NULL)
        tell(x, signo);
}

static void ask_reload(bool may_be_bad)
{
    write_file(may_be_bad);
    sim_note("HUP: %s", w.text);
    signal_master(SIGHUP);
}

static void stop(struct master *x, int signo)
{
    for (struct sim_client *c = sim_clients; c != NULL && !is_told(x); c = c->next)
        x->arrived[c->id] = sim_arrived(c->conn);
    if (!is_told(x))
        x->told_us = sim_now_us;
    w.at_once |= signo == SIGINT;
    tell(x, signo);
}

static void stop_one(int signo)
{
    struct master *x = some_master();

    if (x != NULL)
        stop(x, signo);
}

static void kill_master(void)
{
    if (w.kills && masters_alive() > 1)
        kill_worker(some_master()->process);
}

/* ---- the world ---- */

static void set_environment(void)
{
    sim_env.latency_us = sim_magnitude(10, 10000);
    sim_env.cut_bytes = sim_once_in(2) ? 0 : sim_magnitude(1, 5000);
    sim_env.socket_bytes = sim_once_in(2) ? 65536 : sim_magnitude(2000, 200000);
    sim_env.packet_bytes = sim_once_in(2) ? 212992 : sim_magnitude(80000, 212992);
    sim_env.partial = sim_once_in(2) ? 0 : sim_magnitude(2, 100);
    sim_env.interrupted = sim_once_in(4) ? sim_magnitude(2, 100) : 0;
}

static struct sim_process *some_worker(void)
{
    const uint32_t from = sim_below(w.n_processes);

    for (uint32_t i = 0; i < w.n_processes; i++) {
        struct sim_process *p = w.processes[(from + i) % w.n_processes];
        if (!sim_is_over(p))
            return p;
    }
    return NULL;
}

static void stand_still(struct sim_process *p)
{
    const uint32_t us = sim_magnitude(1000, 4000000);

    if (p == NULL || sim_is_over(p))
        return;
    sim_stall(p, us);
    if (us > 100000)
        sim_trouble("%s stands still", sim_name(p));
}

static void ask_change(void)
{
    if (!w.upgrades || sim_once_in(2)) {
        ask_reload(true);
        return;
    }
    signal_master(SIGUSR2);
}

static void disturb(void *arg)
{
    struct sim_process *p = some_worker();

    (void)arg;
    if (w.n_processes >= CALM_AT)
        return;
    switch (sim_below(12)) {
    case 0:
        if (sim_once_in(4))
            kill_master();
        else if (p != NULL && w.kills)
            kill_worker(p);
        break;
    case 1:
    case 2:
        stand_still(p);
        break;
    case 3:
        if (some_master() != NULL)
            stand_still(some_master()->process);
        break;
    case 4:
        sim_server_down(w.servers[sim_below(w.n_servers)]);
        break;
    case 5:
        sim_server_up(w.servers[sim_below(w.n_servers)]);
        break;
    case 6:
        set_environment();
        break;
    default:
        ask_change();
        break;
    }
    sim_event_set(&w.disturbance, sim_magnitude(1000, 3000000), disturb, NULL);
}

/* Disturbs a transition midway. */
static void aim(void *arg)
{
    struct sim_process *p = some_worker();

    (void)arg;
    if (some_master() == NULL)
        return;
    switch (sim_below(5)) {
    case 0:
        stop_one(sim_once_in(2) ? SIGTERM : SIGQUIT);
        break;
    case 1:
        ask_change();
        break;
    case 2:
        stand_still(some_master()->process);
        break;
    case 3:
        kill_master();
        break;
    default:
        if (p != NULL)
            sim_stall(p, sim_between(900000, 3000000));
        break;
    }
}

/* Stalls new workers while clients arrive at them. */
static void stall_newcomers(uint32_t n_slots)
{
    for (uint32_t i = w.n_processes, n = 0; i > 0 && n < n_slots; i--) {
        struct sim_process *p = w.processes[i - 1];
        if (strncmp(sim_name(p), "worker", 6) != 0)
            continue;
        n++;
        if (!sim_is_over(p))
            sim_stall(p, sim_between(1100000, 3000000));
    }
}

static void reload_soon(void *arg)
{
    (void)arg;
    ask_reload(false);
}

static uint32_t rarely(uint32_t in)
{
    return sim_once_in(in) ? sim_magnitude(50, 3000) : 0;
}

static void set_habits(void)
{
    sim_habits = (struct sim_server_habits){.delay_us = sim_magnitude(0, 50000),
                                            .slow = w.upgrades ? sim_magnitude(3, 100) : rarely(3),
                                            .slow_us = w.upgrades ? PATIENCE_US : 0,
                                            .dies = rarely(6),
                                            .wrong = rarely(6),
                                            .blocked = rarely(8)};
    sim_aftermath_us = 5 * SECOND_US;
    sim_strict = false; /* keys move */
}

static struct sim_client_plan new_plan(void)
{
    struct sim_client_plan plan = {
        .proto = &SIM_CLIENT_RESP,
        .listener = w.listeners[sim_below(w.n_open)],
        .n_requests = sim_magnitude(1, 400),
        .depth = sim_magnitude(1, 200),
        .burst = sim_magnitude(1, 200),
        .think_us = sim_magnitude(0, 200000),
        .size = sim_magnitude(0, 3000),
        .huge = sim_once_in(4) ? sim_magnitude(5, 200) : 0,
        .transacts = sim_once_in(3) ? sim_magnitude(2, 50) : 0,
        .ending = (enum sim_ending)sim_below(SIM_END_RESET + 1),
    };

    if (sim_once_in(3)) {
        plan.read_bytes = sim_magnitude(1, 20000);
        plan.read_us = sim_magnitude(0, 10000);
        plan.stops = sim_once_in(2) ? sim_magnitude(3, 100) : 0;
    }
    if (sim_once_in(20))
        sim_plan_slow_reader(&plan);
    return plan;
}

static void arrive(void *arg)
{
    const struct sim_client_plan plan = new_plan();

    (void)arg;
    if (w.n_clients == CLIENTS_MAX || all_told())
        return;
    w.n_clients++;
    (void)sim_client_start(&plan);
    sim_event_set(&w.arrival, sim_magnitude(100, 1000000), arrive, NULL);
}

/* ---- what is allowed ---- */

/* Clients arrive at the old master's workers, which have few left, before the next reload. */
static void come_after_failure(void *arg)
{
    (void)arg;
    for (uint32_t n = sim_below(8); n > 0 && w.n_clients < CLIENTS_MAX; n--) {
        struct sim_client_plan plan = new_plan();
        plan.n_requests = sim_between(50, 400);
        plan.depth = plan.burst = sim_between(2, 20);
        w.n_clients++;
        (void)sim_client_start(&plan);
    }
    sim_event_set(&w.aimed, sim_magnitude(1000, 300000), reload_soon, NULL);
}

/* Steps may be disturbed. */
static void watch_transition(struct master *x)
{
    const struct mr_transition *t = x->m != NULL ? mr_master_transition(x->m) : NULL;

    if (t == NULL || t->step == x->step || t->plan.from == NULL) /* the start */
        return;
    x->step = t->step;
    if (t->step == MR_TRANSITION_ABORTING)
        sim_trouble("what is in flight is failed");
    if (w.calm)
        return;
    if (t->step != MR_TRANSITION_REST && sim_once_in(6))
        sim_event_set(&w.aimed, sim_magnitude(1, 300000), aim, NULL);
    if (t->step == MR_TRANSITION_DRAINING && sim_once_in(4))
        stall_newcomers(SLOTS_MAX);
}

static void watch_masters(void)
{
    for (uint32_t i = 0; i < w.n_masters; i++)
        watch_transition(&w.masters[i]);
}

/*
 * Keys are written only where the current map puts them. Exception: what a server was sent earlier,
 * on a connection that nobody waits for any more.
 */
static void on_write(struct sim_server_conn *sc, struct mr_slice key)
{
    const bool is_late = sc->served < sc->mark && (sc->conn->process_closed || sc->conn->reset);

    if (sc->server->port != port_of(&w.map, key) && !is_late)
        sim_fail("%.*s is written at %s, and the map in force has it at %u", (int)key.len, key.at,
                 sc->server->name, port_of(&w.map, key));
}

/* It is nobody's any more, or that of a master which has answered what it had sent by then. */
static bool may_be_ended(const struct sim_client *c)
{
    const struct master *x = keeper_of(c);

    if (!c->conn->accepted)
        return all_told();
    if (w.at_once)
        return true;
    if (x == NULL || !is_told(x))
        return false;
    return c->head == NULL || c->head->end > x->arrived[c->id] ||
           sim_now_us - x->told_us >= LIMIT_MS * UINT64_C(1000);
}

static bool is_late(const struct sim_expect *e)
{
    return sim_now_us - e->sent_us >= 900000;
}

/* The rest of its reply is late, possibly because a process was stopped. */
static bool is_late_in_reply(const struct sim_client *c)
{
    return w.times_out && c->head != NULL && c->in.end > c->in.start && is_late(c->head);
}

static const char *excuse(struct sim_client *c)
{
    if (c->lost)
        return "its worker was killed";
    if (w.deserted)
        return "nobody serves any more";
    if (w.killed_us != 0 && any_told())
        return "a worker was killed, and perhaps not replaced";
    if (may_be_ended(c))
        return "the proxy ends";
    if (sim_may_fail(c->head != NULL ? c->head->sent_us : sim_now_us))
        return "trouble";
    if (is_late_in_reply(c))
        return "the rest of its reply is late";
    if (w.n_killed > 0) {
        w.n_killed--;
        return "it was on its way to a worker that was killed";
    }
    return NULL;
}

static bool says(struct mr_slice reply, const char *text)
{
    return memmem(reply.at, reply.len, text, strlen(text)) != NULL;
}

static bool allows_error(const struct sim_expect *e, struct mr_slice reply)
{
    if (any_told() && says(reply, "UNBLOCKED"))
        return true;
    return sim_may_fail(e->sent_us) || (says(reply, "timed out") && is_late(e));
}

/* ---- a run ---- */

/* It has come to a slot that there is still; the queues of others end with their sockets. */
static bool is_to_be_accepted(const struct sim_client *c)
{
    bool open = false;

    for (uint32_t i = 0; i < w.n_open; i++)
        open |= w.listeners[i] == c->plan.listener;
    return open && !w.deserted && !all_told();
}

static bool is_waiting(const struct sim_client *c)
{
    return !c->over && c->n_waiting > 0 && (c->conn->accepted || is_to_be_accepted(c));
}

static void come_to_rest(void)
{
    w.calm = true;
    sim_event_cancel(&w.disturbance);
    sim_event_cancel(&w.aimed);
    sim_event_cancel(&w.arrival);
    sim_servers_calm();
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next) {
        sim_client_finish(c);
        sim_client_hurry(c);
    }
    const uint64_t until = sim_now_us + REST_US;
    while (sim_now_us < until) {
        bool waits = false;
        for (const struct sim_client *c = sim_clients; c != NULL; c = c->next)
            waits |= is_waiting(c);
        if (!waits)
            break;
        sim_run_until(sim_now_us + SECOND_US);
    }
    for (const struct sim_client *c = sim_clients; c != NULL; c = c->next)
        SIM_CHECK(!is_waiting(c), "client %u: %u requests are never answered", c->id, c->n_waiting);
}

static void check_end(const struct master *x)
{
    SIM_CHECK(sim_is_over(x->process), "%s does not end", sim_name(x->process));
    SIM_CHECK(sim_status(x->process) == 0 || w.at_once || x != &w.masters[0],
              "%s ends with status %d", sim_name(x->process), sim_status(x->process));
    SIM_CHECK(x->n_deaths == 0 || sim_was_killed(x->process) || w.deserted,
              "nobody has asked how process %d ended", x->deaths[0].pid);
}

static void end_master(void)
{
    for (uint32_t i = 0; i < 4 && masters_alive() > 0; i++) {
        for (uint32_t k = 0; k < w.n_masters; k++)
            if (!sim_is_over(w.masters[k].process) && !is_told(&w.masters[k]))
                stop(&w.masters[k], SIGTERM);
        sim_run_until(sim_now_us + LIMIT_MS * UINT64_C(1000));
    }
    for (uint32_t i = 0; i < w.n_masters; i++)
        check_end(&w.masters[i]);
    if (w.upgrades) /* a new master may outlive the old one */
        sim_run_until(sim_now_us + 5 * SECOND_US);
    for (uint32_t i = 0; i < w.n_processes; i++)
        SIM_CHECK(sim_is_over(w.processes[i]), "%s is left over", sim_name(w.processes[i]));
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next)
        sim_client_close(c);
    sim_run_until(sim_now_us + SECOND_US);
}

static void start_master(void)
{
    for (uint32_t i = 0; i < SLOTS_MAX; i++)
        w.listeners[i] = sim_listen(false);
    write_file(false);
    w.options = (struct mr_options){.workers = -1, .log_level = -1};
    w.n_masters = 1;
    w.masters[0].process = sim_fork("master", NULL, first_body, &w.masters[0]);
    sim_run_until(sim_now_us + SECOND_US);
    w.n_open = w.masters[0].first.runtime.n_slots;
}

static void run(void)
{
    sim_kernel_begin();
    sim_clients_begin();
    sim_trouble_begin();
    memset(&w, 0, sizeof(w));
    sim_on_exit = on_exit_of;
    sim_after_step = watch_masters;
    w.kills = sim_once_in(2);
    w.upgrades = sim_once_in(2);
    w.fails = sim_once_in(2);
    w.n_servers = sim_between(1, SERVERS_MAX);
    for (uint32_t i = 0; i < w.n_servers; i++)
        w.servers[i] = sim_server_new(&SIM_SERVER_RESP, (uint16_t)(SERVER_PORT + i));
    sim_on_connect = sim_server_connect;
    sim_on_write = on_write;
    sim_excuse = excuse;
    sim_allows_error = allows_error;
    sim_habits = (struct sim_server_habits){0};
    start_master();
    set_environment();
    set_habits();
    const uint32_t n_clients = w.n_clients = sim_between(1, FIRST_MAX);
    if (sim_once_in(4) == false)
        sim_event_set(&w.disturbance, sim_magnitude(1000, 3000000), disturb, NULL);
    for (uint32_t i = 0; i < n_clients; i++) {
        const struct sim_client_plan plan = new_plan();
        (void)sim_client_start(&plan);
        if (sim_once_in(2))
            sim_run_until(sim_now_us + sim_magnitude(1, 1000000));
    }
    if (sim_once_in(2))
        arrive(NULL);
    sim_run_until(sim_now_us + sim_magnitude(10000, 20000000));
    if (sim_once_in(2))
        stop_one(sim_once_in(6) ? SIGINT : SIGTERM);
    if (sim_once_in(2))
        sim_run_until(sim_now_us + sim_magnitude(1000, 5000000));
    come_to_rest();
    end_master();
    for (uint32_t i = 0; i < SLOTS_MAX; i++)
        (void)close(w.listeners[i]);
    sim_kernel_end();
    sim_servers_end();
    for (uint32_t i = 0; i < w.n_teams; i++)
        __real_mr_team_free(w.teams[i], NULL);
    drop_map(&w.map);
}

int main(int argc, char **argv)
{
    return sim_main(argc, argv, run);
}
