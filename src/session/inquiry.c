/* inquiry.c - requests that all workers answer together. */
#include "session/inquiry.h"

#include <errno.h>
#include <string.h>

#define UNKNOWN   UINT32_MAX
#define MAX_BYTES (64u << 20) /* of all parts of one answer */

/* A question: this, the pool's name, the request. */
struct head {
    uint64_t client; /* who asks */
    uint16_t name_bytes;
    uint8_t dialect;
};

struct inquiry {
    struct mr_list link;
    struct mr_call *call;
    struct mr_service *service;
    struct mr_timer deadline;
    uint32_t number;
    uint32_t others;     /* that were asked; UNKNOWN until the master says so */
    uint32_t answered;   /* by others */
    uint32_t n_parts;    /* some answers are empty */
    struct mr_buf parts; /* each with its length before it */
};

static struct mr_slab *slab_of(const struct inquiry *q)
{
    return &q->service->loop->slab;
}

static struct mr_call *forget(struct inquiry *q)
{
    struct mr_call *call = q->call;
    struct mr_slab *slab = slab_of(q);

    mr_timer_cancel(&q->deadline);
    mr_list_del(&q->link);
    mr_buf_clear(&q->parts, slab);
    mr_slab_put(slab, q, sizeof(*q));
    return call;
}

static void fail(struct inquiry *q, const char *reason)
{
    struct mr_call *call = forget(q);

    call->ops->on_fail(call, reason);
}

static void on_deadline(struct mr_timer *timer)
{
    fail(MR_CONTAINER_OF(timer, struct inquiry, deadline), "a worker did not answer in time");
}

static void add_part(struct inquiry *q, struct mr_slice part)
{
    const uint32_t len = (uint32_t)part.len;

    if (len == 0 || mr_buf_failed(&q->parts))
        return;
    if (mr_buf_len(&q->parts) + len > MAX_BYTES) {
        mr_buf_fail(&q->parts, slab_of(q));
        return;
    }
    mr_buf_put(&q->parts, slab_of(q), (const char *)&len, sizeof(len));
    mr_buf_put(&q->parts, slab_of(q), part.at, len);
    q->n_parts++;
}

static void find_parts(const struct inquiry *q, struct mr_slice *parts)
{
    struct mr_slice rest = mr_buf_slice(&q->parts);

    for (uint32_t i = 0; i < q->n_parts; i++) {
        uint32_t len;
        memcpy(&len, rest.at, sizeof(len));
        parts[i] = (struct mr_slice){rest.at + sizeof(len), len};
        rest = (struct mr_slice){rest.at + sizeof(len) + len, rest.len - sizeof(len) - len};
    }
}

/* All have answered. */
static void complete(struct inquiry *q)
{
    struct mr_slab *slab = slab_of(q);
    const size_t room = q->n_parts * sizeof(struct mr_slice);
    struct mr_slice *parts = mr_slab_try(slab, room);
    struct mr_buf reply = {0};

    if (parts == NULL || mr_buf_failed(&q->parts)) {
        fail(q, strerror(ENOMEM));
    } else {
        find_parts(q, parts);
        q->service->config->protocol->client.join_answers(parts, q->n_parts, slab, &reply);
        struct mr_call *call = forget(q);
        if (mr_buf_failed(&reply))
            call->ops->on_fail(call, strerror(ENOMEM));
        else
            call->ops->on_reply(call, mr_buf_slice(&reply).at, mr_buf_len(&reply), true);
    }
    mr_buf_clear(&reply, slab);
    mr_slab_put(slab, parts, room);
}

static void complete_if_all(struct inquiry *q)
{
    if (q->others != UNKNOWN && q->answered >= q->others)
        complete(q);
}

void mr_inquiries_init(struct mr_inquiries *inquiries, struct mr_loop *loop,
                       bool (*ask)(void *arg, uint32_t number, struct mr_slice question), void *arg)
{
    *inquiries = (struct mr_inquiries){.loop = loop, .ask = ask, .arg = arg};
    mr_list_init(&inquiries->open);
}

/* ---- asking ---- */

const char *mr_inquire(struct mr_service *service, struct mr_call *call,
                       const struct mr_session *session, struct mr_slice request,
                       struct mr_slice part)
{
    struct mr_inquiries *inquiries = service->inquiries;
    struct mr_slab *slab = &service->loop->slab;
    const struct mr_slice name = mr_slice_of(service->config->name);
    const struct head head = {
        .client = session->id, .name_bytes = (uint16_t)name.len, .dialect = session->dialect};
    struct mr_buf question = {0};

