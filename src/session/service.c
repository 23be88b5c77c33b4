/* service.c - a pool as its clients see it: accepting, limits, draining. */
#include "session/service.h"

#include "core/log.h"
#include "session/balance.h"
#include "session/client.h"
#include "session/inquiry.h"
#include "session/mirror.h"
#include "session/others.h"
#include "session/pin.h"
#include "session/relay.h"
#include "session/subscribe.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define UNBLOCK_MS    50u   /* interval between attempts to unblock clients */
#define UNFINISHED_MS 2000u /* time for a draining client to complete half a request */

static uint64_t pool_clients(const struct mr_service *service)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < service->n_metrics; i++)
        n += service->all_metrics[i].pools[service->index].client_connections;
    return n;
}

/* Iterates over the pool's counters, summed over all workers. */
static bool next_fact(const struct mr_proto_facts *facts, uint32_t *index, const char **name,
                      uint64_t *value)
{
    const struct mr_service *service = MR_CONTAINER_OF(facts, struct mr_service, facts);
    const uint32_t i = (*index)++;

    if (i >= MR_POOL_METRIC_COUNT)
        return false;
    *name = MR_POOL_METRICS[i].name;
    *value = 0;
    for (uint32_t w = 0; w < service->n_metrics; w++)
        *value += ((const uint64_t *)&service->all_metrics[w].pools[service->index])[i];
    return true;
}

/* All unknown names count as one. */
static uint64_t *login_entry(const struct mr_service *service, const struct mr_session *session,
                             struct mr_slice name)
{
    const struct mr_client *client = MR_CONTAINER_OF(session, struct mr_client, session);
    const struct mr_users *users = service->config->options.users;
    const bool known = users != NULL && mr_user_find(users, name) != NULL;

    return mr_logins_entry(service->logins, client->stream.fd, known ? name : mr_slice_of(""));
}

static bool may_log_in(const struct mr_proto_facts *facts, const struct mr_session *session,
                       struct mr_slice name)
{
    const struct mr_service *service = MR_CONTAINER_OF(facts, struct mr_service, facts);

    return service->logins == NULL ||
           mr_logins_allow(login_entry(service, session, name), service->loop->now_us);
}

static void login_failed(const struct mr_proto_facts *facts, const struct mr_session *session,
                         struct mr_slice name)
{
    const struct mr_service *service = MR_CONTAINER_OF(facts, struct mr_service, facts);

    service->pool.metrics->auth_failures++;
    mr_log_limited(MR_LOG_DEBUG, "login_failed pool=%s", service->config->name);
    if (service->logins != NULL)
        mr_logins_failed(login_entry(service, session, name), service->loop->now_us);
}

static enum mr_lane_state lane_fact(const struct mr_proto_facts *facts, uint8_t lane)
{
    /* const for protocols only: asking may connect */
    struct mr_service *service = MR_CONTAINER_OF(facts, struct mr_service, facts);

    return mr_pool_lane_state(&service->pool, lane);
}

static enum mr_lane_state any_lane_fact(const struct mr_proto_facts *facts, uint8_t lane)
{
    struct mr_service *service = MR_CONTAINER_OF(facts, struct mr_service, facts);

    return mr_pool_any_lane_state(&service->pool, lane);
}

static void on_lane_known(struct mr_pool *pool)
{
    struct mr_service *service = MR_CONTAINER_OF(pool, struct mr_service, pool);
    struct mr_list *link, *next;

    for (link = service->clients.next; link != &service->clients; link = next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        next = link->next;
        if (client->barred & MR_PAUSE_LANE) {
            client->barred &= ~(unsigned)MR_PAUSE_LANE;
            mr_client_reconsider(client);
        }
    }
}

static bool over_limit(const struct mr_service *service)
{
    const uint32_t limit = service->config->client_connections;

    return (limit > 0 && pool_clients(service) >= limit) || mr_budget_full(service->budget);
}

