/* test_config.c - whole configurations: defaults, both layouts, and every error. */
#include "config/config.h"
#include "unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

#define POOL    "p:\n  listen: 127.0.0.1:1\n  redis: true\n"
#define SERVERS "  servers:\n   - 127.0.0.1:6379:1\n"

static struct mr_config *config;
static struct mr_findings found;
static struct mr_error err;

static enum mr_result load(const char *text)
{
    config = NULL;
    mr_findings_fini(&found);
    return mr_config_parse(&config, "f.yml", mr_slice_of(text), MR_KEY_BYTES_DEFAULT, &found, &err);
}

static void must_load(const char *text)
{
    if (load(text) != MR_OK)
        fail_msg("%s", err.text);
}

static void defaults(void **state)
{
    (void)state;
    must_load(POOL SERVERS);
    const struct mr_pool_config *p = &config->pools[0];
    assert_false(config->meitu);
    assert_int_equal(config->worker_processes, MR_AUTO);
    assert_int_equal(config->worker_shutdown_timeout_ms, 30000);
    assert_int_equal(config->max_openfiles, 102400);
    assert_null(config->user);
    assert_int_equal(p->hash, MR_HASH_fnv1a_64);
    assert_int_equal(p->distribution, MR_DIST_KETAMA);
    assert_int_equal(p->timeout_ms, 0);
    assert_int_equal(p->backlog, 512);
    assert_int_equal(p->client_connections, 0);
    assert_int_equal(p->server_connections, 1);
    assert_int_equal(p->server_retry_timeout_ms, 30000);
    assert_int_equal(p->server_failure_limit, 2);
    assert_false(p->auto_eject_hosts || p->preconnect || p->has_hash_tag || p->tcpkeepalive);
    assert_int_equal(p->options.max_key_bytes, 16336);
    assert_string_equal(p->protocol->name, "redis");
    mr_config_free(config);
}

static void every_key(void **state)
{
    (void)state;
    must_load("global: {worker_processes: 3, worker_shutdown_timeout: 5, max_openfiles: 2000,\n"
              "  engine: epoll, resolve_interval: 1s, log_level: 7, stats_port: 9}\n"
              "p:\n"
              "  listen: [127.0.0.1:1, '/tmp/s.sock 0600']\n  protocol: redis\n"
              "  redis_auth: pw\n  redis_db: 3\n  hash: murmur\n  hash_tag: \"{}\"\n"
              "  distribution: modula\n  cross_server: first_key\n  timeout: 400\n"
              "  backlog: 1024\n  client_connections: 10\n  client_output_limit: 1mb\n"
              "  client_idle_timeout: 5m\n  max_pipeline: 5\n  max_request_size: 2kb\n"
              "  preconnect: true\n  auto_eject_hosts: true\n  server_connections: 2\n"
              "  server_retry_timeout: 1000\n  server_failure_limit: 3\n  tcpkeepalive: true\n"
              "  tcp_quickack: true\n  reuseport: true\n" SERVERS);
    const struct mr_pool_config *p = &config->pools[0];
    assert_int_equal(config->worker_processes, 3);
    assert_int_equal(config->worker_shutdown_timeout_ms, 5000);
    assert_int_equal(config->resolve_interval_ms, 1000);
    assert_int_equal(p->listens.n, 2);
    assert_int_equal(p->listens.at[1].mode, 0600);
    assert_string_equal(p->options.auth, "pw");
    assert_int_equal(p->options.db, 3);
    assert_int_equal(p->hash, MR_HASH_murmur);
    assert_memory_equal(p->hash_tag, "{}", 2);
    assert_int_equal(p->distribution, MR_DIST_MODULA);
    assert_int_equal(p->cross_server, MR_CROSS_FIRST_KEY);
    assert_int_equal(p->timeout_ms, 400);
    assert_int_equal(p->client_output_limit, 1048576);
    assert_int_equal(p->client_idle_timeout_ms, 300000);
    assert_int_equal(p->options.max_request_bytes, 2048);
    assert_true(p->preconnect && p->auto_eject_hosts && p->tcpkeepalive && p->tcp_quickack &&
                p->reuseport);
    mr_config_free(config);
}

