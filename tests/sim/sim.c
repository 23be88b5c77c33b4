/* sim.c - randomness, the virtual clock, the trace, and running one seed after the other. */
#include "sim.h"

#include "core/log.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define START_US      UINT64_C(1000000000) /* monotonic time at the start of each run */
#define WALL_US       UINT64_C(1700000000000000)
#define TRACE_LINES   400u
#define TRACE_BYTES   200u
#define STEPS_MAX     UINT64_C(3000000)
#define HANG_SECONDS  60u /* of real time per run */
#define TRACE_SETTING "SIM_TRACE"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

uint64_t sim_now_us;
bool sim_tracing;

struct block {
    struct block *next;
};

static struct {
    const char *program;
    uint64_t seed;
    uint64_t random;
    uint64_t steps, steps_before;
    uint64_t order;
    struct sim_event **heap;
    size_t n_events, heap_size;
    struct block *blocks;
    char trace[TRACE_LINES][TRACE_BYTES];
    uint64_t n_lines;
    bool live; /* print the trace live */
    bool ending;
} run;

/* ---- randomness ---- */

uint64_t sim_rand(void) /* splitmix64 */
{
    uint64_t z = (run.random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t sim_below(uint32_t n)
{
    return n == 0 ? 0 : (uint32_t)((sim_rand() >> 32) * n >> 32);
}

uint32_t sim_between(uint32_t lo, uint32_t hi)
{
    return hi <= lo ? lo : lo + sim_below(hi - lo + 1);
}

bool sim_once_in(uint32_t n)
{
    return n > 0 && sim_below(n) == 0;
}

uint32_t sim_magnitude(uint32_t lo, uint32_t hi)
{
    uint32_t top = lo;

    while (top < hi / 2 && sim_below(3) != 0)
        top = top * 2 + 1;
    return sim_between(lo, top < hi ? top : hi);
}

/* ---- time: a heap of events ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void put(size_t i, struct sim_event *e)
{
    run.heap[i] = e;
    e->place = i + 1;
}

static void sift(size_t i, struct sim_event *e)
{
    size_t child;

    while (i > 0 && before(e, run.heap[(i - 1) / 2])) {
        put(i, run.heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    while ((child = 2 * i + 1) < run.n_events) {
        if (child + 1 < run.n_events && before(run.heap[child + 1], run.heap[child]))
            child++;
        if (!before(run.heap[child], e))
            break;
        put(i, run.heap[child]);
        i = child;
    }
    put(i, e);
}

void sim_event_cancel(struct sim_event *e)
{
    if (e->place == 0)
        return;
    const size_t i = e->place - 1;
    struct sim_event *last = run.heap[--run.n_events];
    e->place = 0;
    if (last != e)
        sift(i, last);
}

void sim_event_set(struct sim_event *e, uint64_t delay_us, void (*fire)(void *arg), void *arg)
{
    sim_event_cancel(e);
    if (run.n_events == run.heap_size) {
        run.heap_size = run.heap_size * 2 + 64;
        run.heap = realloc(run.heap, run.heap_size * sizeof(struct sim_event *));
        MR_CHECK(run.heap != NULL);
    }
    e->at_us = sim_now_us + delay_us;
    e->order = run.order++;
    e->fire = fire;
    e->arg = arg;
    run.n_events++;
    sift(run.n_events - 1, e);
}

uint64_t sim_next_event_us(void)
{
    return run.n_events == 0 ? UINT64_MAX : run.heap[0]->at_us;
}

bool sim_fire_event(void)
{
    if (run.n_events == 0 || run.heap[0]->at_us > sim_now_us)
        return false;
    struct sim_event *e = run.heap[0];
    sim_event_cancel(e);
    e->fire(e->arg);
    return true;
}

uint64_t __wrap_mr_clock_mono_us(void)
{
    return sim_now_us;
}

uint64_t __wrap_mr_clock_wall_us(void)
{
    return WALL_US + sim_now_us;
}

/* ---- memory ---- */

void *sim_alloc(size_t bytes)
{
    struct block *b = calloc(1, sizeof(*b) + bytes);

    MR_CHECK(b != NULL);
    b->next = run.blocks;
    run.blocks = b;
    return b + 1;
}

char *sim_text(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = sim_alloc((size_t)n + 1);
    va_start(args, fmt);
    (void)vsnprintf(text, (size_t)n + 1, fmt, args);
    va_end(args);
    return text;
}

/* ---- the trace ---- */

static void add_line(const char *fmt, va_list args)
{
    char *line = run.trace[run.n_lines++ % TRACE_LINES];
    const int n = snprintf(line, TRACE_BYTES, "%12.6f ", (double)(sim_now_us - START_US) / 1e6);

    (void)vsnprintf(line + n, TRACE_BYTES - (size_t)n, fmt, args);
    if (run.live)
        (void)fprintf(stderr, "%s\n", line);
}

void sim_trace(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add_line(fmt, args);
    va_end(args);
}

static void print_trace(void)
{
    const uint64_t n = run.n_lines < TRACE_LINES ? run.n_lines : TRACE_LINES;

    for (uint64_t i = run.n_lines - n; i < run.n_lines && !run.live; i++)
        (void)fprintf(stderr, "%s\n", run.trace[i % TRACE_LINES]);
}

/* Runs the seed again with tracing, or prints the trace; nearly async-signal-safe. */
static void tell(void)
{
    char number[24];

    if (run.ending)
        return;
    run.ending = true;
    if (sim_tracing) {
        print_trace();
        return;
    }
    (void)snprintf(number, sizeof(number), "%" PRIu64, run.seed);
    (void)fprintf(stderr, "found: seed %s after %" PRIu64 " steps; repeat with: %s 0 %s\n", number,
                  run.steps, run.program, number);
    (void)fflush(NULL);
    (void)setenv(TRACE_SETTING, "1", 1);
    (void)execl("/proc/self/exe", run.program, "0", number, (char *)NULL);
}

_Noreturn void sim_fail(const char *fmt, ...)
{
    va_list args;

    tell();
    (void)fputs("FAILED: ", stderr);
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fprintf(stderr, "\nrepeat with: %s 0 %" PRIu64 "\n", run.program, run.seed);
    _exit(1);
}

static void on_signal(int signo)
{
    sim_fail(signo == SIGALRM ? "the run does not end" : "%s", strsignal(signo));
}

void __wrap_mr_log_line(enum mr_log_level level, const char *fmt, ...) MR_PRINTF(2, 3);
void __wrap_mr_log_line(enum mr_log_level level, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)level;
    if (sim_tracing)
        add_line(fmt, args);
    va_end(args);
}

bool __wrap_mr_log_allowed(struct mr_log_site *site)
{
    (void)site;
    return sim_tracing;
}

/* ---- the runs ---- */

void sim_step(void)
{
    if (++run.steps - run.steps_before > STEPS_MAX)
        sim_fail("no rest after %" PRIu64 " steps", STEPS_MAX);
}

static void end_run(void)
{
    while (run.n_events > 0)
        sim_event_cancel(run.heap[0]);
    while (run.blocks != NULL) {
        struct block *b = run.blocks;
        run.blocks = b->next;
        free(b);
    }
}

static void play(uint64_t seed, void (*body)(void))
{
    run.seed = run.random = seed;
    run.steps_before = run.steps;
    run.n_lines = 0;
    run.order = 0;
    sim_now_us = START_US;
    (void)alarm(HANG_SECONDS);
    body();
    end_run();
}

static double seconds_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Seeds of past findings, one per line; the rest of a line is a comment. */
static uint64_t play_file(const char *path, void (*body)(void))
{
    char line[256];
    uint64_t n = 0;
    FILE *f = fopen(path, "r");

    MR_CHECK(f != NULL);
    for (; fgets(line, sizeof(line), f) != NULL; n++)
        if (line[0] >= '0' && line[0] <= '9')
            play(strtoull(line, NULL, 10), body);
        else
            n--;
    (void)fclose(f);
    return n;
}

static void set_up(const char *program)
{
    const char *trace = getenv(TRACE_SETTING);

    run.program = program;
    sim_tracing = trace != NULL;
    run.live = trace != NULL && strcmp(trace, "live") == 0;
    mr_log_set_level(sim_tracing ? MR_LOG_DEBUG : MR_LOG_CRIT);
    (void)signal(SIGABRT, on_signal);
    (void)signal(SIGALRM, on_signal);
#ifdef WITH_ASAN
    __sanitizer_set_death_callback(tell);
#else
    (void)signal(SIGSEGV, on_signal);
#endif
}

int sim_main(int argc, char **argv, void (*body)(void))
{
    const double start = seconds_now();
    uint64_t runs = 0;

    set_up(argv[0]);
    if (argc > 2 && strcmp(argv[1], "--seeds") == 0) {
        runs = play_file(argv[2], body);
        argv += 2;
        argc -= 2;
    }
    const double seconds = argc > 1 ? strtod(argv[1], NULL) : runs > 0 ? -1 : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) * 1000000u;
    const uint64_t first = seed;
    for (; seconds >= 0; seed++) {
        play(seed, body);
        runs++;
        if (seconds_now() - start >= seconds) /* 0: only this seed */
            break;
    }
    const double took = seconds_now() - start;
    (void)printf("%s: %" PRIu64 " runs, %" PRIu64 " steps, seeds %" PRIu64 " to %" PRIu64
                 ", %.0f runs/s, nothing found\n",
                 argv[0], runs, run.steps, first, seed, (double)runs / took);
    free(run.heap);
    return 0;
}
