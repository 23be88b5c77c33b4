/*
 * config.h - the configuration as an immutable snapshot.
 *
 * Reads twemproxy's layout (pools at the top level, with a `global:` section if wanted) and Meitu's
 * (`global:` and `pools:`). Keys, defaults and texts are in schema.def.
 */
#pragma once

#include "core/result.h"
#include "core/slice.h"
#include "net/addr.h"
#include "proto/proto.h"
#include "route/hash.h"
#include "route/ring.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MR_AUTO              UINT32_MAX /* the number is chosen at run time */
#define MR_KEY_BYTES_DEFAULT 16336u     /* 16384 - 48: what twemproxy's default chunk holds */

enum mr_cross_server { MR_CROSS_REFUSE, MR_CROSS_FIRST_KEY };
enum mr_on_failure { MR_FAILURE_ERROR, MR_FAILURE_MISS };
enum mr_topology { MR_SHARDS, MR_REPLICATED };
enum mr_read_from { MR_READ_MASTER, MR_READ_PREFER_REPLICA, MR_READ_REPLICA, MR_READ_NEAREST };
enum mr_read_fallback { MR_FALLBACK_MASTER, MR_FALLBACK_NONE };
enum mr_health_checks { MR_HEALTH_AUTO, MR_HEALTH_ALWAYS, MR_HEALTH_OFF };

#define MR_NAME_BYTES 255u /* most of a pool's or a server's name */
#define MR_HOST_BYTES 240u /* most of a host's: with port and weight it is a name too */

#define MR_NO_MASTER UINT32_MAX
#define MR_MASTER    "master" /* the name that makes a server one */

struct mr_listen_config {
    char *text; /* as written, without the mode */
    struct mr_addr addr;
    int mode; /* unix sockets: file mode, 0 for none given */
};

struct mr_server_config {
    char *text; /* the whole line as written */
    char *name; /* for the ring, the statistics and messages */
    char *host; /* NULL for a unix socket */
    uint16_t port;
    uint32_t weight;
    struct mr_addr addr; /* len 0 when the host is a name that has to be resolved */
};

struct mr_listens {
    struct mr_listen_config *at;
    uint32_t n;
};

struct mr_servers {
    struct mr_server_config *at; /* sorted by length of name, then by name; a master last */
    uint32_t n;
};

struct mr_pool_config {
    char *name;
    struct mr_listens listens;
    struct mr_servers servers;
    const struct mr_proto *protocol;
    struct mr_proto_options options; /* what the protocol needs; borrows from this struct */
    char *redis_auth;
    enum mr_hash hash;
    enum mr_distribution distribution;
    enum mr_cross_server cross_server;
    enum mr_on_failure on_server_failure;
    enum mr_topology topology;
    enum mr_read_from read_from;
    enum mr_read_fallback read_fallback;
    enum mr_health_checks health_checks;
    uint32_t first_server; /* index of the first of its servers among those of all pools */
    uint32_t master;       /* index of the server that is named so, the last one; or MR_NO_MASTER */
    uint32_t stickiness_ms;
    uint32_t max_replica_lag_ms;
    uint32_t health_check_interval_ms;
    uint32_t health_check_timeout_ms;
    bool meitu_compat;
    bool follow_roles;
    bool says_topology; /* the file does, it was not concluded from a name */
    bool allow_flush_all;
    char hash_tag[2];
    bool has_hash_tag;
    bool redis;
    bool preconnect;
    bool auto_eject_hosts;
    bool tcpkeepalive;
    bool tcp_quickack;
    bool reuseport;
    uint32_t redis_db;
    uint32_t timeout_ms;
    uint32_t coalesce_us; /* 0: off; or MR_AUTO */
    uint32_t backlog;
    uint32_t client_connections;
    uint32_t client_output_limit;
    uint32_t client_idle_timeout_ms;
    uint32_t max_pipeline;
    uint32_t max_request_bytes;
    uint32_t max_item_bytes;
    uint32_t server_connections;
    uint32_t server_leases;
    uint32_t lease_timeout_ms;
    uint32_t server_retry_timeout_ms;
    uint32_t server_failure_limit;
};

/** A listening address and whose it is. */
struct mr_listen_ref {
    const struct mr_pool_config *pool;
    const struct mr_listen_config *listen;
    uint32_t index; /* among those of all pools, in their order */
};

struct mr_config {
    bool meitu; /* Meitu's layout: its defaults, and its shape of the statistics */
    uint32_t worker_processes;
    uint32_t worker_shutdown_timeout_ms;
    uint32_t worker_hang_timeout_ms;
    uint32_t max_openfiles;
    uint32_t resolve_interval_ms;
    uint32_t log_level;
    uint32_t stats_port;
    char *user;
    char *group;
    char *engine;
    char *worker_cpu_affinity;
    char *accept;
    bool accept_balance;
    uint32_t accept_threshold; /* or MR_AUTO */
    struct mr_listens admin;
    char *admin_token;
    char *pid_file;
    char *log_file;
    char *stats_addr;
    struct mr_pool_config *pools; /* sorted by length of name, then by name */
    uint32_t n_pools;
    uint32_t n_servers;            /* of all pools */
    struct mr_listen_ref *listens; /* of all pools, sorted by address */
    uint32_t n_listens;
    char *source;    /* the text itself */
    char **warnings; /* what the file cannot do although it seems to; one line each */
    uint32_t n_warnings;
};

/**
 * Reads and checks a file. `max_key_bytes` becomes every pool's limit.
 * @return MR_OK with *out owned by the caller; else err says file:line:column, what and why
 */
enum mr_result mr_config_load(struct mr_config **out, const char *path, uint32_t max_key_bytes,
                              struct mr_error *err) MR_MUST_USE;

/** As mr_config_load, from text; `path` only names it in messages. */
enum mr_result mr_config_parse(struct mr_config **out, const char *path, struct mr_slice text,
                               uint32_t max_key_bytes, struct mr_error *err) MR_MUST_USE;

void mr_config_free(struct mr_config *config);

/** The order of pools and of servers: by length of name, then by name. As strcmp. */
int mr_config_compare_names(const char *a, const char *b);

/** The pool of this name, NULL when there is none. */
const struct mr_pool_config *mr_config_pool(const struct mr_config *config, const char *name);

/** The pool's server of this name, NULL when there is none. */
const struct mr_server_config *mr_config_server(const struct mr_pool_config *pool,
                                                const char *name);

/** The listening address of a pool that is this one, NULL when there is none. */
const struct mr_listen_ref *mr_config_listen(const struct mr_config *config,
                                             const struct mr_addr *addr);

/** What a ring needs to know of the pool's servers, all live but the master; caller frees. */
struct mr_ring_member *mr_config_ring_members(const struct mr_pool_config *pool);
