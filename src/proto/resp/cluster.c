/* cluster.c - parses what Redis Cluster nodes say about slots. */
#include "proto/resp/internal.h"

#include "core/number.h"

/* ---- errors ---- */

static bool takes(struct mr_slice *text, const char *start)
{
    const size_t n = strlen(start);

    if (text->len < n || memcmp(text->at, start, n) != 0)
        return false;
    *text = (struct mr_slice){text->at + n, text->len - n};
    return true;
}

/* After "MOVED " or "ASK ": slot, blank, host (which may contain colons), colon, port. */
static bool read_place(enum mr_redirect_kind kind, struct mr_slice text, struct mr_redirect *to)
{
    const char *blank = memchr(text.at, ' ', text.len);
    const char *end = memchr(text.at, '\r', text.len);
    uint64_t slot, port;

    if (blank == NULL || end == NULL || blank > end)
        return false;
    const struct mr_slice digits = {text.at, (size_t)(blank - text.at)};
    const struct mr_slice place = {blank + 1, (size_t)(end - blank - 1)};
    const char *colon = memrchr(place.at, ':', place.len);
    if (colon == NULL || !mr_parse_uint(digits, MR_SLOTS - 1, &slot) ||
        !mr_parse_uint((struct mr_slice){colon + 1, (size_t)(end - colon - 1)}, UINT16_MAX, &port))
        return false;
    *to = (struct mr_redirect){.kind = kind,
                               .slot = (uint32_t)slot,
                               .host = {place.at, (size_t)(colon - place.at)},
                               .port = (uint16_t)port};
    return true;
}

bool mr_resp_read_redirect(struct mr_slice reply, struct mr_redirect *redirect)
{
    if (MR_LIKELY(reply.len == 0 || reply.at[0] != '-'))
        return false;
    struct mr_slice text = {reply.at + 1, reply.len - 1};
    if (takes(&text, "MOVED "))
        return read_place(MR_REDIRECT_MOVED, text, redirect);
    if (takes(&text, "ASK "))
        return read_place(MR_REDIRECT_ASK, text, redirect);
    if (takes(&text, "TRYAGAIN ") || takes(&text, "READONLY "))
        *redirect = (struct mr_redirect){.kind = MR_REDIRECT_LATER};
    else if (takes(&text, "LOADING ") || takes(&text, "MASTERDOWN "))
        *redirect = (struct mr_redirect){.kind = MR_REDIRECT_OTHER};
    else
        return false;
    return true;
}

/* ---- CLUSTER SLOTS ---- */

/* Skips names and values that newer servers add to a node, but uses `ip` if the host is a name. */
static bool read_extras(const char **p, const char *end, struct mr_slice *host)
{
    struct mr_slice name, value;
    int64_t n;

    if (!mr_resp_next_head(p, end, '*', &n) || n < 0)
        return false;
    for (; n > 1; n -= 2) {
        if (!mr_resp_next_bulk(p, end, &name) || !mr_resp_next_bulk(p, end, &value))
            return false;
        if (mr_slice_eq(name, mr_slice_of("ip")))
            *host = value;
    }
    return n == 0;
}

static bool read_node(const char **p, const char *end, struct mr_slot_range *r)
{
    struct mr_slice id;
    int64_t n, port;

    if (!mr_resp_next_head(p, end, '*', &n) || n < 2 || n > 4 ||
        !mr_resp_next_bulk(p, end, &r->host) || !mr_resp_next_head(p, end, ':', &port) ||
        port < 0 || port > UINT16_MAX)
        return false;
    r->port = (uint16_t)port;
    return (n < 3 || mr_resp_next_bulk(p, end, &id)) && (n < 4 || read_extras(p, end, &r->host));
}

bool mr_resp_read_slots(struct mr_slice reply,
                        void (*range)(void *arg, const struct mr_slot_range *r), void *arg)
{
    const char *p = reply.at, *end = reply.at + reply.len;
    int64_t ranges, n, first, last;

    if (!mr_resp_next_head(&p, end, '*', &ranges) || ranges < 0)
        return false;
    for (; ranges > 0; ranges--) {
        if (!mr_resp_next_head(&p, end, '*', &n) || n < 2 ||
            !mr_resp_next_head(&p, end, ':', &first) || !mr_resp_next_head(&p, end, ':', &last) ||
            first < 0 || last < first || last >= MR_SLOTS)
            return false;
        struct mr_slot_range r = {.first = (uint32_t)first, .last = (uint32_t)last};
        for (n -= 2; n > 0; n--) {
            if (!read_node(&p, end, &r))
                return false;
            range(arg, &r);
            r.is_replica = true;
        }
    }
    return p == end;
}
