/* split.c - splits requests over servers and joins the replies. */
#include "proto/memcache/binary.h"
#include "proto/memcache/internal.h"

static void append(struct mr_buf *out, struct mr_slab *slab, struct mr_slice bytes)
{
    mr_buf_put(out, slab, bytes.at, bytes.len);
}

/* Keys follow `skip` words of a line that ends in CR LF. */
static bool next_key(struct mr_slice line, uint32_t skip, struct mr_key_walk *walk,
                     struct mr_slice *key)
{
    const char *end = line.at + line.len - 2;

    if (walk->at == NULL) {
        walk->at = line.at;
        for (uint32_t i = 0; i < skip; i++)
            (void)mr_mc_word(&walk->at, end, key);
    }
    walk->index++;
    return mr_mc_word(&walk->at, end, key);
}

bool mr_mc_next_key(const struct mr_msg *msg, struct mr_key_walk *walk, struct mr_slice *key)
{
    if (!next_key(msg->wire, msg->n_args, walk, key))
        return false;
    walk->bytes = (struct mr_slice){key->at - 1, key->len + 1}; /* a blank precedes each key */
    return true;
}

static bool is_retrieval(const struct mr_plan *plan)
{
    return plan->n_keys > 0;
}

void mr_mc_begin_part(const struct mr_msg *msg, struct mr_slab *slab, struct mr_part *part)
{
    for (uint32_t w = 0; w < msg->n_args; w++) {
        if (w > 0)
            append(&part->request, slab, mr_slice_of(" "));
        append(&part->request, slab, msg->args[w]);
    }
}

void mr_mc_end_parts(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab)
{
    for (uint32_t i = 0; i < plan->n_parts; i++)
        append(&plan->parts[i].request, slab, mr_slice_of("\r\n"));
    append(&plan->notes, slab, msg->wire);
}

void mr_mc_copy(const struct mr_msg *msg, struct mr_plan *plan, struct mr_slab *slab)
{
    for (uint32_t i = 0; i < plan->n_parts; i++)
        append(&plan->parts[i].request, slab, msg->wire);
}

static void put_failure(const char *reason, struct mr_slab *slab, struct mr_buf *out)
{
    mr_buf_printf(out, slab, "SERVER_ERROR %.400s\r\n", reason);
}

/* The error line that ends a reply, after values in a list or alone. */
static struct mr_slice error_line(struct mr_slice reply)
{
    const char *start = reply.at + reply.len - 2; /* of the CR LF */

    if (mr_mc_starts(reply, "VALUE "))
        while (start > reply.at && start[-1] != '\n')
            start--;
    else
        start = reply.at;
    const struct mr_slice line = {start, (size_t)(reply.at + reply.len - start)};
    return mr_mc_is_error(line) ? line : (struct mr_slice){NULL, 0};
}

/*
 * Appends the error of a failed part, or of a server that replied with one. False if all is well.
 */
static bool join_error(const struct mr_plan *plan, const char *good_end, struct mr_slab *slab,
                       struct mr_buf *out)
{
    const size_t n = strlen(good_end);

    for (uint32_t i = 0; i < plan->n_parts; i++) {
        const struct mr_part *part = &plan->parts[i];
        const struct mr_slice reply = part->reply;
        if (part->failure != NULL) {
            put_failure(part->failure, slab, out);
            return true;
        }
        if (reply.len >= n && memcmp(reply.at + reply.len - n, good_end, n) == 0)
            continue;
        const struct mr_slice line = error_line(reply);
        if (line.len > 0)
            append(out, slab, line);
        else
            put_failure("Invalid argument", slab, out);
        return true;
    }
    return false;
}