    mr_buf_put(&question, slab, (const char *)&head, sizeof(head));
    mr_buf_put(&question, slab, name.at, name.len);
    mr_buf_put(&question, slab, request.at, request.len);
    const uint32_t number = ++inquiries->last_number;
    const bool asked = !mr_buf_failed(&question) &&
                       inquiries->ask(inquiries->arg, number, mr_buf_slice(&question));
    mr_buf_clear(&question, slab);
    if (!asked)
        return "the other workers cannot be asked";
    struct inquiry *q = mr_slab_get_zeroed(slab, sizeof(*q));
    q->call = call;
    q->service = service;
    q->number = number;
    q->others = UNKNOWN;
    q->deadline.fire = on_deadline;
    mr_loop_timer(service->loop, &q->deadline, MR_INQUIRY_MS);
    mr_list_append(&inquiries->open, &q->link);
    add_part(q, part);
    return NULL;
}

static struct inquiry *find(struct mr_inquiries *inquiries, uint32_t number)
{
    for (struct mr_list *at = inquiries->open.next; at != &inquiries->open; at = at->next) {
        struct inquiry *q = MR_CONTAINER_OF(at, struct inquiry, link);
        if (q->number == number)
            return q;
    }
    return NULL;
}

void mr_inquiries_asked(struct mr_inquiries *inquiries, uint32_t number, uint32_t others)
{
    struct inquiry *q = find(inquiries, number);

    if (q == NULL)
        return;
    q->others = others;
    complete_if_all(q);
}

void mr_inquiries_take(struct mr_inquiries *inquiries, uint32_t number, struct mr_slice part)
{
    struct inquiry *q = find(inquiries, number);

    if (q == NULL)
        return;
    q->answered++;
    add_part(q, part);
    complete_if_all(q);
}

void mr_inquiries_end(struct mr_inquiries *inquiries, const struct mr_service *service)
{
    struct mr_list *at, *next;

    for (at = inquiries->open.next; at != &inquiries->open; at = next) {
        struct inquiry *q = MR_CONTAINER_OF(at, struct inquiry, link);
        next = at->next;
        if (service == NULL || q->service == service)
            fail(q, "the worker ends");
    }
}

/* ---- answering ---- */

static struct mr_service *service_named(struct mr_service *services, uint32_t n,
                                        struct mr_slice name)
{
    for (uint32_t i = 0; i < n; i++)
        if (mr_slice_eq(name, mr_slice_of(services[i].config->name)))
            return &services[i];
    return NULL;
}

/* A session that is no client: it stands for the one who asks, who may do what it asks. */
static void answer_for(struct mr_service *service, const struct head *head, struct mr_slice request,
                       struct mr_slab *slab, struct mr_buf *out)
{
    const struct mr_proto *proto = service->config->protocol;
    struct mr_session session = {.id = head->client, .dialect = head->dialect, .authed = true};
    struct mr_parse_state state = {0};
    struct mr_msg msg;
    const struct mr_proto_ctx ctx = {.options = &service->config->options,
                                     .session = &session,
                                     .slab = slab,
                                     .scratch = &service->scratch,
                                     .facts = &service->facts};

    if (proto->client.join_answers == NULL ||
        proto->client.parse(&ctx, &state, request.at, request.len, &msg) != MR_OK ||
        msg.action != MR_MSG_LOCAL)
        return;
    (void)proto->client.answer(&ctx, &msg, out);
}

void mr_inquiry_answer(struct mr_service *services, uint32_t n_services, struct mr_slice question,
                       struct mr_slab *slab, struct mr_buf *out)
{
    struct head head;

    if (question.len < sizeof(head))
        return;
    memcpy(&head, question.at, sizeof(head));
    if (question.len - sizeof(head) < head.name_bytes)
        return;
    const struct mr_slice name = {question.at + sizeof(head), head.name_bytes};
    struct mr_service *service = service_named(services, n_services, name);
    if (service != NULL)
        answer_for(service, &head,
                   (struct mr_slice){name.at + name.len, question.len - sizeof(head) - name.len},
                   slab, out);
}
