/* resolver.c - the process that resolves host names. */
#include "proc/resolver.h"

#include "core/clock.h"
#include "core/log.h"
#include "net/dns.h"
#include "proc/channel.h"
#include "upstream/health.h"
#include "upstream/hosts.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS    50         /* between looks at what workers have written */
#define ASKED_MAX  100u       /* names asked for at a time */
#define SOON_US    1000000u   /* minimum time between questions for a name */
#define FAILING    2u         /* from this many failures of a server on, its address is doubtful */
#define TURN_US    200000u    /* an address gets this time to prove itself */
#define SETTLED_US 5000000u   /* a server that works for this long begins with new turns */
#define ROUNDS_MAX 5u         /* doublings of TURN_US, one per round of all addresses */
#define FORGET_US  3600000000 /* a host that no worker has wanted for this long is forgotten */

/* A name, and who gets its addresses. */
struct name {
    struct resolver *resolver;
    const char *text;
    uint16_t port;
    bool is_service;
    uint32_t servers[MR_SERVICE_PLACES]; /* numbers over all pools; without `host` */
    struct mr_addr addrs[MR_SERVICE_PLACES];
    uint32_t n_places;
    struct mr_host *host; /* a worker has asked for it; else NULL */
    struct mr_addr *answers;
    uint32_t n_answers;
    uint64_t asked_us;
    uint64_t due_us;
    uint64_t turned_us; /* when another address was tried */
    uint32_t turns;
    uint32_t failures; /* consecutive ones */
    bool asking;
    bool tried;
};

struct resolver {
    const struct mr_runtime *rt;
    struct mr_dns *dns;
    int channel;
    struct name *names;
    uint32_t n_names;
    struct name *of_hosts[MR_HOSTS]; /* NULL for places that are free */
    uint32_t n_untried;              /* of `names` */
    uint32_t n_asking;
};

/* ---- which address ---- */

const struct mr_addr *mr_resolver_choose(const struct mr_addr *answers, uint32_t n,
                                         const struct mr_addr *known, bool fails)
{
    const struct mr_addr *first = &answers[0], *next = NULL;
    bool is_known = false;

    for (uint32_t i = 0; i < n; i++) {
        const int c = known->len > 0 ? mr_addr_compare(&answers[i], known) : 1;
        is_known |= c == 0;
        if (c > 0 && (next == NULL || mr_addr_compare(&answers[i], next) < 0))
            next = &answers[i];
        if (mr_addr_compare(&answers[i], first) < 0)
            first = &answers[i];
    }
    if (!is_known)
        return &answers[0];
    if (!fails)
        return known;
    return next != NULL ? next : first;
}

static bool is_among(const struct mr_addr *addrs, uint32_t n, const struct mr_addr *addr)
{
    for (uint32_t i = 0; i < n; i++)
        if (mr_addr_eq(&addrs[i], addr))
            return true;
    return false;
}

void mr_resolver_share_out(const struct mr_addr *answers, uint32_t n, bool partial,
                           struct mr_addr *places, uint32_t n_places)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < n_places; i++) {
        if (is_among(answers, n, &places[i]) || (partial && places[i].len > 0))
            continue;
        while (next < n && is_among(places, n_places, &answers[next]))
            next++;
        places[i] = next < n ? answers[next] : (struct mr_addr){.text = MR_ADDR_NONE};
    }
}

/* ---- telling it ---- */

/* Blocks if the master is slow to read: there is nothing else to do. */
static void tell(const struct resolver *r, struct mr_message *msg)
{
    struct pollfd p = {.fd = r->channel, .events = POLLOUT};
    struct mr_error err;

    while (mr_channel_send(r->channel, msg, -1, &err) != MR_OK && err.sys == EAGAIN)
        (void)poll(&p, 1, -1);
}

static bool is_same(const struct mr_addr *a, const struct mr_addr *b)
{
    return (a->len == 0 && b->len == 0) || mr_addr_eq(a, b);
}

static void set_address(struct name *name, uint32_t place, const struct mr_addr *addr)
{
    struct mr_message msg = {.type = MR_MSG_ADDRESS_TYPE};

    if (name->host != NULL) {
        mr_host_resolved(name->host, addr);
        if (!is_same(&name->addrs[place], addr))
            mr_log(MR_LOG_NOTICE, "host_address host=%s new=%s", name->text, addr->text);
    } else if (!is_same(&name->addrs[place], addr)) {
        msg.body.ADDRESS =
            (struct mr_address_payload){.server = name->servers[place], .addr = *addr};
        tell(name->resolver, &msg);
    }
    name->addrs[place] = *addr;
}

static void use_answers(struct name *name, bool partial, bool fails)
{
    struct mr_addr addrs[MR_SERVICE_PLACES];

    if (!name->is_service) {
        const struct mr_addr chosen =
            *mr_resolver_choose(name->answers, name->n_answers, &name->addrs[0], fails);
        set_address(name, 0, &chosen);
        return;
    }
    memcpy(addrs, name->addrs, sizeof(addrs));
    mr_resolver_share_out(name->answers, name->n_answers, partial, addrs, name->n_places);
    for (uint32_t i = 0; i < name->n_places; i++)
        set_address(name, i, &addrs[i]);
}

