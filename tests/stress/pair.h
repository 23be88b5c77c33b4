/*
 * pair.h - a stream with its owner at one end of a real socket, and a scripted peer at the other.
 *
 * A pair knows what its owner has to see, whichever engine serves it. What is not certain, such as
 * how much of its input a stream got before it was closed, is left open: the pair is `doomed`.
 */
#pragma once

#include "net/loop.h"
#include "net/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAIRS     10
#define NEVER     SIZE_MAX
#define STRICT    8192u /* what has been sent just before a reset still arrives, up to here */
#define OPEN_ROOM 4096u

enum pair_kind { PAIR_UNIX, PAIR_ACCEPTED, PAIR_CONNECTED, PAIR_REFUSED, PAIR_KINDS };

/** What the owner does in on_data once it has consumed so many bytes, or in on_eof. */
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

/** How the peer's sending ends, once all of it is in the socket. */
enum ending { GOES_ON, ENDS_INPUT, CLOSES, RESETS };

struct owner {
    struct mr_stream stream;
    struct pair *pair;
    bool calling; /* a call of the owner's is under way: no callback may come */
};

struct pair {
    struct world *world;
    unsigned id;
    enum pair_kind kind;
    struct owner *owner; /* NULL before the stream is opened and after on_close */
    int peer;            /* -1 once closed */
    uint32_t turn;       /* in which it has started, among all */
    bool alive;          /* in use */

    /* from the peer to the owner */
    size_t queued, sent, consumed; /* bytes: to be sent, in the socket, used up by the owner */
    size_t want;                   /* of the delivery that is waited for; 0: any */
    size_t deed_at;                /* consumed bytes at which `deed` is done */
    enum deed deed, at_eof;
    unsigned other; /* the pair that the deed is about */
    enum ending ending;
    bool ended; /* the ending has been played */

    /* from the owner to the peer */
    size_t written, got;
    bool peer_reads, peer_saw_eof;

    /* what the owner has asked for */
    bool paused, resting, corked, finished, closed, awaits_room;
    int error; /* of the close */

    /* what it must see and has seen */
    bool doomed;     /* how far either direction comes is open */
    bool input_open; /* how far the input comes is open */
    bool must_close; /* on_close is certain, whatever is done */
    unsigned opens, eofs, closes;
    int seen_error;
};

struct world {
    struct mr_loop loop;
    struct pair pairs[PAIRS];
    struct mr_watch watch; /* readable when a peer can go on */
    uint32_t turns;        /* pairs started */
    uint32_t streams;      /* owners that are alive, those included that a pair has left behind */
};

/** Ends the run: prints what is wrong with the pair (NULL: with none). */
void wrong(const struct pair *p, const char *what) __attribute__((noreturn));

/** Starts a pair; `port` is the listener's for the kinds that need one. */
void pair_start(struct pair *p, enum pair_kind kind, uint16_t port, bool small_buffers);

/** Its peer has connected, and the loop has not accepted it. */
bool pair_is_unaccepted(const struct pair *p);

/** The loop has accepted this socket for a pair of the kind PAIR_ACCEPTED. */
void pair_accepted(struct pair *p, int fd);

/* What the owner does; nothing once the stream is gone. */
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

/** A resting stream goes on as another one, as in another process. */
void pair_move(struct pair *p);

/** Arms a deed `after` more bytes than have been queued so far. */
void pair_arm(struct pair *p, enum deed deed, size_t after, unsigned other);

/** The owner finishes, now or in a deed: writing would be a matter of time. */
bool pair_will_finish(const struct pair *p);

/** How the peer ends: in order after what it has queued, or at once (RESETS). */
void pair_end(struct pair *p, enum ending ending);

/** The peer sends and reads what it can. True when it did anything. */
bool pair_pump(struct pair *p);

/** What has to come and has not; NULL when the pair has seen all that it must. */
const char *pair_missing(struct pair *p);

/** Whether two engines have shown the owner the same, as far as it was certain. */
bool pair_same(const struct pair *a, const struct pair *b);

/** The pair and what it has come to. */
void pair_describe(const struct pair *p, char *text, size_t size);