static void sorts_as_the_original(void **state)
{
    (void)state;
    must_load("zz:\n  listen: 127.0.0.1:1\n  redis: true\n  servers:\n"
              "   - 127.0.0.1:1:1 bb\n   - 127.0.0.1:2:1 a\n   - 127.0.0.1:3:1 aaa\n"
              "   - 127.0.0.1:4:1 ba\n"
              "b:\n  listen: 127.0.0.1:2\n  redis: true\n" SERVERS
              "aaa:\n  listen: 127.0.0.1:3\n  redis: true\n" SERVERS);
    assert_string_equal(config->pools[0].name, "b");
    assert_string_equal(config->pools[1].name, "zz");
    assert_string_equal(config->pools[2].name, "aaa");
    const struct mr_server_config *s = config->pools[1].servers.at;
    assert_string_equal(s[0].name, "a");
    assert_string_equal(s[1].name, "ba");
    assert_string_equal(s[2].name, "bb");
    assert_string_equal(s[3].name, "aaa");
    assert_int_equal(config->n_servers, 6);
    mr_config_free(config);
}

static void meitus_layout(void **state)
{
    (void)state;
    must_load("global:\n  worker_processes: 4\npools:\n  p:\n    listen: 127.0.0.1:1\n"
              "    redis: true\n    servers:\n     - 127.0.0.1:6379:1\n");
    assert_true(config->meitu);
    assert_int_equal(config->worker_processes, 4);
    assert_string_equal(config->user, "nobody");
    assert_null(config->group); /* the user's own, since Debian has no group nobody */
    assert_int_equal(config->pools[0].client_connections, 2048);
    mr_config_free(config);
    must_load("pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    servers:\n"
              "     - 127.0.0.1:6379:1\n");
    assert_int_equal(config->worker_processes, 0);
    mr_config_free(config);
    /* pools that happen to have these names */
    must_load("global:\n  listen: 127.0.0.1:1\n  redis: true\n" SERVERS
              "pools:\n  listen: 127.0.0.1:2\n  redis: true\n" SERVERS);
    assert_false(config->meitu);
    assert_int_equal(config->n_pools, 2);
    mr_config_free(config);
}

static void masters(void **state)
{
    static const char *const LISTED = "    servers:\n     - h:1:1 master\n     - h:2:1 b\n"
                                      "     - h:3:1 longer-than-master\n";
    char text[512];

    (void)state;
    /* Meitu's layout: the name makes it a master, last and not on the ring */
    snprintf(text, sizeof(text), "pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n%s",
             LISTED);
    must_load(text);
    assert_int_equal(config->pools[0].topology, MR_REPLICATED);
    assert_true(config->pools[0].meitu_compat);
    assert_int_equal(config->pools[0].master, 2);
    assert_string_equal(config->pools[0].servers.at[2].name, "master");
    struct mr_ring_member *members = mr_config_ring_members(&config->pools[0]);
    assert_true(members[0].live && members[1].live && !members[2].live);
    free(members);
    mr_config_free(config);
    /* twemproxy's layout: a shard, because no key may move */
    snprintf(text, sizeof(text), "p:\n    listen: 127.0.0.1:1\n    redis: true\n%s", LISTED);
    must_load(text);
    assert_int_equal(config->pools[0].topology, MR_SHARDS);
    assert_int_equal(found.n, 1);
    mr_config_free(config);
    snprintf(text, sizeof(text),
             "p:\n    listen: 127.0.0.1:1\n    redis: true\n    topology: replicated\n%s", LISTED);
    must_load(text);
    assert_int_equal(config->pools[0].topology, MR_REPLICATED);
    assert_false(config->pools[0].meitu_compat);
    mr_config_free(config);
    must_load("p:\n  listen: 127.0.0.1:1\n  redis: true\n  topology: replicated\n"
              "  follow_roles: true\n" SERVERS);
    assert_int_equal(config->pools[0].master, MR_NO_MASTER);
    mr_config_free(config);
}

