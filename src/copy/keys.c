/* keys.c - copies a batch of keys: fetch, store, and fetch again until nothing has changed. */
#include "copy/copy.h"

#include "core/clock.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK        64u        /* keys fetched at a time */
#define FLUSH_BYTES  (8u << 20) /* values on their way to the other pool */
#define ROUNDS       20u        /* values stored before a key counts as unsteady */
#define TRIES        50u        /* errors of a key before it counts as failed */
#define TOLERANCE_MS 200u       /* between two readings of the same expiry */
#define US_PER_MS    1000u

/* What is known of a key. */
struct view {
    bool exists;
    uint64_t digest;
    size_t bytes;
    uint64_t until_ms; /* since 1970; 0: for ever */
};

enum progress { WAITING, SENT, FINISHED };

struct key {
    const char *name;
    size_t len;
    enum progress progress;
    bool ours;  /* the other pool has what we have stored, or perhaps has it */
    bool known; /* `stored` is what it has */
    uint32_t rounds;
    uint32_t errors;
    struct view stored;
    struct view next;
};

static uint64_t digest_of(const char *at, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)at[i]) * UINT64_C(0x100000001b3);
    return h;
}

static bool same(const struct view *a, const struct view *b)
{
    if (a->exists != b->exists)
        return false;
    if (!a->exists)
        return true;
    if (a->digest != b->digest || a->bytes != b->bytes || (a->until_ms == 0) != (b->until_ms == 0))
        return false;
    const uint64_t apart =
        a->until_ms > b->until_ms ? a->until_ms - b->until_ms : b->until_ms - a->until_ms;
    return apart <= TOLERANCE_MS;
}

static void finish(struct key *key, uint64_t *count)
{
    key->progress = FINISHED;
    (*count)++;
}

/* A server replied with an error, which may be about to end: a failover, a resharding. */
static void stumble(struct mr_copy *copy, struct key *key, const redisReply *reply)
{
    key->progress = WAITING;
    if (++key->errors < TRIES)
        return;
    (void)fprintf(stderr, "\nmillrace: key '%.*s': %s\n", (int)(key->len < 100 ? key->len : 100),
                  key->name, reply->type == REDIS_REPLY_ERROR ? reply->str : "unexpected reply");
    finish(key, &copy->counts.failed);
}

/* ---- storing ---- */

static void send_value(struct mr_copy *copy, struct key *key, const redisReply *value)
{
    char until[24];
    const char *args[6] = {"RESTORE", key->name, until, value->str};
    size_t lens[6] = {7, key->len, 0, value->len};
    int n = 4;

    lens[2] =
        (size_t)snprintf(until, sizeof(until), "%llu", (unsigned long long)key->next.until_ms);
    if (key->ours || copy->options->replace) {
        args[n] = "REPLACE";
        lens[n++] = 7;
    }
    if (key->next.until_ms > 0) {
        args[n] = "ABSTTL";
        lens[n++] = 6;
    }
    mr_link_send(&copy->to, n, args, lens);
    key->progress = SENT;
}

static void send_removal(struct mr_copy *copy, struct key *key)
{
    const char *args[] = {"UNLINK", key->name};
    const size_t lens[] = {6, key->len};

    mr_link_send(&copy->to, 2, args, lens);
    key->progress = SENT;
}

/* Reads the replies of all that was sent. False if the connection broke. */
static bool take_stored(struct mr_copy *copy, struct key *keys, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct key *key = &keys[i];
        if (key->progress != SENT)
            continue;
        redisReply *reply = mr_link_reply(&copy->to);
        if (reply == NULL)
            return false;
        key->progress = WAITING;
        if (reply->type == REDIS_REPLY_STATUS || reply->type == REDIS_REPLY_INTEGER) {
            key->ours = key->known = true;
            key->stored = key->next;
        } else if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "BUSYKEY", 7) == 0) {
            finish(key, &copy->counts.kept);
        } else {
            stumble(copy, key, reply);
        }
        freeReplyObject(reply);
    }
    return true;
}

/* ---- fetching ---- */

/* True if reads may go to a replica, which may be behind. A transaction goes to the master. */
static bool asks_in_transactions(const struct mr_copy *copy)
{
    const struct mr_pool_config *pool = copy->from.pool;

    return pool->topology != MR_SHARDS && pool->read_from != MR_READ_MASTER;
}

/* Asks for the time to live and the value of keys that are not finished, `most` at a time. */
static void send_fetches(struct mr_copy *copy, const struct key *keys, size_t n, size_t most)
{
    const bool transaction = asks_in_transactions(copy);

    for (size_t i = 0; i < n && most > 0; i++) {
        const char *ttl[] = {"PTTL", keys[i].name}, *dump[] = {"DUMP", keys[i].name};
        const size_t lens[] = {4, keys[i].len};
        if (keys[i].progress == FINISHED)
            continue;
        most--;
        if (transaction)
            mr_link_ask(&copy->from, "MULTI", NULL);
        mr_link_send(&copy->from, 2, ttl, lens);
        mr_link_send(&copy->from, 2, dump, lens);
        if (transaction)
            mr_link_ask(&copy->from, "EXEC", NULL);
    }
}

