/*
 * Runs one kernel that TVM compiled, with nothing of TVM around it, so that a counter sees the kernel alone.
 *
 * The kernel's object file is linked into this program, statically: no loader, the same addresses every time. What a
 * kernel asks of TVM's runtime (scratch memory, parallel loops, errors) is answered here, by one thread.
 *
 *   kernel_runner WARMUPS SHAPE...   one shape for each argument, results included, such as 3136x40; all are float32
 *
 * Every argument is filled with numbers of [-1/2, 1/2) that depend on its place only. After the warm-ups the kernel runs
 * once more, between the markers that edge/cost counts between.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

enum { MOST_ARGUMENTS = 32, MOST_DIMENSIONS = 8, ALIGNMENT = 64, MOST_BYTES = 1 << 30 };

int __tvm_ffi_kernel(void *handle, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);

/* ---- what a kernel asks of TVM's runtime: it calls through these pointers, where it has them ---- */

typedef struct {
    void *sync;
    int32_t tasks;
} Environment;

typedef int Task(int index, Environment *environment, void *closure);
typedef int Launch(Task *task, void *closure, int tasks);
typedef void *Allocate(int device_type, int device, uint64_t bytes, int type_code, int type_bits);
typedef int Free(int device_type, int device, void *memory);

extern Launch *__TVMBackendParallelLaunch __attribute__((weak));
extern Allocate *__TVMBackendAllocWorkspace __attribute__((weak));
extern Free *__TVMBackendFreeWorkspace __attribute__((weak));

static int launch(Task *task, void *closure, int tasks)
{
    (void)tasks;
    Environment one = {.tasks = 1};
    return task(0, &one, closure);
}

/* All memory is a stack: a kernel gives back last what it took first, and every request costs the same instructions. */
static _Alignas(ALIGNMENT) char stack[MOST_BYTES];
static uint64_t taken;

static void *take(uint64_t bytes)
{
    char *memory = stack + taken;
    if (bytes > sizeof stack - taken) {
        fputs("kernel_runner: out of memory\n", stderr);
        exit(2);
    }
    taken += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return memory;
}

static void *allocate(int device_type, int device, uint64_t bytes, int type_code, int type_bits)
{
    (void)device_type, (void)device, (void)type_code, (void)type_bits;
    return take(bytes);
}

static int release(int device_type, int device, void *memory)
{
    (void)device_type, (void)device;
    taken = (uint64_t)((char *)memory - stack);
    return 0;
}

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message)
{
    fprintf(stderr, "%s: %s\n", kind, message);
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count)
{
    fprintf(stderr, "%s: ", kind);
    for (int32_t i = 0; i < count; i++)
        fputs(parts[i], stderr);
    fputc('\n', stderr);
}

/* ---- arguments ---- */

static float number(uint32_t argument, uint32_t index)
{
    uint32_t bits = index * UINT32_C(2654435761) ^ (argument + 1) * UINT32_C(0x9E3779B1);
    bits = (bits ^ bits >> 15) * UINT32_C(0x85EBCA6B);
    bits ^= bits >> 13;
    return (float)(bits >> 8) / (1 << 24) - 0.5f;
}

/* A tensor of a shape such as 3136x40, filled; false if the text is no shape. */
static bool make(DLTensor *tensor, uint32_t argument, const char *text)
{
    tensor->shape = calloc(2 * MOST_DIMENSIONS, sizeof *tensor->shape);
    tensor->strides = tensor->shape + MOST_DIMENSIONS;
    for (const char *rest = text;; rest++) {
        char *end;
        long long length = strtoll(rest, &end, 10);
        if (end == rest || length <= 0 || tensor->ndim == MOST_DIMENSIONS)
            return false;
        tensor->shape[tensor->ndim++] = length;
        rest = end;
        if (!*rest)
            break;
        if (*rest != 'x')
            return false;
    }
    int64_t elements = 1;
    for (int32_t axis = tensor->ndim - 1; axis >= 0; axis--) {
        tensor->strides[axis] = elements;
        elements *= tensor->shape[axis];
    }
    float *data = take((uint64_t)elements * sizeof *data);
    for (int64_t i = 0; i < elements; i++)
        data[i] = number(argument, (uint32_t)i);
    tensor->data = data;
    tensor->device = (DLDevice){.device_type = kDLCPU};
    tensor->dtype = (DLDataType){.code = kDLFloat, .bits = 32, .lanes = 1};
    return true;
}

int main(int argc, char **argv)
{
    static DLTensor tensors[MOST_ARGUMENTS];
    static TVMFFIAny arguments[MOST_ARGUMENTS];
    int count = argc - 2;
    if (count < 1 || count > MOST_ARGUMENTS) {
        fprintf(stderr, "kernel_runner: how many warm-ups, and 1 to %d shapes\n", MOST_ARGUMENTS);
        return 2;
    }
    for (int i = 0; i < count; i++) {
        if (!make(&tensors[i], (uint32_t)i, argv[i + 2])) {
            fprintf(stderr, "kernel_runner: %s is no shape\n", argv[i + 2]);
            return 2;
        }
        arguments[i] = (TVMFFIAny){.type_index = kTVMFFIDLTensorPtr, .v_ptr = &tensors[i]};
    }
    if (&__TVMBackendParallelLaunch)
        __TVMBackendParallelLaunch = launch;
    if (&__TVMBackendAllocWorkspace)
        __TVMBackendAllocWorkspace = allocate;
    if (&__TVMBackendFreeWorkspace)
        __TVMBackendFreeWorkspace = release;

    TVMFFIAny result = {0};
    int fault = 0;
    for (int warmups = atoi(argv[1]); warmups > 0; warmups--)
        fault |= __tvm_ffi_kernel(NULL, arguments, count, &result);
    __asm__ volatile("hint #112" ::: "memory");
    fault |= __tvm_ffi_kernel(NULL, arguments, count, &result);
    __asm__ volatile("hint #113" ::: "memory");
    return fault ? 1 : 0;
}