static void users(void **state)
{
    (void)state;
    must_load("global:\n  users:\n    ann: {password: a}\n"
              "    bob: {password: [a, b], pools: q, read_only: true, key_prefixes: [x, y]}\n" POOL
                  SERVERS "q:\n  listen: 127.0.0.1:2\n  redis: true\n" SERVERS
              "m:\n  listen: 127.0.0.1:3\n  protocol: memcache\n" SERVERS);
    const struct mr_users *p = mr_config_pool(config, "p")->options.users;
    const struct mr_users *q = mr_config_pool(config, "q")->options.users;
    assert_int_equal(p->n, 1);
    assert_string_equal(p->at[0]->name, "ann");
    assert_int_equal(q->n, 2);
    const struct mr_user *bob = mr_user_log_in(q, mr_slice_of("bob"), mr_slice_of("b"));
    assert_ptr_equal(bob, mr_user_find(q, mr_slice_of("bob")));
    assert_ptr_equal(bob, mr_user_log_in(q, mr_slice_of("bob"), mr_slice_of("a")));
    assert_null(mr_user_log_in(q, mr_slice_of("bob"), mr_slice_of("")));
    assert_null(mr_user_log_in(q, mr_slice_of("eve"), mr_slice_of("a")));
    assert_null(mr_user_log_in(p, mr_slice_of("bob"), mr_slice_of("b")));
    assert_int_equal(bob->n_prefixes, 2);
    assert_true(mr_user_may_use_key(bob, mr_slice_of("yes")));
    assert_false(mr_user_may_use_key(bob, mr_slice_of("no")));
    assert_null(mr_config_pool(config, "m")->options.users);
    mr_config_free(config);
}

