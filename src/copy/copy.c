/* copy.c - `millrace copy`: walks the keys of a pool, keeps its place, and sums up. */
#include "copy/copy.h"

#include "core/clock.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCAN_COUNT  "256"
#define SAVE_US     1000000u
#define RETRY_US    200000u
#define PATIENCE_US 120000000u /* without progress for so long, we give up */
#define US_PER_S    1000000u

static volatile sig_atomic_t interrupted;

static void on_signal(int signo)
{
    (void)signo;
    interrupted = 1;
}

bool mr_copy_interrupted(void)
{
    return interrupted != 0;
}

bool mr_copy_try_again(struct mr_copy *copy, const char *reason)
{
    const uint64_t now = mr_clock_mono_us();

    if (copy->trouble_us == 0) {
        copy->trouble_us = now;
        (void)fprintf(stderr, "\nmillrace: %s; trying again\n", reason);
    } else if (now - copy->trouble_us > PATIENCE_US) {
        (void)fprintf(stderr, "millrace: %s; giving up\n", reason);
        return false;
    }
    (void)usleep(RETRY_US);
    return !mr_copy_interrupted();
}

void mr_copy_works(struct mr_copy *copy)
{
    copy->trouble_us = 0;
}

/* ---- the walk ---- */

/* The next keys, and the cursor behind them. NULL if it has to stop. */
static redisReply *scan(struct mr_copy *copy)
{
    struct mr_error err;

    for (;;) {
        if (mr_link_open(&copy->from, &err) == MR_OK) {
            if (copy->options->match != NULL)
                mr_link_ask(&copy->from, "SCAN", copy->cursor, "COUNT", SCAN_COUNT, "MATCH",
                            copy->options->match, NULL);
            else
                mr_link_ask(&copy->from, "SCAN", copy->cursor, "COUNT", SCAN_COUNT, NULL);
            redisReply *reply = mr_link_reply(&copy->from);
            if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
                return reply;
            (void)snprintf(err.text, sizeof(err.text), "pool '%s': SCAN: %s", copy->options->from,
                           reply == NULL                      ? copy->from.trouble
                           : reply->type == REDIS_REPLY_ERROR ? reply->str
                                                              : "unexpected reply");
            if (reply != NULL)
                freeReplyObject(reply);
        }
        if (!mr_copy_try_again(copy, err.text))
            return NULL;
    }
}

static uint64_t ask_size(struct mr_copy *copy)
{
    struct mr_error err;
    uint64_t n = 0;

    if (copy->options->match != NULL || mr_link_open(&copy->from, &err) != MR_OK)
        return 0;
    mr_link_ask(&copy->from, "DBSIZE", NULL);
    redisReply *reply = mr_link_reply(&copy->from);
    if (reply != NULL && reply->type == REDIS_REPLY_INTEGER)
        n = (uint64_t)reply->integer;
    if (reply != NULL)
        freeReplyObject(reply);
    return n;
}

/* Waits while more keys were copied than the rate allows. */
static void hold_back(const struct mr_copy *copy)
{
    const uint64_t done = copy->counts.scanned - copy->scanned_before;

    if (copy->options->rate == 0)
        return;
    const uint64_t due = copy->started_us + done * US_PER_S / copy->options->rate;
    while (mr_clock_mono_us() < due && !mr_copy_interrupted())
        (void)usleep(due - mr_clock_mono_us() < RETRY_US
                         ? (useconds_t)(due - mr_clock_mono_us() + 1)
                         : RETRY_US);
}

/* False if it has to stop. */
static bool walk(struct mr_copy *copy, const char *state, struct mr_error *err)
{
    while (!copy->finished) {
        redisReply *reply = mr_copy_interrupted() ? NULL : scan(copy);
        if (reply == NULL)
            return false;
        const redisReply *keys = reply->element[1];
        const bool done = keys->type == REDIS_REPLY_ARRAY && mr_copy_keys(copy, keys);
        if (done) {
            copy->counts.scanned += keys->elements;
            (void)snprintf(copy->cursor, sizeof(copy->cursor), "%s", reply->element[0]->str);
            copy->finished = strcmp(copy->cursor, "0") == 0;
        }
        freeReplyObject(reply);
        if (!done)
            return false;
        const uint64_t now = mr_clock_mono_us();
        if (now - copy->saved_us > SAVE_US) {
            copy->saved_us = now;
            if (mr_copy_save(copy, state, err) != MR_OK)
                return false;
        }
        hold_back(copy);
    }
    return true;
}

/* ---- the program ---- */

static int complain(const struct mr_error *err)
{
    (void)fprintf(stderr, "millrace: %s\n", err->text);
    return 1;
}

static const struct mr_pool_config *find_pool(const struct mr_config *config, const char *name,
                                              struct mr_error *err)
{
    for (uint32_t i = 0; i < config->n_pools; i++) {
        const struct mr_pool_config *pool = &config->pools[i];
        if (strcmp(pool->name, name) != 0)
            continue;
        if (pool->redis)
            return pool;
        (void)mr_fail(err, MR_ECONFIG, "pool '%s' is not a redis pool", name);
        return NULL;
    }
    (void)mr_fail(err, MR_ECONFIG, "there is no pool '%s' in the configuration", name);
    return NULL;
}

