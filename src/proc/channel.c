/* channel.c - typed, versioned messages between the master and its children. */
#include "proc/channel.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_BYTES offsetof(struct mr_message, body)

static const struct {
    const char *name;
    size_t len;
} TYPES[] = {
#define X(name, payload) {#name, sizeof(payload)},
#include "proc/messages.def"
};

enum mr_result mr_channel_open(int ends[2], struct mr_error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return mr_fail_sys(err, "socketpair for a channel");
    return MR_OK;
}

enum mr_result mr_channel_send(int fd, struct mr_message *msg, int pass_fd, struct mr_error *err)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {msg, HEAD_BYTES + TYPES[msg->type].len};
    struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1};

    msg->version = MR_CHANNEL_VERSION;
    msg->len = (uint32_t)TYPES[msg->type].len;
    if (pass_fd >= 0) {
        head.msg_control = control.bytes;
        head.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&head);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
    }
    if (sendmsg(fd, &head, MSG_NOSIGNAL) < 0)
        return mr_fail_sys(err, "send %s on a channel", TYPES[msg->type].name);
    return MR_OK;
}

void mr_channel_tell(int fd, enum mr_message_type type)
{
    struct mr_message msg = {.type = (uint16_t)type};
    struct mr_error err;
    const enum mr_result rc = mr_channel_send(fd, &msg, -1, &err);

    (void)rc;
}

static int take_fd(struct msghdr *head)
{
    int fd = -1;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c != NULL; c = CMSG_NXTHDR(head, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(c), sizeof(int));
    return fd;
}

enum mr_result mr_channel_recv(int fd, struct mr_message *msg, struct mr_error *err)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {msg, sizeof(*msg)};
    struct msghdr head = {.msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof(control.bytes)};
    ssize_t n;

    do
        n = recvmsg(fd, &head, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return MR_AGAIN;
    if (n < 0)
        return mr_fail_sys(err, "receive on a channel");
    if (n == 0)
        return mr_fail(err, MR_ESYS, "the other side of the channel is gone");
    const int passed = take_fd(&head);
    if ((size_t)n < HEAD_BYTES || msg->version != MR_CHANNEL_VERSION ||
        msg->type >= MR_MESSAGE_TYPES || msg->len != TYPES[msg->type].len ||
        (size_t)n != HEAD_BYTES + msg->len) {
        if (passed >= 0)
            (void)close(passed);
        return mr_fail(err, MR_EPROTO, "a channel message of %zd bytes is not understood", n);
    }
    msg->fd = passed;
    return MR_OK;
}
