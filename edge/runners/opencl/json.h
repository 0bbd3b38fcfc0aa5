/* A reader of JSON (RFC 8259), whole documents only. Text stays as it is between its quotes: escapes are refused. */
#ifndef EDGE_JSON_H
#define EDGE_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "fault.h"

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct Json Json;
struct Json {
    JsonKind kind;
    const char *key;    /* in an object; not ended by a zero */
    size_t key_length;
    const char *text;   /* of a string or a number; not ended by a zero */
    size_t text_length;
    Json *first, *next; /* children of an array or an object, in order */
    size_t count;       /* of the children */
};

/* The document, which points into `text`; NULL if it is none. Free with json_free. */
Json *json_parse(const char *text, size_t length, Fault *fault);
void json_free(Json *value);

/* A member of an object of the kind that is asked for. NULL, and a fault, if it is missing or of another kind. */
const Json *json_member(const Json *object, const char *name, JsonKind kind, Fault *fault);

/* A whole number that is not negative. */
bool json_size(const Json *value, uint64_t *size, Fault *fault);
/* The same of an object's member. */
bool json_size_member(const Json *object, const char *name, uint64_t *size, Fault *fault);

/* A string as memory of its own, ended by a zero. */
char *json_copy(const Json *string, Fault *fault);

#endif