static void complaints(void **state)
{
    static const struct {
        const char *text, *error;
    } CASES[] = {
        {"p: 1\n", "f.yml:1:4: \"p\" must be a mapping"},
        {"- a\n", "a configuration is a mapping"},
        {"{}\n", "there are no pools"},
        {"p:\n  redis: true\n" SERVERS, "directive \"listen:\" is missing"},
        {POOL, "directive \"servers:\" is missing"},
        {POOL "  servers:\n", "f.yml:4:11: directive \"servers\" must be a list"},
        {POOL "  servers: []\n", "must be a list with at least one entry"},
        {POOL "  servers:\n   - [a]\n", "must be a list of servers"},
        {POOL "  hash:\n" SERVERS, "directive \"hash\" has no value"},
        {POOL "  hash: \"\"\n" SERVERS, "directive \"hash\" has no value"},
        {POOL "  hash: crc\n" SERVERS, "f.yml:4:9: directive \"hash\": value \"crc\" is not a "
                                       "valid hash; allowed: one_at_a_time"},
        {POOL "  hash: [a]\n" SERVERS, "must be a single value"},
        {POOL "  distribution: kemata\n" SERVERS, "is not a valid distribution; allowed: ketama"},
        {POOL "  hash_tag: \"{\"\n" SERVERS, "hash tag string with two characters"},
        {POOL "  hash_tag: abc\n" SERVERS, "hash tag string with two characters"},
        {POOL "  distrbution: ketama\n" SERVERS,
         "f.yml:4:3: directive \"distrbution\" is unknown; did you mean \"distribution\"?"},
        {POOL "  Hash: md5\n" SERVERS, "did you mean \"hash\"?"},
        {POOL "  zzzzzzzzzzzz: 1\n" SERVERS, "directive \"zzzzzzzzzzzz\" is unknown"},
        {POOL "  timeout: 1\n  timeout: 2\n" SERVERS,
         "f.yml:5:3: directive \"timeout\" is a duplicate"},
        {POOL "  timeout: -1\n" SERVERS, "value \"-1\" is not a number"},
        {POOL "  timeout: 1.5\n" SERVERS, "is not a number"},
        {POOL "  timeout: 400ms\n" SERVERS, "is not a number"},
        {POOL "  timeout: 99999999999\n" SERVERS, "is out of range; allowed: 0 to 2147483647"},
        {POOL "  timeout: 99999999999999999999999\n" SERVERS, "is not a number"},
        {POOL "  server_connections: 0\n" SERVERS, "directive \"server_connections\" cannot be 0"},
        {POOL "  preconnect: yes\n" SERVERS, "is not \"true\" or \"false\""},
        {POOL "  preconnect: True\n" SERVERS, "is not \"true\" or \"false\""},
        {POOL "  client_idle_timeout: 30\n" SERVERS, "is not a time; allowed"},
        {POOL "  max_request_size: 1x\n" SERVERS, "is not a size; allowed"},
        {POOL "  max_request_size: 1\n" SERVERS, "out of range"},
        {POOL "  cross_server: maybe\n" SERVERS, "allowed: refuse, first_key"},
        {POOL "  unknown_commands: maybe\n" SERVERS, "allowed: error, first_key"},
        {POOL "  commands: x\n" SERVERS, "a list with at least one entry"},
        {POOL "  commands: [x]\n" SERVERS, "is not a command"},
        {POOL "  protocol: http\n" SERVERS, "is not a protocol"},
        {"p:\n  listen: 127.0.0.1\n  redis: true\n" SERVERS, "\"hostname:port\" format string"},
        {"p:\n  listen: [[a]]\n  redis: true\n" SERVERS, "must be an address"},
        {POOL "  servers:\n   - 127.0.0.1:1:1 a\n   - 127.0.0.1:2:1 a\n",
         "has servers with same name 'a'"},
        {POOL SERVERS POOL SERVERS, "is a duplicate"},
        {POOL SERVERS "q:\n  listen: 127.0.0.1:1\n  redis: true\n" SERVERS,
         "pools 'p' and 'q' have the same listen address"},
        {POOL "  protocol: memcache\n" SERVERS,
         "f.yml:4:13: pool 'p': \"redis: true\" and \"protocol: memcache\" contradict each other"},
        {POOL "  on_server_failure: maybe\n" SERVERS,
         "f.yml:4:22: directive \"on_server_failure\": value \"maybe\" is not known; allowed: "
         "error, miss"},
        {"p:\n  listen: 127.0.0.1:1\n  redis_auth: x\n" SERVERS, "is only valid for a redis pool"},
        {POOL "  distribution: modula\n  servers:\n   - a:1:2147483647\n   - b:1:2147483647\n   - "
              "c:1:2147483647\n",
         "sum of the weights"},
        {POOL
         "  distribution: modula\n  topology: replicated\n  follow_roles: true\n  servers:\n   - "
         "a:1:2147483647 master\n   - b:1:2147483647\n   - c:1:2147483647\n",
         "sum of the weights"}, /* fits without the master, but another server may become master */
        {"global:\n  worker_processes: -1\n" POOL SERVERS, "is not a number"},
        {"global:\n  worker_procesess: 1\n" POOL SERVERS, "did you mean \"worker_processes\"?"},
        {"global:\n  worker_shutdown_timeout: soon\n" POOL SERVERS, "is not a time"},
        {"global:\n  engine: kqueue\n" POOL SERVERS,
         "is not known; allowed: auto, epoll, io_uring"},
        {"global: 1\n" POOL SERVERS, "must be a mapping"},
        {"pools:\n  p: {listen: 127.0.0.1:1, servers: ['a:1:1']}\nother:\n  a: 1\n",
         "f.yml:3:1: unknown section \"other\""},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    client_connections: 0\n    "
         "servers: ['a:1:1']\n",
         "\"client_connections\" cannot be 0"},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    servers: ['a:1:1 master']\n",
         "has no servers besides the master"},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    servers: ['a:1:1 master', "
         "'b:1:1 master']\n",
         "has servers with same name 'master'"},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    servers: ['a:1:1 master', 'b:1:1']\n",
         "only a redis pool can be replicated"},
        {"p:\n  listen: 127.0.0.1:1\n  protocol: tcp\n  topology: cluster\n  servers: ['a:1:1']\n",
         "only a redis pool can be a cluster"},
        {"p:\n  listen: 127.0.0.1:1\n  protocol: tcp\n  balance: random\n  servers: ['a:1:1']\n",
         "allowed: least_connections, round_robin, source_hash"},
        {"p:\n  listen: 127.0.0.1:1\n  protocol: tcp\n  redis: true\n  servers: ['a:1:1']\n",
         "contradict each other"},
        {POOL "  topology: replicated\n" SERVERS, "no server is named 'master'"},
        {POOL "  topology: ring\n" SERVERS, "is not known; allowed: shards, replicated"},
        {POOL "  read_from: slave\n" SERVERS,
         "is not known; allowed: master, prefer_replica, replica, nearest"},
        {"global:\n  admin_token: short\n" POOL SERVERS,
         "is too short; it needs at least 8 characters"},
        {"global: {users: 1}\n" POOL SERVERS, "\"users\" must be a mapping of names"},
        {"global: {users: {u: 1}}\n" POOL SERVERS, "user 'u' must be a mapping"},
        {"global: {users: {u: {password: x}, u: {password: y}}}\n" POOL SERVERS,
         "directive \"u\" is a duplicate"},
        {"global: {users: {'': {password: x}}}\n" POOL SERVERS,
         "a user's name has 1 to 64 characters"},
        {"global: {users: {a b: {password: x}}}\n" POOL SERVERS, "a user has a name with a blank"},
        {"global: {users: {u: {pools: [p]}}}\n" POOL SERVERS,
         "f.yml:1:18: user 'u': directive \"password:\" is missing"},
        {"global: {users: {u: {password: []}}}\n" POOL SERVERS, "the list \"password\" is empty"},
        {"global: {users: {u: {password: ''}}}\n" POOL SERVERS,
         "\"password\" has an entry without a value"},
        {"global: {users: {u: {password: [[x]]}}}\n" POOL SERVERS,
         "\"password\" has an entry without a value"},
        {"global: {users: {u: {password: '#abc'}}}\n" POOL SERVERS,
         "what follows # is not a SHA-256 hash, 64 digits 0-9a-f"},
        {"global: {users: {u: {password: x, pools: q}}}\n" POOL SERVERS, "there is no pool 'q'"},
        {"global: {users: {u: {password: x, read_only: 1}}}\n" POOL SERVERS,
         "value \"1\" is not \"true\" or \"false\""},
        {"global: {users: {u: {password: x, read_only: [true]}}}\n" POOL SERVERS,
         "\"read_only\" has an entry without a value"},
        {"global: {users: {u: {password: x, allow: [get, gett]}}}\n" POOL SERVERS,
         "f.yml:1:48: user 'u': \"gett\" is no command"},
        {"global: {users: {u: {password: x, deny: '@nothing'}}}\n" POOL SERVERS,
         "\"@nothing\" is no command"},
        {"global: {users: {u: {password: x, deny: []}}}\n" POOL SERVERS,
         "the list \"deny\" is empty"},
        {"global: {users: {u: {password: x, key_prefixes: [a, '']}}}\n" POOL SERVERS,
         "\"key_prefixes\" has an entry without a value"},
        {"global: {users: {u: {password: x, colour: red}}}\n" POOL SERVERS,
         "directive \"colour\" is unknown; allowed: password, pools"},
        {"global: {users: {u: {password: x, pools: m}}}\n" POOL SERVERS
         "m:\n  listen: 127.0.0.1:2\n  protocol: memcache\n" SERVERS,
         "pool 'm' is not a redis pool"},
        {"pools: x\n", "pools must be a mapping"},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        if (load(CASES[i].text) == MR_OK)
            fail_msg("accepted: %s", CASES[i].text);
        if (strstr(err.text, CASES[i].error) == NULL || strncmp(err.text, "f.yml:", 6) != 0)
            fail_msg("'%s': %s", CASES[i].text, err.text);
    }
}

