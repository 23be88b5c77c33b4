/*
 * stress_stream.c - the stream contract on every engine, over real sockets, by random scripts.
 *
 * A seed makes one script, which runs on each engine: streams are written to, paused, closed,
 * finished and moved, while their peers send, stall, half-close and reset. Each pair knows what its
 * owner must see. Between bursts everything certain must arrive, and at the end all engines must
 * have shown their owners the same.
 */
#include "core/check.h"
#include "core/clock.h"
#include "net/engine.h"
#include "net/listener.h"
#include "stress/pair.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS       250
#define SEEN_MAX    (STEPS + PAIRS)
#define DEADLINE_MS 10000 /* without any progress; some of TCP's own timers take a while */

#ifdef MR_WITH_URING
extern const struct mr_engine SMALL_URING;
#endif

enum op {
    START,
    QUEUE,
    QUEUE_MUCH,
    QUEUE_ALL,
    PUMP,
    END_INPUT,
    PEER_CLOSES,
    PEER_RESETS,
    PEER_HALTS,
    PEER_READS,
    WRITE,
    WRITE_MUCH,
    PAUSE,
    RESUME,
    CORK,
    UNCORK,
    CLOSE,
    FINISH,
    REST,
    WAKE,
    MOVE,
    AWAIT_ROOM,
    WANT,
    ARM,
    REWATCH,
    SPARE,
    TURN,
    SETTLE,
    OPS
};

static const struct {
    const char *name;
    unsigned weight;
    bool owners; /* the owner does it */
} KINDS[OPS] = {
    [START] = {"start", 12, false},
    [QUEUE] = {"queue", 16, false},
    [QUEUE_MUCH] = {"queue_much", 6, false},
    [QUEUE_ALL] = {"queue_all", 6, false},
    [PUMP] = {"pump", 8, false},
    [END_INPUT] = {"end_input", 3, false},
    [PEER_CLOSES] = {"peer_closes", 4, false},
    [PEER_RESETS] = {"peer_resets", 3, false},
    [PEER_HALTS] = {"peer_halts", 6, false},
    [PEER_READS] = {"peer_reads", 8, false},
    [WRITE] = {"write", 14, true},
    [WRITE_MUCH] = {"write_much", 6, true},
    [PAUSE] = {"pause", 10, true},
    [RESUME] = {"resume", 12, true},
    [CORK] = {"cork", 3, true},
    [UNCORK] = {"uncork", 5, true},
    [CLOSE] = {"close", 3, true},
    [FINISH] = {"finish", 3, true},
    [REST] = {"rest", 8, true},
    [WAKE] = {"wake", 6, true},
    [MOVE] = {"move", 6, true},
    [AWAIT_ROOM] = {"await_room", 4, true},
    [WANT] = {"want", 4, true},
    [ARM] = {"arm", 8, false},
    [REWATCH] = {"rewatch", 4, false},
    [SPARE] = {"spare", 2, false},
    [TURN] = {"turn", 50, false},
    [SETTLE] = {"settle", 20, false},
};

struct step {
    enum op op;
    unsigned pair, arg;
    size_t amount;
};

struct play {
    const char *name;
    const struct mr_engine *engine; /* NULL: the loop's engine of this name */
    struct pair seen[SEEN_MAX];     /* outcome of each pair, in order */
    unsigned n_seen;
};

static struct step script[STEPS];
static struct world world;
static struct mr_acceptor acceptor;
static int peers = -1; /* an epoll of all peers */
static int listener = -1;
static struct play *playing;
static unsigned long seed;
static int at_step;
static bool trace;

static void print_pair(const char *name, const struct pair *p)
{
    char text[500];

    pair_describe(p, text, sizeof(text));
    (void)fprintf(stderr, "  %s: %s\n", name, text);
}

void wrong(const struct pair *p, const char *what)
{
    (void)fprintf(stderr, "FAILED: seed %lu, %s, step %d: %s\n", seed, playing->name, at_step,
                  what);
    if (p != NULL)
        print_pair(playing->name, p);
    exit(1);
}

/* ---- the script ---- */

static uint64_t random_state;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static unsigned below(unsigned n)
{
    return (unsigned)(next_random() % n);
}

static enum op random_op(void)
{
    unsigned total = 0, op = 0;

    for (unsigned i = 0; i < OPS; i++)
        total += KINDS[i].weight;
    for (unsigned n = below(total); n >= KINDS[op].weight; op++)
        n -= KINDS[op].weight;
    return (enum op)op;
}

