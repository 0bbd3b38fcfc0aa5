#include "network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "driver.h"

struct Network {
    Driver driver;
    Plan plan;
    cl_device_id device;
    cl_context context;
    cl_command_queue queue;
    cl_program program;
    cl_mem *buffers;
    cl_kernel *kernels; /* one a launch: arguments are bound once */
    char title[256];
};

static bool describe(Network *network, Fault *fault)
{
    const Driver *driver = &network->driver;
    char name[128] = "", version[128] = "";
    if (driver->clGetDeviceInfo(network->device, CL_DEVICE_NAME, sizeof name, name, NULL) ||
        driver->clGetDeviceInfo(network->device, CL_DEVICE_VERSION, sizeof version, version, NULL))
        return fail(fault, "the device does not tell its name");
    snprintf(network->title, sizeof network->title, "%s, %s", name, version);
    return true;
}

static bool open_device(Network *network, Fault *fault)
{
    Driver *driver = &network->driver;
    cl_int code;
    if (!driver_open(driver, fault) || !driver_device(driver, &network->device, fault) || !describe(network, fault))
        return false;
    network->context = driver->clCreateContext(NULL, 1, &network->device, NULL, NULL, &code);
    if (code)
        return fail(fault, "no context: %s", driver_error(code));
    network->queue = driver->clCreateCommandQueue(network->context, network->device, 0, &code);
    return !code || fail(fault, "no queue: %s", driver_error(code));
}

/* Drivers promise memory that they do not have, so what the plan asks for is compared with what the device says. */
static bool check_memory(const Network *network, Fault *fault)
{
    const Driver *driver = &network->driver;
    cl_ulong largest = 0, whole = 0, needed = 0;
    if (driver->clGetDeviceInfo(network->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof largest, &largest, NULL) ||
        driver->clGetDeviceInfo(network->device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof whole, &whole, NULL))
        return fail(fault, "the device does not tell its memory");
    for (size_t i = 0; i < network->plan.buffer_count; i++) {
        uint64_t bytes = network->plan.buffers[i].bytes;
        if (bytes > largest || bytes > whole - needed)
            return fail(fault, "needs more memory than the device has: %llu bytes for buffer %zu, after %llu of %llu",
                        (unsigned long long)bytes, i, (unsigned long long)needed, (unsigned long long)whole);
        needed += bytes;
    }
    return true;
}

static bool create_buffers(Network *network, const Archive *archive, Fault *fault)
{
    const Plan *plan = &network->plan;
    Member weights;
    if (!archive_find(archive, plan->weights, &weights, fault) || !plan_fits(plan, weights.size, fault) ||
        !check_memory(network, fault))
        return false;
    network->buffers = calloc(plan->buffer_count + 1, sizeof *network->buffers);
    if (!network->buffers)
        return fail(fault, "out of memory");
    for (size_t i = 0; i < plan->buffer_count; i++) {
        const Buffer *buffer = &plan->buffers[i];
        cl_mem_flags flags = buffer->filled ? CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR : CL_MEM_READ_WRITE;
        void *content = buffer->filled ? (void *)(weights.content + buffer->offset) : NULL;
        cl_int code;
        network->buffers[i] =
            network->driver.clCreateBuffer(network->context, flags, (size_t)buffer->bytes, content, &code);
        if (code)
            return fail(fault, "no buffer of %llu bytes: %s", (unsigned long long)buffer->bytes, driver_error(code));
    }
    return true;
}

/* The first line of what the compiler says. */
static bool fail_build(Network *network, cl_int code, Fault *fault)
{
    static const cl_program_build_info log_of = CL_PROGRAM_BUILD_LOG;
    size_t size = 0;
    const Driver *driver = &network->driver;
    driver->clGetProgramBuildInfo(network->program, network->device, log_of, 0, NULL, &size);
    char *log = calloc(size + 1, 1);
    if (log && size)
        driver->clGetProgramBuildInfo(network->program, network->device, log_of, size, log, NULL);
    const char *error = log ? strstr(log, "error") : NULL;
    const char *first = error ? error : log ? log : "";
    fail(fault, "%s: %.*s", driver_error(code), (int)strcspn(first, "\r\n"), first);
    free(log);
    return false;
}

static bool compile(Network *network, const Archive *archive, Fault *fault)
{
    Member source;
    cl_int code;
    if (!archive_find(archive, network->plan.source, &source, fault))
        return false;
    network->program = network->driver.clCreateProgramWithSource(network->context, 1, &source.content, &source.size,
                                                                &code);
    if (code)
        return fail(fault, "no program: %s", driver_error(code));
    code = network->driver.clBuildProgram(network->program, 1, &network->device, "-cl-std=CL1.2", NULL, NULL);
    return !code || fail_build(network, code, fault);
}