/* Consumes the value at *at if it belongs to the key. Returns its size in bytes, or 0. */
static size_t take_value(const char **at, const char *end, struct mr_slice key)
{
    const struct mr_slice rest = {*at, (size_t)(end - *at)};
    const char *after = *at + 6 + key.len;
    uint64_t length = 0;

    if (rest.len <= 6 + key.len || !mr_mc_starts(rest, "VALUE ") || *after != ' ' ||
        memcmp(*at + 6, key.at, key.len) != 0)
        return 0;
    const char *nl = memchr(after, '\n', (size_t)(end - after));
    MR_CHECK(nl != NULL && mr_mc_value_length(after, nl - 1, 1, &length)); /* it was scanned */
    const size_t n = (size_t)(nl + 1 - *at) + (size_t)length + 2;
    MR_CHECK(n <= rest.len);
    *at += n;
    return n;
}

static void join_retrieval(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    struct mr_key_walk walk = {0};
    struct mr_slice key;
    const char **at;

    if (!plan->options->failure_is_miss && join_error(plan, "END\r\n", slab, out))
        return;
    at = mr_slab_try(slab, plan->n_parts * sizeof(*at)); /* next value of each part */
    if (at == NULL) {
        mr_buf_fail(out, slab);
        return;
    }
    for (uint32_t i = 0; i < plan->n_parts; i++)
        at[i] = plan->parts[i].reply.at;
    for (uint32_t k = 0; k < plan->n_keys; k++) {
        const uint32_t i = plan->part_of_key[k];
        const struct mr_slice reply = plan->parts[i].reply;
        MR_CHECK(
            next_key(mr_buf_slice(&plan->notes), mr_mc_unpack(plan->ticket).verb, &walk, &key));
        if (plan->parts[i].failure != NULL)
            continue;
        const char *value = at[i];
        const size_t n = take_value(&at[i], reply.at + reply.len, key);
        if (n > 0)
            append(out, slab, (struct mr_slice){value, n});
    }
    mr_slab_put(slab, at, plan->n_parts * sizeof(*at));
    append(out, slab, mr_slice_of("END\r\n"));
}

static void join_flush(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_mc_ticket t = mr_mc_unpack(plan->ticket);

    if (t.reply != MR_MC_PACKET) {
        if (!join_error(plan, "OK\r\n", slab, out))
            append(out, slab, mr_slice_of("OK\r\n"));
        return;
    }
    for (uint32_t i = 0; i < plan->n_parts; i++) {
        const struct mr_slice reply = plan->parts[i].reply;
        if (plan->parts[i].failure != NULL)
            mr_mc_fail(plan->options, plan->ticket, plan->parts[i].failure, slab, out);
        else if (mr_mc_read_header(reply.at).status != MR_MC_OK || i + 1 == plan->n_parts)
            append(out, slab, reply);
        else
            continue;
        return;
    }
}

void mr_mc_join(const struct mr_plan *plan, struct mr_slab *slab, struct mr_buf *out)
{
    const char *failure = NULL;
    uint32_t failed = 0;

    if (is_retrieval(plan)) {
        join_retrieval(plan, slab, out);
        return;
    }
    if (plan->class == MR_CLASS_WRITE) {
        join_flush(plan, slab, out);
        return;
    }
    for (uint32_t i = 0; i < plan->n_parts; i++)
        if (plan->parts[i].failure != NULL) {
            failure = plan->parts[i].failure;
            failed++;
        }
    if (failed == plan->n_parts)
        mr_mc_fail(plan->options, plan->ticket, failure, slab, out);
    else
        mr_mc_join_stats(plan, slab, out);
}

void mr_mc_fail(const struct mr_proto_options *options, uint64_t ticket, const char *text,
                struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_mc_ticket t = mr_mc_unpack(ticket);
    const bool binary = t.reply == MR_MC_PACKET;
    const bool meta_get = !binary && t.verb == 'g';
    const bool finds = binary ? mr_mc_finds(t.verb) : meta_get || t.reply == MR_MC_FINDS;
    const bool miss = options->failure_is_miss && finds;

    if (binary)
        mr_mc_put_packet(out, slab, t.verb, miss ? MR_MC_NOT_FOUND : MR_MC_FAILED, t.opaque,
                         (struct mr_slice){NULL, 0}, mr_slice_of(miss ? "Not found" : text));
    else if (miss)
        append(out, slab, mr_slice_of(meta_get ? "EN\r\n" : "END\r\n"));
    else
        put_failure(text, slab, out);
}
