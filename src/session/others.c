/* others.c - lets clients see and end other clients of their pool in this process. */
#include "session/others.h"

#include "net/addr.h"
#include "session/client.h"
#include "session/pin.h"

#include <stddef.h>
#include <stdio.h>

static struct mr_client *client_of(const struct mr_session *session)
{
    return MR_CONTAINER_OF(session, struct mr_client, session);
}

static const struct mr_session *next_client(const struct mr_proto_facts *facts,
                                            const struct mr_session *session)
{
    const struct mr_service *service = MR_CONTAINER_OF(facts, struct mr_service, facts);
    const struct mr_list *link =
        session == NULL ? service->clients.next : client_of(session)->link.next;

    for (; link != &service->clients; link = link->next) {
        const struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        if (!mr_stream_is_closed(&client->stream))
            return &client->session;
    }
    return NULL;
}

static void put_address(char text[128], int fd, bool peer)
{
    struct mr_addr addr;

    mr_addr_of_socket(&addr, fd, peer);
    const bool has_port = addr.sa.any.sa_family != AF_UNIX && addr.len > 0;
    (void)snprintf(text, 128, "%.120s%s", addr.text, has_port ? "" : ":0");
}

static void describe_client(const struct mr_session *session, struct mr_client_facts *facts)
{
    struct mr_client *client = client_of(session);
    const struct mr_pin *pin = client->pin;

    *facts = (struct mr_client_facts){
        .fd = client->stream.fd,
        .age_s = (client->service->loop->now_us - client->since_us) / 1000000u,
        .idle_s = mr_stream_idle_ms(&client->stream) / 1000u,
        .input_bytes = mr_buf_len(&client->stream.in),
        .output_bytes = mr_stream_pending(&client->stream) + client->held_bytes,
        .queued = pin != NULL && pin->open ? (int64_t)pin->n_queued - 1 : -1,
        .blocked = mr_pin_blocks(client)};
    put_address(facts->peer, facts->fd, true);
    put_address(facts->local, facts->fd, false);
}

static void end_client(const struct mr_session *session, bool after_reply)
{
    struct mr_client *client = client_of(session);

    client->quit = true;
    if (after_reply)
        client->closing = true;
    else
        mr_client_cut(client, 0);
}

static bool unblock_client(const struct mr_session *session, bool timed_out)
{
    return mr_pin_end_block(client_of(session), timed_out);
}

void mr_others_init(struct mr_proto_facts *facts)
{
    facts->next_client = next_client;
    facts->describe_client = describe_client;
    facts->end_client = end_client;
    facts->unblock_client = unblock_client;
}
