/*
 * facade.c - a pool that presents itself as a cluster or as a sentinel: CLUSTER, SENTINEL, ROLE.
 *
 * There are as many nodes as addresses are announced, and each is the proxy. Without announced
 * ones, the only node is the address that the client is connected to, so that a client of several
 * instances stays with the one that it asked.
 * https://redis.io/docs/latest/commands/cluster-shards/
 * https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#sentinel-api
 */
#include "proto/resp/local.h"
#include "proto/resp/resp.h"

#include "core/number.h"
#include "proto/user.h"

#include <stdio.h>

#define ID_BYTES   20u /* as hex digits: the length of a node's name in Redis */
#define HOST_BYTES 256u
#define SLOTS      16384u
#define BUS_OFFSET 10000u /* of the port that nodes of a cluster talk over */

struct node {
    char host[HOST_BYTES];
    uint16_t port;
    char id[2 * ID_BYTES + 1];
};

/* ---- nodes ---- */

/* The name of a node: stable, and the same at all instances that announce the address. */
static void name_node(struct node *n)
{
    static const char DIGITS[] = "0123456789abcdef";
    uint8_t hash[MR_PASSWORD_BYTES];
    char text[HOST_BYTES + 16];

    (void)snprintf(text, sizeof(text), "%s:%u", n->host, n->port);
    mr_user_hash(mr_slice_of(text), hash);
    for (size_t i = 0; i < ID_BYTES; i++) {
        n->id[2 * i] = DIGITS[hash[i] >> 4];
        n->id[2 * i + 1] = DIGITS[hash[i] & 15];
    }
    n->id[sizeof(n->id) - 1] = '\0';
}

/* Takes "host:port" or "[host]:port" apart. False if it is not such an address. */
static bool read_node(struct node *n, const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (colon == NULL || colon == text || text[0] == '/' ||
        !mr_parse_uint(mr_slice_of(colon + 1), UINT16_MAX, &port) || port == 0)
        return false;
    struct mr_slice host = {text, (size_t)(colon - text)};
    if (host.len > 2 && host.at[0] == '[' && host.at[host.len - 1] == ']')
        host = (struct mr_slice){host.at + 1, host.len - 2};
    static const char MAPPED[] = "::ffff:"; /* an IPv4 client of an IPv6 listener */
    if (host.len > strlen(MAPPED) && memcmp(host.at, MAPPED, strlen(MAPPED)) == 0 &&
        memchr(host.at, '.', host.len) != NULL)
        host = (struct mr_slice){host.at + strlen(MAPPED), host.len - strlen(MAPPED)};
    if (host.len >= sizeof(n->host))
        return false;
    memcpy(n->host, host.at, host.len);
    n->host[host.len] = '\0';
    n->port = (uint16_t)port;
    name_node(n);
    return true;
}

bool mr_resp_is_address(const char *text)
{
    struct node n;

    return read_node(&n, text);
}

static uint32_t n_nodes(const struct mr_resp_answer *a)
{
    return a->ctx->options->n_announced > 0 ? a->ctx->options->n_announced : 1;
}

/* The address that the client is connected to. False for a unix socket. */
static bool local_node(const struct mr_resp_answer *a, struct node *n)
{
    struct mr_client_facts facts;

    a->ctx->facts->describe_client(a->ctx->session, &facts);
    return read_node(n, facts.local);
}

/* False, after an error, if the client is connected to no address that could be shown. */
static bool get_node(const struct mr_resp_answer *a, uint32_t i, struct node *n)
{
    if (a->ctx->options->n_announced > 0 ? read_node(n, a->ctx->options->announced[i])
                                         : local_node(a, n))
        return true;
    mr_resp_add(a, "-ERR clients of unix sockets need `announce`\r\n");
    return false;
}

/* The node that the client is connected to; the first if that address is not announced. */
static uint32_t my_index(const struct mr_resp_answer *a)
{
    struct node mine, n;

    if (!local_node(a, &mine))
        return 0;
    for (uint32_t i = 0; i < a->ctx->options->n_announced; i++)
        if (read_node(&n, a->ctx->options->announced[i]) && strcmp(n.id, mine.id) == 0)
            return i;
    return 0;
}

