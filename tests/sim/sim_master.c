/*
 * sim_master.c - a whole proxy: the master as it is, with the workers it starts, through reloads,
 * signals, deaths and processes that stand still. What is checked: see docs/ARCHITECTURE.md,
 * "Tests".
 *
 * What a process is, is the simulated kernel's: starting, ending and signalling one are replaced
 * here (the functions of proc/child.h), as are the sockets of listeners.c and what is written to
 * files. A team that is freed lives on until the end of the run, for processes that were killed.
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
#define FIRST_MAX   10u /* of them, at the start */
#define SERVERS_MAX 4u
#define SLOTS_MAX   4u
#define TEAMS_MAX   64u
#define DEATHS_MAX  60u
#define CALM_AT                                                                                    \
    36u /* processes: from here on nobody disturbs, so that there are enough of them               \
         */
#define SERVER_PORT 7000u
#define SECOND_US   UINT64_C(1000000)
#define PATIENCE_US 1500000u /* a server that takes no longer is not the cause of anything */
#define REST_US     (150 * SECOND_US)
#define LIMIT_MS    20000u /* worker_shutdown_timeout */

/* Which server has a key, in one configuration. */
struct map {
    struct mr_ring ring;
    mr_hash_fn hash;             /* NULL: there is no map */
    uint32_t ports[SERVERS_MAX]; /* by place in the ring */
};

static struct {
    struct sim_process *master;
    struct sim_server *servers[SERVERS_MAX];
    uint32_t n_servers;
    int listeners[SLOTS_MAX]; /* of the host: one for each slot there may be */
    uint32_t n_open;          /* slots that new connections go to */
    const char *text;         /* the configuration file */
    uint32_t text_timeout_ms;
    bool times_out; /* there was a file with a time-out */
    struct mr_options options;
    struct mr_generation first;
    struct mr_inheritance inheritance;
    struct mr_pidfile pidfile;
    struct mr_team *teams[TEAMS_MAX]; /* freed */
    uint32_t n_teams;
    struct {
        int pid, status;
    } deaths[DEATHS_MAX];
    uint32_t n_deaths;
    struct sim_process *processes[DEATHS_MAX]; /* children, also dead ones */
    uint32_t n_processes;
    struct mr_master *m;
    struct map map;     /* that is in force */
    uint64_t killed_us; /* when a worker last was */
    uint32_t n_killed;  /* clients that may be lost between two workers */
    uint64_t stopped_us, stalled_us;
    bool at_once;  /* told to stop at once */
    bool deserted; /* who had taken over has died */
    bool kills;    /* workers are killed */
    bool upgrades; /* are tried, and fail */
    uint32_t client_idle_ms;
    struct sim_event disturbance;
    struct sim_event aimed;   /* at the middle of a transition */
    struct sim_event arrival; /* of a client */
    uint32_t n_clients;
    enum mr_transition_step step;
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

/* From now on; what servers have been sent so far went through the map before. */
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

/* Another file; one in a few is no good. */
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
                                     uint32_t max_key_bytes, struct mr_error *err);
