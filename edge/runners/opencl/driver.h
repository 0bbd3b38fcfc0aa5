/* The OpenCL driver, found when the program runs: a phone's lies where its maker put it, and nothing links with it. */
#ifndef EDGE_DRIVER_H
#define EDGE_DRIVER_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CL/cl_icd.h>

#include "fault.h"

/* Every function of OpenCL 1.2 that is used here. */
#define DRIVER_FUNCTIONS(X) \
    X(clGetPlatformIDs) \
    X(clGetDeviceIDs) \
    X(clGetDeviceInfo) \
    X(clCreateContext) \
    X(clCreateCommandQueue) \
    X(clCreateProgramWithSource) \
    X(clBuildProgram) \
    X(clGetProgramBuildInfo) \
    X(clCreateKernel) \
    X(clGetKernelInfo) \
    X(clGetKernelWorkGroupInfo) \
    X(clSetKernelArg) \
    X(clCreateBuffer) \
    X(clEnqueueNDRangeKernel) \
    X(clEnqueueReadBuffer) \
    X(clEnqueueWriteBuffer) \
    X(clFinish) \
    X(clReleaseMemObject) \
    X(clReleaseKernel) \
    X(clReleaseProgram) \
    X(clReleaseCommandQueue) \
    X(clReleaseContext)

typedef struct {
    void *library;
#define DRIVER_POINTER(name) cl_api_##name name;
    DRIVER_FUNCTIONS(DRIVER_POINTER)
#undef DRIVER_POINTER
} Driver;

bool driver_open(Driver *driver, Fault *fault);
void driver_close(Driver *driver);

/* The first GPU of any platform; where there is none, the first device, which may be the processor itself. */
bool driver_device(const Driver *driver, cl_device_id *device, Fault *fault);

/* What an error of OpenCL is called, as far as a launch plan can cause it; its number otherwise. */
const char *driver_error(cl_int code);

#endif