/* Small and large, and around sizes where behaviour changes. */
static size_t random_amount(bool much)
{
    static const size_t EDGES[] = {1, 1024, 4096, 16384, 65536};

    if (much)
        return 1 + below(400000);
    if (below(3) == 0)
        return EDGES[below(MR_COUNT(EDGES))] + below(3);
    return 1 + below(below(2) ? 100 : 20000);
}

static void write_script(void)
{
    unsigned pair = 0;

    random_state = seed;
    for (unsigned i = 0; i < STEPS; i++) {
        const enum op op = i < PAIRS ? START : random_op();
        if (below(2) == 0) /* else more happens to the same one */
            pair = below(PAIRS);
        script[i] = (struct step){.op = op,
                                  .pair = i < PAIRS ? i : pair,
                                  .arg = below(1000),
                                  .amount = random_amount(op == QUEUE_MUCH || op == WRITE_MUCH)};
    }
}

/* ---- the world ---- */

static void on_peers(struct mr_watch *w)
{
    (void)w; /* its only purpose is to end the wait */
}

/* Connections are accepted in the order they were made. */
static void on_accept(struct mr_acceptor *a, int fd)
{
    struct pair *first = NULL;

    (void)a;
    for (struct pair *p = world.pairs; p < world.pairs + PAIRS; p++)
        if (pair_is_unaccepted(p) && (first == NULL || p->turn < first->turn))
            first = p;
    if (first == NULL)
        wrong(NULL, "somebody else has connected");
    pair_accepted(first, fd);
}

static void listen_anywhere(void)
{
    const struct mr_listen_options options = {.backlog = PAIRS};
    struct mr_addr a;
    struct mr_error err;

    MR_CHECK(mr_addr_numeric(&a, mr_slice_of(PEER_HOST), 0));
    MR_CHECK(mr_listen(&listener, &a, &options, &err) == MR_OK);
}

static uint16_t listening_port(void)
{
    struct sockaddr_in in;
    socklen_t len = sizeof(in);

    MR_CHECK(getsockname(listener, (struct sockaddr *)&in, &len) == 0);
    return ntohs(in.sin_port);
}

static void begin_world(void)
{
    struct mr_error err;

    memset(&world, 0, sizeof(world));
    if (mr_loop_init(&world.loop, playing->engine != NULL ? "io_uring" : playing->name, &err) !=
        MR_OK)
        wrong(NULL, err.text);
    if (playing->engine != NULL) {
        world.loop.engine->fini(&world.loop);
        world.loop.engine = playing->engine;
        if (playing->engine->init(&world.loop, &err) != MR_OK)
            wrong(NULL, err.text);
    }
    for (unsigned i = 0; i < PAIRS; i++)
        world.pairs[i] = (struct pair){.world = &world, .id = i, .peer = -1};
    listen_anywhere();
    mr_acceptor_start(&acceptor, &world.loop, listener, false, false, on_accept);
    peers = epoll_create1(EPOLL_CLOEXEC);
    MR_CHECK(peers >= 0);
    world.watch = (struct mr_watch){.on_ready = on_peers, .fd = peers};
    mr_watch_start(&world.loop, &world.watch);
}

static void end_world(void)
{
    mr_watch_stop(&world.loop, &world.watch);
    mr_acceptor_stop(&acceptor);
    (void)close(peers);
    (void)close(listener);
    if (world.loop.slab.used_bytes > 0)
        wrong(NULL, "memory is left over");
    mr_loop_fini(&world.loop);
}

static bool pump_all(void)
{
    bool any = false;

    for (unsigned i = 0; i < PAIRS; i++)
        any |= pair_pump(&world.pairs[i]);
    return any;
}

/* The loop's wait must end when a peer can continue. */
static void listen_to_peers(void)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        const struct pair *p = &world.pairs[i];
        struct epoll_event e = {.events =
                                    (p->peer_reads && !p->peer_saw_eof ? (uint32_t)EPOLLIN : 0) |
                                    (p->sent < p->queued ? (uint32_t)EPOLLOUT : 0)};
        if (p->peer < 0)
            continue;
        (void)epoll_ctl(peers, EPOLL_CTL_DEL, p->peer, NULL);
        if (e.events != 0)
            MR_CHECK(epoll_ctl(peers, EPOLL_CTL_ADD, p->peer, &e) == 0);
    }
}

