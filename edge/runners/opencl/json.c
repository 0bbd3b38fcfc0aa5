#include "json.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 16 };

typedef struct {
    const char *at, *end, *begin;
    Fault *fault;
} Reader;

static Json *refuse(Reader *reader, const char *what)
{
    fail(reader->fault, "not JSON: %s at byte %zu", what, (size_t)(reader->at - reader->begin));
    return NULL;
}

static void skip_space(Reader *reader)
{
    while (reader->at < reader->end && memchr(" \t\r\n", *reader->at, 4))
        reader->at++;
}

static bool take(Reader *reader, char expected)
{
    skip_space(reader);
    if (reader->at == reader->end || *reader->at != expected)
        return false;
    reader->at++;
    return true;
}

static Json *new_value(Reader *reader, JsonKind kind)
{
    Json *value = calloc(1, sizeof *value);
    if (!value)
        fail(reader->fault, "out of memory");
    else
        value->kind = kind;
    return value;
}

/* What stands between two quotes, after the first of them. */
static bool read_text(Reader *reader, const char **text, size_t *length)
{
    *text = reader->at;
    for (; reader->at < reader->end && *reader->at != '"'; reader->at++)
        if (*reader->at == '\\' || (unsigned char)*reader->at < 0x20)
            return refuse(reader, "an escape in a string");
    if (reader->at == reader->end)
        return refuse(reader, "a string without an end");
    *length = (size_t)(reader->at++ - *text);
    return true;
}

static Json *read_word(Reader *reader)
{
    static const struct {
        const char *word;
        JsonKind kind;
    } words[] = {{"null", JSON_NULL}, {"false", JSON_FALSE}, {"true", JSON_TRUE}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i].word);
        if ((size_t)(reader->end - reader->at) >= length && !memcmp(reader->at, words[i].word, length)) {
            reader->at += length;
            return new_value(reader, words[i].kind);
        }
    }
    return refuse(reader, "an unknown word");
}

static Json *read_number(Reader *reader)
{
    Json *value = new_value(reader, JSON_NUMBER);
    if (!value)
        return NULL;
    value->text = reader->at;
    while (reader->at < reader->end && *reader->at && strchr("+-.0123456789Ee", *reader->at))
        reader->at++;
    value->text_length = (size_t)(reader->at - value->text);
    return value;
}

static Json *read_value(Reader *reader, int depth);

/* The children of an array or an object, after its opening bracket. */
static Json *read_children(Reader *reader, JsonKind kind, char closing, int depth)
{
    Json *parent = new_value(reader, kind);
    if (!parent || take(reader, closing))
        return parent;
    Json **place = &parent->first;
    do {
        const char *key = NULL;
        size_t key_length = 0;
        if (kind == JSON_OBJECT) {
            if (!take(reader, '"') || !read_text(reader, &key, &key_length) || !take(reader, ':')) {
                refuse(reader, "an object without a key");
                json_free(parent);
                return NULL;
            }
        }
        Json *child = read_value(reader, depth + 1);
        if (!child) {
            json_free(parent);
            return NULL;
        }
        child->key = key;
        child->key_length = key_length;
        *place = child;
        place = &child->next;
        parent->count++;
    } while (take(reader, ','));
    if (!take(reader, closing)) {
        refuse(reader, "an array or an object without an end");
        json_free(parent);
        return NULL;
    }
    return parent;
}

static Json *read_value(Reader *reader, int depth)
{
    if (depth > DEEPEST)
        return refuse(reader, "too many brackets");
    if (take(reader, '{'))
        return read_children(reader, JSON_OBJECT, '}', depth);
    if (take(reader, '['))
        return read_children(reader, JSON_ARRAY, ']', depth);
    if (take(reader, '"')) {
        Json *value = new_value(reader, JSON_STRING);
        if (value && read_text(reader, &value->text, &value->text_length))
            return value;
        free(value);
        return NULL;
    }
    if (reader->at == reader->end)
        return refuse(reader, "an early end");
    return strchr("-0123456789", *reader->at) && *reader->at ? read_number(reader) : read_word(reader);
}

Json *json_parse(const char *text, size_t length, Fault *fault)
{
    Reader reader = {text, text + length, text, fault};
    Json *value = read_value(&reader, 0);
    skip_space(&reader);
    if (value && reader.at != reader.end) {
        refuse(&reader, "something after the end");
        json_free(value);
        return NULL;
    }
    return value;
}

void json_free(Json *value)
{
    while (value) {
        Json *next = value->next;
        json_free(value->first);
        free(value);
        value = next;
    }
}

const Json *json_member(const Json *object, const char *name, JsonKind kind, Fault *fault)
{
    static const char *const kinds[] = {"null", "false", "true", "a number", "a string", "an array", "an object"};
    for (const Json *child = object->kind == JSON_OBJECT ? object->first : NULL; child; child = child->next)
        if (child->key_length == strlen(name) && !memcmp(child->key, name, child->key_length)) {
            if (child->kind == kind)
                return child;
            fail(fault, "%s is %s, not %s", name, kinds[child->kind], kinds[kind]);
            return NULL;
        }
    fail(fault, "%s is missing", name);
    return NULL;
}

bool json_size(const Json *value, uint64_t *size, Fault *fault)
{
    if (value->kind != JSON_NUMBER || !value->text_length)
        return fail(fault, "something stands where a number is needed");
    *size = 0;
    for (size_t i = 0; i < value->text_length; i++) {
        char digit = value->text[i];
        if (digit < '0' || digit > '9' || *size > (UINT64_MAX - 9) / 10)
            return fail(fault, "%.*s is no size", (int)value->text_length, value->text);
        *size = *size * 10 + (uint64_t)(digit - '0');
    }
    return true;
}

bool json_size_member(const Json *object, const char *name, uint64_t *size, Fault *fault)
{
    const Json *value = json_member(object, name, JSON_NUMBER, fault);
    return value && json_size(value, size, fault);
}

char *json_copy(const Json *string, Fault *fault)
{
    char *copy = malloc(string->text_length + 1);
    if (!copy) {
        fail(fault, "out of memory");
        return NULL;
    }
    memcpy(copy, string->text, string->text_length);
    copy[string->text_length] = 0;
    return copy;
}