static bool set_link(struct mr_link *link, const struct mr_config *config, const char *name,
                     const struct mr_copy_options *o, struct mr_error *err)
{
    link->pool = find_pool(config, name, err);
    if (link->pool == NULL)
        return false;
    link->db = o->has_db ? (uint32_t)o->db : link->pool->redis_db;
    link->user = o->user;
    link->password = getenv("MILLRACE_PASSWORD");
    if (link->user == NULL || link->password != NULL)
        return true;
    (void)mr_fail(err, MR_ECONFIG, "--user needs a password in $MILLRACE_PASSWORD");
    return false;
}

static void sum_up(const struct mr_copy *copy)
{
    const struct mr_copy_counts *n = &copy->counts;

    (void)printf("%" PRIu64 " keys: %" PRIu64 " copied, %" PRIu64 " kept, %" PRIu64
                 " gone meanwhile, %" PRIu64 " unsteady, %" PRIu64 " failed\n",
                 n->scanned, n->copied, n->kept, n->gone, n->unsteady, n->failed);
    if (n->unsteady > 0 && copy->from.pool->mirror_to == NULL)
        (void)printf("unsteady keys are written all the time: set mirror_to in pool '%s'\n",
                     copy->options->from);
}

static int verify(struct mr_copy *copy)
{
    uint64_t compared;
    const uint64_t differing = mr_copy_verify(copy, copy->options->verify, &compared);

    (void)printf("%" PRIu64 " random keys compared: %" PRIu64 " differ\n", compared, differing);
    return differing > 0 ? 2 : 0;
}

/* Both pools must answer at the beginning; later, trouble may pass. */
static int run(struct mr_copy *copy, const char *state, struct mr_error *err)
{
    if (mr_link_open(&copy->from, err) != MR_OK || mr_link_open(&copy->to, err) != MR_OK)
        return complain(err);
    const enum mr_result rc = copy->options->restart ? MR_AGAIN : mr_copy_load(copy, state, err);
    if (rc != MR_OK && rc != MR_AGAIN)
        return complain(err);
    if (rc == MR_OK)
        (void)fprintf(stderr, "millrace: goes on after %" PRIu64 " keys (%s)\n",
                      copy->counts.scanned, state);
    copy->started_us = copy->saved_us = mr_clock_mono_us();
    copy->total = ask_size(copy);
    if (mr_copy_save(copy, state, err) != MR_OK)
        return complain(err); /* now rather than in an hour */
    *err = (struct mr_error){0};
    if (!walk(copy, state, err)) {
        struct mr_error why;
        const bool saved = mr_copy_save(copy, state, &why) == MR_OK;
        if (err->text[0] != '\0')
            (void)complain(err);
        (void)fprintf(stderr, "\nmillrace: stopped after %" PRIu64 " keys; %s\n",
                      copy->counts.scanned,
                      saved ? "the same command goes on from here" : why.text);
        return mr_copy_interrupted() ? 3 : 1;
    }
    mr_copy_show(copy, true);
    sum_up(copy);
    (void)unlink(state);
    const int status = copy->options->verify > 0 ? verify(copy) : 0;
    return copy->counts.failed > 0 ? 1 : status;
}

static int copy_pools(const struct mr_config *config, const struct mr_copy_options *o)
{
    struct mr_copy copy = {.options = o, .cursor = "0"};
    struct mr_error err;
    char state[4096];

    if (!set_link(&copy.from, config, o->from, o, &err) ||
        !set_link(&copy.to, config, o->to, o, &err))
        return complain(&err);
    if (o->state_file != NULL)
        (void)snprintf(state, sizeof(state), "%s", o->state_file);
    else
        (void)snprintf(state, sizeof(state), "millrace-copy-%s-%s.state", o->from, o->to);
    const int status = run(&copy, state, &err);
    mr_link_close(&copy.from);
    mr_link_close(&copy.to);
    return status;
}

int mr_copy_main(int argc, char **argv, const char *default_conf)
{
    const struct sigaction stop = {.sa_handler = on_signal};
    struct mr_copy_options o;
    struct mr_config *config;
    struct mr_error err;

    if (mr_copy_options_parse(&o, argc, argv, &err) != MR_OK) {
        (void)complain(&err);
        (void)fputs("Try 'millrace copy --help'.\n", stderr);
        return 1;
    }
    if (o.help) {
        mr_options_print(
            "millrace copy --from=POOL --to=POOL [-c FILE] [options]\n\n"
            "Copies all keys of one pool to another, through the running proxy. With `mirror_to`\n"
            "in the first pool, what clients write meanwhile is copied, too.",
            MR_COPY_OPTIONS, MR_COPY_OPTION_COUNT);
        return 0;
    }
    if (mr_config_load(&config, o.conf_file != NULL ? o.conf_file : default_conf, UINT32_MAX, NULL,
                       &err) != MR_OK)
        return complain(&err);
    (void)sigaction(SIGINT, &stop, NULL);
    (void)sigaction(SIGTERM, &stop, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    const int status = copy_pools(config, &o);
    mr_config_free(config);
    return status;
}
