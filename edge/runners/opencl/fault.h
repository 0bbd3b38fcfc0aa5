/* Why something could not be done: the first sentence wins, in words for people. */
#ifndef EDGE_FAULT_H
#define EDGE_FAULT_H

#include <stdbool.h>

typedef struct {
    char text[1024];
} Fault;

/* Says it, unless something was said before. Always false, so that a function can end with `return fail(...)`. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
bool fail(Fault *fault, const char *format, ...);

#endif
