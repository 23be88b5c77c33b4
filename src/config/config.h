/*
 * config.h - the configuration as an immutable snapshot.
 *
 * Reads twemproxy's layout (pools at the top level, with an optional `global:` section) and Meitu's
 * (`global:` and `pools:`). Keys, defaults and help texts are in schema.def.
 */
#pragma once

#include "config/findings.h"
#include "core/result.h"
#include "core/slice.h"
#include "net/addr.h"
#include "proto/proto.h"
#include "proto/user.h"
#include "route/hash.h"
#include "route/ring.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MR_AUTO              UINT32_MAX /* determined at run time */
#define MR_KEY_BYTES_DEFAULT 16336u     /* 16384 - 48: what twemproxy's default mbuf holds */

enum mr_unknown_commands { MR_UNKNOWN_REFUSE, MR_UNKNOWN_BY_KEY };
enum mr_cross_server { MR_CROSS_REFUSE, MR_CROSS_FIRST_KEY };
enum mr_on_failure { MR_FAILURE_ERROR, MR_FAILURE_MISS };
enum mr_topology { MR_SHARDS, MR_REPLICATED, MR_CLUSTER, MR_SENTINEL };
enum mr_read_from { MR_READ_MASTER, MR_READ_PREFER_REPLICA, MR_READ_REPLICA, MR_READ_NEAREST };
enum mr_read_fallback { MR_FALLBACK_MASTER, MR_FALLBACK_NONE };
enum mr_balance_by { MR_BY_CONNECTIONS, MR_BY_TURNS, MR_BY_SOURCE };
enum mr_health_checks { MR_HEALTH_AUTO, MR_HEALTH_ALWAYS, MR_HEALTH_OFF };

#define MR_NAME_BYTES 255u /* longest name of a pool or a server */
#define MR_HOST_BYTES 240u /* longest host; with port and weight it is also a name */

#define MR_SERVICE_PLACES 8u /* servers that stand for one service of SRV records */

#define MR_NO_MASTER UINT32_MAX
#define MR_NO_MIRROR UINT32_MAX
#define MR_MASTER    "master" /* a server of this name is the master */

struct mr_listen_config {
    char *text; /* as written, without the mode */
    struct mr_addr addr;
    int mode; /* file mode of a unix socket; 0 if none is given */
    struct mr_place place;
};

struct mr_server_config {
    char *text; /* the whole line as written */
    char *name; /* for the ring, the statistics and messages */
    char *host; /* NULL for a unix socket */
    uint16_t port;
    uint32_t weight;
    struct mr_addr addr; /* len is 0 if the host is a name still to be resolved */
    struct mr_place place;
    bool is_sentinel;      /* it has no keys */
    uint8_t service_place; /* `host` is a service, and this is one of its places, from 1; else 0 */
};

struct mr_listens {
    struct mr_listen_config *at;
    uint32_t n;
};

struct mr_servers {
    struct mr_server_config *at; /* sorted by length of name, then by name; a master last */
    uint32_t n;
    uint32_t named; /* in the file; places for discovered servers follow */
};

struct mr_commands {
    struct mr_resp_command *at; /* as in the file; owns their names */
    uint32_t n;
};

struct mr_user_pool {
    char *name;
    struct mr_place place;
};

struct mr_user_config {
    struct mr_user user;
    struct mr_user_pool *pools; /* that it may use; none: all pools */
    uint32_t n_pools;
};

struct mr_names {
    char **at;
    uint32_t n;
};