/* Replies with the error for too many clients and closes. */
static void tell(const struct mr_service *service, int fd)
{
    const char *text = service->config->protocol->client.too_many_clients;

    if (text[0] != '\0')
        (void)send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)close(fd);
}

static void refuse(struct mr_service *service, int fd)
{
    tell(service, fd);
    mr_log_limited(MR_LOG_WARN, "client_refused pool=%s reason=limit clients=%llu",
                   service->config->name, (unsigned long long)pool_clients(service));
}

void mr_service_admit(struct mr_service *service, int fd)
{
    if (over_limit(service))
        refuse(service, fd);
    else if (mr_proto_is_relayed(service->config->protocol))
        mr_relay_open(service, fd);
    else
        mr_client_open(service, fd);
}

void mr_service_adopt(struct mr_service *service, int fd, const struct mr_session *session,
                      const struct mr_pin_luggage *luggage, uint64_t wrote_ago_us,
                      struct mr_slice in, struct mr_slice out)
{
    if (!mr_budget_full(service->budget)) {
        mr_client_adopt(service, fd, session, luggage, wrote_ago_us, in, out);
        return;
    }
    if (out.len > 0)
        (void)close(fd); /* an error would end up inside a reply */
    else
        tell(service, fd);
    service->pool.metrics->client_err++;
    mr_log_limited(MR_LOG_WARN,
                   "client_refused pool=%s reason=descriptors clients=%u handed_over=1",
                   service->config->name, service->budget->n);
    free(session->labels);
}

static void on_accept(struct mr_acceptor *a, int fd)
{
    struct mr_service *service = MR_CONTAINER_OF(a, struct mr_door, acceptor)->service;

    const bool stays = service->held || service->draining; /* the other workers may stop first */

    if (!stays && service->balance != NULL && mr_balance_pass(service->balance, service, fd))
        return;
    mr_service_admit(service, fd);
}

static void check_idle(struct mr_timer *timer)
{
    struct mr_service *service = MR_CONTAINER_OF(timer, struct mr_service, idle_timer);
    const uint32_t limit = service->config->client_idle_timeout_ms;
    struct mr_list *link, *next;

    /* a held service does not read, so it cannot tell who is idle */
    for (link = service->clients.next; link != &service->clients && !service->held; link = next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        next = link->next;
        if (client->head == NULL && !(client->pauses & MR_PAUSE_HELD) &&
            client->session.n_topics == 0 && mr_client_is_idle(client, limit))
            mr_client_finish(client);
    }
    mr_relays_cut_idle(service, limit);
    mr_loop_timer(service->loop, timer, limit / 4 + 1);
}

static void start_accepting(struct mr_service *service)
{
    const struct mr_listens *listens = &service->config->listens;

    service->accepting = true;
    for (uint32_t i = 0; i < listens->n; i++) {
        const bool is_unix = listens->at[i].addr.sa.any.sa_family == AF_UNIX;
        service->doors[i].service = service;
        if (service->listen_fds[i] >= 0)
            mr_acceptor_start(&service->doors[i].acceptor, service->loop, service->listen_fds[i],
                              is_unix ? service->shared_unix : service->shared_tcp,
                              service->budget->sparing, on_accept);
    }
}

static void stop_accepting(struct mr_service *service)
{
    service->accepting = false;
    for (uint32_t i = 0; i < service->config->listens.n; i++)
        mr_acceptor_stop(&service->doors[i].acceptor);
}

/* Accepts what was announced: of all processes waiting on a socket, the kernel woke only us. */
static void drain_doors(struct mr_service *service)
{
    service->accepting = false;
    for (uint32_t i = 0; i < service->config->listens.n; i++)
        mr_acceptor_drain(&service->doors[i].acceptor);
}

