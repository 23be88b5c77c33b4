/* test_config.c - whole configurations: defaults, both layouts, and every complaint. */
#include "config/config.h"
#include "unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

#define POOL    "p:\n  listen: 127.0.0.1:1\n  redis: true\n"
#define SERVERS "  servers:\n   - 127.0.0.1:6379:1\n"

static struct mr_config *config;
static struct mr_error err;

static enum mr_result load(const char *text)
{
    config = NULL;
    return mr_config_parse(&config, "f.yml", mr_slice_of(text), MR_KEY_BYTES_DEFAULT, &err);
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
    assert_null(config->group); /* the user's own: Debian has no group nobody */
    assert_int_equal(config->pools[0].client_connections, 2048);
    mr_config_free(config);
    must_load("pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    servers:\n"
              "     - 127.0.0.1:6379:1\n");
    assert_int_equal(config->worker_processes, 0);
    mr_config_free(config);
    /* pools that happen to be called so */
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
    /* Meitu's layout: the name makes it a master, listed last, off the ring */
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
    /* twemproxy's layout: it was a shard there, and no key may move */
    snprintf(text, sizeof(text), "p:\n    listen: 127.0.0.1:1\n    redis: true\n%s", LISTED);
    must_load(text);
    assert_int_equal(config->pools[0].topology, MR_SHARDS);
    assert_int_equal(config->n_warnings, 1);
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

static void complaints(void **state)
{
    static const struct {
        const char *text, *error;
    } CASES[] = {
        {"p: 1\n", "f.yml:1:4: \"p\" must be a mapping"},
        {"- a\n", "a configuration is a mapping"},
        {"{}\n", "there is no pool"},
        {"p:\n  redis: true\n" SERVERS, "directive \"listen:\" is missing"},
        {POOL, "directive \"servers:\" is missing"},
        {POOL "  servers:\n", "f.yml:4:11: directive \"servers\" must be a list"},
        {POOL "  servers: []\n", "must be a list with one entry at least"},
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
         "sum of the weights"}, /* without the master it is not, and the next one may be another */
        {"global:\n  worker_processes: -1\n" POOL SERVERS, "is not a number"},
        {"global:\n  worker_procesess: 1\n" POOL SERVERS, "did you mean \"worker_processes\"?"},
        {"global:\n  worker_shutdown_timeout: soon\n" POOL SERVERS, "is not a time"},
        {"global:\n  engine: kqueue\n" POOL SERVERS,
         "is not known; allowed: auto, epoll, io_uring"},
        {"global: 1\n" POOL SERVERS, "must be a mapping"},
        {"pools:\n  p:\n    redis: true\nother:\n  a: 1\n", "f.yml:4:1: unknown section \"other\""},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    client_connections: 0\n    "
         "servers: ['a:1:1']\n",
         "\"client_connections\" cannot be 0"},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    servers: ['a:1:1 master']\n",
         "has no servers beside the master"},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n    servers: ['a:1:1 master', "
         "'b:1:1 master']\n",
         "has servers with same name 'master'"},
        {"pools:\n  p:\n    listen: 127.0.0.1:1\n    servers: ['a:1:1 master', 'b:1:1']\n",
         "only a redis pool can be replicated"},
        {POOL "  topology: replicated\n" SERVERS, "no server is named 'master'"},
        {POOL "  topology: ring\n" SERVERS, "is not known; allowed: shards, replicated"},
        {POOL "  read_from: slave\n" SERVERS,
         "is not known; allowed: master, prefer_replica, replica, nearest"},
        {"global:\n  admin_token: short\n" POOL SERVERS, "is too short; at least 8 characters"},
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
         "f.yml:1:1: a pool has a name of 256 bytes, at most 255 are allowed", 255},
        {POOL "  servers:\n   - 127.0.0.1:1:1 ", "\n",
         "has a name of 256 bytes, at most 255 are allowed", 255},
        {POOL "  servers:\n   - ", ":1:1\n", "has a hostname of 241 bytes, at most 240 are allowed",
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

/* They are shown in lines of replies and of the log. */
static void names_end_no_line(void **state)
{
    (void)state;
    assert_int_not_equal(load("\"a\\r\\nEND\":\n  listen: 127.0.0.1:1\n  redis: true\n" SERVERS),
                         MR_OK);
    assert_string_equal(err.text, "f.yml:1:1: a pool has a name with a control character");
    assert_int_not_equal(load(POOL "  servers:\n   - \"127.0.0.1:1:1 a\\r\\nEND\"\n"), MR_OK);
    assert_non_null(strstr(err.text, "a control character"));
}

static void warnings(void **state)
{
    (void)state;
    must_load(POOL "  hash: crc32\n  servers:\n   - a:1:1\n   - b:1:1\n");
    assert_int_equal(config->n_warnings, 1);
    assert_non_null(strstr(config->warnings[0], "crc32"));
    mr_config_free(config);
    must_load(POOL "  servers:\n   - a:1:100000\n   - b:1:1\n");
    assert_int_equal(config->n_warnings, 1);
    assert_non_null(strstr(config->warnings[0], "'b:1' gets no points"));
    mr_config_free(config);
    must_load(POOL "  servers:\n   - a:1:1 client_eof\n");
    assert_non_null(strstr(config->warnings[0], "statistics field"));
    mr_config_free(config);
    must_load(POOL "  hash: crc32\n" SERVERS); /* one server: no harm */
    assert_int_equal(config->n_warnings, 0);
    mr_config_free(config);
}

static void files(void **state)
{
    char path[] = "/tmp/millrace-test-conf-XXXXXX";

    (void)state;
    const int fd = mkstemp(path);
    assert_int_equal(write(fd, POOL SERVERS, strlen(POOL SERVERS)), strlen(POOL SERVERS));
    close(fd);
    assert_int_equal(mr_config_load(&config, path, 100, &err), MR_OK);
    assert_int_equal(config->pools[0].options.max_key_bytes, 100);
    mr_config_free(config);
    unlink(path);
    assert_int_equal(mr_config_load(&config, path, 100, &err), MR_ESYS);
    assert_non_null(strstr(err.text, "No such file"));
    assert_int_equal(mr_config_load(&config, "/tmp", 100, &err), MR_ESYS);
    assert_non_null(strstr(err.text, "directory"));
}

RUN(T(defaults), T(every_key), T(sorts_as_the_original), T(meitus_layout), T(masters),
    T(complaints), T(names_have_a_limit), T(names_end_no_line), T(warnings), T(files))
