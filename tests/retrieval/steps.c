/* Preloaded into a process, this counts the calls that change files below a folder, and can end the process at one, or let it fail.

   A step is counted from 1. How it goes wrong, `steps_arm` is told: 0 not at all, 1 the process is killed before it, 2 after it,
   3 after half of what it was to write, 4 it fails, 5 it and all later ones fail, 6 half of it is written, and it fails. Nothing is
   synced: what a killed process has written, the system has. `steps_kinds` has a letter for each step: w for one that writes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, BEFORE, AFTER, HALF, FAIL, FAIL_ALWAYS, FAIL_HALF };

static char root[PATH_MAX], last[PATH_MAX + 32];
static char kinds[1 << 16];
static long count, at;
static int mode, error_number;

void steps_arm(const char *folder, long step, int how, int error) {
    strncpy(root, folder, sizeof root - 1);
    count = 0, at = step, mode = how, error_number = error;
    memset(kinds, 0, sizeof kinds);
}

void steps_disarm(void) { root[0] = 0; }
const char *steps_kinds(void) { return kinds; }
const char *steps_last(void) { return last; }

static int below(const char *path) { return root[0] && path && strncmp(path, root, strlen(root)) == 0; }

static int below_fd(int fd, char *path) {
    char link[64];
    ssize_t length;
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return below(path);
}

/* Whether the step goes wrong, and the process lives on. */
static int wrong(const char *name, const char *path) {
    if (count < (long)sizeof kinds - 1) kinds[count] = strstr(name, "write") ? 'w' : name[0];
    count++;
    if (mode == FAIL_ALWAYS ? count < at : count != at) return 0;
    snprintf(last, sizeof last, "%s %s", name, path + strlen(root));
    if (mode == BEFORE) kill(getpid(), SIGKILL);
    if (mode != FAIL && mode != FAIL_ALWAYS) return 0;
    errno = error_number;
    return 1;
}

static void done(void) {
    if (count == at && (mode == AFTER || mode == HALF)) kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

#define STEP(name, path, call)                          \
    do {                                                \
        int result_;                                    \
        if (wrong(name, path)) return -1;               \
        result_ = (call);                               \
        done();                                         \
        return result_;                                 \
    } while (0)

#define WRITES(signature, name, ...)                                                   \
    ssize_t signature {                                                                \
        char path[PATH_MAX];                                                           \
        ssize_t result;                                                                \
        int halved;                                                                    \
        if (!below_fd(fd, path)) return REAL(name)(__VA_ARGS__);                       \
        if (wrong(#name, path)) return -1;                                             \
        halved = count == at && (mode == HALF || mode == FAIL_HALF);                   \
        if (halved) size /= 2;                                                         \
        result = REAL(name)(__VA_ARGS__);                                              \
        done();                                                                        \
        if (halved) errno = error_number, result = -1;                                 \
        return result;                                                                 \
    }

WRITES(write(int fd, const void *content, size_t size), write, fd, content, size)
WRITES(pwrite(int fd, const void *content, size_t size, off_t place), pwrite, fd, content, size, place)
WRITES(pwrite64(int fd, const void *content, size_t size, off64_t place), pwrite64, fd, content, size, place)

#define ON_FD(signature, name, call)                     \
    int signature {                                      \
        char path[PATH_MAX];                             \
        if (!below_fd(fd, path)) return call;            \
        STEP(#name, path, call);                         \
    }

#define SYNCS(name)                                      \
    int name(int fd) {                                   \
        char path[PATH_MAX];                             \
        if (!below_fd(fd, path)) return REAL(name)(fd);  \
        STEP(#name, path, 0);                            \
    }

ON_FD(ftruncate(int fd, off_t size), ftruncate, REAL(ftruncate)(fd, size))
ON_FD(ftruncate64(int fd, off64_t size), ftruncate64, REAL(ftruncate64)(fd, size))
ON_FD(fchmod(int fd, mode_t rights), fchmod, REAL(fchmod)(fd, rights))
SYNCS(fsync)
SYNCS(fdatasync)

#define ON_PATH(signature, name, path, ...)                        \
    int signature {                                                \
        if (!below(path)) return REAL(name)(__VA_ARGS__);          \
        STEP(#name, path, REAL(name)(__VA_ARGS__));                \
    }

ON_PATH(rename(const char *old, const char *new), rename, new, old, new)
ON_PATH(link(const char *old, const char *new), link, new, old, new)
ON_PATH(unlink(const char *path), unlink, path, path)
ON_PATH(mkdir(const char *path, mode_t rights), mkdir, path, path, rights)
ON_PATH(rmdir(const char *path), rmdir, path, path)
ON_PATH(chmod(const char *path, mode_t rights), chmod, path, path, rights)
ON_PATH(truncate(const char *path, off_t size), truncate, path, path, size)
ON_PATH(truncate64(const char *path, off64_t size), truncate64, path, path, size)

/* Opening a file changes the disk where that makes it, or empties it. */
#define OPENS(name)                                                                                  \
    int name(const char *path, int flags, ...) {                                                     \
        va_list rest;                                                                                \
        mode_t rights;                                                                               \
        va_start(rest, flags);                                                                       \
        rights = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                                \
        if (!below(path) || !(((flags & O_CREAT) && access(path, F_OK)) || (flags & O_TRUNC)))       \
            return REAL(name)(path, flags, rights);                                                  \
        STEP(#name, path, REAL(name)(path, flags, rights));                                          \
    }

OPENS(open)
OPENS(open64)