/* Ends blocking commands, repeating it until none is left. */
static void unblock(struct mr_service *service)
{
    bool any = false;

    for (struct mr_list *link = service->clients.next; link != &service->clients;
         link = link->next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        if (service->held)
            mr_pin_loosen(client);
        else
            mr_pin_unblock(client);
        any |= client->pin != NULL && client->pin->blocked;
    }
    if (any || service->draining) /* while draining, input at hand may block, too */
        mr_loop_timer(service->loop, &service->unblock_timer, UNBLOCK_MS);
}

static void on_unblock_timer(struct mr_timer *timer)
{
    struct mr_service *service = MR_CONTAINER_OF(timer, struct mr_service, unblock_timer);

    if (service->held || service->draining)
        unblock(service);
}

void mr_service_init(struct mr_service *service, const struct mr_service_setup *setup)
{
    *service = (struct mr_service){.loop = setup->pool.loop,
                                   .config = setup->pool.config,
                                   .budget = setup->budget,
                                   .all_metrics = setup->all_metrics,
                                   .n_metrics = setup->n_metrics,
                                   .index = setup->index,
                                   .listen_fds = setup->listen_fds,
                                   .balance = setup->balance,
                                   .by_turns = setup->by_turns,
                                   .shared_tcp = setup->shared_tcp,
                                   .shared_unix = setup->shared_unix,
                                   .facts = {.next = next_fact,
                                             .started_us = setup->started_us,
                                             .lane = lane_fact,
                                             .any_lane = any_lane_fact,
                                             .may_log_in = may_log_in,
                                             .login_failed = login_failed},
                                   .logins = setup->logins,
                                   .inquiries = setup->inquiries,
                                   .locked = setup->locked,
                                   .held = setup->held};
    mr_list_init(&service->clients);
    mr_list_init(&service->travelling);
    mr_list_init(&service->relays);
    mr_list_init(&service->lingering);
    mr_pool_init(&service->pool, &setup->pool);
    service->pool.slots = setup->all_metrics;
    service->pool.n_slots = setup->n_metrics;
    service->pool.on_lane_known = on_lane_known;
    service->facts.version = service->pool.version;
    mr_others_init(&service->facts);
    service->part_of = malloc(service->pool.n_groups * sizeof(*service->part_of));
    MR_CHECK(service->part_of != NULL);
    memset(service->part_of, 0xff, service->pool.n_groups * sizeof(*service->part_of));
    service->idle_timer.fire = check_idle;
    service->unblock_timer.fire = on_unblock_timer;
    if (service->config->client_idle_timeout_ms > 0)
        mr_loop_timer(service->loop, &service->idle_timer, 1);
    service->doors = calloc(service->config->listens.n, sizeof(*service->doors));
    MR_CHECK(service->doors != NULL);
    if (!service->by_turns)
        mr_service_accept(service, true);
}

void mr_service_unlock(struct mr_service *service)
{
    service->locked = false;
    if (!service->by_turns)
        mr_service_accept(service, true);
}

void mr_service_accept(struct mr_service *service, bool accept)
{
    const bool may = !service->locked && !service->held && !service->draining;

    if (accept == service->accepting || (accept && !may))
        return;
    if (accept)
        start_accepting(service);
    else
        stop_accepting(service);
}

void mr_service_end_turn(struct mr_service *service)
{
    if (service->by_turns)
        mr_service_accept(service, false);
}

void mr_service_accept_sparingly(struct mr_service *service, bool sparingly)
{
    for (uint32_t i = 0; i < service->config->listens.n; i++)
        mr_acceptor_set_sparing(&service->doors[i].acceptor, sparingly);
}

void mr_service_hold(struct mr_service *service, bool keep_accepting)
{
    service->held = true;
    if (!keep_accepting)
        drain_doors(service);
    unblock(service);
}

/* A client that was being sent stays after all. */
static void take_back(struct mr_service *service)
{
    while (!mr_list_empty(&service->travelling)) {
        struct mr_list *link = service->travelling.next;
        mr_list_del(link);
        mr_list_append(&service->clients, link);
        mr_subscribe_resume(MR_CONTAINER_OF(link, struct mr_client, link));
    }
}