static uint32_t first_slot(const struct mr_resp_answer *a, uint32_t i)
{
    return (uint32_t)((uint64_t)SLOTS * i / n_nodes(a));
}

static uint32_t last_slot(const struct mr_resp_answer *a, uint32_t i)
{
    return first_slot(a, i + 1) - 1;
}

/* ---- shapes ---- */

static void add_array(const struct mr_resp_answer *a, uint64_t n)
{
    mr_resp_put_head(a->out, a->ctx->slab, '*', n);
}

static void add_field(const struct mr_resp_answer *a, const char *name, const char *text)
{
    mr_resp_add_text(a, name);
    mr_resp_add_text(a, text);
}

static void add_number_field(const struct mr_resp_answer *a, const char *name, uint64_t n)
{
    mr_resp_add_text(a, name);
    mr_resp_add_number(a, n);
}

static void show(const struct mr_resp_answer *a, struct mr_buf *text)
{
    if (mr_buf_failed(text))
        mr_resp_add(a, MR_RESP_NO_MEMORY);
    else
        mr_resp_add_verbatim(a, mr_buf_slice(text));
    mr_buf_clear(text, a->ctx->slab);
}

/* ---- CLUSTER ---- */

static void cluster_slots(const struct mr_resp_answer *a)
{
    struct node n;

    if (!get_node(a, 0, &n))
        return;
    add_array(a, n_nodes(a));
    for (uint32_t i = 0; i < n_nodes(a); i++) {
        (void)get_node(a, i, &n);
        add_array(a, 3);
        mr_resp_add_number(a, first_slot(a, i));
        mr_resp_add_number(a, last_slot(a, i));
        add_array(a, 4);
        mr_resp_add_text(a, n.host);
        mr_resp_add_number(a, n.port);
        mr_resp_add_text(a, n.id);
        mr_resp_add_map(a, 0);
    }
}

static void cluster_shards(const struct mr_resp_answer *a)
{
    struct node n;

    if (!get_node(a, 0, &n))
        return;
    add_array(a, n_nodes(a));
    for (uint32_t i = 0; i < n_nodes(a); i++) {
        (void)get_node(a, i, &n);
        mr_resp_add_map(a, 2);
        mr_resp_add_text(a, "slots");
        add_array(a, 2);
        mr_resp_add_number(a, first_slot(a, i));
        mr_resp_add_number(a, last_slot(a, i));
        mr_resp_add_text(a, "nodes");
        add_array(a, 1);
        mr_resp_add_map(a, 7);
        add_field(a, "id", n.id);
        add_number_field(a, "port", n.port);
        add_field(a, "ip", n.host);
        add_field(a, "endpoint", n.host);
        add_field(a, "role", "master");
        add_number_field(a, "replication-offset", 0);
        add_field(a, "health", "online");
    }
}

static void cluster_nodes(const struct mr_resp_answer *a)
{
    const uint32_t mine = my_index(a);
    struct mr_buf text = {0};
    struct node n;

    if (!get_node(a, 0, &n))
        return;
    for (uint32_t i = 0; i < n_nodes(a); i++) {
        (void)get_node(a, i, &n);
        mr_buf_printf(&text, a->ctx->slab, "%s %s:%u@%u %smaster - 0 0 1 connected %u-%u\n", n.id,
                      n.host, n.port, n.port + BUS_OFFSET, i == mine ? "myself," : "",
                      first_slot(a, i), last_slot(a, i));
    }
    show(a, &text);
}

static void cluster_info(const struct mr_resp_answer *a)
{
    struct mr_buf text = {0};

    mr_buf_printf(&text, a->ctx->slab,
                  "cluster_state:ok\r\ncluster_slots_assigned:%u\r\ncluster_slots_ok:%u\r\n"
                  "cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:%u\r\n"
                  "cluster_size:%u\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n"
                  "cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n",
                  SLOTS, SLOTS, n_nodes(a), n_nodes(a));
    show(a, &text);
}

