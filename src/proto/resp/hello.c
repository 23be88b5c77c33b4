/* hello.c - identity of a client and version of its protocol: AUTH, HELLO, SELECT, RESET. */
#include "proto/resp/local.h"

#include "core/number.h"

#define NO_PROTO        "-NOPROTO unsupported protocol version\r\n"
#define WRONG_PASS      "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
#define TOO_MANY_LOGINS "-ERR too many failed logins from this address, try again later\r\n"

/* False for a wrong password. Otherwise *user is the logged-in user, see struct mr_session. */
static bool is_password(const struct mr_resp_answer *a, struct mr_slice name,
                        struct mr_slice password, const struct mr_user **user)
{
    static const struct mr_users NOBODY = {NULL, 0};
    const struct mr_proto_options *options = a->ctx->options;
    const struct mr_users *users = options->users != NULL ? options->users : &NOBODY;

    *user = mr_user_log_in(users, name, password);
    if (*user != NULL)
        return true;
    if (!mr_slice_eq(name, mr_slice_of(MR_RESP_USER)) || mr_user_find(users, name) != NULL)
        return false;
    return options->auth != NULL ? mr_slice_eq_secret(password, options->auth)
                                 : mr_proto_is_open(options);
}

/*
 * True if the client is logged in; otherwise replies with an error, `wrong` for a wrong password.
 */
static bool log_in_as(const struct mr_resp_answer *a, struct mr_slice name,
                      struct mr_slice password, const char *wrong)
{
    const struct mr_proto_facts *facts = a->ctx->facts;
    struct mr_session *s = a->ctx->session;
    const struct mr_user *user;

    if (!facts->may_log_in(facts, s, name)) {
        mr_resp_add(a, TOO_MANY_LOGINS);
        facts->login_failed(facts, s, name);
        return false;
    }
    if (!is_password(a, name, password, &user)) {
        mr_resp_add(a, wrong);
        facts->login_failed(facts, s, name);
        return false;
    }
    s->authed = true;
    s->user = user;
    return true;
}

enum mr_outcome mr_resp_answer_auth(const struct mr_resp_answer *a)
{
    const struct mr_proto_options *options = a->ctx->options;
    const bool is_open = mr_proto_is_open(options);
    const bool named = a->msg->n_args == 3;
    const bool alone = options->users == NULL; /* without users, replies are those of twemproxy */

    if (a->msg->n_args > 3) {
        mr_resp_add(a, "-ERR syntax error\r\n");
    } else if (is_open && !named) {
        mr_resp_add(a, "-ERR Client sent AUTH, but no password is set\r\n");
    } else if (log_in_as(a, named ? a->msg->args[1] : mr_slice_of(MR_RESP_USER),
                         a->msg->args[named ? 2 : 1],
                         alone && !named ? "-ERR invalid password\r\n" : WRONG_PASS)) {
        mr_resp_add(a, "+OK\r\n");
    } else if (alone && !is_open) {
        a->ctx->session->authed = false;
    }
    return MR_KEEP_CLIENT;
}

/* ---- HELLO ---- */

static void hello_reply(const struct mr_resp_answer *a)
{
    mr_resp_add_map(a, 7);
    mr_resp_add_text(a, "server");
    mr_resp_add_text(a, "redis");
    mr_resp_add_text(a, "version");
    mr_resp_add_text(a, mr_resp_server_version(a));
    mr_resp_add_text(a, "proto");
    mr_resp_put_head(a->out, a->ctx->slab, ':', mr_resp_speaks_3(a) ? 3 : 2);
    mr_resp_add_text(a, "id");
    mr_resp_put_head(a->out, a->ctx->slab, ':', a->ctx->session->id);
    mr_resp_add_text(a, "mode");
    mr_resp_add_text(a, mr_resp_mode(a));
    mr_resp_add_text(a, "role");
    mr_resp_add_text(a, "master");
    mr_resp_add_text(a, "modules");
    mr_resp_add(a, "*0\r\n");
}

/* Arguments of HELLO [version [AUTH user password] [SETNAME name]]. */
struct hello {
    int64_t version; /* 0: not given */
    bool logs_in, names;
    struct mr_slice user, password, name;
};

