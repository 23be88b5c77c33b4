/* sentinel.c - what sentinels say of masters and replicas. */
#include "proto/resp/internal.h"

#include "core/number.h"

/* https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/ */
void mr_resp_ask_sentinel(const char *master, bool replicas, struct mr_slab *slab,
                          struct mr_buf *out)
{
    mr_resp_put_head(out, slab, '*', 3);
    mr_resp_put_bulk(out, slab, mr_slice_of("SENTINEL"));
    mr_resp_put_bulk(out, slab, mr_slice_of(replicas ? "REPLICAS" : "MASTER"));
    mr_resp_put_bulk(out, slab, mr_slice_of(master));
}

static bool read_flag(struct mr_slice flags, const char *flag)
{
    return memmem(flags.at, flags.len, flag, strlen(flag)) != NULL;
}

static void take_field(struct mr_sentinel_view *view, struct mr_slice name, struct mr_slice value)
{
    uint64_t n = 0;

    if (mr_slice_eq(name, mr_slice_of("ip"))) {
        view->host = value;
    } else if (mr_slice_eq(name, mr_slice_of("port"))) {
        (void)mr_parse_uint(value, UINT16_MAX, &n);
        view->port = (uint16_t)n;
    } else if (mr_slice_eq(name, mr_slice_of("config-epoch"))) {
        (void)mr_parse_uint(value, UINT64_MAX, &view->epoch);
    } else if (mr_slice_eq(name, mr_slice_of("flags"))) {
        view->down = view->down || read_flag(value, "s_down") || read_flag(value, "o_down") ||
                     read_flag(value, "disconnected");
    } else if (mr_slice_eq(name, mr_slice_of("master-link-status"))) {
        view->down = view->down || !mr_slice_eq(value, mr_slice_of("ok"));
    }
}

/* Names and values, by turns. */
static bool read_fields(const char **p, const char *end, struct mr_sentinel_view *view)
{
    struct mr_slice name, value;
    int64_t n;

    *view = (struct mr_sentinel_view){0};
    if (!mr_resp_next_head(p, end, '*', &n) || n < 0 || n % 2 != 0)
        return false;
    for (; n > 0; n -= 2) {
        if (!mr_resp_next_bulk(p, end, &name) || !mr_resp_next_bulk(p, end, &value))
            return false;
        take_field(view, name, value);
    }
    return view->host.len > 0 && view->port > 0;
}

bool mr_resp_read_sentinel_master(struct mr_slice reply, struct mr_sentinel_view *view)
{
    const char *p = reply.at, *end = reply.at + reply.len;

    return read_fields(&p, end, view) && p == end;
}

bool mr_resp_read_sentinel_replicas(struct mr_slice reply,
                                    void (*replica)(void *arg, const struct mr_sentinel_view *view),
                                    void *arg)
{
    const char *p = reply.at, *end = reply.at + reply.len;
    struct mr_sentinel_view view;
    int64_t n;

    if (!mr_resp_next_head(&p, end, '*', &n) || n < 0)
        return false;
    for (; n > 0; n--) {
        if (!read_fields(&p, end, &view))
            return false;
        replica(arg, &view);
    }
    return p == end;
}
