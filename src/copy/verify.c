/*
 * verify.c - compares random keys of both pools.
 *
 * Equal DUMPs are equal values. Others may be, too: a set has another order in another server, and
 * a list nodes of other sizes. Then the elements are compared.
 */
#include "copy/copy.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOKS        5u      /* at a key that differs: it may just be written */
#define LOOK_US      200000u /* between two of them */
#define SHOWN        10u     /* keys that differ are named, up to this many */
#define TOLERANCE_MS 2000    /* of the time to live */

/* How to read all of a value, and how many elements of the reply belong together. */
struct kind {
    const char *name; /* as TYPE replies */
    const char *command;
    const char *more[3]; /* arguments after the key */
    size_t together;     /* 0: the order matters */
};

static const struct kind KINDS[] = {
    {"string", "GET", {NULL}, 0},   {"list", "LRANGE", {"0", "-1", NULL}, 0},
    {"set", "SMEMBERS", {NULL}, 1}, {"zset", "ZRANGE", {"0", "-1", "WITHSCORES"}, 0},
    {"hash", "HGETALL", {NULL}, 2}, {"stream", "XRANGE", {"-", "+", NULL}, 0},
};

static redisReply *ask_key(struct mr_link *link, const char *command, const redisReply *key,
                           const char *const *more)
{
    const char *args[5] = {command, key->str};
    size_t lens[5] = {strlen(command), key->len};
    int n = 2;
    struct mr_error err;

    if (mr_link_open(link, &err) != MR_OK)
        return NULL;
    for (size_t i = 0; more != NULL && i < 3 && more[i] != NULL; i++) {
        args[n] = more[i];
        lens[n++] = strlen(more[i]);
    }
    mr_link_send(link, n, args, lens);
    return mr_link_reply(link);
}

static bool equal(const redisReply *a, const redisReply *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case REDIS_REPLY_INTEGER:
        return a->integer == b->integer;
    case REDIS_REPLY_ARRAY:
        if (a->elements != b->elements)
            return false;
        for (size_t i = 0; i < a->elements; i++)
            if (!equal(a->element[i], b->element[i]))
                return false;
        return true;
    case REDIS_REPLY_NIL:
        return true;
    default:
        return a->len == b->len && memcmp(a->str, b->str, a->len) == 0;
    }
}

static int by_text(const void *a, const void *b)
{
    const redisReply *x = *(redisReply *const *)a, *y = *(redisReply *const *)b;
    const int c = memcmp(x->str, y->str, x->len < y->len ? x->len : y->len);

    return c != 0 ? c : x->len < y->len ? -1 : x->len > y->len;
}

/* Sorts the elements, or groups of them by their first one. */
static void sort(redisReply *reply, size_t together)
{
    if (together > 0 && reply->type == REDIS_REPLY_ARRAY && reply->elements % together == 0)
        qsort(reply->element, reply->elements / together, together * sizeof(*reply->element),
              by_text);
}

static void free_two(redisReply *a, redisReply *b)
{
    if (a != NULL)
        freeReplyObject(a);
    if (b != NULL)
        freeReplyObject(b);
}

static bool same_answer(struct mr_copy *copy, const char *command, const redisReply *key,
                        const char *const *more, size_t together)
{
    redisReply *a = ask_key(&copy->from, command, key, more);
    redisReply *b = ask_key(&copy->to, command, key, more);
    const bool both = a != NULL && b != NULL;

    if (both) {
        sort(a, together);
        sort(b, together);
    }
    const bool answer = both && a->type != REDIS_REPLY_ERROR && equal(a, b);
    free_two(a, b);
    return answer;
}

static bool same_contents(struct mr_copy *copy, const redisReply *key)
{
    redisReply *kind = ask_key(&copy->from, "TYPE", key, NULL);
    bool answer = false;

    for (size_t i = 0; kind != NULL && kind->str != NULL && i < MR_COUNT(KINDS); i++)
        if (strcmp(kind->str, KINDS[i].name) == 0)
            answer = same_answer(copy, "TYPE", key, NULL, 0) &&
                     same_answer(copy, KINDS[i].command, key, KINDS[i].more, KINDS[i].together);
    free_two(kind, NULL);
    return answer;
}

static bool same_expiry(struct mr_copy *copy, const redisReply *key)
{
    redisReply *a = ask_key(&copy->from, "PTTL", key, NULL);
    redisReply *b = ask_key(&copy->to, "PTTL", key, NULL);
    bool answer = false;

    if (a != NULL && b != NULL && a->type == REDIS_REPLY_INTEGER &&
        b->type == REDIS_REPLY_INTEGER) {
        const long long apart = a->integer - b->integer;
        answer =
            (a->integer < 0) == (b->integer < 0) && apart <= TOLERANCE_MS && apart >= -TOLERANCE_MS;
    }
    free_two(a, b);
    return answer;
}

static bool is_same(struct mr_copy *copy, const redisReply *key)
{
    return (same_answer(copy, "DUMP", key, NULL, 0) || same_contents(copy, key)) &&
           same_expiry(copy, key);
}

static bool is_same_in_the_end(struct mr_copy *copy, const redisReply *key, uint32_t looks)
{
    while (!is_same(copy, key)) {
        if (--looks == 0)
            return false;
        (void)usleep(LOOK_US);
    }
    return true;
}

uint64_t mr_copy_verify(struct mr_copy *copy, uint64_t n, uint64_t *compared)
{
    struct mr_error err;
    uint64_t differing = 0;

    *compared = 0;
    for (uint64_t i = 0; i < n && !mr_copy_interrupted(); i++) {
        if (mr_link_open(&copy->from, &err) != MR_OK) {
            if (!mr_copy_try_again(copy, err.text))
                break;
            continue;
        }
        mr_link_ask(&copy->from, "RANDOMKEY", NULL);
        redisReply *key = mr_link_reply(&copy->from);
        if (key != NULL && key->type == REDIS_REPLY_STRING) {
            (*compared)++;
            if (!is_same_in_the_end(copy, key, differing < SHOWN ? LOOKS : 1) &&
                differing++ < SHOWN)
                (void)fprintf(stderr, "millrace: key '%.*s' differs\n",
                              (int)(key->len < 100 ? key->len : 100), key->str);
        }
        const bool none = key != NULL && key->type == REDIS_REPLY_NIL;
        free_two(key, NULL);
        if (none)
            break; /* the pool is empty */
    }
    return differing;
}