/* Whether the device runs this kernel in groups of the plan's size: it may need more registers than the group has. */
static bool check_group(const Network *network, const Launch *launch, cl_kernel kernel, Fault *fault)
{
    const Driver *driver = &network->driver;
    size_t most = 0, each[GRID] = {0};
    uint64_t group = launch->local[0] * launch->local[1] * launch->local[2];
    if (driver->clGetKernelWorkGroupInfo(kernel, network->device, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, NULL) ||
        driver->clGetDeviceInfo(network->device, CL_DEVICE_MAX_WORK_ITEM_SIZES, sizeof each, each, NULL))
        return fail(fault, "the device does not tell how large a group of %s may be", launch->kernel);
    for (int i = 0; i < GRID; i++)
        if (launch->local[i] > each[i])
            return fail(fault, "%s runs in groups of %llu, the device's have at most %zu in that direction",
                        launch->kernel, (unsigned long long)launch->local[i], each[i]);
    return group <= most || fail(fault, "%s runs in groups of %llu, the device takes at most %zu", launch->kernel,
                                 (unsigned long long)group, most);
}

static bool bind(Network *network, const Launch *launch, cl_kernel *kernel, Fault *fault)
{
    const Driver *driver = &network->driver;
    cl_uint takes = 0;
    cl_int code;
    *kernel = driver->clCreateKernel(network->program, launch->kernel, &code);
    if (code)
        return fail(fault, "%s: %s", launch->kernel, driver_error(code));
    code = driver->clGetKernelInfo(*kernel, CL_KERNEL_NUM_ARGS, sizeof takes, &takes, NULL);
    if (code || takes != launch->count)
        return fail(fault, "%s takes %u arguments, the plan gives %zu", launch->kernel, takes, launch->count);
    for (cl_uint i = 0; i < takes; i++) {
        code = driver->clSetKernelArg(*kernel, i, sizeof(cl_mem), &network->buffers[launch->arguments[i]]);
        if (code)
            return fail(fault, "argument %u of %s: %s", i, launch->kernel, driver_error(code));
    }
    return check_group(network, launch, *kernel, fault);
}

static bool create_kernels(Network *network, Fault *fault)
{
    const Plan *plan = &network->plan;
    network->kernels = calloc(plan->launch_count + 1, sizeof *network->kernels);
    if (!network->kernels)
        return fail(fault, "out of memory");
    for (size_t i = 0; i < plan->launch_count; i++)
        if (!bind(network, &plan->launches[i], &network->kernels[i], fault))
            return false;
    return true;
}

Network *network_load(const char *path, Fault *fault)
{
    Archive archive;
    Member plan;
    Network *network = calloc(1, sizeof *network);
    if (!network) {
        fail(fault, "out of memory");
        return NULL;
    }
    bool loaded = archive_open(&archive, path, fault) && archive_find(&archive, "plan.json", &plan, fault) &&
                  plan_read(&network->plan, plan.content, plan.size, fault) && open_device(network, fault) &&
                  create_buffers(network, &archive, fault) && compile(network, &archive, fault) &&
                  create_kernels(network, fault);
    archive_close(&archive);
    if (loaded)
        return network;
    network_free(network);
    return NULL;
}

void network_free(Network *network)
{
    const Driver *driver = &network->driver;
    for (size_t i = 0; network->kernels && i < network->plan.launch_count; i++)
        if (network->kernels[i])
            driver->clReleaseKernel(network->kernels[i]);
    for (size_t i = 0; network->buffers && i < network->plan.buffer_count; i++)
        if (network->buffers[i])
            driver->clReleaseMemObject(network->buffers[i]);
    if (network->program)
        driver->clReleaseProgram(network->program);
    if (network->queue)
        driver->clReleaseCommandQueue(network->queue);
    if (network->context)
        driver->clReleaseContext(network->context);
    free(network->kernels);
    free(network->buffers);
    plan_free(&network->plan);
    driver_close(&network->driver);
    free(network);
}

const Plan *network_plan(const Network *network)
{
    return &network->plan;
}

const char *network_device(const Network *network)
{
    return network->title;
}

bool network_write(Network *network, size_t input, const float *values, Fault *fault)
{
    const Port *port = &network->plan.inputs[input];
    cl_int code = network->driver.clEnqueueWriteBuffer(network->queue, network->buffers[port->buffer], CL_TRUE, 0,
                                                       (size_t)port->elements * sizeof *values, values, 0, NULL, NULL);
    return !code || fail(fault, "could not write %s: %s", port->name, driver_error(code));
}

bool network_run(Network *network, Fault *fault)
{
    const Driver *driver = &network->driver;
    for (size_t i = 0; i < network->plan.launch_count; i++) {
        const Launch *launch = &network->plan.launches[i];
        size_t global[GRID], local[GRID];
        for (int axis = 0; axis < GRID; axis++) {
            global[axis] = (size_t)launch->global[axis];
            local[axis] = (size_t)launch->local[axis];
        }
        cl_int code = driver->clEnqueueNDRangeKernel(network->queue, network->kernels[i], GRID, NULL, global, local, 0,
                                                     NULL, NULL);
        if (code)
            return fail(fault, "could not launch %s: %s", launch->kernel, driver_error(code));
    }
    cl_int code = driver->clFinish(network->queue);
    return !code || fail(fault, "the kernels did not end: %s", driver_error(code));
}

bool network_read(Network *network, size_t output, float *values, Fault *fault)
{
    const Port *port = &network->plan.outputs[output];
    cl_int code = network->driver.clEnqueueReadBuffer(network->queue, network->buffers[port->buffer], CL_TRUE, 0,
                                                      (size_t)port->elements * sizeof *values, values, 0, NULL, NULL);
    return !code || fail(fault, "could not read %s: %s", port->name, driver_error(code));
}
