/* stats_port.c - twemproxy's statistics port. */
#include "admin/stats_port.h"

#include "admin/json.h"
#include "net/listener.h"
#include "net/stream.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READER_MS 10000u /* for a reader to take its document */

struct port {
    struct mr_acceptor acceptor;
    struct mr_loop *loop;
    const struct mr_runtime *runtime;
    struct mr_list readers;
    uint32_t n_readers;
    bool detached; /* freed with the last reader */
};

struct reader {
    struct mr_stream stream;
    struct mr_list link;
    struct mr_timer timer;
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
    return len; /* nothing that is said here matters */
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
    mr_timer_cancel(&r->timer);
    mr_list_del(&r->link);
    free(r);
    p->n_readers--;
    free_if_over(p);
}

static const struct mr_stream_ops OPS = {
    .on_data = on_data, .on_eof = on_eof, .on_close = on_close};

static void too_slow(struct mr_timer *timer)
{
    mr_stream_close(&MR_CONTAINER_OF(timer, struct reader, timer)->stream, ETIMEDOUT);
}

static void on_accept(struct mr_acceptor *a, int fd)
{
    struct port *p = MR_CONTAINER_OF(a, struct port, acceptor);

    if (p->n_readers >= p->runtime->port_connections) {
        (void)close(fd);
        return;
    }
    struct reader *r = calloc(1, sizeof(*r));
    MR_CHECK(r != NULL);
    mr_stream_open(&r->stream, p->loop, &OPS, fd);
    r->port = p;
    r->timer.fire = too_slow;
    mr_list_append(&p->readers, &r->link);
    p->n_readers++;
    mr_loop_timer(p->loop, &r->timer, READER_MS);
    char *text = mr_stats_json(p->runtime);
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
    mr_list_init(&p->readers);
    mr_acceptor_start(&p->acceptor, loop, runtime->port_fds[0], false, true, on_accept);
    return p;
}

void mr_stats_port_detach(void *port)
{
    struct port *p = port;

    mr_acceptor_stop(&p->acceptor);
    p->detached = true;
    for (struct mr_list *link = p->readers.next; link != &p->readers; link = link->next)
        mr_stream_close(&MR_CONTAINER_OF(link, struct reader, link)->stream, 0);
    free_if_over(p);
}
