/* Counts the operations of a process on files below a folder, and lets one of them fail: for faults.py, by LD_PRELOAD.
 *
 * Operations that change files (kind 1): creation, write, rename, fsync, removal, a folder or a link made. Reads are kind 2.
 * At number `at` the process is killed, half of what it was to write being written, or the operation fails with an errno;
 * with `lasting` everything after it that needs room fails too, as on a full disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CHANGES = 1, READS = 2 };

static char below[4096];
static size_t length;
static long due;
static int error, forever, kinds, journal = -1;
static atomic_long counted;
static __thread int inside;

void faults_arm(const char *folder, int kind, long at, int number, int lasting, const char *file) {
    atomic_store(&counted, 0);
    due = at, error = number, forever = lasting, kinds = kind;
    journal = *file ? (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    strncpy(below, folder, sizeof below - 1);
    length = strlen(below);
}

long faults_counted(void) { return atomic_load(&counted); }

static const char *place(int folder, const char *path, char *out, size_t size) {
    char link[64];
    ssize_t got = 0;
    if (path && *path == '/') return path;
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, out, size) < 0) return "";
        got = (ssize_t)strlen(out);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        got = syscall(SYS_readlinkat, AT_FDCWD, link, out, size - 1);
        if (got < 0) return "";
        out[got] = 0;
    }
    if (path) snprintf(out + got, size - (size_t)got, "/%s", path);
    return out;
}

/* 0: go on; 1: kill now; an errno otherwise. */
static int happens(int kind, const char *name, int needs_room, int folder, const char *path) {
    char text[4096], line[4300];
    if (!length || !(kinds & kind) || inside) return 0;
    inside = 1;
    const char *full = place(folder, path, text, sizeof text);
    int mine = !strncmp(full, below, length);
    inside = 0;
    if (!mine) return 0;
    long number = atomic_fetch_add(&counted, 1) + 1;
    if (journal >= 0) {
        int size = snprintf(line, sizeof line, "%s\t%s\n", name, full + length);
        syscall(SYS_write, journal, line, (size_t)size);
    }
    if (number == due) return error ? error : -1;
    return forever && due && number > due && needs_room ? error : 0;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(kind, room, folder, path) \
    do { \
        int fault = happens(kind, __func__, room, folder, path); \
        if (fault < 0) kill(getpid(), SIGKILL), pause(); \
        if (fault) { errno = fault; return -1; } \
    } while (0)
#define TORN(kind, room, folder, half) \
    do { \
        int fault = happens(kind, __func__, room, folder, NULL); \
        if (fault < 0) { half; kill(getpid(), SIGKILL); pause(); } \
        if (fault) { errno = fault; return -1; } \
    } while (0)
#define MODE(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) {
    REAL(open); MODE(flags)
    if (flags & O_CREAT) FAIL(CHANGES, 1, AT_FDCWD, path);
    return real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64); MODE(flags)
    if (flags & O_CREAT) FAIL(CHANGES, 1, AT_FDCWD, path);
    return real(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    REAL(openat); MODE(flags)
    if (flags & O_CREAT) FAIL(CHANGES, 1, folder, path);
    return real(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    REAL(openat64); MODE(flags)
    if (flags & O_CREAT) FAIL(CHANGES, 1, folder, path);
    return real(folder, path, flags, mode);
}
ssize_t write(int file, const void *data, size_t size) {
    REAL(write); TORN(CHANGES, 1, file, real(file, data, size / 2)); return real(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    REAL(pwrite); TORN(CHANGES, 1, file, real(file, data, size / 2, at)); return real(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    REAL(pwrite64); TORN(CHANGES, 1, file, real(file, data, size / 2, at)); return real(file, data, size, at);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev); TORN(CHANGES, 1, file, real(file, parts, count / 2)); return real(file, parts, count);
}
ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) {
    REAL(pwritev); TORN(CHANGES, 1, file, real(file, parts, count / 2, at)); return real(file, parts, count, at);
}
ssize_t read(int file, void *data, size_t size) {
    REAL(read); FAIL(READS, 0, file, NULL); return real(file, data, size);
}
ssize_t pread(int file, void *data, size_t size, off_t at) {
    REAL(pread); FAIL(READS, 0, file, NULL); return real(file, data, size, at);
}
ssize_t pread64(int file, void *data, size_t size, off64_t at) {
    REAL(pread64); FAIL(READS, 0, file, NULL); return real(file, data, size, at);
}
ssize_t preadv(int file, const struct iovec *parts, int count, off_t at) {
    REAL(preadv); FAIL(READS, 0, file, NULL); return real(file, parts, count, at);
}
int fsync(int file) { REAL(fsync); FAIL(CHANGES, 0, file, NULL); return real(file); }
int fdatasync(int file) { REAL(fdatasync); FAIL(CHANGES, 0, file, NULL); return real(file); }
int ftruncate(int file, off_t size) { REAL(ftruncate); FAIL(CHANGES, 0, file, NULL); return real(file, size); }
int ftruncate64(int file, off64_t size) { REAL(ftruncate64); FAIL(CHANGES, 0, file, NULL); return real(file, size); }
int rename(const char *from, const char *to) { REAL(rename); FAIL(CHANGES, 0, AT_FDCWD, to); return real(from, to); }
int renameat(int folder, const char *from, int other, const char *to) {
    REAL(renameat); FAIL(CHANGES, 0, other, to); return real(folder, from, other, to);
}
int unlink(const char *path) { REAL(unlink); FAIL(CHANGES, 0, AT_FDCWD, path); return real(path); }
int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat); FAIL(CHANGES, 0, folder, path); return real(folder, path, flags);
}
int rmdir(const char *path) { REAL(rmdir); FAIL(CHANGES, 0, AT_FDCWD, path); return real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); FAIL(CHANGES, 1, AT_FDCWD, path); return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(mkdirat); FAIL(CHANGES, 1, folder, path); return real(folder, path, mode);
}
int symlink(const char *to, const char *path) { REAL(symlink); FAIL(CHANGES, 1, AT_FDCWD, path); return real(to, path); }
int symlinkat(const char *to, int folder, const char *path) {
    REAL(symlinkat); FAIL(CHANGES, 1, folder, path); return real(to, folder, path);
}
