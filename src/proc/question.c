/* question.c - the way of a question between workers. */
#include "proc/question.h"

#include "core/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_BYTES    (64u << 20) /* of a question or an answer */
#define QUEUED_BYTES 32768u      /* on a channel; the rest of it is for messages that matter more */

/* ---- a worker ---- */

/* A file with the text; -1 if that failed. */
static int file_of(struct mr_slice text)
{
    const int fd = memfd_create("millrace-question", MFD_CLOEXEC);
    size_t done = 0;

    while (fd >= 0 && done < text.len) {
        const ssize_t n = pwrite(fd, text.at + done, text.len - done, (off_t)done);
        if (n <= 0 && errno != EINTR) {
            (void)close(fd);
            return -1;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return fd;
}

static bool send_text(int channel, struct mr_message *msg, struct mr_slice text)
{
    const bool possible = text.len <= MAX_BYTES && mr_channel_queued(channel) < QUEUED_BYTES;
    const int fd = possible ? file_of(text) : -1;
    struct mr_error err;

    if (fd < 0)
        return false;
    const bool sent = mr_channel_send(channel, msg, fd, &err) == MR_OK;
    (void)close(fd);
    return sent;
}

bool mr_question_send(int channel, uint32_t number, struct mr_slice question)
{
    struct mr_message msg = {.type = MR_MSG_ASK_TYPE};

    msg.body.ASK = (struct mr_question_payload){.number = number, .bytes = (uint32_t)question.len};
    return send_text(channel, &msg, question);
}

/* Reads the text of a message. `text` is owned by the caller, and failed if there is none. */
static void read_text(const struct mr_message *msg, uint32_t bytes, struct mr_slab *slab,
                      struct mr_buf *text)
{
    void *map;

    if (bytes == 0)
        return;
    map = msg->fd >= 0 && bytes <= MAX_BYTES ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, msg->fd, 0)
                                             : MAP_FAILED;
    if (map == MAP_FAILED) {
        mr_buf_fail(text, slab);
        return;
    }
    mr_buf_put(text, slab, map, bytes);
    (void)munmap(map, bytes);
}

static void answer(int channel, const struct mr_message *msg, struct mr_service *services,
                   uint32_t n_services, struct mr_slab *slab)
{
    struct mr_message reply = {.type = MR_MSG_ANSWER_TYPE};
    struct mr_buf question = {0}, text = {0};

    read_text(msg, msg->body.ASK.bytes, slab, &question);
    if (!mr_buf_failed(&question))
        mr_inquiry_answer(services, n_services, mr_buf_slice(&question), slab, &text);
    reply.body.ANSWER = msg->body.ASK;
    reply.body.ANSWER.bytes = (uint32_t)mr_buf_len(&text);
    /* without an answer the one who asks reports that somebody is missing */
    if (mr_buf_failed(&question) || mr_buf_failed(&text) ||
        !send_text(channel, &reply, mr_buf_slice(&text)))
        mr_log_limited(MR_LOG_WARN, "question_unanswered bytes=%u", msg->body.ASK.bytes);
    mr_buf_clear(&question, slab);
    mr_buf_clear(&text, slab);
}

bool mr_question_message(int channel, const struct mr_message *msg, struct mr_inquiries *inquiries,
                         struct mr_service *services, uint32_t n_services)
{
    struct mr_slab *slab = &inquiries->loop->slab;
    struct mr_buf text = {0};

    switch (msg->type) {
    case MR_MSG_ASK_TYPE:
        answer(channel, msg, services, n_services, slab);
        break;
    case MR_MSG_ASKED_TYPE:
        mr_inquiries_asked(inquiries, msg->body.ASKED.number, msg->body.ASKED.others);
        break;
    case MR_MSG_ANSWER_TYPE:
        read_text(msg, msg->body.ANSWER.bytes, slab, &text);
        if (!mr_buf_failed(&text))
            mr_inquiries_take(inquiries, msg->body.ANSWER.number, mr_buf_slice(&text));
        mr_buf_clear(&text, slab);
        break;
    default:
        return false;
    }
    if (msg->fd >= 0)
        (void)close(msg->fd);
    return true;
}

/* ---- the master ---- */

/* Workers that have not sent READY have no clients yet. */
static bool has_clients(const struct mr_child *c)
{
    return c->kind == MR_WORKER && c->pid != 0 && c->state != MR_CHILD_STARTING;
}

/* A question that a worker has not answered. */
struct pending {
    struct mr_list link;
    pid_t asker, asked;
    uint32_t number; /* the asker's */
};

void mr_questions_init(struct mr_questions *questions)
{
    mr_list_init(&questions->open);
}

static void forget(struct pending *p)
{
    mr_list_del(&p->link);
    free(p);
}

void mr_questions_fini(struct mr_questions *questions)
{
    while (!mr_list_empty(&questions->open))
        forget(MR_CONTAINER_OF(questions->open.next, struct pending, link));
}

/* False if the worker reads no messages, or has gone. The one who asks then misses its answer. */
static bool tell(struct mr_child *c, struct mr_message *msg)
{
    return mr_channel_queued(c->channel.fd) < QUEUED_BYTES && mr_child_tell(c, msg, msg->fd);
}

static void expect(struct mr_questions *questions, pid_t asker, pid_t asked, uint32_t number)
{
    struct pending *p = calloc(1, sizeof(*p));

    MR_CHECK(p != NULL);
    p->asker = asker;
    p->asked = asked;
    p->number = number;
    mr_list_append(&questions->open, &p->link);
}

static void ask(struct mr_questions *questions, struct mr_team *const *teams, uint32_t n_teams,
                struct mr_child *asker, struct mr_message *msg)
{
    struct mr_message asked = {.type = MR_MSG_ASKED_TYPE};

    msg->body.ASK.asker = (int32_t)asker->pid;
    asked.body.ASKED.number = msg->body.ASK.number;
    for (uint32_t i = 0; i < n_teams; i++)
        for (uint32_t k = 0; k < teams[i]->n_children; k++) {
            struct mr_child *c = &teams[i]->children[k];
            if (c == asker || !has_clients(c))
                continue;
            if (tell(c, msg))
                expect(questions, asker->pid, c->pid, msg->body.ASK.number);
            asked.body.ASKED.others++;
        }
    asked.fd = -1;
    (void)tell(asker, &asked);
}

static struct mr_child *worker_of(struct mr_team *const *teams, uint32_t n_teams, pid_t pid)
{
    for (uint32_t i = 0; i < n_teams; i++)
        for (uint32_t k = 0; k < teams[i]->n_children; k++)
            if (teams[i]->children[k].kind == MR_WORKER && teams[i]->children[k].pid == pid)
                return &teams[i]->children[k];
    return NULL;
}

static void answer_asker(struct pending *p, struct mr_team *const *teams, uint32_t n_teams,
                         struct mr_message *msg)
{
    struct mr_child *asker = worker_of(teams, n_teams, p->asker);

    if (asker != NULL)
        (void)tell(asker, msg);
    forget(p);
}

void mr_questions_pass(struct mr_questions *questions, struct mr_team *const *teams,
                       uint32_t n_teams, struct mr_child *from, struct mr_message *msg)
{
    struct mr_list *at, *next;

    if (msg->fd < 0 || from->kind != MR_WORKER)
        return;
    if (msg->type == MR_MSG_ASK_TYPE) {
        ask(questions, teams, n_teams, from, msg);
        return;
    }
    for (at = questions->open.next; at != &questions->open; at = next) {
        struct pending *p = MR_CONTAINER_OF(at, struct pending, link);
        next = at->next;
        if (p->asked == from->pid && p->asker == msg->body.ANSWER.asker &&
            p->number == msg->body.ANSWER.number)
            answer_asker(p, teams, n_teams, msg);
    }
}

void mr_questions_end(struct mr_questions *questions, struct mr_team *const *teams,
                      uint32_t n_teams, pid_t pid)
{
    struct mr_list *at, *next;

    for (at = questions->open.next; at != &questions->open; at = next) {
        struct pending *p = MR_CONTAINER_OF(at, struct pending, link);
        struct mr_message msg = {.type = MR_MSG_ANSWER_TYPE, .fd = -1};
        next = at->next;
        msg.body.ANSWER.number = p->number;
        if (p->asker == pid)
            forget(p);
        else if (p->asked == pid)
            answer_asker(p, teams, n_teams, &msg);
    }
}