static void cluster_keyslot(const struct mr_resp_answer *a)
{
    mr_resp_add_number(a, a->ctx->options->slot_of(a->msg->args[2]));
}

static void cluster_myid(const struct mr_resp_answer *a)
{
    struct node n;

    if (get_node(a, my_index(a), &n))
        mr_resp_add_text(a, n.id);
}

static void no_entries(const struct mr_resp_answer *a)
{
    add_array(a, 0);
}

/* ---- SENTINEL ---- */

/* True if the name is that of the pool. */
static bool is_known(const struct mr_resp_answer *a)
{
    return mr_slice_eq(a->msg->args[2], mr_slice_of(a->ctx->options->master_name));
}

static bool checks_name(const struct mr_resp_answer *a)
{
    if (is_known(a))
        return true;
    mr_resp_add(a, "-ERR No such master with that name\r\n");
    return false;
}

/* What all descriptions of an instance begin with. All values are text, as Redis has it. */
static void add_instance(const struct mr_resp_answer *a, size_t more, const char *name,
                         const struct node *n, const char *flags)
{
    char port[8];

    (void)snprintf(port, sizeof(port), "%u", n->port);
    mr_resp_add_map(a, 10 + more);
    add_field(a, "name", name);
    add_field(a, "ip", n->host);
    add_field(a, "port", port);
    add_field(a, "runid", n->id);
    add_field(a, "flags", flags);
    add_field(a, "link-pending-commands", "0");
    add_field(a, "link-refcount", "1");
    add_field(a, "last-ping-sent", "0");
    add_field(a, "last-ok-ping-reply", "0");
    add_field(a, "last-ping-reply", "0");
}

static void add_master(const struct mr_resp_answer *a, const struct node *n)
{
    char others[16];

    (void)snprintf(others, sizeof(others), "%u", n_nodes(a) - 1);
    add_instance(a, 11, a->ctx->options->master_name, n, "master");
    add_field(a, "down-after-milliseconds", "30000");
    add_field(a, "info-refresh", "0");
    add_field(a, "role-reported", "master");
    add_field(a, "role-reported-time", "0");
    add_field(a, "config-epoch", "0");
    add_field(a, "num-slaves", "1");
    add_field(a, "num-other-sentinels", others);
    add_field(a, "quorum", "1");
    add_field(a, "failover-timeout", "180000");
    add_field(a, "parallel-syncs", "1");
    add_field(a, "master-reboot-down-after-period", "0");
}

static void sentinel_address(const struct mr_resp_answer *a)
{
    struct node n;
    char port[8];

    if (!is_known(a)) {
        mr_resp_add(a, mr_resp_speaks_3(a) ? "_\r\n" : "*-1\r\n");
        return;
    }
    if (!get_node(a, my_index(a), &n))
        return;
    (void)snprintf(port, sizeof(port), "%u", n.port);
    add_array(a, 2);
    mr_resp_add_text(a, n.host);
    mr_resp_add_text(a, port);
}

static void sentinel_masters(const struct mr_resp_answer *a)
{
    struct node n;

    if (!get_node(a, my_index(a), &n))
        return;
    add_array(a, 1);
    add_master(a, &n);
}

static void sentinel_master(const struct mr_resp_answer *a)
{
    struct node n;

    if (checks_name(a) && get_node(a, my_index(a), &n))
        add_master(a, &n);
}

/* The proxy again: for clients that read from replicas. The pool decides where reads go. */
static void sentinel_replicas(const struct mr_resp_answer *a)
{
    char name[HOST_BYTES + 16], port[8];
    struct node n;

    if (!checks_name(a) || !get_node(a, my_index(a), &n))
        return;
    (void)snprintf(name, sizeof(name), "%s:%u", n.host, n.port);
    (void)snprintf(port, sizeof(port), "%u", n.port);
    add_array(a, 1);
    add_instance(a, 9, name, &n, "slave");
    add_field(a, "info-refresh", "0");
    add_field(a, "role-reported", "slave");
    add_field(a, "master-link-down-time", "0");
    add_field(a, "master-link-status", "ok");
    add_field(a, "master-host", n.host);
    add_field(a, "master-port", port);
    add_field(a, "slave-priority", "100");
    add_field(a, "slave-repl-offset", "0");
    add_field(a, "replica-announced", "1");
}

