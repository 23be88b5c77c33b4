/*
 * load.c - millrace-load: loads a Redis or memcached server or proxy, and reports latencies.
 *
 * Closed loop: every connection keeps a number of requests in flight. Open loop (--rate): requests
 * are due at fixed times, whatever the replies do, and latency counts from the due time, so a stall
 * is charged for every request due during it.
 */
#include "core/clock.h"
#include "core/histogram.h"
#include "core/number.h"
#include "net/loop.h"
#include "net/stream.h"
#include "proto/proto.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_MS 500u

enum command { GET, SET, MGET };

struct settings {
    const char *target; /* host:port or a path */
    const char *json;
    const char *label;
    enum command command;
    bool memcache, reconnect, quiet, prefill_only, filled;
    uint64_t clients, pipeline, requests, seconds, rate, keys, key_size, value_size, mget, warmup;
    uint64_t set_percent;
};

struct connection {
    struct mr_stream stream;
    struct load *load;
    struct mr_reply_state scan;
    uint64_t *due; /* ring of start times of the requests in flight */
    uint32_t cap, first, n;
    bool open;
};

struct load {
    struct settings set;
    struct mr_loop loop;
    struct mr_addr addr;
    const struct mr_proto *proto;
    struct mr_alarm next;
    struct mr_timer progress;
    struct mr_histogram latency;
    struct connection *connections;
    struct mr_buf request; /* being built */
    char *value;
    uint64_t random, started_us, ended_us, sent, answered, errors, counted, max_us, sum_us;
    uint64_t turn; /* connections take turns */
    bool prefilling, finished;
};

static uint64_t next_random(struct load *l)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return l->random;
}

/* ---- requests ---- */

static void add_key(struct load *l, uint64_t key)
{
    char text[256];
    const int len =
        snprintf(text, sizeof(text), "k:%0*llu", (int)l->set.key_size - 2, (unsigned long long)key);

    MR_CHECK(len > 0 && (size_t)len < sizeof(text));
    if (!l->set.memcache)
        mr_buf_printf(&l->request, &l->loop.slab, "$%d\r\n", len);
    MR_CHECK(mr_buf_append(&l->request, &l->loop.slab, text, (size_t)len));
    if (!l->set.memcache)
        mr_buf_printf(&l->request, &l->loop.slab, "\r\n");
}

static void add_value(struct load *l)
{
    MR_CHECK(mr_buf_append(&l->request, &l->loop.slab, l->value, l->set.value_size));
    mr_buf_printf(&l->request, &l->loop.slab, "\r\n");
}

static void build_redis(struct load *l, enum command command, uint64_t key)
{
    struct mr_slab *slab = &l->loop.slab;

    if (command == MGET) {
        mr_buf_printf(&l->request, slab, "*%llu\r\n$4\r\nMGET\r\n",
                      (unsigned long long)l->set.mget + 1);
        for (uint64_t i = 0; i < l->set.mget; i++)
            add_key(l, (key + i * 7919) % l->set.keys);
    } else if (command == SET) {
        mr_buf_printf(&l->request, slab, "*3\r\n$3\r\nSET\r\n");
        add_key(l, key);
        mr_buf_printf(&l->request, slab, "$%llu\r\n", (unsigned long long)l->set.value_size);
        add_value(l);
    } else {
        mr_buf_printf(&l->request, slab, "*2\r\n$3\r\nGET\r\n");
        add_key(l, key);
    }
}

static void build_memcache(struct load *l, enum command command, uint64_t key)
{
    struct mr_slab *slab = &l->loop.slab;

    if (command == SET) {
        mr_buf_printf(&l->request, slab, "set ");
        add_key(l, key);
        mr_buf_printf(&l->request, slab, " 0 0 %llu\r\n", (unsigned long long)l->set.value_size);
        add_value(l);
        return;
    }
    mr_buf_printf(&l->request, slab, "get");
    for (uint64_t i = 0; i < (command == MGET ? l->set.mget : 1); i++) {
        mr_buf_printf(&l->request, slab, " ");
        add_key(l, (key + i * 7919) % l->set.keys);
    }
    mr_buf_printf(&l->request, slab, "\r\n");
}

