/* local.c - Redis commands that the proxy answers itself. */
#include "proto/resp/local.h"

#include "core/clock.h"
#include "core/number.h"

#include <fnmatch.h>

void mr_resp_add_map(const struct mr_resp_answer *a, size_t pairs)
{
    if (mr_resp_speaks_3(a))
        mr_resp_put_head(a->out, a->ctx->slab, '%', pairs);
    else
        mr_resp_put_head(a->out, a->ctx->slab, '*', 2 * pairs);
}

void mr_resp_add_verbatim(const struct mr_resp_answer *a, struct mr_slice text)
{
    if (!mr_resp_speaks_3(a)) {
        mr_resp_add_bulk(a, text);
        return;
    }
    mr_resp_put_head(a->out, a->ctx->slab, '=', text.len + 4);
    mr_resp_add(a, "txt:");
    mr_buf_put(a->out, a->ctx->slab, text.at, text.len);
    mr_resp_add(a, "\r\n");
}

/* Appends an error that quotes the client; the format has one "%.*s". */
void mr_resp_add_quoting(const struct mr_resp_answer *a, const char *fmt, struct mr_slice said)
{
    char shown[128];
    size_t len = 0;

    for (; len < said.len && len < sizeof(shown); len++)
        shown[len] = (char)(said.at[len] == '\r' || said.at[len] == '\n' ? ' ' : said.at[len]);
    mr_resp_add(a, "-ERR ");
    mr_buf_printf(a->out, a->ctx->slab, fmt, (int)len, shown);
    mr_resp_add(a, "\r\n");
}

void mr_resp_wrong_arity(const struct mr_resp_answer *a, const char *name)
{
    mr_buf_printf(a->out, a->ctx->slab, "-ERR wrong number of arguments for '%s' command\r\n",
                  name);
}

static enum mr_outcome answer_ping(const struct mr_resp_answer *a)
{
    const struct mr_slice said = a->msg->n_args == 2 ? a->msg->args[1] : mr_slice_of("");

    if (a->msg->n_args > 2) {
        mr_resp_wrong_arity(a, "ping");
    } else if (a->ctx->session->n_topics > 0 && !mr_resp_speaks_3(a)) {
        mr_resp_add(a, "*2\r\n$4\r\npong\r\n");
        mr_resp_add_bulk(a, said);
    } else if (a->msg->n_args == 2) {
        mr_resp_add_bulk(a, said);
    } else {
        mr_resp_add(a, "+PONG\r\n");
    }
    return MR_KEEP_CLIENT;
}

static enum mr_outcome answer_echo(const struct mr_resp_answer *a)
{
    mr_resp_add_bulk(a, a->msg->args[1]);
    return MR_KEEP_CLIENT;
}

static enum mr_outcome answer_quit(const struct mr_resp_answer *a)
{
    mr_resp_add(a, "+OK\r\n");
    return MR_CLOSE_CLIENT;
}

static enum mr_outcome answer_ok(const struct mr_resp_answer *a)
{
    mr_resp_add(a, "+OK\r\n");
    return MR_KEEP_CLIENT;
}

static enum mr_outcome answer_time(const struct mr_resp_answer *a)
{
    const uint64_t now = mr_clock_wall_us();
    char text[24];

    mr_resp_add(a, "*2\r\n");
    mr_resp_add_bulk(a, (struct mr_slice){text, mr_format_uint(text, now / 1000000u)});
    mr_resp_add_bulk(a, (struct mr_slice){text, mr_format_uint(text, now % 1000000u)});
    return MR_KEEP_CLIENT;
}

/* ---- CONFIG ---- */

/* What clients look up in the configuration of a server, with the values that hold here. */
static const struct {
    const char *name, *value;
} CONFIG[] = {
    {"appendonly", "no"},
    {"databases", NULL}, /* from the configuration */
    {"maxmemory", "0"},
    {"maxmemory-policy", "noeviction"},
    {"notify-keyspace-events", ""},
    {"replica-read-only", "yes"},
    {"save", ""},
    {"slave-read-only", "yes"},
    {"timeout", "0"},
};

/* Whether a pattern of the request matches. Patterns longer than any name are skipped. */
static bool is_asked_for(const struct mr_resp_answer *a, const char *name)
{
    struct mr_key_walk walk = {0};

    for (uint32_t i = 2; i < a->msg->n_args; i++) {
        const struct mr_slice pattern = mr_resp_arg(a->msg, &walk, i);
        char text[32];
        if (pattern.len >= sizeof(text))
            continue;
        memcpy(text, pattern.at, pattern.len);
        text[pattern.len] = '\0';
        if (fnmatch(text, name, FNM_CASEFOLD) == 0)
            return true;
    }
    return false;
}

static void add_value(const struct mr_resp_answer *a, const char *value)
{
    const struct mr_proto_options *o = a->ctx->options;
    char digits[20];

    if (value != NULL) {
        mr_resp_add_text(a, value);
        return;
    }
    const uint32_t n = o->databases > o->db ? o->databases : o->db + 1;
    mr_resp_add_bulk(a, (struct mr_slice){digits, mr_format_uint(digits, n)});
}

static void get_config(const struct mr_resp_answer *a)
{
    bool asked[MR_COUNT(CONFIG)];
    size_t n = 0;

    for (size_t i = 0; i < MR_COUNT(CONFIG); i++)
        n += asked[i] = is_asked_for(a, CONFIG[i].name);
    mr_resp_add_map(a, n);
    for (size_t i = 0; i < MR_COUNT(CONFIG); i++)
        if (asked[i]) {
            mr_resp_add_text(a, CONFIG[i].name);
            add_value(a, CONFIG[i].value);
        }
}

static bool is_one_of(struct mr_slice word, const char *const *words)
{
    while (*words != NULL && !mr_slice_eq_nocase(word, *words))
        words++;
    return *words != NULL;
}

static enum mr_outcome answer_config(const struct mr_resp_answer *a)
{
    static const char *const REFUSED[] = {"help", "resetstat", "rewrite", "set", NULL};
    const struct mr_slice word = a->msg->args[1];

    if (is_one_of(word, REFUSED))
        mr_resp_add(
            a,
            "-ERR command 'config' is not supported by this proxy: it administers one server\r\n");
    else if (!mr_slice_eq_nocase(word, "get"))
        mr_resp_add_quoting(a, "unknown subcommand '%.*s'. Try CONFIG HELP.", word);
    else if (a->msg->n_args < 3)
        mr_resp_wrong_arity(a, "config|get");
    else
        get_config(a);
    return MR_KEEP_CLIENT;
}

/* The function for each row; NULL if servers answer it. */
static enum mr_outcome (*const ANSWERS[])(const struct mr_resp_answer *a) = {
#define X(...)                                NULL,
#define LOCAL(name, arity, traits, function)  function,
#define FACADE(name, arity, traits, function) function,
#include "proto/resp/commands.def"
};

enum mr_outcome mr_resp_answer(const struct mr_proto_ctx *ctx, const struct mr_msg *msg,
                               struct mr_buf *out)
{
    const struct mr_resp_command *cmd = msg->command;
    bool asks_others = false;
    const struct mr_resp_answer a = {ctx, msg, out, &asks_others};
    const enum mr_outcome outcome = ANSWERS[cmd - MR_RESP_COMMANDS](&a);

    return asks_others ? MR_ASK_OTHERS : outcome;
}