void mr_service_release(struct mr_service *service)
{
    if (!service->held)
        return;
    service->held = false;
    if (!service->by_turns)
        mr_service_accept(service, true); /* does nothing if it never stopped */
    mr_pool_reopen(&service->pool);
    take_back(service);
    for (struct mr_list *link = service->clients.next; link != &service->clients;
         link = link->next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        mr_stream_wake(&client->stream);
        mr_stream_touch(&client->stream);           /* it was not read meanwhile */
        client->barred &= ~(unsigned)MR_PAUSE_LANE; /* perhaps known while it was travelling */
        mr_client_reconsider(client);
    }
}

bool mr_service_quiet(const struct mr_service *service)
{
    return mr_pool_quiet(&service->pool);
}

void mr_service_abort(struct mr_service *service)
{
    mr_pool_close(&service->pool);
    if (service->inquiries != NULL)
        mr_inquiries_end(service->inquiries, service);
}

void mr_service_begin_drain(struct mr_service *service)
{
    service->draining = true;
    drain_doors(service);
    unblock(service);
}

/* True with unanswered requests or unread input. An incomplete request counts for a while. */
static bool has_work(const struct mr_client *client)
{
    const struct mr_stream *s = &client->stream;

    if (client->head != NULL || client->pauses != 0 || mr_stream_has_backlog(s) ||
        mr_stream_unread(s))
        return true;
    return mr_stream_has_remainder(s) && mr_stream_idle_ms(s) < UNFINISHED_MS;
}

void mr_service_drain(struct mr_service *service)
{
    struct mr_list *link, *next;

    if (mr_loop_undelivered(service->loop))
        return; /* the next turn shows whose it is */
    for (link = service->clients.next; link != &service->clients; link = next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        next = link->next;
        if (has_work(client))
            continue;
        if (mr_stream_untaken(&client->stream) == 0)
            mr_client_cut(client, 0); /* the peer has everything */
        else
            mr_client_finish(client);
    }
}

void mr_service_shed(struct mr_service *service)
{
    struct mr_list *link, *next;

    take_back(service);
    for (link = service->clients.next; link != &service->clients; link = next) {
        struct mr_client *client = MR_CONTAINER_OF(link, struct mr_client, link);
        next = link->next;
        if (client->head != NULL || client->closing)
            continue;
        mr_log_limited(MR_LOG_WARN, "client_cut pool=%s reason=no_worker_takes_it",
                       service->config->name);
        mr_stream_wake(&client->stream);
        mr_client_finish(client);
    }
}

bool mr_service_empty(const struct mr_service *service)
{
    return mr_list_empty(&service->clients) && mr_list_empty(&service->travelling) &&
           mr_list_empty(&service->relays) && mr_list_empty(&service->lingering) &&
           mr_mirror_settled(service);
}

static void cut_all(struct mr_list *list)
{
    for (struct mr_list *link = list->next; link != list; link = link->next)
        mr_client_cut(MR_CONTAINER_OF(link, struct mr_client, link), ECONNRESET);
}

void mr_service_close(struct mr_service *service)
{
    stop_accepting(service);
    mr_mirror_stop(service);
    mr_timer_cancel(&service->idle_timer);
    cut_all(&service->clients);
    cut_all(&service->travelling);
    cut_all(&service->lingering);
    mr_relays_cut(service);
    mr_pool_close(&service->pool);
}

void mr_service_fini(struct mr_service *service)
{
    MR_CHECK(mr_service_empty(service));
    mr_mirror_free(service);
    mr_timer_cancel(&service->linger_timer);
    mr_timer_cancel(&service->unblock_timer);
    mr_table_fini(&service->subscriptions);
    mr_pool_fini(&service->pool);
    mr_buf_clear(&service->scratch, &service->loop->slab);
    mr_buf_clear(&service->answer, &service->loop->slab);
    free(service->doors);
    free(service->part_of);
}