struct mr_pool_config {
    char *name;
    struct mr_place place;
    struct mr_listens listens;
    struct mr_servers servers;
    const struct mr_proto *protocol;
    struct mr_proto_options options; /* what the protocol needs; borrows from this struct */
    struct mr_proto_options sentinel_options; /* towards sentinels */
    struct mr_names master_names;             /* that sentinels are asked for */
    enum mr_present present_as;
    struct mr_names announced; /* addresses as which the pool presents itself */
    char *announced_name;      /* NULL: its own name */
    struct mr_names zones;     /* as ZONE=PREFIX */
    const char *zone;          /* of the proxy; NULL: unknown */
    uint32_t slow_start_ms;
    bool retry_reads;
    bool fail_fast_without_remap;
    char *mirror_to; /* name of the pool that gets what is written; NULL */
    uint32_t mirror; /* its index, or MR_NO_MIRROR */
    uint32_t mirror_buffer_bytes;
    char *redis_auth;
    char *sentinel_auth;
    struct mr_users users; /* who may log in */
    enum mr_hash hash;
    enum mr_distribution distribution;
    enum mr_cross_server cross_server;
    enum mr_unknown_commands unknown_commands;
    struct mr_commands commands;
    enum mr_on_failure on_server_failure;
    enum mr_topology topology;
    enum mr_read_from read_from;
    enum mr_read_fallback read_fallback;
    enum mr_health_checks health_checks;
    enum mr_balance_by balance; /* relayed protocols */
    uint32_t first_server;      /* its first server's index among the servers of all pools */
    uint32_t master;            /* index of the master in `servers` (the last), or MR_NO_MASTER */
    uint32_t stickiness_ms;
    uint32_t max_replica_lag_ms;
    uint32_t health_check_interval_ms;
    uint32_t health_check_timeout_ms;
    bool meitu_compat;
    bool follow_roles;
    bool says_topology; /* set in the file, not derived from a server's name */
    bool says_read_from;
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
    uint32_t databases;
    uint32_t timeout_ms;
    uint32_t coalesce_us; /* 0: off; may be MR_AUTO */
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
    uint32_t cluster_nodes;
    uint32_t cluster_refresh_ms;
    uint32_t sentinel_interval_ms;
};

/** A listening address and its pool. */
struct mr_listen_ref {
    const struct mr_pool_config *pool;
    const struct mr_listen_config *listen;
    uint32_t index; /* among the addresses of all pools, in order */
};

struct mr_config {
    char *nameservers; /* NULL: those of the system */
    char *zone;        /* that the proxy is in; NULL: unknown */
    bool meitu;        /* Meitu's layout, with its defaults and its format of the statistics */
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
    uint32_t accept_threshold; /* may be MR_AUTO */
    struct mr_listens admin;
    char *admin_token;
    char *pid_file;
    char *log_file;
    char *stats_addr;
    struct mr_user_config *users;
    uint32_t n_users;
    struct mr_pool_config *pools; /* sorted by length of name, then by name */
    uint32_t n_pools;
    uint32_t n_servers;            /* in all pools */
    struct mr_listen_ref *listens; /* of all pools, sorted by address */
    uint32_t n_listens;
    char *source; /* the text it was read from */
};

/** True if a server of this name or address is in the proxy's zone. */
bool mr_config_in_zone(const struct mr_pool_config *pool, const char *name, const char *address);

/**
 * Reads and checks a file. `max_key_bytes` becomes every pool's limit. All errors and warnings are
 * added to *found (may be NULL), which the caller must fini in any case.
 * @return MR_OK with *out owned by the caller; otherwise err has the first error, as
 *         file:line:column and a sentence
 */
enum mr_result mr_config_load(struct mr_config **out, const char *path, uint32_t max_key_bytes,
                              struct mr_findings *found, struct mr_error *err) MR_MUST_USE;

/** Like mr_config_load, but from text; `path` is used only in messages. */
enum mr_result mr_config_parse(struct mr_config **out, const char *path, struct mr_slice text,
                               uint32_t max_key_bytes, struct mr_findings *found,
                               struct mr_error *err) MR_MUST_USE;

void mr_config_free(struct mr_config *config);

/** Order of pools and servers: by length of name, then by name. Returns like strcmp. */
int mr_config_compare_names(const char *a, const char *b);

/** The pool of this name, or NULL. */
const struct mr_pool_config *mr_config_pool(const struct mr_config *config, const char *name);

/** The pool's server of this name, or NULL. */
const struct mr_server_config *mr_config_server(const struct mr_pool_config *pool,
                                                const char *name);

/** The listen entry with this address, or NULL. */
const struct mr_listen_ref *mr_config_listen(const struct mr_config *config,
                                             const struct mr_addr *addr);

/** The pool's servers as ring members, all live except a master. The caller frees them. */
struct mr_ring_member *mr_config_ring_members(const struct mr_pool_config *pool);

/** The same of its master names; the caller frees it. */
struct mr_ring_member *mr_config_name_members(const struct mr_pool_config *pool);
