/* text.c - parses text commands. */
#include "proto/memcache/internal.h"

#include "core/number.h"

#define LEADING_BLANKS 100u       /* as many as memcached skips */
#define KEYS_MAX       (1u << 20) /* per retrieval */

/* Limit of the keys in a line to a server. Verb, time and line end need less than 32 bytes. */
#define GET_KEYS_BYTES (MR_MC_SERVER_GET - 32u)
#define GAT_KEYS_BYTES (MR_MC_SERVER_LINE - 32u)

#define BAD_VERB    "ERROR\r\n"
#define BAD_EXPTIME "CLIENT_ERROR invalid exptime argument\r\n"

enum kind {
    RETRIEVE,       /* verb key+ */
    TOUCH_RETRIEVE, /* verb exptime key+ */
    STORE,          /* verb key flags exptime bytes [noreply] */
    CAS,            /* verb key flags exptime bytes unique [noreply] */
    DELETE,         /* verb key [0] [noreply] */
    ARITHMETIC,     /* verb key number [noreply] */
    TOUCH,          /* verb key exptime [noreply] */
    VERSION,
    VERBOSITY,
    FLUSH,
    STATS,
    QUIT,
    ADMIN, /* about one server only */
};

struct verb {
    const char *name;
    enum kind kind;
};

static const struct verb VERBS[] = {
    {"get", RETRIEVE},
    {"set", STORE},
    {"gets", RETRIEVE},
    {"delete", DELETE},
    {"incr", ARITHMETIC},
    {"decr", ARITHMETIC},
    {"add", STORE},
    {"replace", STORE},
    {"append", STORE},
    {"prepend", STORE},
    {"cas", CAS},
    {"touch", TOUCH},
    {"gat", TOUCH_RETRIEVE},
    {"gats", TOUCH_RETRIEVE},
    {"version", VERSION},
    {"verbosity", VERBOSITY},
    {"flush_all", FLUSH},
    {"stats", STATS},
    {"quit", QUIT},
    {"shutdown", ADMIN},
    {"slabs", ADMIN},
    {"lru", ADMIN},
    {"lru_crawler", ADMIN},
    {"watch", ADMIN},
    {"cache_memlimit", ADMIN},
    {"refresh_certs", ADMIN},
    {"extstore", ADMIN},
};

/* Retrievals may have any number of keys; all other lines are short. */
static bool may_be_long(const char *bytes, size_t len)
{
    static const char *const NAMES[] = {"get ", "gets ", "gat ", "gats "};
    size_t blanks = 0;

    while (blanks < len && blanks < LEADING_BLANKS && bytes[blanks] == ' ')
        blanks++;
    for (size_t i = 0; i < MR_COUNT(NAMES); i++) {
        const size_t n = strlen(NAMES[i]);
        if (len - blanks >= n && memcmp(bytes + blanks, NAMES[i], n) == 0)
            return true;
    }
    return false;
}

static enum mr_result too_long(struct mr_msg *msg, enum mr_result rc)
{
    (void)mr_mc_refuse(msg, MR_MC_LONG_LINE);
    return rc;
}

/* Finds the end of the line. The result does not depend on what has arrived after it. */
static enum mr_result find_line(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const char *bytes, size_t len, struct mr_msg *msg, const char **nl)
{
    *nl = state->offset < len ? memchr(bytes + state->offset, '\n', len - state->offset) : NULL;
    const size_t line = *nl != NULL ? (size_t)(*nl - bytes) + 1 : len;

    if (MR_UNLIKELY(line > MR_MC_LINE_BYTES)) {
        if (!may_be_long(bytes, line))
            return too_long(msg, MR_EPROTO);
        if (line > ctx->options->max_request_bytes)
            return too_long(msg, MR_ELIMIT);
    }
    if (*nl != NULL)
        return MR_OK;
    state->offset = (uint32_t)len;
    state->want = 0;
    return MR_AGAIN;
}

static void ticket(struct mr_msg *msg, enum mr_mc_reply reply)
{
    msg->ticket = mr_mc_pack((struct mr_mc_ticket){.reply = (uint8_t)reply});
    msg->edits = reply == MR_MC_NO_REPLY;
}

/*
 * Handles `noreply`. It is not forwarded: the server's reply keeps the connection in step, and is
 * discarded here.
 */