/* ---- asking ---- */

static uint64_t interval_us(const struct resolver *r)
{
    return r->rt->config->resolve_interval_ms * UINT64_C(1000);
}

/* A TTL can only shorten the interval: what it allows to keep, the name server keeps anyway. */
static uint64_t wait_us(const struct name *name, const struct mr_dns_answer *answer)
{
    const uint64_t interval = interval_us(name->resolver), ttl = answer->ttl_s * UINT64_C(1000000);

    if (answer->error != NULL) {
        const uint64_t wait = (uint64_t)SOON_US << (name->failures < 10 ? name->failures - 1 : 10);
        return wait < interval ? wait : interval;
    }
    return ttl > 0 && ttl < interval ? ttl : interval;
}

static void note_tried(struct name *name)
{
    struct resolver *r = name->resolver;
    struct mr_message done = {.type = MR_MSG_ROUND_DONE_TYPE};

    if (name->tried)
        return;
    name->tried = true;
    if (name->host == NULL && --r->n_untried == 0)
        tell(r, &done);
}

static void on_answer(void *arg, const struct mr_dns_answer *answer)
{
    struct name *name = arg;
    struct resolver *r = name->resolver;
    struct mr_hosts *hosts = r->rt->hosts;

    name->asking = false;
    r->n_asking--;
    name->failures = answer->error != NULL ? name->failures + 1 : 0;
    name->due_us = mr_clock_mono_us() + wait_us(name, answer);
    if (answer->error != NULL) {
        mr_health_store(&hosts->failures, hosts->failures + 1);
        mr_log_limited(MR_LOG_WARN, "resolve_failed host=%s error=\"%s\" using=%s", name->text,
                       answer->error, name->addrs[0].len > 0 ? name->addrs[0].text : "none");
        if (name->host != NULL)
            mr_host_resolved(name->host, NULL);
    } else {
        mr_health_store(&hosts->lookups, hosts->lookups + 1);
        name->answers = realloc(name->answers, answer->n * sizeof(*name->answers));
        MR_CHECK(name->answers != NULL);
        memcpy(name->answers, answer->addrs, answer->n * sizeof(*name->answers));
        name->n_answers = answer->n;
        use_answers(name, answer->partial, false);
    }
    note_tried(name);
}

static void ask(struct name *name, uint64_t now)
{
    struct resolver *r = name->resolver;

    if (name->asking || now < name->due_us || r->n_asking == ASKED_MAX)
        return;
    name->asking = true;
    name->asked_us = now;
    r->n_asking++;
    if (name->is_service)
        mr_dns_ask_service(r->dns, name->text, on_answer, name);
    else
        mr_dns_ask_host(r->dns, name->text, name->port, on_answer, name);
}

/* ---- servers that fail ---- */

/* Perhaps the name has another address by now. If it has several, the next one is tried. */
static void doubt(struct name *name, uint64_t now)
{
    const uint64_t doublings = name->n_answers > 0 ? name->turns / name->n_answers : 0;
    const uint64_t turn = (uint64_t)TURN_US << (doublings < ROUNDS_MAX ? doublings : ROUNDS_MAX);

    if (name->due_us > name->asked_us + SOON_US)
        name->due_us = name->asked_us + SOON_US;
    if (name->n_answers < 2 || now < name->turned_us + turn)
        return;
    name->turns++;
    name->turned_us = now;
    use_answers(name, false, true);
}

static void check_health(struct name *name, uint64_t now)
{
    const struct mr_health *health = name->resolver->rt->health;

    if (name->is_service)
        return; /* other places have its other addresses */
    if (mr_health_load(&health[name->servers[0]].failures) >= FAILING)
        doubt(name, now);
    else if (now >= name->turned_us + SETTLED_US)
        name->turns = 0;
}

/* ---- hosts that workers ask for ---- */

static void adopt(struct resolver *r, uint32_t i, uint64_t now)
{
    struct mr_host *host = &r->rt->hosts->at[i];
    struct name *name = calloc(1, sizeof(*name));

    MR_CHECK(name != NULL);
    *name = (struct name){.resolver = r, .text = host->name, .host = host, .n_places = 1};
    if (__atomic_load_n(&host->state, __ATOMIC_ACQUIRE) == MR_HOST_RESOLVED)
        name->addrs[0] = host->addr; /* by an earlier resolver */
    name->due_us = now;
    r->of_hosts[i] = name;
}