enum mr_result __wrap_mr_config_load(struct mr_config **out, const char *path,
                                     uint32_t max_key_bytes, struct mr_error *err)
{
    return mr_config_parse(out, path, mr_slice_of(w.text), max_key_bytes, err);
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
    put_in_force(now); /* a reload does this when it has told the new workers to go on */
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
    SIM_CHECK(mr_team_alive(team, -1) == 0 || sim_was_killed(w.master),
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

/* What a child has of its master. */
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
                                          .on_ready_arg = &b->channel};
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

enum mr_result __wrap_mr_child_fork(struct mr_child *child, struct mr_error *err);
enum mr_result __wrap_mr_child_fork(struct mr_child *child, struct mr_error *err)
{
    int ends[2];
    const enum mr_result rc = mr_channel_open(ends, err);

    if (rc != MR_OK)
        return rc;
    if (w.n_processes == DEATHS_MAX || sim_once_in(200)) {
        mr_channel_close(ends[0]);
        mr_channel_close(ends[1]);
        return mr_fail(err, MR_ESYS, "no more processes");
    }
    struct sim_process *p = sim_fork(sim_text("%s/%u.%u", mr_child_kind_name(child->kind),
                                              child->index, child->team->generation.number),
                                     sim_self(), child_body, describe(child, ends[1]));
    mr_channel_close(ends[1]);
    w.processes[w.n_processes++] = p;
    child->pid = sim_pid(p);
    child->channel.fd = ends[0];
    return MR_OK;
}

static struct sim_process *process_of(int pid)
{
    for (uint32_t i = 0; i < w.n_processes; i++)
        if (sim_pid(w.processes[i]) == pid)
            return w.processes[i];
    return NULL;
}

/* Those that it has. */
static void lose_clients_of(const struct sim_process *p)
{
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next)
        c->lost |= sim_has_conn(p, c->conn);
}

/* One more may be lost: it was on its way, and this one has got the first part. */
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

/* ---- a new master that fails ---- */

struct successor {
    int link;
    struct mr_ways ways_in;
    bool hurries; /* dies before it has asked for the clients */
};

/* Those that no worker has any more. */
static void lose_travellers(void)
{
    for (struct sim_client *c = sim_clients; c != NULL; c = c->next) {
        bool has = false;
        for (uint32_t i = 0; i < w.n_processes; i++)
            has |= !sim_is_over(w.processes[i]) && sim_has_conn(w.processes[i], c->conn);
        c->lost |= !has;
    }
}

/* Asks for the clients, and dies before the old master's workers are all at rest, or right then. */
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
        if (mr_channel_recv(s->link, &msg, &err) != MR_AGAIN)
            break;
    }
    return 1;
}

enum mr_result __wrap_mr_upgrade_start(const struct mr_upgrade *u, const struct mr_generation *g,
                                       const struct mr_ways *ways_in, pid_t *pid, int *link,
                                       struct mr_error *err);
enum mr_result __wrap_mr_upgrade_start(const struct mr_upgrade *u, const struct mr_generation *g,
                                       const struct mr_ways *ways_in, pid_t *pid, int *link,
                                       struct mr_error *err)
{
    struct successor *s = sim_alloc(sizeof(*s));
    int ends[2];

    (void)u;
    (void)g;
    if (w.n_processes >= CALM_AT)
        return mr_fail(err, MR_ESYS, "no more processes");
    const enum mr_result rc = mr_channel_open(ends, err);
    if (rc != MR_OK)
        return rc;
    *s = (struct successor){.link = ends[1], .ways_in.n = ways_in->n, .hurries = sim_once_in(4)};
    s->ways_in.fds = sim_alloc(ways_in->n * sizeof(int));
    memcpy(s->ways_in.fds, ways_in->fds, ways_in->n * sizeof(int));
    struct sim_process *p = sim_fork("successor", sim_self(), successor_body, s);
    mr_channel_close(ends[1]);
    w.processes[w.n_processes++] = p;
    *pid = sim_pid(p);
    *link = ends[0];
    return MR_OK;
}

static void on_exit_of(struct sim_process *p)
{
    if (strcmp(sim_name(p), "successor") == 0) {
        w.deserted |= w.m == NULL || mr_master_transition(w.m)->released;
        lose_travellers();
    }
    if (p == w.master || sim_is_over(w.master))
        return;
    MR_CHECK(w.n_deaths < DEATHS_MAX);
    w.deaths[w.n_deaths].pid = sim_pid(p);
    w.deaths[w.n_deaths++].status = sim_was_killed(p) ? SIGKILL : sim_status(p) << 8;
    sim_signal(w.master, SIGCHLD);
}

pid_t __wrap_mr_reap(int *status);
pid_t __wrap_mr_reap(int *status)
{
    if (w.n_deaths == 0)
        return 0;
    const int pid = w.deaths[0].pid;
    *status = w.deaths[0].status;
    memmove(&w.deaths[0], &w.deaths[1], --w.n_deaths * sizeof(w.deaths[0]));
    return pid;
}