/* A name of `n` bytes for the pool, the server and the server's host. */
static enum mr_result load_named(const char *before, int n, const char *behind)
{
    char text[1000], name[400];

    memset(name, 'n', (size_t)n);
    name[n] = '\0';
    (void)snprintf(text, sizeof(text), "%s%s%s", before, name, behind);
    return load(text);
}

static void names_have_a_limit(void **state)
{
    static const struct {
        const char *before, *behind, *error;
        int most;
    } CASES[] = {
        {"", ":\n  listen: 127.0.0.1:1\n  redis: true\n" SERVERS,
         "f.yml:1:1: a pool's name has 256 bytes; at most 255 are allowed", 255},
        {POOL "  servers:\n   - 127.0.0.1:1:1 ", "\n",
         "has a name of 256 bytes; at most 255 are allowed", 255},
        {POOL "  servers:\n   - ", ":1:1\n", "has a hostname of 241 bytes; at most 240 are allowed",
         240},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        assert_int_equal(load_named(CASES[i].before, CASES[i].most, CASES[i].behind), MR_OK);
        mr_config_free(config);
        assert_int_not_equal(load_named(CASES[i].before, CASES[i].most + 1, CASES[i].behind),
                             MR_OK);
        assert_non_null(strstr(err.text, CASES[i].error));
    }
}

