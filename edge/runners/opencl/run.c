/*
 * Runs one artifact on raw inputs: the arguments, files and answers of every native runner, which ../runner.h describes.
 * Threads are the driver's affair and ignored. "loaded" also has "device": what the kernels run on.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "network.h"

enum { RAN = 0, FAILED = 1, MOST_PORTS = 64 };

/* One input or output of the command line. */
typedef struct {
    char *name, *path, *shape; /* the shape of an input; NULL for an output */
    FILE *file;
    float *values;
    uint64_t elements;
} Stream;

typedef struct {
    const char *artifact;
    unsigned threads, samples, warmups, repeats, limit;
    Stream inputs[MOST_PORTS], outputs[MOST_PORTS];
    size_t input_count, output_count;
} Arguments;

static FILE *answer; /* the caller's stdout; drivers print to ours */

static void print_text(const char *text)
{
    putc('"', answer);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putc('\\', answer);
        putc((unsigned char)*text < 0x20 ? ' ' : *text, answer);
    }
    putc('"', answer);
}

static bool parse_number(const char *text, unsigned *number, Fault *fault)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value > INT32_MAX)
        return fail(fault, "not a number: %s", text);
    *number = (unsigned)value;
    return true;
}

/* NAME=FILE, and :SHAPE for an input. */
static bool parse_stream(char *text, bool has_shape, Stream *streams, size_t *count, Fault *fault)
{
    if (*count == MOST_PORTS)
        return fail(fault, "more than %d inputs or outputs", MOST_PORTS);
    char *equals = strchr(text, '='), *colon = equals && has_shape ? strrchr(equals, ':') : NULL;
    if (!equals || (has_shape && !colon))
        return fail(fault, "not NAME=FILE%s: %s", has_shape ? ":SHAPE" : "", text);
    *equals = 0;
    if (colon)
        *colon = 0;
    streams[(*count)++] = (Stream){.name = text, .path = equals + 1, .shape = colon ? colon + 1 : NULL};
    return true;
}

static bool parse(int count, char **words, Arguments *arguments, Fault *fault)
{
    const struct {
        const char *option;
        unsigned *number;
    } numbers[] = {
        {"--threads", &arguments->threads}, {"--samples", &arguments->samples}, {"--warmups", &arguments->warmups},
        {"--repeats", &arguments->repeats}, {"--limit", &arguments->limit},
    };
    if (count % 2)
        return fail(fault, "usage: run ARTIFACT --OPTION VALUE ..., as runner.h says");
    arguments->artifact = words[1];
    for (int i = 2; i < count; i += 2) {
        size_t n = 0, known = sizeof numbers / sizeof *numbers;
        while (n < known && strcmp(words[i], numbers[n].option))
            n++;
        bool good;
        if (n < known)
            good = parse_number(words[i + 1], numbers[n].number, fault);
        else if (!strcmp(words[i], "--input"))
            good = parse_stream(words[i + 1], true, arguments->inputs, &arguments->input_count, fault);
        else if (!strcmp(words[i], "--output"))
            good = parse_stream(words[i + 1], false, arguments->outputs, &arguments->output_count, fault);
        else
            good = fail(fault, "unknown option: %s", words[i]);
        if (!good)
            return false;
    }
    if (!arguments->threads || !arguments->samples || !arguments->limit)
        return fail(fault, "--threads, --samples and --limit must be given and not be 0");
    return true;
}

/* "1x224x224x3" */
static void write_shape(const Port *port, char *text, size_t size)
{
    *text = 0;
    for (size_t i = 0; i < port->dimensions; i++) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%" PRIu64, i ? "x" : "", port->shape[i]);
    }
}

