/* client.c - CLIENT and its subcommands about the client itself. */
#include "proto/resp/local.h"

#include <stdio.h>

#define UNKNOWN_SUBCOMMAND "unknown subcommand '%.*s'. Try CLIENT HELP."

static void client_setname(const struct mr_resp_answer *a)
{
    if (!mr_resp_is_label(a->msg->args[2])) {
        mr_resp_add(a, MR_RESP_BAD_NAME);
        return;
    }
    mr_resp_set_label(a->ctx->session, MR_RESP_NAME, a->msg->args[2]);
    mr_resp_add(a, "+OK\r\n");
}

static void client_getname(const struct mr_resp_answer *a)
{
    const char *name = mr_resp_label(a->ctx->session, MR_RESP_NAME);

    if (name[0] != '\0')
        mr_resp_add_text(a, name);
    else
        mr_resp_add_null(a);
}

static void client_id(const struct mr_resp_answer *a)
{
    mr_resp_put_head(a->out, a->ctx->slab, ':', a->ctx->session->id);
}

static void client_setinfo(const struct mr_resp_answer *a)
{
    const struct mr_slice what = a->msg->args[2];
    const bool version = mr_slice_eq_nocase(what, "lib-ver");

    if (!version && !mr_slice_eq_nocase(what, "lib-name")) {
        mr_resp_add_quoting(a, "Unrecognized option '%.*s'", what);
    } else if (!mr_resp_is_label(a->msg->args[3])) {
        mr_resp_add_quoting(a, "%.*s cannot contain spaces, newlines or special characters.", what);
    } else {
        mr_resp_set_label(a->ctx->session, version ? MR_RESP_LIB_VERSION : MR_RESP_LIB_NAME,
                          a->msg->args[3]);
        mr_resp_add(a, "+OK\r\n");
    }
}

static void client_switch(const struct mr_resp_answer *a)
{
    const struct mr_slice word = a->msg->args[2];

    mr_resp_add(a, mr_slice_eq_nocase(word, "on") || mr_slice_eq_nocase(word, "off")
                       ? "+OK\r\n"
                       : "-ERR syntax error\r\n");
}

static void client_reply(const struct mr_resp_answer *a)
{
    struct mr_session *s = a->ctx->session;
    const struct mr_slice word = a->msg->args[2];

    if (mr_slice_eq_nocase(word, "on")) {
        s->mute = 0;
        mr_resp_add(a, "+OK\r\n");
    } else if (mr_slice_eq_nocase(word, "off")) {
        s->mute = MR_MUTE_ALL;
    } else if (mr_slice_eq_nocase(word, "skip")) {
        if (s->mute != MR_MUTE_ALL)
            s->mute = 2; /* this one and the next */
    } else {
        mr_resp_add(a, "-ERR syntax error\r\n");
    }
}

static void client_getredir(const struct mr_resp_answer *a)
{
    mr_resp_add(a, ":-1\r\n");
}

static void client_trackinginfo(const struct mr_resp_answer *a)
{
    mr_resp_add_map(a, 3);
    mr_resp_add_text(a, "flags");
    mr_resp_add(a, mr_resp_speaks_3(a) ? "~1\r\n" : "*1\r\n");
    mr_resp_add_text(a, "off");
    mr_resp_add_text(a, "redirect");
    mr_resp_add(a, ":-1\r\n");
    mr_resp_add_text(a, "prefixes");
    mr_resp_add(a, "*0\r\n");
}

/* There is no client-side caching, so tracking can only be turned off. */
static void client_tracking(const struct mr_resp_answer *a)
{
    if (mr_slice_eq_nocase(a->msg->args[2], "off"))
        mr_resp_add(a, "+OK\r\n");
    else if (mr_slice_eq_nocase(a->msg->args[2], "on"))
        mr_resp_add_quoting(a, UNKNOWN_SUBCOMMAND, a->msg->args[1]);
    else
        mr_resp_add(a, "-ERR syntax error\r\n");
}

static void client_caching(const struct mr_resp_answer *a)
{
    mr_resp_add(a,
                "-ERR CLIENT CACHING can be called only when the client is in tracking mode with "
                "OPTIN or OPTOUT mode enabled\r\n");
}

/* Servers are shared: a pause would block clients of other pools and proxies. */
static void client_pause(const struct mr_resp_answer *a)
{
    mr_resp_add_quoting(a,
                        "CLIENT %.*s is not supported by this proxy: it concerns all clients of "
                        "its servers",
                        a->msg->args[1]);
}

static void client_help(const struct mr_resp_answer *a);

static const struct {
    const char *name;
    int arity; /* as Redis counts it */
    void (*answer)(const struct mr_resp_answer *a);
    const char *help;
} CLIENT[] = {
    {"caching", 3, client_caching, "CACHING (YES|NO): not supported"},
    {"getname", 2, client_getname, "GETNAME: the name of this connection"},
    {"getredir", 2, client_getredir, "GETREDIR: -1, as nothing is tracked"},
    {"help", 2, client_help, "HELP: this text"},
    {"id", 2, client_id, "ID: the number of this connection"},
    {"info", 2, mr_resp_client_info, "INFO: this connection, as LIST shows it"},
    {"kill", -3, mr_resp_client_kill,
     "KILL <ip:port> | [ID <id>] [TYPE <type>] [USER <name>] [ADDR <ip:port>] [LADDR <ip:port>] "
     "[SKIPME (YES|NO)]: close connections of this pool"},
    {"list", -2, mr_resp_client_list, "LIST [TYPE <type> | ID <id> ...]: connections of this pool"},
    {"no-evict", 3, client_switch, "NO-EVICT (ON|OFF): accepted, without effect"},
    {"no-touch", 3, client_switch, "NO-TOUCH (ON|OFF): accepted, without effect"},
    {"pause", -3, client_pause, "PAUSE: not supported"},
    {"reply", 3, client_reply, "REPLY (ON|OFF|SKIP): which replies this connection gets"},
    {"setinfo", 4, client_setinfo, "SETINFO (LIB-NAME|LIB-VER) <text>: the library in use"},
    {"setname", 3, client_setname, "SETNAME <name>: names this connection"},
    {"tracking", -3, client_tracking, "TRACKING OFF: accepted; ON is not supported"},
    {"trackinginfo", 2, client_trackinginfo, "TRACKINGINFO: says that nothing is tracked"},
    {"unblock", -3, mr_resp_client_unblock,
     "UNBLOCK <id> [TIMEOUT|ERROR]: ends what blocks a connection of this pool"},
    {"unpause", 2, client_pause, "UNPAUSE: not supported"},
};

static void client_help(const struct mr_resp_answer *a)
{
    mr_resp_put_head(a->out, a->ctx->slab, '*', MR_COUNT(CLIENT));
    for (size_t i = 0; i < MR_COUNT(CLIENT); i++)
        mr_buf_printf(a->out, a->ctx->slab, "+%s\r\n", CLIENT[i].help);
}

enum mr_outcome mr_resp_answer_client(const struct mr_resp_answer *a)
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
            mr_resp_wrong_arity(a, name);
        return MR_KEEP_CLIENT;
    }
    mr_resp_add_quoting(a, UNKNOWN_SUBCOMMAND, a->msg->args[1]);
    return MR_KEEP_CLIENT;
}