/* Names appear in replies and log lines. */
static void names_end_no_line(void **state)
{
    (void)state;
    assert_int_not_equal(load("\"a\\r\\nEND\":\n  listen: 127.0.0.1:1\n  redis: true\n" SERVERS),
                         MR_OK);
    assert_string_equal(err.text, "f.yml:1:1: a pool's name has a control character");
    assert_int_not_equal(load(POOL "  servers:\n   - \"127.0.0.1:1:1 a\\r\\nEND\"\n"), MR_OK);
    assert_non_null(strstr(err.text, "a control character"));
}

static void warnings(void **state)
{
    (void)state;
    must_load(POOL "  hash: crc32\n  servers:\n   - a:1:1\n   - b:1:1\n");
    assert_int_equal(found.n, 1);
    assert_non_null(strstr(found.list[0].text, "crc32"));
    mr_config_free(config);
    must_load(POOL "  servers:\n   - a:1:100000\n   - b:1:1\n");
    assert_int_equal(found.n, 1);
    assert_non_null(strstr(found.list[0].text, "'b:1' gets no keys"));
    mr_config_free(config);
    must_load(POOL "  servers:\n   - a:1:1 client_eof\n");
    assert_non_null(strstr(found.list[0].text, "statistics field"));
    mr_config_free(config);
    must_load(POOL "  hash: crc32\n" SERVERS); /* harmless with one server */
    assert_int_equal(found.n, 0);
    mr_config_free(config);
}