static void send_one(struct load *l, struct connection *c, uint64_t due_us)
{
    enum command command = l->set.command;
    uint64_t key = l->sent;

    if (l->prefilling) {
        command = SET;
    } else {
        key = next_random(l) % l->set.keys;
        if (l->set.set_percent > 0 && next_random(l) % 100 < l->set.set_percent)
            command = SET;
    }
    if (l->set.memcache)
        build_memcache(l, command, key);
    else
        build_redis(l, command, key);
    const struct mr_slice bytes = mr_buf_slice(&l->request);
    mr_stream_write(&c->stream, bytes.at, bytes.len);
    mr_buf_clear(&l->request, &l->loop.slab);
    if (c->n == c->cap) { /* an open loop may fall behind without limit */
        uint64_t *more = calloc(c->cap * 2, sizeof(*more));
        MR_CHECK(more != NULL);
        for (uint32_t i = 0; i < c->n; i++)
            more[i] = c->due[(c->first + i) % c->cap];
        free(c->due);
        c->due = more;
        c->cap *= 2;
        c->first = 0;
    }
    c->due[(c->first + c->n++) % c->cap] = due_us;
    l->sent++;
}

static uint64_t wanted(const struct load *l)
{
    if (l->prefilling)
        return l->set.keys;
    return l->set.requests > 0 ? l->set.requests : UINT64_MAX;
}

static bool over(const struct load *l)
{
    if (l->sent >= wanted(l))
        return true;
    return !l->prefilling && l->set.seconds > 0 &&
           l->loop.now_us - l->started_us >= l->set.seconds * 1000000u;
}

static void check_end(struct load *l)
{
    if (!over(l) || l->answered < l->sent || l->finished)
        return;
    l->finished = true;
    l->ended_us = mr_clock_mono_us();
    l->loop.stop = true;
}

static void fill(struct connection *c)
{
    struct load *l = c->load;

    if (l->set.rate > 0 && !l->prefilling)
        return;
    while (c->open && c->n < l->set.pipeline && !over(l))
        send_one(l, c, l->loop.now_us);
}

/* ---- replies ---- */

static void answered(struct connection *c, bool error)
{
    struct load *l = c->load;
    const uint64_t us = mr_clock_mono_us() - c->due[c->first];

    c->first = (c->first + 1) % c->cap;
    c->n--;
    l->answered++;
    l->errors += error;
    if (l->prefilling || l->answered <= l->set.warmup)
        return;
    mr_histogram_add(&l->latency, us);
    l->counted++;
    l->sum_us += us;
    if (us > l->max_us)
        l->max_us = us;
}

static enum mr_result scan(struct connection *c, const char *bytes, size_t len, size_t *n)
{
    return c->load->proto->server.scan_reply(0, &c->scan, bytes, len, n);
}

static bool is_error(const struct load *l, const char *bytes, size_t len)
{
    if (!l->set.memcache)
        return bytes[0] == '-';
    return len >= 5 && (memcmp(bytes, "ERROR", 5) == 0 || memcmp(bytes, "CLIEN", 5) == 0 ||
                        memcmp(bytes, "SERVE", 5) == 0);
}

static size_t on_data(struct mr_stream *s, const char *bytes, size_t len)
{
    struct connection *c = MR_CONTAINER_OF(s, struct connection, stream);
    size_t used = 0;

    while (used < len && c->n > 0) {
        size_t n;
        const enum mr_result rc = scan(c, bytes + used, len - used, &n);
        if (rc == MR_AGAIN)
            break;
        if (rc != MR_OK) {
            (void)fprintf(stderr, "\nmillrace-load: the server sent no reply of the protocol\n");
            exit(1);
        }
        answered(c, is_error(c->load, bytes + used, n));
        used += n;
    }
    if (c->load->set.reconnect && !c->load->prefilling && c->n == 0)
        mr_stream_close(s, 0);
    else
        fill(c);
    check_end(c->load);
    return used;
}

/* ---- connections ---- */

static void on_open(struct mr_stream *s)
{
    struct connection *c = MR_CONTAINER_OF(s, struct connection, stream);

    c->open = true;
    fill(c);
}

static void on_eof(struct mr_stream *s)
{
    mr_stream_close(s, ECONNRESET);
}

static void start_connection(struct connection *c);

static void on_close(struct mr_stream *s, int error)
{
    struct connection *c = MR_CONTAINER_OF(s, struct connection, stream);
    struct load *l = c->load;

    c->open = false;
    c->scan = (struct mr_reply_state){0};
    if (error != 0 && !l->finished) {
        (void)fprintf(stderr, "\nmillrace-load: connection to %s: %s\n", l->set.target,
                      strerror(error));
        exit(1);
    }
    if (!l->finished && !over(l))
        start_connection(c);
}

static const struct mr_stream_ops OPS = {
    .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_close = on_close};

