/* An allocator that fails where the extension calls it, for nomemory.py: a library to be preloaded, with glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

static long left; /* calls until one fails */

/* The n-th from now on; with 0 none. Returns what was left of the last time. */
long fail_at(long n)
{
    const long rest = left;
    left = n;
    return rest;
}

static int fails(void *caller)
{
    Dl_info place;
    return left > 0 && dladdr(caller, &place) && strstr(place.dli_fname, "/_core.") && --left == 0;
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}