/* All errors and warnings are found at once, in file order, and no others. */
static void everything_is_found(void **state)
{
    static const struct {
        const char *text;
        const char *found[12]; /* how each begins; '!' marks a warning */
    } CASES[] = {
        {"global:\n  worker_procesess: 1\n  engine: kqueue\n"
         "p:\n  listen: [1.2.3.4, 127.0.0.1:1]\n  redis: true\n  timeout: x\n  timeout: 2\n"
         "  timeout: 3\n  hash: crc\n  servers:\n   - a\n   - b:1:1\n   - b:1:1\n"
         "q:\n  listen: 127.0.0.1:1\n  preconnect: maybe\n",
         {"2:3: directive \"worker_procesess\"", "3:11: directive \"engine\"",
          "5:12: directive \"listen\"", "7:12: directive \"timeout\": value \"x\"",
          "8:3: directive \"timeout\" is a dup", "9:3: directive \"timeout\" is a dup",
          "10:9: directive \"hash\"", "12:6: directive \"servers\"",
          "14:6: pool 'p' has servers with same name 'b:1'",
          "16:3: pool 'q': directive \"servers:\" is missing",
          "16:11: pools 'p' and 'q' have the same", "17:15: directive \"preconnect\""}},
        /* mixed with warnings */
        {"p:\n  listen: 127.0.0.1:1\n  hash: crc32\n  servers: ['a:1:1', 'b:1:1']\n"
         "client_eof:\n  listen: 127.0.0.1:2\n  servers: []\n",
         {"!3:9: pool 'p': hash crc32", "!5:1: pool 'client_eof' is named like",
          "7:12: directive"}},
        /* nothing that depends on an invalid value is reported */
        {"p:\n  listen: x\n  protocol: rediss\n  redis_auth: pw\n  topology: replicated\n"
         "  servers: ['a:1:1', b]\n",
         {"2:11: directive \"listen\"", "3:13: directive \"protocol\"",
          "6:22: directive \"servers\""}},
        {"pools:\n  p:\n    hash: x\nq: 1\nr: 2\n",
         {"3:5: pool 'p': directive \"listen:\"", "3:5: pool 'p': directive \"servers:\"",
          "3:11: directive \"hash\"", "4:1: unknown section \"q\"", "5:1: unknown section"}},
    };

    (void)state;
    for (size_t i = 0; i < MR_COUNT(CASES); i++) {
        uint32_t n = 0;
        assert_int_equal(load(CASES[i].text), MR_ECONFIG);
        for (; n < MR_COUNT(CASES[i].found) && CASES[i].found[n] != NULL; n++) {
            const char *want = CASES[i].found[n];
            const bool warning = want[0] == '!';
            if (n >= found.n || found.list[n].error == warning ||
                strncmp(found.list[n].text, "f.yml:", 6) != 0 ||
                strncmp(found.list[n].text + 6, want + warning, strlen(want + warning)) != 0)
                fail_msg("%zu: wanted \"%s\", found \"%s\"", i, want,
                         n < found.n ? found.list[n].text : "");
        }
        if (found.n > n)
            fail_msg("%zu: also found \"%s\"", i, found.list[n].text);
        assert_non_null(mr_findings_first_error(&found));
        assert_string_equal(err.text, mr_findings_first_error(&found));
    }
    mr_findings_fini(&found);
}

static void files(void **state)
{
    char path[] = "/tmp/millrace-test-conf-XXXXXX";

    (void)state;
    const int fd = mkstemp(path);
    assert_int_equal(write(fd, POOL SERVERS, strlen(POOL SERVERS)), strlen(POOL SERVERS));
    close(fd);
    assert_int_equal(mr_config_load(&config, path, 100, NULL, &err), MR_OK);
    assert_int_equal(config->pools[0].options.max_key_bytes, 100);
    mr_config_free(config);
    unlink(path);
    assert_int_equal(mr_config_load(&config, path, 100, NULL, &err), MR_ESYS);
    assert_non_null(strstr(err.text, "No such file"));
    assert_int_equal(mr_config_load(&config, "/tmp", 100, NULL, &err), MR_ESYS);
    assert_non_null(strstr(err.text, "directory"));
}

RUN(T(defaults), T(every_key), T(sorts_as_the_original), T(meitus_layout), T(masters), T(users),
    T(complaints), T(names_have_a_limit), T(names_end_no_line), T(warnings), T(everything_is_found),
    T(files))
