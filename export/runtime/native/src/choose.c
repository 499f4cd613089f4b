/* Which kernels there are, and which of them this CPU can run. */
#include <string.h>

#include "engine.h"
#include "kernel.h"

#ifdef QS_X86
#include <cpuid.h>

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int has_avxvnni(void) {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

static int has_avx512vnni(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

#ifdef QS_ARM
#include <sys/auxv.h>

static int has_dotprod(void) { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP */ }
#endif

static int always(void) { return 1; }

static const qs_kernel KERNELS[] = {
#ifdef QS_X86
    {"avx512vnni", qs_product_avx512vnni, &qs_floats_avx2, 0, &qs_sparse_avx512vnni,
     has_avx512vnni},
    {"avxvnni", qs_product_avxvnni, &qs_floats_avx2, 0, NULL, has_avxvnni},
    {"avx2", qs_product_avx2, &qs_floats_avx2, 1, &qs_sparse_avx2, has_avx2},
#endif
#ifdef QS_ARM
    {"neon", qs_product_neon, &qs_floats_portable, 0, NULL, has_dotprod},
#endif
    {"portable", qs_product_portable, &qs_floats_portable, 0, NULL, always},
};
enum { COUNT = sizeof KERNELS / sizeof KERNELS[0] };

const qs_kernel *qs_choose_kernel(const char *name) {
    for (int i = 0; i < COUNT; i++)
        if ((name == NULL || strcmp(name, KERNELS[i].name) == 0) && KERNELS[i].runs_here())
            return &KERNELS[i];
    return NULL;
}

const char *qs_kernels(void) {
    static char names[128]; /* every thread writes the same */
    char found[sizeof names] = "";
    for (int i = 0; i < COUNT; i++)
        if (KERNELS[i].runs_here()) {
            if (found[0]) strcat(found, " ");
            strcat(found, KERNELS[i].name);
        }
    memcpy(names, found, sizeof names);
    return names;
}