/* ---- the master ---- */

static void nothing(void *arg)
{
    (void)arg;
}

static int master_body(void *arg)
{
    struct mr_error err;

    (void)arg;
    if (mr_generation_load(&w.first, &w.options, "sim", &err) != MR_OK ||
        mr_generation_open(&w.first, &w.options, NULL, &err) != MR_OK)
        sim_fail("the start fails: %s", err.text);
    const struct mr_master_setup setup = {.generation = &w.first,
                                          .options = &w.options,
                                          .conf_file = "sim",
                                          .exe = "sim",
                                          .pidfile = &w.pidfile,
                                          .inheritance = &w.inheritance,
                                          .on_ready = nothing,
                                          .on_handed_over = nothing,
                                          .in_child = nothing};
    w.m = mr_master_new(&setup);
    MR_CHECK(w.m != NULL);
    put_in_force(w.first.config);
    do
        mr_loop_turn(mr_master_loop(w.m), -1);
    while (mr_master_act(w.m));
    const int status = mr_master_free(w.m);
    w.m = NULL;
    return status;
}

static void ask_reload(bool may_be_bad)
{
    write_file(may_be_bad);
    sim_note("HUP: %s", w.text);
    w.stalled_us = sim_now_us;
    sim_signal(w.master, SIGHUP);
}

static void stop(int signo)
{
    for (struct sim_client *c = sim_clients; c != NULL && w.stopped_us == 0; c = c->next)
        c->arrived_at_stop = sim_arrived(c->conn);
    if (w.stopped_us == 0)
        w.stopped_us = sim_now_us;
    w.at_once |= signo == SIGINT;
    sim_note("signal %d", signo);
    sim_signal(w.master, signo);
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
    sim_note("USR2");
    sim_signal(w.master, SIGUSR2);
}

static void disturb(void *arg)
{
    struct sim_process *p = some_worker();

    (void)arg;
    if (w.n_processes >= CALM_AT)
        return;
    switch (sim_below(12)) {
    case 0:
        if (p != NULL && w.kills)
            kill_worker(p);
        break;
    case 1:
    case 2:
        stand_still(p);
        break;
    case 3:
        stand_still(w.master);
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
        if (!sim_is_over(w.master))
            ask_change();
        break;
    }
    sim_event_set(&w.disturbance, sim_magnitude(1000, 3000000), disturb, NULL);
}

/* Something in the middle of a transition. */
static void aim(void *arg)
{
    struct sim_process *p = some_worker();

    (void)arg;
    if (sim_is_over(w.master))
        return;
    switch (sim_below(4)) {
    case 0:
        stop(SIGTERM);
        break;
    case 1:
        ask_reload(true);
        break;
    case 2:
        stand_still(w.master);
        break;
    default:
        if (p != NULL)
            sim_stall(p, sim_between(900000, 3000000));
        break;
    }
}

/* Those that have just started stand still while clients come to them. */
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
    if (!sim_is_over(w.master))
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
    if (w.n_clients == CLIENTS_MAX || w.stopped_us != 0 || sim_is_over(w.master))
        return;
    w.n_clients++;
    (void)sim_client_start(&plan);
    sim_event_set(&w.arrival, sim_magnitude(100, 1000000), arrive, NULL);
}

/* ---- what is allowed ---- */

/* Steps may be disturbed. */
static void watch_transition(void)
{
    const struct mr_transition *t = w.m != NULL ? mr_master_transition(w.m) : NULL;

    if (t == NULL || t->number < 2) /* the start */
        return;
    if (t->step != w.step && t->step != MR_TRANSITION_REST && sim_once_in(6))
        sim_event_set(&w.aimed, sim_magnitude(1, 300000), aim, NULL);
    if (t->step != w.step && t->step == MR_TRANSITION_DRAINING && sim_once_in(4))
        stall_newcomers(SLOTS_MAX);
    if (t->step != w.step && t->step == MR_TRANSITION_FAILING && !sim_once_in(4))
        sim_event_set(&w.aimed, sim_magnitude(10, 300000), reload_soon, NULL);
    if (t->step != w.step && t->step == MR_TRANSITION_ABORTING)
        sim_trouble("what is in flight is failed");
    w.step = t->step;
}

