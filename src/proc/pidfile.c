/* pidfile.c - the pid file, which is locked. */
#include "proc/pidfile.h"

#include "core/number.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TRIES 100 /* attempts, each lost to a process that removed its file just then */

static size_t read_text(int fd, char *text, size_t size)
{
    const ssize_t n = pread(fd, text, size - 1, 0);

    size_t len = n > 0 ? (size_t)n : 0;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
        len--;
    text[len] = '\0';
    return len;
}

/* True if the path still leads to the open file, which was not removed or replaced. */
static bool is_at(int fd, const char *path)
{
    struct stat open_file, named;

    return fstat(fd, &open_file) == 0 && stat(path, &named) == 0 &&
           open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino;
}

static enum mr_result open_locked(int *out, const char *path, struct mr_error *err)
{
    struct stat st;
    char other[24];
    int fd = -1;

    *out = -1;
    if ((fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644)) < 0 ||
        fstat(fd, &st) < 0)
        (void)mr_fail_sys(err, "pid file '%s'", path);
    else if (!S_ISREG(st.st_mode)) /* a device or pipe would be removed at the end */
        (void)mr_fail(err, MR_ESYS, "pid file '%s' is not a regular file", path);
    else if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        *out = fd;
    else if (errno != EWOULDBLOCK)
        (void)mr_fail_sys(err, "lock pid file '%s'", path);
    else {
        (void)read_text(fd, other, sizeof(other));
        (void)mr_fail(err, MR_ESYS,
                      "pid file '%s' is held by process %s: millrace is already running", path,
                      other);
    }
    if (*out >= 0)
        return MR_OK;
    if (fd >= 0)
        (void)close(fd);
    return MR_ESYS;
}

enum mr_result mr_pidfile_lock(struct mr_pidfile *f, const char *path, struct mr_error *err)
{
    int fd;

    *f = (struct mr_pidfile){.path = NULL, .fd = -1};
    if (path == NULL)
        return MR_OK;
    for (int i = 0; i < LOCK_TRIES; i++) {
        const enum mr_result rc = open_locked(&fd, path, err);
        if (rc != MR_OK)
            return rc;
        if (is_at(fd, path)) {
            mr_pidfile_adopt(f, path, fd);
            return MR_OK;
        }
        (void)close(fd); /* its owner removed it between our open and our lock */
    }
    return mr_fail(err, MR_ESYS, "pid file '%s' keeps being removed", path);
}

void mr_pidfile_adopt(struct mr_pidfile *f, const char *path, int fd)
{
    *f = (struct mr_pidfile){.path = strdup(path), .fd = fd};
    MR_CHECK(f->path != NULL);
}

/* Size of the file in bytes, at most `max`. */
static int length(int fd, off_t max)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? 0 : (int)(st.st_size < max ? st.st_size : max);
}

enum mr_result mr_pidfile_write(const struct mr_pidfile *f, pid_t pid, struct mr_error *err)
{
    char text[24];

    if (f->path == NULL)
        return MR_OK;
    /*
     * padded with blanks to overwrite the old content in place: readers, or a full disk, never
     * leave it empty
     */
    const int n = snprintf(text, sizeof(text), "%-*d", length(f->fd, sizeof(text) - 1), (int)pid);
    if (pwrite(f->fd, text, (size_t)n, 0) != n || ftruncate(f->fd, (off_t)strcspn(text, " ")) < 0)
        return mr_fail_sys(err, "write pid file '%s'", f->path);
    return MR_OK;
}

enum mr_result mr_pidfile_move(struct mr_pidfile *f, const char *path, struct mr_error *err)
{
    struct mr_pidfile next;

    if (path == f->path || (path != NULL && f->path != NULL && strcmp(path, f->path) == 0))
        return MR_OK;
    enum mr_result rc = mr_pidfile_lock(&next, path, err);
    if (rc == MR_OK)
        rc = mr_pidfile_write(&next, getpid(), err);
    if (rc != MR_OK) {
        mr_pidfile_remove(&next);
        return rc;
    }
    mr_pidfile_remove(f);
    *f = next;
    return MR_OK;
}

void mr_pidfile_remove(struct mr_pidfile *f)
{
    if (f->path != NULL && is_at(f->fd, f->path))
        (void)unlink(f->path);
    mr_pidfile_forget(f);
}

void mr_pidfile_forget(struct mr_pidfile *f)
{
    if (f->path == NULL)
        return;
    (void)close(f->fd);
    free(f->path);
    *f = (struct mr_pidfile){.path = NULL, .fd = -1};
}

enum mr_result mr_pidfile_read(const char *path, pid_t *pid, struct mr_error *err)
{
    char text[24];
    uint64_t v;

    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mr_fail_sys(err, "pid file '%s'", path);
    const size_t len = read_text(fd, text, sizeof(text));
    (void)close(fd);
    if (!mr_parse_uint((struct mr_slice){text, len}, INT_MAX, &v) || v < 2)
        return mr_fail(err, MR_ECONFIG, "pid file '%s' holds no process id", path);
    *pid = (pid_t)v;
    return MR_OK;
}
