/* identity_filter.h - a filter that passes every byte as it is, for tests of what must not notice.
 */
#pragma once

#include "net/filter.h"

#include <stdbool.h>
#include <stdlib.h>

struct identity {
    struct mr_filter filter;
};

static size_t identity_bytes; /* that passed any such filter, both ways */
static unsigned identities;   /* in use */

static void identity_on_connect(struct mr_filter *f, struct mr_stream *s)
{
    (void)f;
    mr_filter_opened(s);
}

/* A copy, as a filter that decrypts would make: without headroom. */
static void identity_on_receive(struct mr_filter *f, struct mr_stream *s, char *bytes, size_t len,
                                size_t headroom)
{
    char *copy = malloc(len);

    (void)f;
    (void)headroom;
    MR_CHECK(copy != NULL);
    memcpy(copy, bytes, len);
    identity_bytes += len;
    mr_filter_deliver(s, copy, len, 0);
    free(copy);
}

static void identity_on_write(struct mr_filter *f, struct mr_stream *s, const char *bytes,
                              size_t len)
{
    (void)f;
    identity_bytes += len;
    mr_filter_send(s, bytes, len);
}

static bool identity_is_tied(const struct mr_filter *f)
{
    (void)f;
    return false;
}

static void identity_on_release(struct mr_filter *f, struct mr_stream *s)
{
    (void)s;
    identities--;
    free(MR_CONTAINER_OF(f, struct identity, filter));
}

static const struct mr_filter_ops IDENTITY = {.on_connect = identity_on_connect,
                                              .on_receive = identity_on_receive,
                                              .on_write = identity_on_write,
                                              .is_tied = identity_is_tied,
                                              .on_release = identity_on_release};

static inline void insert_identity(struct mr_stream *s)
{
    struct identity *one = calloc(1, sizeof(*one));

    MR_CHECK(one != NULL);
    identities++;
    mr_filter_insert(&one->filter, &IDENTITY, s);
}
