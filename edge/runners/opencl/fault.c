#include "fault.h"

#include <stdarg.h>
#include <stdio.h>

bool fail(Fault *fault, const char *format, ...)
{
    if (!fault->text[0]) {
        va_list values;
        va_start(values, format);
        vsnprintf(fault->text, sizeof fault->text, format, values);
        va_end(values);
    }
    return false;
}