static void read_noreply(struct mr_mc_line *line, struct mr_msg *msg)
{
    const uint32_t last = line->n_words - 1;
    const bool quiet = last < MR_MC_WORDS && mr_slice_eq(line->words[last], mr_slice_of("noreply"));

    ticket(msg, quiet ? MR_MC_NO_REPLY : MR_MC_PLAIN);
    if (quiet)
        mr_mc_drop_last(line);
}

static enum mr_result parse_retrieve(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line,
                                     uint32_t first, struct mr_msg *msg)
{
    if (line->n_words < 2)
        return mr_mc_refuse(msg, BAD_VERB);
    if (line->n_words > KEYS_MAX)
        return mr_mc_refuse(msg, "CLIENT_ERROR too many keys\r\n");
    if (first == 2 && !mr_mc_time_ok(line->words[1]))
        return mr_mc_refuse(msg, BAD_EXPTIME);
    if (line->n_words == first)
        return mr_mc_refuse(msg, "END\r\n"); /* a time without a key */
    if (!line->clean || line->longest > MR_MC_KEY_BYTES)
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    msg->args[0] = line->words[0];
    msg->args[1] = line->words[1];
    msg->n_args = first;
    msg->key = line->words[first];
    msg->n_keys = line->n_words - first;
    msg->action = msg->n_keys == 1 ? MR_MSG_BY_KEY : MR_MSG_BY_KEYS;
    msg->splittable = true;
    msg->part_bytes = first == 2 ? GAT_KEYS_BYTES : GET_KEYS_BYTES;
    msg->class = first == 2 ? MR_CLASS_WRITE : MR_CLASS_READ;
    msg->ticket = mr_mc_pack((struct mr_mc_ticket){.reply = MR_MC_FINDS, .verb = (uint8_t)first});
    mr_mc_forward(ctx, line, MR_MC_ALOUD, (struct mr_slice){NULL, 0}, msg);
    return MR_OK;
}

/* Checks the fields that do not affect how many bytes follow. */
static bool store_fields_ok(const struct mr_mc_line *line, bool cas)
{
    uint64_t v;

    return mr_mc_key_ok(line, line->words[1]) && mr_mc_number(line->words[2], UINT32_MAX, &v) &&
           mr_mc_time_ok(line->words[3]) && (!cas || mr_mc_number(line->words[5], UINT64_MAX, &v));
}

/* An extra last word other than `noreply` is ignored, as memcached does. */
static enum mr_result parse_store(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                  struct mr_mc_line *line, struct mr_slice input, bool cas,
                                  struct mr_msg *msg)
{
    const uint32_t words = cas ? 6 : 5;
    struct mr_slice value;
    uint64_t length;

    if (line->n_words != words && line->n_words != words + 1)
        return mr_mc_refuse(msg, BAD_VERB);
    read_noreply(line, msg);
    const enum mr_mc_length what = mr_mc_read_length(line->words[4], &length);
    if (what != MR_MC_LENGTH) {
        (void)mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
        return what == MR_MC_NO_LENGTH ? MR_OK : MR_EPROTO;
    }
    if (line->n_words < words || !store_fields_ok(line, cas))
        return mr_mc_refuse_value(ctx, length, msg, MR_MC_BAD_FORMAT);
    if (line->n_words > words)
        mr_mc_drop_last(line);
    const enum mr_result rc = mr_mc_value(ctx, state, line, input, length, msg, &value);
    if (rc != MR_OK || msg->action == MR_MSG_REFUSE)
        return rc;
    msg->action = MR_MSG_BY_KEY;
    msg->class = MR_CLASS_WRITE;
    msg->guarded = true;
    msg->key = line->words[1];
    mr_mc_forward(ctx, line, MR_MC_ALOUD, value, msg);
    return MR_OK;
}

/* A command that changes one key and has no value. */
static enum mr_result change(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line,
                             struct mr_msg *msg)
{
    if (!mr_mc_key_ok(line, line->words[1]))
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    msg->action = MR_MSG_BY_KEY;
    msg->class = MR_CLASS_WRITE;
    msg->key = line->words[1];
    mr_mc_forward(ctx, line, MR_MC_ALOUD, (struct mr_slice){NULL, 0}, msg);
    return MR_OK;
}

static enum mr_result parse_delete(const struct mr_proto_ctx *ctx, struct mr_mc_line *line,
                                   struct mr_msg *msg)
{
    const uint32_t n = line->n_words;

