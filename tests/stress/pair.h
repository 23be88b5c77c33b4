/*
 * pair.h - a stream and its owner at one end of a real socket, and a scripted peer at the other.
 *
 * A pair knows what its owner must see, whatever the engine. If that is uncertain, such as how much
 * input arrived before a close, the pair is `doomed`.
 */
#pragma once

#include "net/loop.h"
#include "net/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAIRS     10
#define NEVER     SIZE_MAX
#define PEER_HOST "127.83.0.1" /* no other program connects to it by mistake */
#define STRICT    8192u        /* up to this size, data sent just before a reset still arrives */
#define OPEN_ROOM 4096u

enum pair_kind { PAIR_UNIX, PAIR_ACCEPTED, PAIR_CONNECTED, PAIR_REFUSED, PAIR_KINDS };

/** What the owner does in on_data after a number of bytes, or in on_eof. */
enum deed {
    DEED_NOTHING,
    DEED_PAUSE,
    DEED_WRITE,
    DEED_CLOSE_OTHER,
    DEED_CLOSE,
    DEED_FINISH,
    DEED_REWATCH,
    DEEDS
};

/** What the peer does once it has sent everything. */
enum ending { GOES_ON, ENDS_INPUT, CLOSES, RESETS };

struct owner {
    struct mr_stream stream;
    struct pair *pair;
    bool calling; /* during a call of the owner: no callback may run */
};

struct pair {
    struct world *world;
    unsigned id;
    enum pair_kind kind;
    struct owner *owner; /* NULL before opening and after on_close */
    int peer;            /* -1 once closed */
    uint32_t turn;       /* number of its start, among all pairs */
    bool alive;          /* in use */

    /* from the peer to the owner */
    size_t queued, sent, consumed; /* bytes to send, in the socket, and consumed by the owner */
    size_t want;                   /* bytes of the expected delivery; 0: any */
    size_t deed_at;                /* `deed` is done at this many consumed bytes */
    bool armed;                    /* `deed` was set; a pair gets one, whenever it is done */
    enum deed deed, at_eof;
    bool at_eof_done; /* a stream that has moved may report the end of input again */
    unsigned other;   /* the pair that the deed affects */
    enum ending ending;
    bool ended; /* the peer's ending was played */

    /* from the owner to the peer */
    size_t written, got;
    bool peer_reads, peer_saw_eof;

    /* requested by the owner */
    bool paused, resting, corked, finished, closed, awaits_room;
    int error; /* of the close */

    /* what it must see, and has seen */
    bool doomed;     /* progress in both directions is uncertain */
    bool input_open; /* progress of the input is uncertain */
    bool must_close; /* on_close must come, whatever happens */
    unsigned opens, eofs, closes;
    int seen_error;
};

struct world {
    struct mr_loop loop;
    struct pair pairs[PAIRS];
    struct mr_watch watch; /* readable when a peer can continue */
    uint32_t turns;        /* pairs started */
    uint32_t streams;      /* owners alive, including those left behind by their pairs */
};

/** Ends the run and prints what is wrong with the pair (NULL: none in particular). */
void wrong(const struct pair *p, const char *what) __attribute__((noreturn));

/** Starts a pair. `port` is the listener's, for kinds that need one. */
void pair_start(struct pair *p, enum pair_kind kind, uint16_t port, bool small_buffers);

/** Its peer has connected, but the loop has not accepted it. */
bool pair_is_unaccepted(const struct pair *p);

/** The loop accepted this socket for a PAIR_ACCEPTED pair. */
void pair_accepted(struct pair *p, int fd);

/* Actions of the owner; no effect once the stream is gone. */
void pair_write(struct pair *p, size_t bytes);
void pair_pause(struct pair *p);
void pair_resume(struct pair *p);
void pair_cork(struct pair *p, bool on);
void pair_close(struct pair *p, int error);
void pair_finish(struct pair *p);
void pair_rest(struct pair *p);
void pair_wake(struct pair *p);
void pair_await_room(struct pair *p);
void pair_want(struct pair *p, size_t total);
void pair_present(struct pair *p);

/** A resting stream continues as a new one, as in another process. */
void pair_move(struct pair *p);

/** Arms a deed for `after` bytes beyond those queued so far, unless one was armed before. */
void pair_arm(struct pair *p, enum deed deed, size_t after, unsigned other);

/** The owner finishes, now or in a deed, so whether a write succeeds depends on timing. */
bool pair_may_finish(const struct pair *p);

/** The owner may still write in a deed; whether that precedes a finish depends on timing. */
bool pair_may_write(const struct pair *p);

/** How the peer ends: after everything it has queued, or at once (RESETS). */
void pair_end(struct pair *p, enum ending ending);

/** Lets the peer send and read what it can. True if it did anything. */
bool pair_pump(struct pair *p);

/** What is missing; NULL if the pair has seen everything it must. */
const char *pair_missing(struct pair *p);

/** Whether two engines showed the owner the same, as far as it is certain. */
bool pair_same(const struct pair *a, const struct pair *b);

/** Describes the pair and its state. */
void pair_describe(const struct pair *p, char *text, size_t size);
