/*
 * test_vectors.c - every observed row of tests/vectors: server lines are parsed as in a
 * configuration, sorted and put on a ring, and the key must map to the recorded server.
 */
#include "config/config.h"
#include "unit/test.h"

#include <unistd.h>

#define COLUMNS 7

struct row {
    char *hash, *distribution, *tag, *servers, *live, *key_hex, *server;
};

/* The pool of the last combination, reused while rows ask for the same one. */
static struct {
    char text[65536];
    struct mr_config *config;
    struct mr_ring ring;
    struct mr_ring_member *members;
} cached;

static void forget(void)
{
    if (cached.config == NULL)
        return;
    mr_ring_free(&cached.ring);
    free(cached.members);
    mr_config_free(cached.config);
    cached.config = NULL;
}

static void add_server_lines(char *yaml, size_t size, char *servers)
{
    char *save = NULL;
    char first[64];
    unsigned from, to;

    for (char *line = strtok_r(servers, ";", &save); line != NULL;
         line = strtok_r(NULL, ";", &save)) {
        size_t n = strlen(yaml);
        if (sscanf(line, "%63[0-9.]:%u:1..%*[0-9.]:%u:1", first, &from, &to) == 3) {
            for (unsigned port = from; port <= to; port++) {
                n = strlen(yaml);
                snprintf(yaml + n, size - n, "   - %s:%u:1\n", first, port);
            }
        } else {
            snprintf(yaml + n, size - n, "   - '%s'\n", line);
        }
    }
}

static bool is_live(const char *live, const char *name)
{
    const size_t len = strlen(name);

    if (live == NULL)
        return true;
    for (const char *p = live; *p != '\0';) {
        const size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, name, n) == 0)
            return true;
        p += n + (p[n] == ',');
    }
    return false;
}

static void build(const struct row *r)
{
    static char yaml[131072], servers[65536], text[65536];
    struct mr_error err;

    snprintf(text, sizeof(text), "%s|%s|%s|%s|%s", r->hash, r->distribution, r->tag, r->servers,
             r->live != NULL ? r->live : "");
    if (cached.config != NULL && strcmp(text, cached.text) == 0)
        return;
    forget();
    strcpy(cached.text, text);
    snprintf(yaml, sizeof(yaml),
             "p:\n  listen: 127.0.0.1:1\n  redis: true\n  hash: %s\n  distribution: %s\n", r->hash,
             r->distribution);
    if (r->tag[0] != '\0')
        snprintf(yaml + strlen(yaml), 64, "  hash_tag: \"%s\"\n", r->tag);
    strcat(yaml, "  servers:\n");
    strcpy(servers, r->servers);
    add_server_lines(yaml, sizeof(yaml), servers);
    if (mr_config_parse(&cached.config, "vectors", mr_slice_of(yaml), MR_KEY_BYTES_DEFAULT, NULL,
                        &err) != MR_OK)
        fail_msg("%s", err.text);
    const struct mr_pool_config *pool = &cached.config->pools[0];
    cached.members = mr_config_ring_members(pool);
    for (uint32_t i = 0; i < pool->servers.n; i++)
        cached.members[i].live = is_live(r->live, pool->servers.at[i].name);
    assert_int_equal(
        mr_ring_build(&cached.ring, pool->distribution, cached.members, pool->servers.n, &err),
        MR_OK);
}

static size_t unhex(const char *hex, char *out)
{
    size_t n = 0;
    unsigned byte;

    for (; hex[0] != '\0' && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        out[n++] = (char)byte;
    return n;
}

static void check(const struct row *r)
{
    static char key[65536];

    build(r);
    const struct mr_pool_config *pool = &cached.config->pools[0];
    struct mr_slice k = {key, unhex(r->key_hex, key)};
    k = mr_hash_tag(k, pool->has_hash_tag ? pool->hash_tag : NULL);
    const uint32_t hash = k.len > 0 ? mr_hash_function(pool->hash)(k.at, k.len) : 0;
    assert_string_equal(pool->servers.at[mr_ring_pick(&cached.ring, hash, 0)].name, r->server);
}

static FILE *open_vectors(const char *name)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", VECTORS_DIR, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    return f;
}

static unsigned cut(char *line, char **columns)
{
    unsigned n = 0;

    line[strcspn(line, "\n")] = '\0';
    for (char *p = line; n < COLUMNS; n++) {
        columns[n] = p;
        p = strchr(p, '\t');
        if (p == NULL)
            return n + 1;
        *p++ = '\0';
    }
    return n;
}

static void replay(const char *name, unsigned want_rows)
{
    static char line[131072];
    char *c[COLUMNS];
    unsigned rows = 0;
    FILE *f = open_vectors(name);

    assert_non_null(fgets(line, sizeof(line), f)); /* headings */
    while (fgets(line, sizeof(line), f) != NULL) {
        const unsigned n = cut(line, c);
        assert_true(n == 6 || n == 7);
        const struct row r = {.hash = c[0],
                              .distribution = c[1],
                              .tag = c[2],
                              .servers = c[3],
                              .live = n == 7 ? c[4] : NULL,
                              .key_hex = c[n - 2],
                              .server = c[n - 1]};
        check(&r);
        rows++;
    }
    fclose(f);
    forget();
    assert_int_equal(rows, want_rows);
}

static void main_rows(void **state)
{
    (void)state;
    replay("main.tsv", 5760);
}

static void modula251_rows(void **state)
{
    (void)state;
    replay("modula251.tsv", 720);
}

static void hashtag_rows(void **state)
{
    (void)state;
    replay("hashtag.tsv", 1488);
}

static void eject_rows(void **state)
{
    (void)state;
    replay("eject.tsv", 1600);
}

static void emptykey_rows(void **state)
{
    (void)state;
    replay("emptykey.tsv", 24);
}

static void memcached_rows(void **state)
{
    (void)state;
    replay("memcached.tsv", 360);
}

static void raw_hashes(void **state)
{
    char line[4096], *c[COLUMNS], key[2048];
    unsigned rows = 0;
    FILE *f = open_vectors("hash32.tsv");

    (void)state;
    assert_non_null(fgets(line, sizeof(line), f));
    while (fgets(line, sizeof(line), f) != NULL) {
        enum mr_hash h;
        assert_int_equal(cut(line, c), 3);
        assert_true(mr_hash_by_name(mr_slice_of(c[0]), &h));
        const size_t n = unhex(c[1], key);
        if (n > 0) /* an empty key has the value 0 without hashing */
            assert_int_equal(mr_hash_function(h)(key, n), strtoul(c[2], NULL, 16));
        rows++;
    }
    fclose(f);
    assert_int_equal(rows, 168);
}

RUN(T(main_rows), T(modula251_rows), T(hashtag_rows), T(eject_rows), T(emptykey_rows),
    T(memcached_rows), T(raw_hashes))