    if (n < 2 || n > 4)
        return mr_mc_refuse(msg, BAD_VERB);
    if (n > 2) /* otherwise it is a key of that name */
        read_noreply(line, msg);
    const bool zero = line->n_words == 3 && mr_slice_eq(line->words[2], mr_slice_of("0"));
    if (line->n_words > 2 && !zero)
        return mr_mc_refuse(msg, "CLIENT_ERROR bad command line format.  Usage: delete <key> "
                                 "[noreply]\r\n");
    return change(ctx, line, msg);
}

/* verb key number [noreply] */
static enum mr_result parse_number(const struct mr_proto_ctx *ctx, struct mr_mc_line *line,
                                   bool touch, struct mr_msg *msg)
{
    uint64_t v;

    if (line->n_words != 3 && line->n_words != 4)
        return mr_mc_refuse(msg, BAD_VERB);
    read_noreply(line, msg);
    if (!mr_mc_key_ok(line, line->words[1]))
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    if (touch && !mr_mc_time_ok(line->words[2]))
        return mr_mc_refuse(msg, BAD_EXPTIME);
    if (!touch && !mr_mc_number(line->words[2], UINT64_MAX, &v))
        return mr_mc_refuse(msg, "CLIENT_ERROR invalid numeric delta argument\r\n");
    if (line->n_words > 3)
        mr_mc_drop_last(line);
    return change(ctx, line, msg);
}

static enum mr_result parse_flush(const struct mr_proto_ctx *ctx, struct mr_mc_line *line,
                                  struct mr_msg *msg)
{
    int64_t delay = 0;

    read_noreply(line, msg);
    const uint32_t n = line->n_words;
    if (n > 2)
        return mr_mc_refuse(msg, BAD_VERB);
    if (!ctx->options->allow_flush)
        (void)mr_mc_refuse(msg, "CLIENT_ERROR flush_all not allowed\r\n");
    else if (n == 2 && !mr_parse_int64(line->words[1], &delay))
        (void)mr_mc_refuse(msg, BAD_EXPTIME);
    else
        msg->action = MR_MSG_EVERYWHERE;
    msg->class = MR_CLASS_WRITE;
    mr_buf_printf(ctx->scratch, ctx->slab, "flush_all %lld\r\n", (long long)delay);
    msg->wire = mr_buf_slice(ctx->scratch);
    return MR_OK;
}

static enum mr_result parse_stats(const struct mr_proto_ctx *ctx, const struct mr_mc_line *line,
                                  struct mr_msg *msg)
{
    struct mr_slice group = line->n_words > 1 ? line->words[1] : (struct mr_slice){NULL, 0};
    const bool detail = mr_slice_eq(group, mr_slice_of("detail"));

    if (line->n_words > (detail ? 3 : 2))
        return mr_mc_refuse(msg, BAD_VERB);
    if (line->n_words == 3)
        group.len = (size_t)(line->words[2].at + line->words[2].len - group.at);
    const enum mr_mc_stats stats = mr_mc_stats_group(group);
    if (stats == MR_MC_STATS_UNKNOWN)
        return mr_mc_refuse(msg,
                            detail ? "CLIENT_ERROR usage: stats detail on|off|dump\r\n" : BAD_VERB);
    msg->ticket = mr_mc_pack((struct mr_mc_ticket){.stats = (uint16_t)stats});
    msg->action = mr_mc_stats_local(stats) ? MR_MSG_LOCAL : MR_MSG_EVERYWHERE;
    mr_buf_printf(ctx->scratch, ctx->slab, "stats%s%s\r\n", *mr_mc_stats_ask(stats) ? " " : "",
                  mr_mc_stats_ask(stats));
    msg->wire = mr_buf_slice(ctx->scratch);
    return MR_OK;
}

static enum mr_result parse_verbosity(struct mr_mc_line *line, struct mr_msg *msg)
{
    uint64_t level;

    if (line->n_words < 2)
        return mr_mc_refuse(msg, BAD_VERB);
    read_noreply(line, msg);
    if (!mr_parse_uint(line->words[1], UINT32_MAX, &level))
        return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    return mr_mc_refuse(msg, "OK\r\n"); /* no effect on shared servers */
}

