#include "archive.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, NAME = 0, NAME_LENGTH = 100, SIZE = 124, SIZE_LENGTH = 12, SUM = 148, SUM_LENGTH = 8, MAGIC = 257 };

bool archive_open(Archive *archive, const char *path, Fault *fault)
{
    *archive = (Archive){0};
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (file && !fseek(file, 0, SEEK_END))
        size = ftell(file);
    if (size >= 0 && !fseek(file, 0, SEEK_SET)) {
        archive->content = malloc(size ? (size_t)size : 1);
        if (archive->content)
            archive->size = fread(archive->content, 1, (size_t)size, file);
    }
    bool whole = archive->content && archive->size == (size_t)size;
    if (!whole) {
        fail(fault, "could not read %s: %s", path, strerror(errno));
        archive_close(archive);
    }
    if (file)
        fclose(file);
    return whole;
}

void archive_close(Archive *archive)
{
    free(archive->content);
    *archive = (Archive){0};
}

/* A field of octal digits, which ends with a zero or a space. */
static bool read_octal(const unsigned char *field, size_t length, uint64_t *value)
{
    size_t i = 0;
    *value = 0;
    for (; i < length && field[i] >= '0' && field[i] <= '7'; i++)
        *value = *value * 8 + (uint64_t)(field[i] - '0');
    return i > 0 && (i == length || field[i] == 0 || field[i] == ' ');
}

/* Whether a block is a member's header: its sum is that of its bytes, those of the sum itself counted as spaces. */
static bool is_header(const unsigned char *block)
{
    uint64_t expected, sum = 0;
    for (int i = 0; i < BLOCK; i++)
        sum += i >= SUM && i < SUM + SUM_LENGTH ? ' ' : block[i];
    return !memcmp(block + MAGIC, "ustar", 5) && read_octal(block + SUM, SUM_LENGTH, &expected) && sum == expected;
}

bool archive_find(const Archive *archive, const char *name, Member *member, Fault *fault)
{
    for (size_t at = 0; archive->size - at >= BLOCK;) {
        const unsigned char *header = archive->content + at;
        uint64_t size;
        if (!header[NAME])
            break; /* The archive ends with blocks of zeros. */
        if (!is_header(header) || !read_octal(header + SIZE, SIZE_LENGTH, &size))
            return fail(fault, "not an artifact: no member begins at byte %zu", at);
        at += BLOCK;
        if (size > archive->size - at)
            return fail(fault, "truncated: %s ends after %zu of %llu bytes", (const char *)header, archive->size - at,
                        (unsigned long long)size);
        if (!strncmp((const char *)header + NAME, name, NAME_LENGTH)) {
            *member = (Member){(const char *)archive->content + at, (size_t)size};
            return true;
        }
        size_t padded = ((size_t)size + BLOCK - 1) / BLOCK * BLOCK;
        at = padded < archive->size - at ? at + padded : archive->size;
    }
    return fail(fault, "not an artifact: it holds no %s", name);
}