static void start_connection(struct connection *c)
{
    struct load *l = c->load;
    struct mr_error err;

    if (mr_stream_connect(&c->stream, &l->loop, &OPS, &l->addr, &err) != MR_OK) {
        (void)fprintf(stderr, "\nmillrace-load: %s\n", err.text);
        exit(1);
    }
}

static bool all_open(const struct load *l)
{
    for (uint64_t i = 0; i < l->set.clients; i++)
        if (!l->connections[i].open)
            return false;
    return true;
}

/* ---- the run ---- */

/* Sends what is due, then sleeps until the next request is. */
static void on_next(struct mr_alarm *alarm)
{
    struct load *l = MR_CONTAINER_OF(alarm, struct load, next);
    const uint64_t now_us = l->loop.now_us;

    while (!over(l)) {
        const uint64_t due_us = l->started_us + l->sent * 1000000u / l->set.rate;
        if (due_us > now_us) {
            mr_loop_alarm(&l->loop, alarm, due_us - now_us);
            return;
        }
        send_one(l, &l->connections[l->turn++ % l->set.clients], due_us);
    }
    check_end(l);
}

static void on_progress(struct mr_timer *timer)
{
    struct load *l = MR_CONTAINER_OF(timer, struct load, progress);
    const double s = (double)(l->loop.now_us - l->started_us) / 1e6;

    (void)fprintf(stderr, "\r\033[K%s %llu requests, %.0f/s, p99 %llu us",
                  l->prefilling ? "filling:" : "running:", (unsigned long long)l->answered,
                  s > 0 ? (double)l->answered / s : 0,
                  (unsigned long long)mr_histogram_quantile(&l->latency, 0.99));
    mr_loop_timer(&l->loop, timer, PROGRESS_MS);
}

static void run(struct load *l, bool prefilling)
{
    l->prefilling = prefilling;
    l->finished = l->loop.stop = false;
    l->sent = l->answered = 0;
    l->started_us = l->loop.now_us = mr_clock_mono_us();
    if (!prefilling && l->set.rate > 0)
        mr_loop_alarm(&l->loop, &l->next, 0);
    for (uint64_t i = 0; i < l->set.clients; i++)
        fill(&l->connections[i]);
    for (int wait_ms = 0; !l->loop.stop; wait_ms = 100) { /* the first turn only sends */
        mr_loop_turn(&l->loop, wait_ms);
        check_end(l);
    }
    mr_alarm_cancel(&l->next);
}

static json_t *report(const struct load *l)
{
    static const struct {
        const char *name;
        double q;
    } QUANTILES[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};
    const double seconds = (double)(l->ended_us - l->started_us) / 1e6;
    json_t *buckets = json_array();
    json_t *latency = json_object();
    json_t *all = json_object();

    for (size_t i = 0; i < MR_COUNT(QUANTILES); i++)
        json_object_set_new(
            latency, QUANTILES[i].name,
            json_integer((json_int_t)mr_histogram_quantile(&l->latency, QUANTILES[i].q)));
    json_object_set_new(latency, "max", json_integer((json_int_t)l->max_us));
    json_object_set_new(latency, "mean",
                        json_real(l->counted > 0 ? (double)l->sum_us / (double)l->counted : 0));
    for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++)
        if (l->latency.counts[i] > 0)
            json_array_append_new(buckets, json_pack("[I,I]", (json_int_t)mr_histogram_high(i),
                                                     (json_int_t)l->latency.counts[i]));
    json_object_set_new(all, "label", json_string(l->set.label));
    json_object_set_new(all, "requests", json_integer((json_int_t)l->answered));
    json_object_set_new(all, "errors", json_integer((json_int_t)l->errors));
    json_object_set_new(all, "seconds", json_real(seconds));
    json_object_set_new(all, "requests_per_second", json_real((double)l->answered / seconds));
    json_object_set_new(all, "latency_us", latency);
    json_object_set_new(all, "histogram_us", buckets);
    return all;
}

static void tell(const struct load *l)
{
    const double seconds = (double)(l->ended_us - l->started_us) / 1e6;

    (void)fprintf(stderr, "\r\033[K");
    (void)printf("%llu requests in %.2f s, %.0f/s, %llu errors; latency in us: p50 %llu, p90 %llu, "
                 "p99 %llu, p99.9 %llu, max %llu\n",
                 (unsigned long long)l->answered, seconds, (double)l->answered / seconds,
                 (unsigned long long)l->errors,
                 (unsigned long long)mr_histogram_quantile(&l->latency, 0.5),
                 (unsigned long long)mr_histogram_quantile(&l->latency, 0.9),
                 (unsigned long long)mr_histogram_quantile(&l->latency, 0.99),
                 (unsigned long long)mr_histogram_quantile(&l->latency, 0.999),
                 (unsigned long long)l->max_us);
}

