/* pidfile.c - a locked file with the process id. */
#include "proc/pidfile.h"

#include "core/number.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static size_t read_text(int fd, char *text, size_t size)
{
    const ssize_t n = pread(fd, text, size - 1, 0);

    size_t len = n > 0 ? (size_t)n : 0;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
        len--;
    text[len] = '\0';
    return len;
}

enum mr_result mr_pidfile_lock(struct mr_pidfile *f, const char *path, struct mr_error *err)
{
    char other[24];

    *f = (struct mr_pidfile){.path = NULL, .fd = -1};
    if (path == NULL)
        return MR_OK;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return mr_fail_sys(err, "pid file '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        const int error = errno;
        (void)read_text(fd, other, sizeof(other));
        (void)close(fd);
        errno = error;
        if (error != EWOULDBLOCK)
            return mr_fail_sys(err, "lock pid file '%s'", path);
        return mr_fail(err, MR_ESYS, "pid file '%s' is held by process %s: millrace is running",
                       path, other);
    }
    f->path = path;
    f->fd = fd;
    return MR_OK;
}

enum mr_result mr_pidfile_write(struct mr_pidfile *f, struct mr_error *err)
{
    char text[24];

    if (f->path == NULL)
        return MR_OK;
    const int n = snprintf(text, sizeof(text), "%d", (int)getpid());
    if (ftruncate(f->fd, 0) < 0 || pwrite(f->fd, text, (size_t)n, 0) != n)
        return mr_fail_sys(err, "write pid file '%s'", f->path);
    return MR_OK;
}

void mr_pidfile_remove(struct mr_pidfile *f)
{
    if (f->path == NULL)
        return;
    (void)unlink(f->path);
    mr_pidfile_forget(f);
}

void mr_pidfile_forget(struct mr_pidfile *f)
{
    if (f->path == NULL)
        return;
    (void)close(f->fd);
    *f = (struct mr_pidfile){.path = NULL, .fd = -1};
}

enum mr_result mr_pidfile_read(const char *path, pid_t *pid, struct mr_error *err)
{
    char text[24];
    uint64_t v;

    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mr_fail_sys(err, "pid file '%s'", path);
    const size_t len = read_text(fd, text, sizeof(text));
    (void)close(fd);
    if (!mr_parse_uint((struct mr_slice){text, len}, INT_MAX, &v) || v < 2)
        return mr_fail(err, MR_ECONFIG, "pid file '%s' holds no process id", path);
    *pid = (pid_t)v;
    return MR_OK;
}
