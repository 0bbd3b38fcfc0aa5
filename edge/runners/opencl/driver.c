#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { MOST_PLATFORMS = 16 };

static const char *const places[] = {
    "libOpenCL.so.1",
    "libOpenCL.so",
    "/vendor/lib64/libOpenCL.so",
    "/system/vendor/lib64/libOpenCL.so",
    "/vendor/lib64/egl/libGLES_mali.so",
};

/* POSIX wants dlsym's result copied: C knows no conversion from an object's pointer to a function's. */
static bool find(void *library, const char *name, void *function, Fault *fault)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol || fail(fault, "the OpenCL driver lacks %s", name);
}

bool driver_open(Driver *driver, Fault *fault)
{
    *driver = (Driver){0};
    for (size_t i = 0; i < sizeof places / sizeof *places && !driver->library; i++)
        driver->library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    if (!driver->library)
        return fail(fault, "there is no OpenCL driver here: %s", dlerror());
#define FIND(name) find(driver->library, #name, &driver->name, fault) &&
    return DRIVER_FUNCTIONS(FIND) true;
#undef FIND
}

void driver_close(Driver *driver)
{
    if (driver->library)
        dlclose(driver->library);
    *driver = (Driver){0};
}

bool driver_device(const Driver *driver, cl_device_id *device, Fault *fault)
{
    static const cl_device_type wanted[] = {CL_DEVICE_TYPE_GPU, CL_DEVICE_TYPE_ALL};
    cl_platform_id platforms[MOST_PLATFORMS];
    cl_uint count = 0;
    if (driver->clGetPlatformIDs(MOST_PLATFORMS, platforms, &count) || !count)
        return fail(fault, "the OpenCL driver has no platform");
    if (count > MOST_PLATFORMS)
        count = MOST_PLATFORMS;
    for (size_t kind = 0; kind < sizeof wanted / sizeof *wanted; kind++)
        for (cl_uint i = 0; i < count; i++)
            if (!driver->clGetDeviceIDs(platforms[i], wanted[kind], 1, device, NULL))
                return true;
    return fail(fault, "the OpenCL driver has no device");
}

const char *driver_error(cl_int code)
{
    static char number[24];
    switch (code) {
    case CL_DEVICE_NOT_AVAILABLE: return "the device is not available";
    case CL_MEM_OBJECT_ALLOCATION_FAILURE: return "the device has not enough memory";
    case CL_OUT_OF_RESOURCES: return "the device is out of resources";
    case CL_OUT_OF_HOST_MEMORY: return "the host is out of memory";
    case CL_BUILD_PROGRAM_FAILURE: return "the source does not compile";
    case CL_INVALID_KERNEL_NAME: return "no such kernel";
    case CL_INVALID_KERNEL_ARGS: return "an argument is missing";
    case CL_INVALID_ARG_INDEX: return "too many arguments";
    case CL_INVALID_WORK_GROUP_SIZE: return "a group of that size is not possible";
    case CL_INVALID_BUFFER_SIZE: return "a buffer of that size is not possible";
    default: snprintf(number, sizeof number, "OpenCL error %d", (int)code); return number;
    }
}