/* Decides what follows from a key's time to live and value. */
static void take_value(struct mr_copy *copy, struct key *key, const redisReply *ttl,
                       const redisReply *value)
{
    if (ttl->type != REDIS_REPLY_INTEGER ||
        (value->type != REDIS_REPLY_STRING && value->type != REDIS_REPLY_NIL)) {
        stumble(copy, key, ttl->type != REDIS_REPLY_INTEGER ? ttl : value);
        return;
    }
    key->next = (struct view){.exists = value->type == REDIS_REPLY_STRING};
    if (key->next.exists) {
        key->next.digest = digest_of(value->str, value->len);
        key->next.bytes = value->len;
        if (ttl->integer >= 0)
            key->next.until_ms = mr_clock_wall_us() / US_PER_MS + (uint64_t)ttl->integer;
    }
    if (key->known && same(&key->next, &key->stored))
        finish(key, key->stored.exists ? &copy->counts.copied : &copy->counts.gone);
    else if (!key->next.exists && !key->ours)
        finish(key, &copy->counts.gone);
    else if (key->rounds++ == ROUNDS)
        finish(key, &copy->counts.unsteady);
    else if (key->next.exists)
        send_value(copy, key, value);
    else
        send_removal(copy, key);
}

static bool skip_replies(struct mr_link *link, uint32_t n)
{
    redisReply *reply;

    for (; n > 0 && (reply = mr_link_reply(link)) != NULL; n--)
        freeReplyObject(reply);
    return n == 0;
}

/* Takes the replies to one fetch. False if the connection broke. */
static bool take_fetched(struct mr_copy *copy, struct key *key)
{
    const bool transaction = asks_in_transactions(copy);

    if (transaction && !skip_replies(&copy->from, 3)) /* OK, QUEUED, QUEUED */
        return false;
    redisReply *first = mr_link_reply(&copy->from);
    redisReply *second = first == NULL || transaction ? NULL : mr_link_reply(&copy->from);
    const bool good = first != NULL && (transaction || second != NULL);

    if (good && !transaction)
        take_value(copy, key, first, second);
    else if (good && first->type == REDIS_REPLY_ARRAY && first->elements == 2)
        take_value(copy, key, first->element[0], first->element[1]);
    else if (good)
        stumble(copy, key, first);
    if (second != NULL)
        freeReplyObject(second);
    if (first != NULL)
        freeReplyObject(first);
    return good;
}

/* False if a connection broke. */
static bool take_values(struct mr_copy *copy, struct key *keys, size_t n, size_t most)
{
    size_t sent = 0;

    for (size_t i = 0; i < n && most > 0; i++) {
        if (keys[i].progress == FINISHED)
            continue;
        most--;
        if (!take_fetched(copy, &keys[i]))
            return false;
        if (copy->to.unsent > FLUSH_BYTES) {
            if (!take_stored(copy, keys + sent, i + 1 - sent))
                return false;
            sent = i + 1;
        }
    }
    return take_stored(copy, keys + sent, n - sent);
}

/* What was sent over a connection that broke may have been done. */
static void forget_sent(struct key *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (keys[i].progress == SENT) {
            keys[i].progress = WAITING;
            keys[i].ours = true;
            keys[i].known = false;
        }
}

static size_t count_unfinished(const struct key *keys, size_t n, uint32_t *errors)
{
    size_t left = 0;

    *errors = 0;
    for (size_t i = 0; i < n; i++) {
        left += keys[i].progress != FINISHED;
        if (keys[i].progress != FINISHED)
            *errors += keys[i].errors;
    }
    return left;
}

static bool copy_chunk(struct mr_copy *copy, struct key *keys, size_t n)
{
    struct mr_error err;
    uint32_t errors, before = 0;
    size_t most =
        n; /* at a time: fewer after a break, perhaps their values are too large together */

    while (count_unfinished(keys, n, &errors) > 0) {
        if (errors > before && !mr_copy_try_again(copy, "a server replies with errors"))
            return false;
        before = errors;
        if (mr_link_open(&copy->from, &err) != MR_OK || mr_link_open(&copy->to, &err) != MR_OK) {
            if (!mr_copy_try_again(copy, err.text))
                return false;
            continue;
        }
        send_fetches(copy, keys, n, most);
        if (!take_values(copy, keys, n, most)) {
            const char *reason = copy->to.context == NULL ? copy->to.trouble : copy->from.trouble;
            mr_link_close(&copy->from);
            mr_link_close(&copy->to);
            forget_sent(keys, n);
            most = most / 4 > 0 ? most / 4 : 1;
            if (!mr_copy_try_again(copy, reason))
                return false;
        }
    }
    mr_copy_works(copy);
    return true;
}

bool mr_copy_keys(struct mr_copy *copy, const redisReply *names)
{
    struct key keys[CHUNK];

    for (size_t i = 0; i < names->elements; i += CHUNK) {
        const size_t n = names->elements - i < CHUNK ? names->elements - i : CHUNK;
        for (size_t k = 0; k < n; k++)
            keys[k] =
                (struct key){.name = names->element[i + k]->str, .len = names->element[i + k]->len};
        if (!copy_chunk(copy, keys, n))
            return false;
        mr_copy_show(copy, false);
    }
    return true;
}
