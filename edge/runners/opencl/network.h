/*
 * A network on an OpenCL device: what an app needs to load an artifact and run it. Plain C99 and any OpenCL 1.2 driver.
 *
 *     Fault fault = {{0}};
 *     Network *network = network_load("fasternet_t0.fp32.pixel-8.opencl", &fault);
 *     network_write(network, 0, image, &fault);
 *     network_run(network, &fault);
 *     network_read(network, 0, logits, &fault);
 *
 * Everything is allocated, compiled and bound when it is loaded: an inference only launches kernels. One thread at a
 * time may use a network. All but network_free give false or NULL, and a fault, when something cannot be done.
 */
#ifndef EDGE_NETWORK_H
#define EDGE_NETWORK_H

#include "plan.h"

typedef struct Network Network;

Network *network_load(const char *path, Fault *fault);
void network_free(Network *network);

/* Inputs and outputs, in the artifact's own order and layout; float32. */
const Plan *network_plan(const Network *network);
/* Name of the device and of its driver's version, in words. */
const char *network_device(const Network *network);

bool network_write(Network *network, size_t input, const float *values, Fault *fault);
/* One inference; back when it is done. */
bool network_run(Network *network, Fault *fault);
bool network_read(Network *network, size_t output, float *values, Fault *fault);

#endif