/* Pairs the streams of the command line with the artifact's ports, by name, and opens their files. */
static bool open_streams(Stream *streams, size_t count, const Port *ports, size_t port_count, Fault *fault)
{
    if (count != port_count)
        return fail(fault, "the artifact has %zu inputs or outputs, %zu were given", port_count, count);
    for (size_t i = 0; i < count; i++) {
        Stream *stream = &streams[i];
        char shape[256];
        if (strcmp(stream->name, ports[i].name))
            return fail(fault, "the artifact has %s where %s was given", ports[i].name, stream->name);
        write_shape(&ports[i], shape, sizeof shape);
        if (stream->shape && strcmp(stream->shape, shape))
            return fail(fault, "input %s is %s in the artifact, %s was given", stream->name, shape, stream->shape);
        stream->elements = ports[i].elements;
        stream->values = malloc((size_t)stream->elements * sizeof *stream->values);
        stream->file = fopen(stream->path, stream->shape ? "rb" : "wb");
        if (!stream->values || !stream->file)
            return fail(fault, "could not open %s: %s", stream->path, strerror(errno));
    }
    return true;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* One inference; its seconds are added to a list. */
static bool infer(Network *network, double *seconds, Fault *fault)
{
    double begin = now();
    bool ran = network_run(network, fault);
    *seconds = now() - begin;
    return ran;
}

/* One sample from the input files through the network to the output files. */
static bool run_sample(Network *network, Arguments *arguments, double *seconds, Fault *fault)
{
    for (size_t i = 0; i < arguments->input_count; i++) {
        Stream *stream = &arguments->inputs[i];
        if (fread(stream->values, sizeof *stream->values, stream->elements, stream->file) != stream->elements)
            return fail(fault, "%s ends early", stream->path);
        if (!network_write(network, i, stream->values, fault))
            return false;
    }
    if (!infer(network, seconds, fault))
        return false;
    for (size_t i = 0; i < arguments->output_count; i++) {
        Stream *stream = &arguments->outputs[i];
        if (!network_read(network, i, stream->values, fault))
            return false;
        if (fwrite(stream->values, sizeof *stream->values, stream->elements, stream->file) != stream->elements)
            return fail(fault, "could not write %s: %s", stream->path, strerror(errno));
    }
    return true;
}

/* What was not written, down to the last byte, is an error: the disk may be full. */
static bool close_outputs(Arguments *arguments, Fault *fault)
{
    for (size_t i = 0; i < arguments->output_count; i++) {
        Stream *stream = &arguments->outputs[i];
        int failed = fclose(stream->file);
        stream->file = NULL;
        if (failed)
            return fail(fault, "could not write %s: %s", stream->path, strerror(errno));
    }
    return true;
}

static void print_seconds(const char *key, const double *seconds, unsigned count)
{
    fprintf(answer, ",\"%s\":[", key);
    for (unsigned i = 0; i < count; i++)
        fprintf(answer, "%s%.9f", i ? "," : "", seconds[i]);
    putc(']', answer);
}

static void report(const Network *network, const Arguments *arguments, const double *seconds)
{
    const Plan *plan = network_plan(network);
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    fputs("{\"event\":\"ran\"", answer);
    print_seconds("seconds", seconds, arguments->samples);
    print_seconds("repeats", seconds + arguments->samples, arguments->repeats);
    fputs(",\"outputs\":[", answer);
    for (size_t i = 0; i < plan->output_count; i++) {
        fputs(i ? ",[" : "[", answer);
        for (size_t axis = 0; axis < plan->outputs[i].dimensions; axis++)
            fprintf(answer, "%s%" PRIu64, axis ? "," : "", plan->outputs[i].shape[axis]);
        putc(']', answer);
    }
    fprintf(answer, "],\"peak_memory_kib\":%ld}\n", usage.ru_maxrss);
}

static bool run(Network *network, Arguments *arguments, Fault *fault)
{
    const Plan *plan = network_plan(network);
    if (!open_streams(arguments->inputs, arguments->input_count, plan->inputs, plan->input_count, fault) ||
        !open_streams(arguments->outputs, arguments->output_count, plan->outputs, plan->output_count, fault))
        return false;
    fputs("{\"event\":\"loaded\",\"libraries\":[],\"device\":", answer);
    print_text(network_device(network));
    fputs("}\n", answer);
    fflush(answer);

    double *seconds = calloc((size_t)arguments->samples + arguments->repeats, sizeof *seconds), unused;
    bool good = seconds || fail(fault, "out of memory");
    for (unsigned i = 0; good && i < arguments->samples; i++)
        good = run_sample(network, arguments, &seconds[i], fault);
    good = good && close_outputs(arguments, fault);
    for (unsigned i = 0; good && i < arguments->warmups; i++)
        good = infer(network, &unused, fault);
    for (unsigned i = 0; good && i < arguments->repeats; i++)
        good = infer(network, &seconds[arguments->samples + i], fault);
    if (good)
        report(network, arguments, seconds);
    free(seconds);
    return good;
}

static void close_streams(Stream *streams, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(streams[i].values);
        if (streams[i].file)
            fclose(streams[i].file);
    }
}

int main(int count, char **words)
{
    static Arguments arguments;
    Fault fault = {{0}};
    answer = fdopen(dup(STDOUT_FILENO), "w");
    if (!answer || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return FAILED;
    bool ran = false;
    if (parse(count, words, &arguments, &fault)) {
        alarm(arguments.limit); /* ends the program: who started it learns of the signal */
        Network *network = network_load(arguments.artifact, &fault);
        if (network) {
            ran = run(network, &arguments, &fault);
            network_free(network);
        }
    }
    close_streams(arguments.inputs, arguments.input_count);
    close_streams(arguments.outputs, arguments.output_count);
    if (!ran) {
        fputs("{\"event\":\"failed\",\"reason\":", answer);
        print_text(fault.text);
        fputs("}\n", answer);
    }
    return fclose(answer) || !ran ? FAILED : RAN;
}