/* False after replying with an error. */
static bool read_hello(const struct mr_resp_answer *a, struct hello *hello)
{
    const uint32_t n = a->msg->n_args;
    struct mr_key_walk walk = {0};

    if (n > 1 && !mr_parse_int64(a->msg->args[1], &hello->version)) {
        mr_resp_add(a, "-ERR Protocol version is not an integer or out of range\r\n");
        return false;
    }
    if (n > 1 && (hello->version < 2 || hello->version > 3)) {
        mr_resp_add(a, NO_PROTO);
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
            if (!mr_resp_is_label(hello->name)) {
                mr_resp_add(a, MR_RESP_BAD_NAME);
                return false;
            }
        } else {
            mr_resp_add_quoting(a, "Syntax error in HELLO option '%.*s'", option);
            return false;
        }
    }
    return true;
}

/* False after replying with an error. */
static bool log_in(const struct mr_resp_answer *a, const struct hello *hello)
{
    struct mr_session *s = a->ctx->session;

    if (hello->logs_in && !log_in_as(a, hello->user, hello->password, WRONG_PASS))
        return false;
    if (!s->authed)
        mr_resp_add(
            a, "-NOAUTH HELLO must be called with the client already authenticated, otherwise the "
               "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
               "select the RESP protocol version at the same time\r\n");
    return s->authed;
}

/* The lane of the same database in another protocol version. */
static uint8_t lane_in(uint8_t lane, bool version_3)
{
    return (uint8_t)(lane - mr_resp_version(lane) + (version_3 ? MR_RESP_3 : MR_RESP_2));
}

/* Whether servers accept this lane. They always accept RESP2 in the first database. */
static enum mr_lane_state lane_state(const struct mr_resp_answer *a, uint8_t lane)
{
    return lane == a->ctx->session->dialect || lane == 0 ? MR_LANE_USABLE
                                                         : a->ctx->facts->lane(a->ctx->facts, lane);
}

enum mr_outcome mr_resp_answer_hello(const struct mr_resp_answer *a)
{
    struct mr_session *s = a->ctx->session;
    struct hello hello = {0};

    if (!read_hello(a, &hello) || !log_in(a, &hello))
        return MR_KEEP_CLIENT;
    const uint8_t lane = hello.version == 0 ? s->dialect : lane_in(s->dialect, hello.version == 3);
    const enum mr_lane_state state = lane_state(a, lane);
    if (state == MR_LANE_UNKNOWN)
        return MR_ASK_LATER;
    if (state == MR_LANE_REFUSED) {
        mr_resp_add(a, NO_PROTO);
        return MR_KEEP_CLIENT;
    }
    if (hello.names)
        mr_resp_set_label(s, MR_RESP_NAME, hello.name);
    s->dialect = lane;
    hello_reply(a);
    return MR_KEEP_CLIENT;
}

/* ---- SELECT and RESET ---- */

enum mr_outcome mr_resp_answer_select(const struct mr_resp_answer *a)
{
    struct mr_session *s = a->ctx->session;
    int64_t db;
    uint8_t lane;

    if (!mr_parse_int64(a->msg->args[1], &db)) {
        mr_resp_add(a, "-ERR value is not an integer or out of range\r\n");
        return MR_KEEP_CLIENT;
    }
    const bool is_one = db >= 0 && mr_resp_lane_of(a->ctx->options, mr_resp_version(s->dialect),
                                                   (uint64_t)db, &lane);
    const enum mr_lane_state state = is_one ? lane_state(a, lane) : MR_LANE_REFUSED;
    if (state == MR_LANE_UNKNOWN)
        return MR_ASK_LATER;
    if (state == MR_LANE_USABLE)
        s->dialect = lane;
    mr_resp_add(a, state == MR_LANE_USABLE ? "+OK\r\n" : "-ERR DB index is out of range\r\n");
    return MR_KEEP_CLIENT;
}

enum mr_outcome mr_resp_answer_reset(const struct mr_resp_answer *a)
{
    mr_resp_reset_session(a->ctx->options, a->ctx->session);
    mr_resp_add(a, "+RESET\r\n");
    return MR_KEEP_CLIENT;
}