/*
 * A key is written where the map in force has it and nowhere else. What a server had been sent
 * before, on a connection that nobody waits for any more, is an exception.
 */
static void on_write(struct sim_server_conn *sc, struct mr_slice key)
{
    const bool is_late = sc->served < sc->mark && (sc->conn->process_closed || sc->conn->reset);

    if (sc->server->port != port_of(&w.map, key) && !is_late)
        sim_fail("%.*s is written at %s, and the map in force has it at %u", (int)key.len, key.at,
                 sc->server->name, port_of(&w.map, key));
}

static bool may_be_ended(const struct sim_client *c)
{
    if (w.stopped_us == 0)
        return false;
    if (!c->conn->accepted || w.at_once)
        return true;
    return c->head == NULL || c->head->end > c->arrived_at_stop ||
           sim_now_us - w.stopped_us >= LIMIT_MS * UINT64_C(1000);
}

static bool is_late(const struct sim_expect *e)
{
    return sim_now_us - e->sent_us >= 900000;
}

/* The rest of its reply has not come in time, perhaps since a process stood still. */
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
    if (w.killed_us != 0 && w.stopped_us != 0)
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
    if (w.stopped_us != 0 && says(reply, "UNBLOCKED"))
        return true;
    return sim_may_fail(e->sent_us) || (says(reply, "timed out") && is_late(e));
}

/* ---- a run ---- */

static void come_to_rest(void)
{
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
            waits |= !c->over && c->n_waiting > 0 && c->conn->accepted && !may_be_ended(c);
        if (!waits)
            break;
        sim_run_until(sim_now_us + SECOND_US);
    }
    for (const struct sim_client *c = sim_clients; c != NULL; c = c->next)
        SIM_CHECK(c->over || c->n_waiting == 0 || !c->conn->accepted || may_be_ended(c),
                  "client %u: %u requests are never answered", c->id, c->n_waiting);
}

static void end_master(void)
{
    if (w.stopped_us == 0)
        stop(SIGTERM);
    for (uint32_t i = 0; i < 4 && !sim_is_over(w.master); i++)
        sim_run_until(sim_now_us + LIMIT_MS * UINT64_C(1000));
    SIM_CHECK(sim_is_over(w.master), "the master does not end");
    SIM_CHECK(sim_status(w.master) == 0 || w.at_once, "the master ends with status %d",
              sim_status(w.master));
    if (w.upgrades) /* a successor may outlive the master it has taken over from */
        sim_run_until(sim_now_us + 5 * SECOND_US);
    for (uint32_t i = 0; i < w.n_processes; i++)
        SIM_CHECK(sim_is_over(w.processes[i]), "%s is left over", sim_name(w.processes[i]));
    SIM_CHECK(w.n_deaths == 0, "nobody has asked how process %d ended", w.deaths[0].pid);
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
    w.inheritance = (struct mr_inheritance){.link = -1, .pidfile = -1};
    w.master = sim_fork("master", NULL, master_body, NULL);
    sim_run_until(sim_now_us + SECOND_US);
    w.n_open = w.first.runtime.n_slots;
}

static void run(void)
{
    sim_kernel_begin();
    sim_clients_begin();
    sim_trouble_begin();
    memset(&w, 0, sizeof(w));
    sim_on_exit = on_exit_of;
    sim_after_step = watch_transition;
    w.kills = sim_once_in(2);
    w.upgrades = sim_once_in(4);
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
        stop(sim_once_in(6) ? SIGINT : SIGTERM);
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