/* The other announced instances. */
static void sentinel_sentinels(const struct mr_resp_answer *a)
{
    const uint32_t mine = my_index(a);
    struct node n;

    if (!checks_name(a) || !get_node(a, mine, &n))
        return;
    add_array(a, n_nodes(a) - 1);
    for (uint32_t i = 0; i < n_nodes(a); i++)
        if (i != mine && get_node(a, i, &n))
            add_instance(a, 0, n.id, &n, "sentinel");
}

static void sentinel_quorum(const struct mr_resp_answer *a)
{
    if (checks_name(a))
        mr_resp_add(a, "+OK 1 usable Sentinels. Quorum and failover authorization can be "
                       "reached\r\n");
}

/* ---- commands ---- */

struct part {
    const char *name;
    int arity; /* as Redis counts it */
    void (*answer)(const struct mr_resp_answer *a);
};

static const struct part CLUSTER[] = {
    {"info", 2, cluster_info},   {"keyslot", 3, cluster_keyslot}, {"links", 2, no_entries},
    {"myid", 2, cluster_myid},   {"myshardid", 2, cluster_myid},  {"nodes", 2, cluster_nodes},
    {"replicas", 3, no_entries}, {"shards", 2, cluster_shards},   {"slaves", 3, no_entries},
    {"slots", 2, cluster_slots},
};

static const struct part SENTINEL[] = {
    {"ckquorum", 3, sentinel_quorum},
    {"get-master-addr-by-name", 3, sentinel_address},
    {"master", 3, sentinel_master},
    {"masters", 2, sentinel_masters},
    {"myid", 2, cluster_myid},
    {"replicas", 3, sentinel_replicas},
    {"sentinels", 3, sentinel_sentinels},
    {"slaves", 3, sentinel_replicas},
};

static enum mr_outcome answer_part(const struct mr_resp_answer *a, const char *command,
                                   const struct part *parts, size_t n)
{
    char name[64];

    for (size_t i = 0; i < n; i++) {
        if (!mr_slice_eq_nocase(a->msg->args[1], parts[i].name))
            continue;
        (void)snprintf(name, sizeof(name), "%s|%s", command, parts[i].name);
        if ((int)a->msg->n_args == parts[i].arity)
            parts[i].answer(a);
        else
            mr_resp_wrong_arity(a, name);
        return MR_KEEP_CLIENT;
    }
    mr_resp_add_quoting(a, "'%.*s' is not supported by this proxy, which only looks like that",
                        a->msg->args[1]);
    return MR_KEEP_CLIENT;
}

enum mr_outcome mr_resp_answer_cluster(const struct mr_resp_answer *a)
{
    return answer_part(a, "cluster", CLUSTER, MR_COUNT(CLUSTER));
}

enum mr_outcome mr_resp_answer_sentinel(const struct mr_resp_answer *a)
{
    return answer_part(a, "sentinel", SENTINEL, MR_COUNT(SENTINEL));
}

enum mr_outcome mr_resp_answer_asking(const struct mr_resp_answer *a)
{
    mr_resp_add(a, "+OK\r\n");
    return MR_KEEP_CLIENT;
}

enum mr_outcome mr_resp_answer_role(const struct mr_resp_answer *a)
{
    add_array(a, 3);
    mr_resp_add_text(a, "master");
    mr_resp_add_number(a, 0);
    add_array(a, 0);
    return MR_KEEP_CLIENT;
}

bool mr_resp_is_presented(const struct mr_proto_options *options,
                          const struct mr_resp_command *command)
{
    const bool of_cluster =
        strcmp(command->name, "cluster") == 0 || strcmp(command->name, "asking") == 0;
    const bool of_sentinel = strcmp(command->name, "sentinel") == 0;

    switch (options->present_as) {
    case MR_PRESENT_CLUSTER:
        return !of_sentinel;
    case MR_PRESENT_SENTINEL:
        return !of_cluster;
    case MR_PRESENT_NONE:
        break;
    }
    return false;
}