/* A number that memcached would reject gets memcached's reply. */
static enum mr_result parse_admin(const struct mr_mc_line *line, struct mr_msg *msg)
{
    static const struct {
        const char *verb, *what;
        uint32_t words; /* including the numbers at the end, from the third word on */
    } NUMBERS[] = {{"slabs", "automove", 3},
                   {"slabs", "reassign", 4},
                   {"lru_crawler", "tocrawl", 3},
                   {"lru_crawler", "sleep", 3}};

    for (size_t i = 0; i < MR_COUNT(NUMBERS); i++) {
        if (line->n_words != NUMBERS[i].words ||
            !mr_slice_eq(line->words[0], mr_slice_of(NUMBERS[i].verb)) ||
            !mr_slice_eq(line->words[1], mr_slice_of(NUMBERS[i].what)))
            continue;
        for (uint32_t w = 2; w < line->n_words; w++)
            if (!mr_mc_time_ok(line->words[w]))
                return mr_mc_refuse(msg, MR_MC_BAD_FORMAT);
    }
    return mr_mc_refuse(msg, "CLIENT_ERROR this command administers one server, the proxy "
                             "does not pass it on\r\n");
}

/* A line that looks like HTTP comes from a browser that was tricked: hang up, as memcached does. */
static enum mr_result parse_unknown(const struct mr_mc_line *line, struct mr_msg *msg)
{
    const uint32_t n = line->n_words < MR_MC_WORDS ? line->n_words : MR_MC_WORDS;

    if (n < 2 || line->words[n - 1].len < 5 || memcmp(line->words[n - 1].at, "HTTP/", 5) != 0)
        return mr_mc_refuse(msg, BAD_VERB);
    msg->action = MR_MSG_LOCAL;
    return MR_OK;
}

static enum mr_result classify(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                               struct mr_mc_line *line, struct mr_slice input,
                               const struct verb *verb, struct mr_msg *msg)
{
    switch (verb->kind) {
    case RETRIEVE:
        return parse_retrieve(ctx, line, 1, msg);
    case TOUCH_RETRIEVE:
        return parse_retrieve(ctx, line, 2, msg);
    case STORE:
    case CAS:
        return parse_store(ctx, state, line, input, verb->kind == CAS, msg);
    case DELETE:
        return parse_delete(ctx, line, msg);
    case ARITHMETIC:
    case TOUCH:
        return parse_number(ctx, line, verb->kind == TOUCH, msg);
    case VERSION:
        msg->action = MR_MSG_ANYWHERE;
        msg->key = (struct mr_slice){NULL, 0};
        msg->wire = mr_slice_of("version\r\n");
        return MR_OK;
    case VERBOSITY:
        return parse_verbosity(line, msg);
    case FLUSH:
        return parse_flush(ctx, line, msg);
    case STATS:
        return parse_stats(ctx, line, msg);
    case QUIT:
        msg->action = MR_MSG_LOCAL;
        return MR_OK;
    case ADMIN:
        return parse_admin(line, msg);
    }
    MR_BUG("a verb of no kind");
}

static const struct verb *find_verb(struct mr_slice word)
{
    for (size_t i = 0; i < MR_COUNT(VERBS); i++)
        if (mr_slice_eq(word, mr_slice_of(VERBS[i].name)))
            return &VERBS[i];
    return NULL;
}

enum mr_result mr_mc_parse_text(const struct mr_proto_ctx *ctx, struct mr_parse_state *state,
                                const char *bytes, size_t len, struct mr_msg *msg)
{
    struct mr_mc_line line;
    const char *nl;
    enum mr_result rc = find_line(ctx, state, bytes, len, msg, &nl);

    if (rc != MR_OK)
        return rc;
    mr_mc_read_line(bytes, nl, &line);
    msg->consumed = line.bytes;
    msg->lane = MR_MC_TEXT_LANE;
    const struct mr_slice input = {bytes, len};
    const struct verb *verb = line.n_words > 0 ? find_verb(line.words[0]) : NULL;
    if (verb != NULL)
        rc = classify(ctx, state, &line, input, verb, msg);
    else if (line.n_words > 0 && line.words[0].len == 2 && line.words[0].at[0] == 'm')
        rc = mr_mc_parse_meta(ctx, state, &line, input, msg);
    else
        rc = parse_unknown(&line, msg);
    if (msg->action == MR_MSG_REFUSE && rc == MR_OK &&
        mr_mc_unpack(msg->ticket).reply == MR_MC_NO_REPLY)
        msg->action = MR_MSG_SKIP; /* errors are not shown either */
    return rc;
}