/* ---- the command line ---- */

static void usage(FILE *to)
{
    (void)fputs("Usage: millrace-load [options] HOST:PORT | /path/to.sock\n"
                "\n"
                "  -c, --clients=N      connections (50)\n"
                "  -P, --pipeline=N     requests in flight on each, in a closed loop (1)\n"
                "  -n, --requests=N     how many (100000), or\n"
                "  -t, --seconds=N      for how long\n"
                "  -r, --rate=N         open loop: so many requests a second in all; latencies\n"
                "                       count from when a request was due\n"
                "  -x, --command=NAME   get, set or mget (get)\n"
                "      --set-percent=N  of the requests are set instead (0)\n"
                "      --mget=N         keys of one mget (10)\n"
                "      --keys=N         different keys; all are set before the run (1000)\n"
                "      --key-size=N     bytes of a key, 8 to 200 (16)\n"
                "  -d, --value-size=N   bytes of a value (100)\n"
                "      --warmup=N       first answers that are not counted (0)\n"
                "      --reconnect      a new connection for each request\n"
                "      --memcache       memcached's text protocol instead of Redis's\n"
                "      --prefill-only   set the keys and stop\n"
                "      --filled         the keys are set already\n"
                "      --json=FILE      write the result there, with the histogram\n"
                "      --label=TEXT     put into the result\n"
                "  -q, --quiet          no progress line, no result\n",
                to);
}

static void bad(const char *what, const char *value)
{
    (void)fprintf(stderr, "millrace-load: %s: '%s'; see --help\n", what, value);
    exit(2);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
    uint64_t v;

    if (!mr_parse_uint(mr_slice_of(text), max, &v) || v < min)
        bad("not a number that this option takes", text);
    return v;
}

static enum command command_of(const char *name)
{
    static const char *const NAMES[] = {"get", "set", "mget"};

    for (size_t i = 0; i < MR_COUNT(NAMES); i++)
        if (strcmp(NAMES[i], name) == 0)
            return (enum command)i;
    bad("not a command", name);
    return GET;
}

enum {
    OPT_SET_PERCENT = 256,
    OPT_MGET,
    OPT_KEYS,
    OPT_KEY_SIZE,
    OPT_WARMUP,
    OPT_RECONNECT,
    OPT_MEMCACHE,
    OPT_PREFILL_ONLY,
    OPT_FILLED,
    OPT_JSON,
    OPT_LABEL
};

