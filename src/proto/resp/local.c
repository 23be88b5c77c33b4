/* local.c - the Redis commands that the proxy answers itself. */
#include "proto/resp/internal.h"

#include "core/clock.h"
#include "core/number.h"

#include <stdio.h>
#include <stdlib.h>

#define SERVER_VERSION "7.0.0"   /* what HELLO and INFO say: the command set that is known here */
#define USER           "default" /* the only user there is */

struct answer {
    const struct mr_proto_ctx *ctx;
    const struct mr_msg *msg;
    struct mr_buf *out;
};

static void put(const struct answer *a, const char *text)
{
    mr_buf_put(a->out, a->ctx->slab, text, strlen(text));
}

static void put_bulk(const struct answer *a, struct mr_slice bytes)
{
    mr_resp_put_bulk(a->out, a->ctx->slab, bytes);
}

static void put_text(const struct answer *a, const char *text)
{
    put_bulk(a, mr_slice_of(text));
}

static void wrong_arity(const struct answer *a, const char *name)
{
    mr_buf_printf(a->out, a->ctx->slab, "-ERR wrong number of arguments for '%s' command\r\n",
                  name);
}

static enum mr_verdict answer_ping(const struct answer *a)
{
    if (a->msg->n_args > 2)
        wrong_arity(a, "ping");
    else if (a->msg->n_args == 2)
        put_bulk(a, a->msg->args[1]);
    else
        put(a, "+PONG\r\n");
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_echo(const struct answer *a)
{
    put_bulk(a, a->msg->args[1]);
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_quit(const struct answer *a)
{
    put(a, "+OK\r\n");
    return MR_CLOSE_CLIENT;
}

static enum mr_verdict answer_ok(const struct answer *a)
{
    put(a, "+OK\r\n");
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_time(const struct answer *a)
{
    const uint64_t now = mr_clock_wall_us();
    char text[24];

    put(a, "*2\r\n");
    put_bulk(a, (struct mr_slice){text, mr_format_uint(text, now / 1000000u)});
    put_bulk(a, (struct mr_slice){text, mr_format_uint(text, now % 1000000u)});
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_auth(const struct answer *a)
{
    const char *password = a->ctx->options->auth;
    const bool named = a->msg->n_args == 3;

    if (a->msg->n_args > 3) {
        put(a, "-ERR syntax error\r\n");
        return MR_KEEP_CLIENT;
    }
    if (password == NULL) {
        put(a, "-ERR Client sent AUTH, but no password is set\r\n");
        return MR_KEEP_CLIENT;
    }
    a->ctx->session->authed = mr_slice_eq_secret(a->msg->args[named ? 2 : 1], password) &&
                              (!named || mr_slice_eq(a->msg->args[1], mr_slice_of(USER)));
    if (a->ctx->session->authed)
        put(a, "+OK\r\n");
    else if (named)
        put(a, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    else
        put(a, "-ERR invalid password\r\n");
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_select(const struct answer *a)
{
    int64_t db;

    if (!mr_parse_int64(a->msg->args[1], &db))
        put(a, "-ERR invalid DB index\r\n");
    else if (db != (int64_t)a->ctx->options->db)
        mr_buf_printf(a->out, a->ctx->slab,
                      "-ERR SELECT is not supported by this proxy: the pool serves database %u\r\n",
                      a->ctx->options->db);
    else
        put(a, "+OK\r\n");
    return MR_KEEP_CLIENT;
}

/* Names are shown in lists: no blanks, no control bytes. Empty removes the name. */
static bool set_name(const struct answer *a, struct mr_slice name)
{
    struct mr_session *s = a->ctx->session;

    for (size_t i = 0; i < name.len; i++)
        if (name.at[i] < '!' || name.at[i] > '~')
            return false;
    if (name.len > 255)
        return false;
    free(s->name);
    s->name = name.len > 0 ? strndup(name.at, name.len) : NULL;
    return true;
}

static void bad_name(const struct answer *a)
{
    put(a, "-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
}

static void hello_reply(const struct answer *a)
{
    put(a, "*14\r\n");
    put_text(a, "server");
    put_text(a, "redis");
    put_text(a, "version");
    put_text(a, SERVER_VERSION);
    put_text(a, "proto");
    put(a, ":2\r\n");
    put_text(a, "id");
    mr_resp_put_head(a->out, a->ctx->slab, ':', a->ctx->session->id);
    put_text(a, "mode");
    put_text(a, "standalone");
    put_text(a, "role");
    put_text(a, "master");
    put_text(a, "modules");
    put(a, "*0\r\n");
}

/* HELLO [2 [AUTH user password] [SETNAME name]]; returns the error reply, NULL when all is well. */
static const char *hello_options(const struct answer *a)
{
    const char *password = a->ctx->options->auth;
    struct mr_slice name = {NULL, 0};
    struct mr_key_walk walk = {0};
    bool authed = a->ctx->session->authed, named = false;
    int64_t version;

    if (a->msg->n_args > 1 && !mr_parse_int64(a->msg->args[1], &version))
        return "-ERR Protocol version is not an integer or out of range\r\n";
    if (a->msg->n_args > 1 && version != 2)
        return "-NOPROTO unsupported protocol version\r\n";
    for (uint32_t i = 2; i < a->msg->n_args;) {
        const uint32_t left = a->msg->n_args - i - 1;
        if (mr_slice_eq_nocase(mr_resp_arg(a->msg, &walk, i), "auth") && left >= 2) {
            if (password != NULL &&
                !(mr_slice_eq(mr_resp_arg(a->msg, &walk, i + 1), mr_slice_of(USER)) &&
                  mr_slice_eq_secret(mr_resp_arg(a->msg, &walk, i + 2), password)))
                return "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
            authed = true;
            i += 3;
        } else if (mr_slice_eq_nocase(mr_resp_arg(a->msg, &walk, i), "setname") && left >= 1) {
            name = mr_resp_arg(a->msg, &walk, i + 1);
            named = true;
            i += 2;
        } else {
            return "-ERR Syntax error in HELLO option\r\n";
        }
    }
    if (!authed)
        return "-NOAUTH HELLO must be called with the client already authenticated, otherwise the "
               "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
               "select the RESP protocol version at the same time\r\n";
    if (named && !set_name(a, name))
        return "-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
    a->ctx->session->authed = true;
    return NULL;
}

static enum mr_verdict answer_hello(const struct answer *a)
{
    const char *error = hello_options(a);

    if (error != NULL)
        put(a, error);
    else
        hello_reply(a);
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_reset(const struct answer *a)
{
    struct mr_session *s = a->ctx->session;

    free(s->name);
    s->name = NULL;
    s->authed = a->ctx->options->auth == NULL;
    put(a, "+RESET\r\n");
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_info(const struct answer *a)
{
    put_text(a, "# Server\r\nredis_version:" SERVER_VERSION "\r\nredis_mode:standalone\r\n"
                "server_name:millrace\r\n\r\n# Persistence\r\nloading:0\r\n\r\n"
                "# Replication\r\nrole:master\r\n");
    return MR_KEEP_CLIENT;
}

static void client_info(const struct answer *a)
{
    const struct mr_session *s = a->ctx->session;
    char text[400];

    (void)snprintf(text, sizeof(text), "id=%llu name=%s db=%u resp=2\n", (unsigned long long)s->id,
                   s->name != NULL ? s->name : "", a->ctx->options->db);
    put_text(a, text);
}

static enum mr_verdict answer_client(const struct answer *a)
{
    const struct mr_slice sub = a->msg->args[1];
    const uint32_t n = a->msg->n_args;
    const struct mr_session *s = a->ctx->session;

    if (mr_slice_eq_nocase(sub, "setname") && n == 3) {
        if (set_name(a, a->msg->args[2]))
            put(a, "+OK\r\n");
        else
            bad_name(a);
    } else if (mr_slice_eq_nocase(sub, "getname") && n == 2) {
        if (s->name != NULL)
            put_text(a, s->name);
        else
            put(a, "$-1\r\n");
    } else if (mr_slice_eq_nocase(sub, "id") && n == 2) {
        mr_resp_put_head(a->out, a->ctx->slab, ':', s->id);
    } else if (mr_slice_eq_nocase(sub, "info") && n == 2) {
        client_info(a);
    } else if ((mr_slice_eq_nocase(sub, "setinfo") && n == 4) ||
               (mr_slice_eq_nocase(sub, "no-evict") && n == 3) ||
               (mr_slice_eq_nocase(sub, "no-touch") && n == 3) ||
               (mr_slice_eq_nocase(sub, "reply") && n == 3 &&
                mr_slice_eq_nocase(a->msg->args[2], "on"))) {
        put(a, "+OK\r\n");
    } else {
        char shown[64];
        size_t len = 0;
        for (; len < sub.len && len < sizeof(shown) - 1; len++)
            shown[len] = (char)(sub.at[len] == '\r' || sub.at[len] == '\n' ? ' ' : sub.at[len]);
        mr_buf_printf(a->out, a->ctx->slab,
                      "-ERR unknown subcommand or wrong number of arguments for '%.*s'. Try CLIENT "
                      "HELP.\r\n",
                      (int)len, shown);
    }
    return MR_KEEP_CLIENT;
}

/* By the row of the command; NULL for what the proxy does not answer. */
static enum mr_verdict (*const ANSWERS[])(const struct answer *a) = {
#define X(...)                               NULL,
#define LOCAL(name, arity, traits, function) function,
#include "proto/resp/commands.def"
};

enum mr_verdict mr_resp_answer(const struct mr_proto_ctx *ctx, const struct mr_msg *msg,
                               struct mr_buf *out)
{
    const struct mr_resp_command *cmd = msg->command;
    const struct answer a = {ctx, msg, out};

    return ANSWERS[cmd - MR_RESP_COMMANDS](&a);
}
