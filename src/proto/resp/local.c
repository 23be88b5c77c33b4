/* local.c - the Redis commands that the proxy answers itself. */
#include "proto/resp/internal.h"

#include "core/clock.h"
#include "core/number.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

#define SERVER_VERSION "7.0.0"   /* what HELLO and INFO say: the command set that is known here */
#define USER           "default" /* the only user there is */

#define NO_PROTO           "-NOPROTO unsupported protocol version\r\n"
#define WRONG_PASS         "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
#define BAD_NAME           "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
#define UNKNOWN_SUBCOMMAND "unknown subcommand '%.*s'. Try CLIENT HELP."

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

static bool speaks_resp3(const struct answer *a)
{
    return mr_resp_version(a->ctx->session) == MR_RESP_3;
}

/* The head of a map, or of the array that stands for one. */
static void put_map(const struct answer *a, size_t pairs)
{
    if (speaks_resp3(a))
        mr_resp_put_head(a->out, a->ctx->slab, '%', pairs);
    else
        mr_resp_put_head(a->out, a->ctx->slab, '*', 2 * pairs);
}

/* Text to be shown to people. */
static void put_verbatim(const struct answer *a, struct mr_slice text)
{
    if (!speaks_resp3(a)) {
        put_bulk(a, text);
        return;
    }
    mr_resp_put_head(a->out, a->ctx->slab, '=', text.len + 4);
    put(a, "txt:");
    mr_buf_put(a->out, a->ctx->slab, text.at, text.len);
    put(a, "\r\n");
}

/* An error that repeats what the client has said; the format has one "%.*s". */
MR_PRINTF(2, 0)
static void put_quoting(const struct answer *a, const char *fmt, struct mr_slice said)
{
    char shown[128];
    size_t len = 0;

    for (; len < said.len && len < sizeof(shown); len++)
        shown[len] = (char)(said.at[len] == '\r' || said.at[len] == '\n' ? ' ' : said.at[len]);
    put(a, "-ERR ");
    mr_buf_printf(a->out, a->ctx->slab, fmt, (int)len, shown);
    put(a, "\r\n");
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
        put(a, WRONG_PASS);
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

/* Names are shown in lists: no blanks, no control bytes. */
static bool is_name(struct mr_slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.at[i] < '!' || name.at[i] > '~')
            return false;
    return name.len <= 255;
}

/* Empty removes the name. */
static void set_name(struct mr_session *s, struct mr_slice name)
{
    free(s->name);
    s->name = name.len > 0 ? strndup(name.at, name.len) : NULL;
}

static void hello_reply(const struct answer *a)
{
    put_map(a, 7);
    put_text(a, "server");
    put_text(a, "redis");
    put_text(a, "version");
    put_text(a, SERVER_VERSION);
    put_text(a, "proto");
    mr_resp_put_head(a->out, a->ctx->slab, ':', speaks_resp3(a) ? 3 : 2);
    put_text(a, "id");
    mr_resp_put_head(a->out, a->ctx->slab, ':', a->ctx->session->id);
    put_text(a, "mode");
    put_text(a, "standalone");
    put_text(a, "role");
    put_text(a, "master");
    put_text(a, "modules");
    put(a, "*0\r\n");
}

/* What HELLO [version [AUTH user password] [SETNAME name]] asks for. */
struct hello {
    int64_t version; /* 0: not said */
    bool logs_in, names;
    struct mr_slice user, password, name;
};

/* False when an error was the answer. */
static bool read_hello(const struct answer *a, struct hello *hello)
{
    const uint32_t n = a->msg->n_args;
    struct mr_key_walk walk = {0};

    if (n > 1 && !mr_parse_int64(a->msg->args[1], &hello->version)) {
        put(a, "-ERR Protocol version is not an integer or out of range\r\n");
        return false;
    }
    if (n > 1 && (hello->version < 2 || hello->version > 3)) {
        put(a, NO_PROTO);
        return false;
    }
    for (uint32_t i = 2; i < n; i++) {
        const struct mr_slice option = mr_resp_arg(a->msg, &walk, i);
        if (mr_slice_eq_nocase(option, "auth") && n - i > 2) {
            hello->user = mr_resp_arg(a->msg, &walk, ++i);
            hello->password = mr_resp_arg(a->msg, &walk, ++i);
            hello->logs_in = true;
        } else if (mr_slice_eq_nocase(option, "setname") && n - i > 1) {
            hello->name = mr_resp_arg(a->msg, &walk, ++i);
            hello->names = true;
            if (!is_name(hello->name)) {
                put(a, BAD_NAME);
                return false;
            }
        } else {
            put_quoting(a, "Syntax error in HELLO option '%.*s'", option);
            return false;
        }
    }
    return true;
}