static void follow_hosts(struct resolver *r, uint64_t now)
{
    for (uint32_t i = 0; i < MR_HOSTS; i++) {
        struct mr_host *host = &r->rt->hosts->at[i];
        struct name *name = r->of_hosts[i];
        if (name == NULL && __atomic_load_n(&host->state, __ATOMIC_ACQUIRE) >= MR_HOST_ASKED)
            adopt(r, i, now);
        if (name == NULL)
            continue;
        if (!name->asking && now >= mr_health_load(&host->used_us) + FORGET_US) {
            r->of_hosts[i] = NULL;
            mr_host_forget(host);
            free(name->answers);
            free(name);
        } else {
            ask(name, now);
        }
    }
}

/* ---- the process ---- */

static bool has_name(const struct mr_server_config *server)
{
    return server->host != NULL && server->addr.len == 0;
}

bool mr_resolver_needed(const struct mr_config *config)
{
    for (uint32_t p = 0; p < config->n_pools; p++) {
        const struct mr_pool_config *pool = &config->pools[p];
        if (pool->topology == MR_CLUSTER || pool->topology == MR_SENTINEL)
            return true; /* servers may name others */
        for (uint32_t i = 0; i < pool->servers.n; i++)
            if (has_name(&pool->servers.at[i]))
                return true;
    }
    return false;
}

/* The places of a service have one name together. `first`: of the names of their pool. */
static void add_name(struct resolver *r, const struct mr_server_config *server, uint32_t index,
                     uint32_t first)
{
    struct name *name = &r->names[first];

    while (name < &r->names[r->n_names] &&
           !(name->is_service && server->service_place > 0 && name->n_places < MR_SERVICE_PLACES &&
             strcmp(name->text, server->host) == 0))
        name++;
    if (name == &r->names[r->n_names]) {
        *name = (struct name){.resolver = r,
                              .text = server->host,
                              .port = server->port,
                              .is_service = server->service_place > 0};
        r->n_names++;
    }
    name->servers[name->n_places] = index;
    name->addrs[name->n_places++] = r->rt->addresses[index];
}

static void collect_names(struct resolver *r)
{
    const struct mr_config *config = r->rt->config;

    r->names = calloc(config->n_servers + 1, sizeof(*r->names));
    MR_CHECK(r->names != NULL);
    for (uint32_t p = 0; p < config->n_pools; p++) {
        const struct mr_pool_config *pool = &config->pools[p];
        const uint32_t first = r->n_names;
        for (uint32_t i = 0; i < pool->servers.n; i++)
            if (has_name(&pool->servers.at[i]))
                add_name(r, &pool->servers.at[i], pool->first_server + i, first);
    }
    r->n_untried = r->n_names;
}

static void tick(struct resolver *r)
{
    const uint64_t now = mr_clock_mono_us();

    for (uint32_t i = 0; i < r->n_names; i++) {
        check_health(&r->names[i], now);
        ask(&r->names[i], now);
    }
    follow_hosts(r, now);
}

/* False if the other side is gone. */
static bool take_message(const struct resolver *r)
{
    struct mr_message msg;
    struct mr_error err;
    const enum mr_result rc = mr_channel_recv(r->channel, &msg, &err);

    if (rc == MR_ESYS)
        return false;
    if (rc == MR_OK && msg.type == MR_MSG_LOG_FD_TYPE && msg.fd >= 0)
        mr_log_take_fd(msg.fd);
    if (rc == MR_OK && msg.type == MR_MSG_LOG_LEVEL_TYPE)
        mr_log_set_level(msg.body.LOG_LEVEL.level);
    return true;
}

/* Waits for a tick at most. False if the other side is gone. */
static bool wait_and_handle(struct resolver *r)
{
    struct pollfd fds[1 + MR_DNS_SOCKETS] = {{.fd = r->channel, .events = POLLIN}};
    int wait_ms = TICK_MS;
    const uint32_t n = mr_dns_prepare(r->dns, fds + 1, &wait_ms);

    if (poll(fds, n + 1, wait_ms) < 0)
        return true; /* interrupted */
    mr_dns_handle(r->dns, fds + 1, n);
    return fds[0].revents == 0 || take_message(r);
}

static void free_names(struct resolver *r)
{
    for (uint32_t i = 0; i < r->n_names; i++)
        free(r->names[i].answers);
    free(r->names);
    for (uint32_t i = 0; i < MR_HOSTS; i++)
        if (r->of_hosts[i] != NULL) {
            free(r->of_hosts[i]->answers);
            free(r->of_hosts[i]);
        }
}

int mr_resolver_run(const struct mr_runtime *rt, int channel)
{
    struct resolver r = {.rt = rt, .channel = channel};
    struct mr_error err;

    if (mr_dns_open(&r.dns, rt->config->nameservers, &err) != MR_OK) {
        mr_log(MR_LOG_EMERG, "resolver_failed error=\"%s\"", err.text);
        return 1;
    }
    collect_names(&r);
    mr_channel_tell(channel, MR_MSG_READY_TYPE);
    if (r.n_untried == 0)
        mr_channel_tell(channel, MR_MSG_ROUND_DONE_TYPE);
    do
        tick(&r);
    while (wait_and_handle(&r));
    mr_dns_close(r.dns);
    free_names(&r);
    (void)close(channel);
    return 0;
}
