/* Stands in for system calls of sat_xdma.c: a function of the test answers each of them. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Returns what the call does, or the error's number below zero. */
static long (*answer)(const char *call, long file, void *data, uint64_t size, uint64_t offset);

void system_calls_attach(long (*function)(const char *, long, void *, uint64_t, uint64_t))
{
    answer = function;
}

static long ask(const char *call, long file, void *data, uint64_t size, uint64_t offset)
{
    const long result = answer(call, file, data, size, offset);

    if (result >= 0) return result;
    errno = (int)-result;
    return -1;
}

int __wrap_open(const char *name, int flags, ...);
ssize_t __wrap_pread(int file, void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite(int file, const void *data, size_t size, off_t offset);
ssize_t __wrap_read(int file, void *data, size_t size);
int __wrap_poll(struct pollfd *files, nfds_t count, int timeout);
int __wrap_close(int file);

int __wrap_open(const char *name, int flags, ...)
{
    return (int)ask("open", flags, (void *)(uintptr_t)name, 0, 0);
}

ssize_t __wrap_pread(int file, void *data, size_t size, off_t offset)
{
    return ask("pread", file, data, size, (uint64_t)offset);
}

ssize_t __wrap_pwrite(int file, const void *data, size_t size, off_t offset)
{
    return ask("pwrite", file, (void *)(uintptr_t)data, size, (uint64_t)offset);
}

ssize_t __wrap_read(int file, void *data, size_t size)
{
    return ask("read", file, data, size, 0);
}

int __wrap_poll(struct pollfd *files, nfds_t count, int timeout)
{
    return (int)ask("poll", files[0].fd, NULL, count, (uint64_t)timeout);
}

int __wrap_close(int file)
{
    return (int)ask("close", file, NULL, 0, 0);
}
