/* The artifact as a file: a tar archive (POSIX.1-1988 "ustar") whose members are read by name. */
#ifndef EDGE_ARCHIVE_H
#define EDGE_ARCHIVE_H

#include <stddef.h>

#include "fault.h"

typedef struct {
    unsigned char *content;
    size_t size;
} Archive;

typedef struct {
    const char *content;
    size_t size;
} Member;

/* Reads a whole file. */
bool archive_open(Archive *archive, const char *path, Fault *fault);
/* A member's bytes, inside the archive's own. */
bool archive_find(const Archive *archive, const char *name, Member *member, Fault *fault);
void archive_close(Archive *archive);

#endif