static bool is_password(const struct answer *a, const struct hello *hello)
{
    const char *password = a->ctx->options->auth;

    return mr_slice_eq(hello->user, mr_slice_of(USER)) &&
           (password == NULL || mr_slice_eq_secret(hello->password, password));
}

/* False when the client may not go on. */
static bool log_in(const struct answer *a, const struct hello *hello)
{
    struct mr_session *s = a->ctx->session;

    if (hello->logs_in && !is_password(a, hello)) {
        put(a, WRONG_PASS);
        return false;
    }
    s->authed |= hello->logs_in;
    if (!s->authed)
        put(a, "-NOAUTH HELLO must be called with the client already authenticated, otherwise the "
               "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
               "select the RESP protocol version at the same time\r\n");
    return s->authed;
}

static enum mr_verdict answer_hello(const struct answer *a)
{
    struct mr_session *s = a->ctx->session;
    struct hello hello = {0};

    if (!read_hello(a, &hello) || !log_in(a, &hello))
        return MR_KEEP_CLIENT;
    const enum mr_lane_state lane = hello.version == 3 && !speaks_resp3(a)
                                        ? a->ctx->facts->lane(a->ctx->facts, MR_RESP_3)
                                        : MR_LANE_USABLE;
    if (lane == MR_LANE_UNKNOWN)
        return MR_ASK_LATER;
    if (lane == MR_LANE_REFUSED) {
        put(a, NO_PROTO);
        return MR_KEEP_CLIENT;
    }
    if (hello.names)
        set_name(s, hello.name);
    if (hello.version != 0)
        s->dialect = hello.version == 3 ? MR_RESP_3 : MR_RESP_2;
    hello_reply(a);
    return MR_KEEP_CLIENT;
}

static enum mr_verdict answer_reset(const struct answer *a)
{
    struct mr_session *s = a->ctx->session;

    free(s->name);
    s->name = NULL;
    s->authed = a->ctx->options->auth == NULL;
    s->dialect = MR_RESP_2;
    put(a, "+RESET\r\n");
    return MR_KEEP_CLIENT;
}

/* ---- INFO ---- */

static const struct {
    const char *name, *text;
} INFO[] = {
    {"server", "# Server\r\nredis_version:" SERVER_VERSION
               "\r\nredis_mode:standalone\r\nserver_name:millrace\r\n"},
    {"persistence", "# Persistence\r\nloading:0\r\nasync_loading:0\r\n"},
    {"replication", "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"},
    {"cluster", "# Cluster\r\ncluster_enabled:0\r\n"},
};

/* Whether the request names the section, or all of them. */
static bool wants_section(const struct answer *a, const char *name)
{
    struct mr_key_walk walk = {0};

    for (uint32_t i = 1; i < a->msg->n_args; i++) {
        const struct mr_slice word = mr_resp_arg(a->msg, &walk, i);
        if (mr_slice_eq_nocase(word, name) || mr_slice_eq_nocase(word, "default") ||
            mr_slice_eq_nocase(word, "all") || mr_slice_eq_nocase(word, "everything"))
            return true;
    }
    return a->msg->n_args == 1;
}

static enum mr_verdict answer_info(const struct answer *a)
{
    char text[512];
    size_t len = 0;

    for (size_t i = 0; i < MR_COUNT(INFO); i++)
        if (wants_section(a, INFO[i].name))
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len > 0 ? "\r\n" : "",
                                    INFO[i].text);
    put_verbatim(a, (struct mr_slice){text, len});
    return MR_KEEP_CLIENT;
}

/* ---- CONFIG ---- */

/* What clients look for in a server's configuration, as it holds for this one. */
static const struct {
    const char *name, *value;
} CONFIG[] = {
    {"appendonly", "no"},
    {"databases", "16"},
    {"maxmemory", "0"},
    {"maxmemory-policy", "noeviction"},
    {"notify-keyspace-events", ""},
    {"replica-read-only", "yes"},
    {"save", ""},
    {"slave-read-only", "yes"},
    {"timeout", "0"},
};

/* Whether one of the patterns means it; no name is as long as what is cut off. */
static bool is_asked_for(const struct answer *a, const char *name)
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

static enum mr_verdict answer_config(const struct answer *a)
{
    bool asked[MR_COUNT(CONFIG)];
    size_t n = 0;

    if (!mr_slice_eq_nocase(a->msg->args[1], "get")) {
        put(a,
            "-ERR command 'config' is not supported by this proxy: it administers one server\r\n");
        return MR_KEEP_CLIENT;
    }
    if (a->msg->n_args < 3) {
        wrong_arity(a, "config|get");
        return MR_KEEP_CLIENT;
    }
    for (size_t i = 0; i < MR_COUNT(CONFIG); i++)
        n += asked[i] = is_asked_for(a, CONFIG[i].name);
    put_map(a, n);
    for (size_t i = 0; i < MR_COUNT(CONFIG); i++)
        if (asked[i]) {
            put_text(a, CONFIG[i].name);
            put_text(a, CONFIG[i].value);
        }
    return MR_KEEP_CLIENT;
}

