/* test_json.c - the statistics documents: formats, sums, colliding and odd names. */
#include "admin/json.h"
#include "unit/test.h"

#include <jansson.h>

static struct mr_config *config;
static struct mr_metrics slots[2], bases[2];

static json_t *document(const char *yaml, uint32_t n_slots, bool single)
{
    struct mr_error err;

    assert_int_equal(mr_config_parse(&config, "t", mr_slice_of(yaml), 100, NULL, &err), MR_OK);
    for (uint32_t i = 0; i < n_slots; i++) {
        assert_int_equal(mr_metrics_open(&slots[i], config->n_pools, config->n_servers, &err),
                         MR_OK);
        assert_int_equal(mr_metrics_open(&bases[i], config->n_pools, config->n_servers, &err),
                         MR_OK);
        slots[i].head->pid = 100 + i;
        slots[i].servers[0].requests = 10 + i;
        slots[i].servers[0].server_ejected_at = 1000 - i;
        slots[i].pools[0].request_latency.counts[3] = 5;
    }
    const struct mr_runtime rt = {
        .config = config, .slots = slots, .bases = bases, .n_slots = n_slots, .single = single};
    char *text = mr_stats_json(&rt);
    const bool array = text[0] == '[';
    assert_int_equal(text[strlen(text) - 1], array ? ']' : '\n');
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

static void release(json_t *root, uint32_t n_slots)
{
    json_decref(root);
    for (uint32_t i = 0; i < n_slots; i++)
        mr_metrics_close(&slots[i]), mr_metrics_close(&bases[i]);
    mr_config_free(config);
}

static long long at(json_t *object, const char *a, const char *b, const char *c)
{
    object = json_object_get(object, a);
    if (b != NULL)
        object = json_object_get(object, b);
    if (c != NULL)
        object = json_object_get(object, c);
    assert_true(json_is_integer(object));
    return json_integer_value(object);
}

static void sums_the_workers(void **state)
{
    json_t *root =
        document("p:\n  listen: 127.0.0.1:1\n  redis: true\n  servers: ['a:1:1 s']\n", 2, false);

    (void)state;
    assert_int_equal(at(root, "p", "s", "requests"), 21);
    assert_int_equal(at(root, "p", "s", "server_ejected_at"), 1000); /* the latest */
    assert_null(json_object_get(root, "pid"));
    release(root, 2);
}

static void one_object_for_each_worker_of_meitus(void **state)
{
    json_t *root = document("pools:\n  p:\n    listen: 127.0.0.1:1\n    redis: true\n"
                            "    servers: ['a:1:1 s']\n",
                            2, false);

    (void)state;
    assert_int_equal(json_array_size(root), 2);
    json_t *second = json_array_get(root, 1);
    assert_int_equal(at(second, "pid", NULL, NULL), 101);
    json_t *pool = json_object_get(json_object_get(second, "pools"), "p");
    assert_int_equal(json_array_size(json_object_get(pool, "request_latency")), 11);
    assert_int_equal(at(pool, "servers", "s", "requests"), 11);
    release(root, 2);
}

static void names_never_hide_fields(void **state)
{
    json_t *root = document("version:\n  listen: 127.0.0.1:1\n  redis: true\n"
                            "  servers: ['a:1:1 client_err']\n",
                            1, true);

    (void)state;
    assert_true(json_is_string(json_object_get(root, "version")));
    assert_int_equal(at(root, "pool:version", "client_err", NULL), 0);
    assert_int_equal(at(root, "pool:version", "server:client_err", "requests"), 10);
    release(root, 1);
}

RUN(T(sums_the_workers), T(one_object_for_each_worker_of_meitus), T(names_never_hide_fields))
