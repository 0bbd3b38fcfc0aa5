/*
 * The launch plan, `plan.json` of an artifact: which kernels run, on which buffers, in which order.
 *
 *   {"version": 1, "api": "opencl", "source": "kernels.cl", "weights": "weights.bin",
 *    "buffers":  [{"bytes": 4096}, {"bytes": 640, "offset": 128}, ...],   an offset: filled from the weights
 *    "inputs":   [{"name": "image", "buffer": 0, "shape": [1, 3, 224, 224]}, ...],   float32, C order
 *    "outputs":  [...],
 *    "launches": [{"kernel": "conv", "arguments": [0, 1, 2], "global": [512, 1, 1], "local": [64, 1, 1]}, ...]}
 *
 * Arguments are buffers, by their place in the list. Launches run one after the other. What a plan says is checked
 * against itself and the weights here; what the device can hold and run, where it is loaded.
 */
#ifndef EDGE_PLAN_H
#define EDGE_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "fault.h"
#include "json.h"

enum { PLAN_VERSION = 1, MOST_DIMENSIONS = 8, GRID = 3 };

typedef struct {
    uint64_t bytes;
    bool filled;
    uint64_t offset; /* in the weights, of a filled one */
} Buffer;

typedef struct {
    char *name;
    uint64_t buffer;
    uint64_t shape[MOST_DIMENSIONS];
    size_t dimensions;
    uint64_t elements;
} Port;

typedef struct {
    char *kernel;
    uint64_t *arguments;
    size_t count;
    uint64_t global[GRID], local[GRID]; /* work-items of the whole launch, and of one group */
} Launch;

typedef struct {
    char *source, *weights; /* names of members */
    Buffer *buffers;
    size_t buffer_count;
    Port *inputs, *outputs;
    size_t input_count, output_count;
    Launch *launches;
    size_t launch_count;
} Plan;

/* Reads and checks a plan. What is read must be freed, also after a fault. */
bool plan_read(Plan *plan, const char *text, size_t length, Fault *fault);
/* Whether every filled buffer lies in the weights. */
bool plan_fits(const Plan *plan, uint64_t weights_bytes, Fault *fault);
void plan_free(Plan *plan);

#endif