/* ---- CLIENT ---- */

static void client_setname(const struct answer *a)
{
    if (!is_name(a->msg->args[2])) {
        put(a, BAD_NAME);
        return;
    }
    set_name(a->ctx->session, a->msg->args[2]);
    put(a, "+OK\r\n");
}

static void client_getname(const struct answer *a)
{
    if (a->ctx->session->name != NULL)
        put_text(a, a->ctx->session->name);
    else
        put(a, speaks_resp3(a) ? "_\r\n" : "$-1\r\n");
}

static void client_id(const struct answer *a)
{
    mr_resp_put_head(a->out, a->ctx->slab, ':', a->ctx->session->id);
}

/* The fields that clients read as numbers are there, those that mean nothing here as zeros. */
static void client_info(const struct answer *a)
{
    const struct mr_session *s = a->ctx->session;
    char text[700];
    const int n = snprintf(
        text, sizeof(text),
        "id=%llu addr=?:0 laddr=?:0 fd=0 name=%s age=0 idle=0 flags=N db=%u sub=0 psub=0 ssub=0 "
        "multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 "
        "tot-mem=0 events=r cmd=client user=%s redir=-1 resp=%d\n",
        (unsigned long long)s->id, s->name != NULL ? s->name : "", a->ctx->options->db, USER,
        speaks_resp3(a) ? 3 : 2);

    put_verbatim(a, (struct mr_slice){text, (size_t)n});
}

static void client_setinfo(const struct answer *a)
{
    const struct mr_slice what = a->msg->args[2];

    if (!mr_slice_eq_nocase(what, "lib-name") && !mr_slice_eq_nocase(what, "lib-ver"))
        put_quoting(a, "Unrecognized option '%.*s'", what);
    else if (!is_name(a->msg->args[3]))
        put_quoting(a, "%.*s cannot contain spaces, newlines or special characters.", what);
    else
        put(a, "+OK\r\n");
}

static void client_switch(const struct answer *a)
{
    const struct mr_slice word = a->msg->args[2];

    put(a, mr_slice_eq_nocase(word, "on") || mr_slice_eq_nocase(word, "off")
               ? "+OK\r\n"
               : "-ERR syntax error\r\n");
}

static void client_reply(const struct answer *a)
{
    put(a, mr_slice_eq_nocase(a->msg->args[2], "on") ? "+OK\r\n" : "-ERR syntax error\r\n");
}

static void client_getredir(const struct answer *a)
{
    put(a, ":-1\r\n");
}

static void client_trackinginfo(const struct answer *a)
{
    put_map(a, 3);
    put_text(a, "flags");
    put(a, speaks_resp3(a) ? "~1\r\n" : "*1\r\n");
    put_text(a, "off");
    put_text(a, "redirect");
    put(a, ":-1\r\n");
    put_text(a, "prefixes");
    put(a, "*0\r\n");
}

/* Clients hear of no keys that have changed. */
static void client_tracking(const struct answer *a)
{
    if (mr_slice_eq_nocase(a->msg->args[2], "off"))
        put(a, "+OK\r\n");
    else
        put_quoting(a, UNKNOWN_SUBCOMMAND, a->msg->args[1]);
}

static const struct {
    const char *name;
    int arity; /* as Redis counts */
    void (*answer)(const struct answer *a);
} CLIENT[] = {
    {"getname", 2, client_getname},
    {"getredir", 2, client_getredir},
    {"id", 2, client_id},
    {"info", 2, client_info},
    {"list", -2, client_info},
    {"no-evict", 3, client_switch},
    {"no-touch", 3, client_switch},
    {"reply", 3, client_reply},
    {"setinfo", 4, client_setinfo},
    {"setname", 3, client_setname},
    {"tracking", -3, client_tracking},
    {"trackinginfo", 2, client_trackinginfo},
};

static enum mr_verdict answer_client(const struct answer *a)
{
    const int n = (int)a->msg->n_args;

    for (size_t i = 0; i < MR_COUNT(CLIENT); i++) {
        char name[32];
        if (!mr_slice_eq_nocase(a->msg->args[1], CLIENT[i].name))
            continue;
        (void)snprintf(name, sizeof(name), "client|%s", CLIENT[i].name);
        if (CLIENT[i].arity >= 0 ? n == CLIENT[i].arity : n >= -CLIENT[i].arity)
            CLIENT[i].answer(a);
        else
            wrong_arity(a, name);
        return MR_KEEP_CLIENT;
    }
    put_quoting(a, UNKNOWN_SUBCOMMAND, a->msg->args[1]);
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
