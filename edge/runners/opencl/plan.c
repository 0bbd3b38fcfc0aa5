#include "plan.h"

#include <stdlib.h>
#include <string.h>

/* Space for the elements of an array, zeroed; NULL with a fault, but never NULL for an empty array. */
static void *space_for(const Json *array, size_t element, Fault *fault)
{
    void *space = calloc(array->count ? array->count : 1, element);
    if (!space)
        fail(fault, "out of memory");
    return space;
}

static bool read_name(const Json *object, const char *key, char **name, Fault *fault)
{
    const Json *value = json_member(object, key, JSON_STRING, fault);
    return value && (*name = json_copy(value, fault));
}

static bool read_buffers(Plan *plan, const Json *document, Fault *fault)
{
    const Json *list = json_member(document, "buffers", JSON_ARRAY, fault);
    if (!list || !(plan->buffers = space_for(list, sizeof *plan->buffers, fault)))
        return false;
    for (const Json *entry = list->first; entry; entry = entry->next) {
        Buffer *buffer = &plan->buffers[plan->buffer_count++];
        if (!json_size_member(entry, "bytes", &buffer->bytes, fault))
            return false;
        if (!buffer->bytes)
            return fail(fault, "buffer %zu is empty", plan->buffer_count - 1);
        Fault missing = {{0}};
        buffer->filled = json_member(entry, "offset", JSON_NUMBER, &missing) != NULL;
        if (buffer->filled && !json_size_member(entry, "offset", &buffer->offset, fault))
            return false;
    }
    return true;
}

static bool read_port(const Plan *plan, const Json *entry, Port *port, Fault *fault)
{
    const Json *shape;
    if (!read_name(entry, "name", &port->name, fault) || !json_size_member(entry, "buffer", &port->buffer, fault) ||
        !(shape = json_member(entry, "shape", JSON_ARRAY, fault)))
        return false;
    if (port->buffer >= plan->buffer_count || shape->count > MOST_DIMENSIONS)
        return fail(fault, "%s has no buffer, or too many dimensions", port->name);
    uint64_t room = plan->buffers[port->buffer].bytes / sizeof(float);
    port->elements = 1;
    for (const Json *length = shape->first; length; length = length->next) {
        uint64_t *here = &port->shape[port->dimensions++];
        if (!json_size(length, here, fault))
            return false;
        if (!*here || *here > room / port->elements)
            return fail(fault, "%s does not fit its buffer", port->name);
        port->elements *= *here;
    }
    return true;
}

static bool read_ports(const Plan *plan, const Json *document, const char *key, Port **ports, size_t *count,
                       Fault *fault)
{
    const Json *list = json_member(document, key, JSON_ARRAY, fault);
    if (!list || !(*ports = space_for(list, sizeof **ports, fault)))
        return false;
    for (const Json *entry = list->first; entry; entry = entry->next)
        if (!read_port(plan, entry, &(*ports)[(*count)++], fault))
            return false;
    return true;
}

static bool read_grid(const Json *object, const char *key, uint64_t *grid, Fault *fault)
{
    const Json *list = json_member(object, key, JSON_ARRAY, fault);
    if (!list)
        return false;
    if (list->count != GRID)
        return fail(fault, "%s has %zu numbers, 3 are needed", key, list->count);
    for (const Json *entry = list->first; entry; entry = entry->next)
        if (!json_size(entry, grid++, fault))
            return false;
    return true;
}

static bool read_launch(const Plan *plan, const Json *entry, Launch *launch, Fault *fault)
{
    const Json *list;
    if (!read_name(entry, "kernel", &launch->kernel, fault) ||
        !(list = json_member(entry, "arguments", JSON_ARRAY, fault)) ||
        !(launch->arguments = space_for(list, sizeof *launch->arguments, fault)) ||
        !read_grid(entry, "global", launch->global, fault) || !read_grid(entry, "local", launch->local, fault))
        return false;
    for (const Json *argument = list->first; argument; argument = argument->next) {
        uint64_t *buffer = &launch->arguments[launch->count++];
        if (!json_size(argument, buffer, fault))
            return false;
        if (*buffer >= plan->buffer_count)
            return fail(fault, "%s takes a buffer that the plan does not have", launch->kernel);
    }
    for (int i = 0; i < GRID; i++)
        if (!launch->local[i] || !launch->global[i] || launch->global[i] % launch->local[i])
            return fail(fault, "%s is not launched in whole groups", launch->kernel);
    return true;
}

static bool read_launches(Plan *plan, const Json *document, Fault *fault)
{
    const Json *list = json_member(document, "launches", JSON_ARRAY, fault);
    if (!list || !(plan->launches = space_for(list, sizeof *plan->launches, fault)))
        return false;
    for (const Json *entry = list->first; entry; entry = entry->next)
        if (!read_launch(plan, entry, &plan->launches[plan->launch_count++], fault))
            return false;
    return true;
}

/* Whether the plan is of this version and for OpenCL. */
static bool check_kind(const Json *document, Fault *fault)
{
    uint64_t version;
    const Json *api = json_member(document, "api", JSON_STRING, fault);
    if (!api || !json_size_member(document, "version", &version, fault))
        return false;
    if (version != PLAN_VERSION)
        return fail(fault, "version %llu, this program reads %d", (unsigned long long)version, PLAN_VERSION);
    if (api->text_length != strlen("opencl") || memcmp(api->text, "opencl", api->text_length))
        return fail(fault, "made for %.*s, not for OpenCL", (int)api->text_length, api->text);
    return true;
}

bool plan_read(Plan *plan, const char *text, size_t length, Fault *fault)
{
    *plan = (Plan){0};
    Fault cause = {{0}};
    Json *document = json_parse(text, length, &cause);
    bool read = document && check_kind(document, &cause) && read_name(document, "source", &plan->source, &cause) &&
                read_name(document, "weights", &plan->weights, &cause) && read_buffers(plan, document, &cause) &&
                read_ports(plan, document, "inputs", &plan->inputs, &plan->input_count, &cause) &&
                read_ports(plan, document, "outputs", &plan->outputs, &plan->output_count, &cause) &&
                read_launches(plan, document, &cause);
    json_free(document);
    return read || fail(fault, "the launch plan cannot be used: %s", cause.text);
}

bool plan_fits(const Plan *plan, uint64_t weights_bytes, Fault *fault)
{
    for (size_t i = 0; i < plan->buffer_count; i++) {
        const Buffer *buffer = &plan->buffers[i];
        if (buffer->filled && (buffer->offset > weights_bytes || buffer->bytes > weights_bytes - buffer->offset))
            return fail(fault, "buffer %zu is filled from beyond the weights, which have %llu bytes", i,
                        (unsigned long long)weights_bytes);
    }
    return true;
}

static void free_ports(Port *ports, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(ports[i].name);
    free(ports);
}

void plan_free(Plan *plan)
{
    free(plan->source);
    free(plan->weights);
    free(plan->buffers);
    free_ports(plan->inputs, plan->input_count);
    free_ports(plan->outputs, plan->output_count);
    for (size_t i = 0; i < plan->launch_count; i++) {
        free(plan->launches[i].kernel);
        free(plan->launches[i].arguments);
    }
    free(plan->launches);
    *plan = (Plan){0};
}
