/* stats_port.c - twemproxy's statistics port. */
#include "admin/stats_port.h"

#include "admin/guests.h"
#include "admin/json.h"
#include "net/listener.h"
#include "net/stream.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HELD_MAX  (256u << 20) /* bytes of documents, for all readers */
#define READER_MS 10000u       /* for a reader to receive its document */

struct port {
    struct mr_acceptor acceptor;
    struct mr_loop *loop;
    const struct mr_runtime *runtime;
    struct mr_guests guests;
    uint32_t n_readers; /* guests, and streams not reaped yet */
    bool detached;      /* freed with the last reader */
};

struct reader {
    struct mr_stream stream;
    struct mr_guest guest;
    struct port *port;
};

static void free_if_over(struct port *p)
{
    if (p->detached && p->n_readers == 0)
        free(p);
}

static size_t on_data(struct mr_stream *s, const char *bytes, size_t len)
{
    (void)s;
    (void)bytes;
    return len; /* input is ignored */
}

static void on_eof(struct mr_stream *s)
{
    mr_stream_finish(s);
}

static void on_close(struct mr_stream *s, int error)
{
    struct reader *r = MR_CONTAINER_OF(s, struct reader, stream);
    struct port *p = r->port;

    (void)error;
    mr_guest_leave(&r->guest);
    free(r);
    p->n_readers--;
    free_if_over(p);
}

static const struct mr_stream_ops OPS = {
    .on_data = on_data, .on_eof = on_eof, .on_close = on_close};

static void dismiss(struct mr_guest *guest)
{
    mr_stream_close(&MR_CONTAINER_OF(guest, struct reader, guest)->stream, ETIMEDOUT);
}

static void on_accept(struct mr_acceptor *a, int fd)
{
    struct port *p = MR_CONTAINER_OF(a, struct port, acceptor);

    if (mr_guests_full(&p->guests)) { /* only with guests of this very turn */
        (void)close(fd);
        return;
    }
    struct reader *r = calloc(1, sizeof(*r));

    MR_CHECK(r != NULL);
    mr_stream_open(&r->stream, p->loop, &OPS, fd);
    r->port = p;
    p->n_readers++;
    mr_guests_enter(&p->guests, &r->guest);
    char *text = mr_stats_json(p->runtime);
    mr_guest_holds(&r->guest, strlen(text));
    mr_stream_write(&r->stream, text, strlen(text));
    free(text);
    mr_stream_finish(&r->stream);
}

void *mr_stats_port_attach(struct mr_loop *loop, const struct mr_runtime *runtime)
{
    struct port *p = calloc(1, sizeof(*p));

    MR_CHECK(p != NULL);
    p->loop = loop;
    p->runtime = runtime;
    p->guests = (struct mr_guests){.most = runtime->port_connections,
                                   .max_bytes = HELD_MAX,
                                   .limit_ms = READER_MS,
                                   .dismiss = dismiss};
    mr_guests_init(&p->guests, loop);
    mr_acceptor_start(&p->acceptor, loop, runtime->port_fds[0], false, true, on_accept);
    return p;
}

void mr_stats_port_detach(void *port)
{
    struct port *p = port;

    mr_acceptor_stop(&p->acceptor);
    p->detached = true;
    mr_guests_dismiss_all(&p->guests);
    free_if_over(p);
}