/* What has to come and has not, and for which pair; NULL when there is nothing. */
static const char *unsettled(const struct pair **pair)
{
    uint32_t owners = 0;

    for (*pair = world.pairs; *pair < world.pairs + PAIRS; (*pair)++) {
        const char *what = pair_missing(&world.pairs[(*pair)->id]);
        if (what != NULL)
            return what;
        owners += (*pair)->owner != NULL;
    }
    *pair = NULL;
    return world.streams > owners ? "on_close has not come for a stream that has moved" : NULL;
}

/* Runs until everything has arrived that must; after a long time without progress, it never will.
 */
static void settle(void)
{
    const struct pair *pair, *last_pair = NULL;
    const char *what, *last = NULL;
    uint64_t since = 0;

    mr_loop_turn(&world.loop, 0); /* does what the script has asked for since the last one */
    for (;;) {
        const bool any = pump_all();
        if ((what = unsettled(&pair)) == NULL)
            break;
        const uint64_t now = mr_clock_mono_us();
        if (any || what != last || pair != last_pair)
            since = now;
        else if (now - since >= DEADLINE_MS * 1000u)
            wrong(pair, what);
        last = what;
        last_pair = pair;
        listen_to_peers();
        mr_loop_turn(&world.loop, any ? 0 : DEADLINE_MS);
    }
    mr_loop_turn(&world.loop, 0); /* nothing more may arrive */
}

/* Nothing delays the pair any more: everything certain arrives, and is recorded. */
static void retire(struct pair *p)
{
    if (!p->alive)
        return;
    p->peer_reads = true;
    pair_wake(p);
    pair_cork(p, false);
    do {
        pair_resume(p);
        pair_present(p);
        settle();
    } while (p->paused && p->owner != NULL); /* by a deed that was still to be done */
    playing->seen[playing->n_seen++] = *p;
    if (p->closes == 0)
        pair_close(p, 0);
    settle();
    if (p->closes != 1)
        wrong(p, "on_close has not come once");
    if (p->peer >= 0)
        (void)close(p->peer);
    p->peer = -1;
    p->alive = false;
}

/* What an owner does must not depend on whether there is one yet. */
static void await_owner(const struct pair *p)
{
    const uint64_t since = mr_clock_mono_us();

    while (pair_is_unaccepted(p)) {
        if (mr_clock_mono_us() - since >= DEADLINE_MS * 1000u)
            wrong(p, "the connection has not been accepted");
        mr_loop_turn(&world.loop, DEADLINE_MS);
    }
}

static void start(struct pair *p, const struct step *step)
{
    static const enum pair_kind START_AS[] = {PAIR_UNIX,      PAIR_UNIX,      PAIR_UNIX,
                                              PAIR_ACCEPTED,  PAIR_ACCEPTED,  PAIR_ACCEPTED,
                                              PAIR_CONNECTED, PAIR_CONNECTED, PAIR_REFUSED};
    static const enum deed AT_EOF[] = {DEED_NOTHING, DEED_CLOSE, DEED_FINISH, DEED_WRITE};

    retire(p);
    pair_start(p, START_AS[step->amount % MR_COUNT(START_AS)], listening_port(),
               step->arg % 2 == 0);
    p->at_eof = AT_EOF[step->arg / 2 % MR_COUNT(AT_EOF)];
}

static void queue(struct pair *p, size_t amount)
{
    if (p->peer < 0 || p->ending != GOES_ON)
        return;
    p->queued += amount;
    (void)pair_pump(p);
}