static const struct option LONG_OPTIONS[] = {
    {"clients", required_argument, NULL, 'c'},
    {"pipeline", required_argument, NULL, 'P'},
    {"requests", required_argument, NULL, 'n'},
    {"seconds", required_argument, NULL, 't'},
    {"rate", required_argument, NULL, 'r'},
    {"command", required_argument, NULL, 'x'},
    {"set-percent", required_argument, NULL, OPT_SET_PERCENT},
    {"mget", required_argument, NULL, OPT_MGET},
    {"keys", required_argument, NULL, OPT_KEYS},
    {"key-size", required_argument, NULL, OPT_KEY_SIZE},
    {"value-size", required_argument, NULL, 'd'},
    {"warmup", required_argument, NULL, OPT_WARMUP},
    {"reconnect", no_argument, NULL, OPT_RECONNECT},
    {"memcache", no_argument, NULL, OPT_MEMCACHE},
    {"prefill-only", no_argument, NULL, OPT_PREFILL_ONLY},
    {"filled", no_argument, NULL, OPT_FILLED},
    {"json", required_argument, NULL, OPT_JSON},
    {"label", required_argument, NULL, OPT_LABEL},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void set_number(struct settings *s, int opt)
{
    switch (opt) {
    case 'c':
        s->clients = number(optarg, 1, 100000);
        break;
    case 'P':
        s->pipeline = number(optarg, 1, 100000);
        break;
    case 'n':
        s->requests = number(optarg, 1, UINT64_MAX);
        break;
    case 't':
        s->seconds = number(optarg, 1, 1000000);
        break;
    case 'r':
        s->rate = number(optarg, 1, 100000000);
        break;
    case 'd':
        s->value_size = number(optarg, 1, 100000000);
        break;
    case OPT_SET_PERCENT:
        s->set_percent = number(optarg, 0, 100);
        break;
    case OPT_MGET:
        s->mget = number(optarg, 1, 10000);
        break;
    case OPT_KEYS:
        s->keys = number(optarg, 1, 1000000000);
        break;
    case OPT_KEY_SIZE:
        s->key_size = number(optarg, 8, 200);
        break;
    default: /* OPT_WARMUP */
        s->warmup = number(optarg, 0, UINT64_MAX);
        break;
    }
}

static void set(struct settings *s, int opt)
{
    switch (opt) {
    case 'x':
        s->command = command_of(optarg);
        break;
    case OPT_RECONNECT:
        s->reconnect = true;
        break;
    case OPT_MEMCACHE:
        s->memcache = true;
        break;
    case OPT_PREFILL_ONLY:
        s->prefill_only = true;
        break;
    case OPT_FILLED:
        s->filled = true;
        break;
    case OPT_JSON:
        s->json = optarg;
        break;
    case OPT_LABEL:
        s->label = optarg;
        break;
    case 'q':
        s->quiet = true;
        break;
    case 'h':
        usage(stdout);
        exit(0);
    case '?':
        usage(stderr);
        exit(2);
    default:
        set_number(s, opt);
        break;
    }
}

static void parse(struct load *l, int argc, char **argv)
{
    struct settings *s = &l->set;
    struct mr_error err;
    int opt;

    *s = (struct settings){.clients = 50,
                           .pipeline = 1,
                           .keys = 1000,
                           .key_size = 16,
                           .value_size = 100,
                           .mget = 10,
                           .label = ""};
    while ((opt = getopt_long(argc, argv, "c:P:n:t:r:x:d:qh", LONG_OPTIONS, NULL)) != -1)
        set(s, opt);
    if (optind != argc - 1) {
        usage(stderr);
        exit(2);
    }
    s->target = argv[optind];
    if (s->requests == 0 && s->seconds == 0)
        s->requests = 100000;
    if (s->reconnect && (s->rate > 0 || s->pipeline > 1))
        bad("does not go with --rate or --pipeline", "--reconnect");
    const char *colon = strrchr(s->target, ':');
    uint64_t port = 0;
    uint32_t n;
    if (s->target[0] == '/') {
        if (mr_addr_unix(&l->addr, mr_slice_of(s->target), &err) == MR_OK)
            return;
    } else if (colon != NULL && mr_parse_uint(mr_slice_of(colon + 1), 65535, &port) &&
               mr_addr_resolve(&l->addr, 1, &n,
                               (struct mr_slice){s->target, (size_t)(colon - s->target)},
                               (uint16_t)port, &err) == MR_OK) {
        return;
    }
    bad("not an address", s->target);
}

int main(int argc, char **argv)
{
    static struct load l;
    struct mr_error err;
    int status = 0;

    parse(&l, argc, argv);
    l.random = 88172645463325252u;
    l.proto = mr_proto_by_name(mr_slice_of(l.set.memcache ? "memcache" : "redis"));
    l.next.fire = on_next;
    l.progress.fire = on_progress;
    l.value = malloc(l.set.value_size);
    l.connections = calloc(l.set.clients, sizeof(*l.connections));
    MR_CHECK(l.value != NULL && l.connections != NULL);
    memset(l.value, 'x', l.set.value_size);
    if (mr_loop_init(&l.loop, "epoll", &err) != MR_OK) {
        (void)fprintf(stderr, "millrace-load: %s\n", err.text);
        return 1;
    }
    l.started_us = l.loop.now_us;
    if (!l.set.quiet && isatty(STDERR_FILENO))
        mr_loop_timer(&l.loop, &l.progress, PROGRESS_MS);
    for (uint64_t i = 0; i < l.set.clients; i++) {
        struct connection *c = &l.connections[i];
        c->load = &l;
        c->cap = (uint32_t)l.set.pipeline;
        c->due = calloc(c->cap, sizeof(*c->due));
        MR_CHECK(c->due != NULL);
        start_connection(c);
    }
    l.prefilling = true;
    l.sent = l.answered = l.set.keys; /* as if all were done: nothing was sent yet */
    while (!all_open(&l))
        mr_loop_turn(&l.loop, 1000);
    if (!l.set.filled)
        run(&l, true);
    if (!l.set.prefill_only)
        run(&l, false);
    if (!l.set.quiet)
        tell(&l);
    if (l.set.json != NULL) {
        json_t *all = report(&l);
        status = json_dump_file(all, l.set.json, JSON_COMPACT) == 0 ? 0 : 1;
        json_decref(all);
        if (status != 0)
            (void)fprintf(stderr, "millrace-load: cannot write %s\n", l.set.json);
    }
    return status;
}