static void play_step(const struct step *step)
{
    struct pair *p = &world.pairs[step->pair];

    if (KINDS[step->op].owners)
        await_owner(p);
    switch (step->op) {
    case START:
        start(p, step);
        break;
    case QUEUE:
    case QUEUE_MUCH:
        queue(p, step->amount);
        break;
    case QUEUE_ALL: /* more completions at once than a small ring holds */
        for (unsigned i = 0; i < PAIRS; i++)
            queue(&world.pairs[i], step->amount);
        break;
    case PUMP:
        (void)pair_pump(p);
        break;
    case END_INPUT:
        pair_end(p, ENDS_INPUT);
        break;
    case PEER_CLOSES:
        pair_end(p, CLOSES);
        break;
    case PEER_RESETS:
        pair_end(p, RESETS);
        break;
    case PEER_HALTS:
        p->peer_reads = false;
        break;
    case PEER_READS:
        p->peer_reads = true;
        break;
    case WRITE:
    case WRITE_MUCH:
        if (!pair_may_finish(p))
            pair_write(p, step->amount);
        break;
    case PAUSE:
        pair_pause(p);
        break;
    case RESUME:
        pair_resume(p);
        break;
    case CORK:
        pair_cork(p, true);
        break;
    case UNCORK:
        pair_cork(p, false);
        break;
    case CLOSE:
        pair_close(p, ECANCELED);
        break;
    case FINISH:
        if (!pair_may_write(p))
            pair_finish(p);
        break;
    case REST:
        pair_rest(p);
        break;
    case WAKE:
        pair_wake(p);
        break;
    case MOVE:
        pair_move(p);
        break;
    case AWAIT_ROOM:
        pair_await_room(p);
        break;
    case WANT:
        pair_want(p, step->amount);
        break;
    case ARM:
        pair_arm(p, (enum deed)(step->arg % DEEDS), step->amount, step->arg / DEEDS % PAIRS);
        break;
    case REWATCH:
        mr_watch_stop(&world.loop, &world.watch);
        mr_watch_start(&world.loop, &world.watch);
        break;
    case SPARE:
        mr_acceptor_set_sparing(&acceptor, step->arg % 2 == 0);
        break;
    case TURN:
        mr_loop_turn(&world.loop, 0);
        break;
    case SETTLE:
        settle();
        break;
    case OPS:
        break;
    }
}

static unsigned open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    MR_CHECK(d != NULL);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void play(struct play *on)
{
    const unsigned before = open_descriptors();

    playing = on;
    begin_world();
    for (at_step = 0; at_step < STEPS; at_step++) {
        const struct step *step = &script[at_step];
        if (trace)
            (void)fprintf(stderr, "%s %d: %s pair %u amount %zu arg %u\n", on->name, at_step,
                          KINDS[step->op].name, step->pair, step->amount, step->arg);
        play_step(step);
    }
    for (unsigned i = 0; i < PAIRS; i++)
        retire(&world.pairs[i]);
    end_world();
    if (open_descriptors() != before)
        wrong(NULL, "descriptors are left over");
}

/* ---- the runs ---- */

static void compare_plays(const struct play *a, const struct play *b)
{
    MR_CHECK(a->n_seen == b->n_seen);
    for (unsigned i = 0; i < a->n_seen; i++) {
        if (pair_same(&a->seen[i], &b->seen[i]))
            continue;
        (void)fprintf(stderr, "FAILED: seed %lu: the owners saw different things\n", seed);
        print_pair(a->name, &a->seen[i]);
        print_pair(b->name, &b->seen[i]);
        exit(1);
    }
}

static void play_seed(bool with_uring)
{
    static struct play plays[] = {
        {.name = "epoll"},
#ifdef MR_WITH_URING
        {.name = "io_uring"},
        {.name = "io_uring with small rings", .engine = &SMALL_URING},
#endif
    };

    write_script();
    for (unsigned i = 0; i < (with_uring ? MR_COUNT(plays) : 1); i++) {
        play(&plays[i]);
        compare_plays(&plays[0], &plays[i]);
    }
}

/* In a child process, so that a crash has a seed, too. */
static bool goes_well(bool with_uring)
{
    int status = 0;

    const pid_t pid = fork();
    MR_CHECK(pid >= 0);
    if (pid == 0) {
        play_seed(with_uring);
        exit(0);
    }
    MR_CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFSIGNALED(status))
        (void)fprintf(stderr, "FAILED: seed %lu: %s\n", seed, strsignal(WTERMSIG(status)));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool has_uring(void)
{
    struct mr_error err;

    if (mr_loop_choose_engine("io_uring", &err) != NULL)
        return true;
    (void)fprintf(stderr, "epoll only: %s\n", err.text);
    return false;
}

int main(int argc, char **argv)
{
    const unsigned long seconds = argc > 1 ? strtoul(argv[1], NULL, 10) : 5;
    const uint64_t end = mr_clock_mono_us() + seconds * 1000000u;
    const bool with_uring = has_uring();
    const unsigned long first = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;

    trace = seconds == 0;
    (void)signal(SIGPIPE, SIG_IGN);
    seed = first;
    do {
        if (!goes_well(with_uring)) {
            (void)fprintf(stderr, "repeat with: %s 0 %lu\n", argv[0], seed);
            return 1;
        }
        seed++;
    } while (mr_clock_mono_us() < end);
    (void)printf("%lu scripts, seeds %lu to %lu\n", seed - first, first, seed - 1);
    return 0;
}
