/*
 * A plugin for QEMU's user-mode emulation of 64-bit Arm: what the guest executes between `hint #112` and `hint #113`.
 *
 * Arguments:
 *   out=FILE   written whenever the guest reaches `hint #113`; the last pair of markers stands.
 *   cache=L1_KIB:L1_WAYS:L2_KIB:L2_WAYS:LINE_BYTES   also count bytes loaded and stored, and misses of two data caches.
 *
 * The file is text: a header, then one line for each block of instructions, "address executions word...", in hexadecimal
 * but for the executions. QEMU makes the same block again when it has thrown it away; both count as one.
 *
 * The caches are set-associative, replace the line that was not used for the longest time, and take a line in on a store
 * too. They watch the guest from its start, so at `hint #112` they hold what the inferences before have left.
 *
 * QEMU 7.2 exports plugin interface 1; Debian ships no header for it, so what is used of it is declared here.
 * QEMU's user-mode emulation translates under a lock of its own; counters are exact for one guest thread, and the header
 * says how many there were.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_RW = 3 };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*qemu_plugin_vcpu_simple_cb_t)(qemu_plugin_id_t, unsigned vcpu);
typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned vcpu, void *data);
typedef void (*qemu_plugin_vcpu_mem_cb_t)(unsigned vcpu, qemu_plugin_meminfo_t, uint64_t address, void *data);
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t, struct qemu_plugin_tb *);

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, qemu_plugin_vcpu_simple_cb_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, qemu_plugin_vcpu_tb_trans_cb_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, qemu_plugin_vcpu_udata_cb_t,
                                            enum qemu_plugin_cb_flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, enum qemu_plugin_op, void *counter,
                                                uint64_t amount);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, qemu_plugin_vcpu_mem_cb_t, enum qemu_plugin_cb_flags,
                                      enum qemu_plugin_mem_rw, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

EXPORT int qemu_plugin_version = 1;

enum { BEGIN = 0xD5032E1F, END = 0xD5032E3F }; /* hint #112, hint #113 */
enum { BUCKETS = 1 << 16, LONGEST_BLOCK = 512 /* QEMU's TCG_MAX_INSNS */ };

static const char *out;
static uint64_t threads;
static bool begun;

/* ---- blocks ---- */

struct block {
    struct block *next;
    uint64_t address, executions;
    size_t length;
    uint32_t words[];
};

static struct block *blocks[BUCKETS];

static struct block *block_of(uint64_t address, const uint32_t *words, size_t length)
{
    struct block **bucket = &blocks[address / sizeof *words % BUCKETS];
    for (struct block *block = *bucket; block; block = block->next)
        if (block->address == address && block->length == length && !memcmp(block->words, words, length * sizeof *words))
            return block;
    struct block *block = calloc(1, sizeof *block + length * sizeof *words);
    if (!block)
        abort();
    block->address = address;
    block->length = length;
    memcpy(block->words, words, length * sizeof *words);
    block->next = *bucket;
    return *bucket = block;
}

/* ---- caches ---- */

struct cache {
    uint64_t *lines; /* [sets][ways], most recently used first; a line's number plus one, 0 is empty */
    uint64_t sets, ways, misses;
};

static struct cache l1, l2;
static uint64_t line_bytes, latest_line, loaded_bytes, stored_bytes;

/* Whether the line was there; now it is. */
static bool touch(struct cache *cache, uint64_t line)
{
    uint64_t *set = cache->lines + line % cache->sets * cache->ways;
    uint64_t way = 0;
    while (way < cache->ways - 1 && set[way] != line + 1)
        way++;
    bool hit = set[way] == line + 1;
    memmove(set + 1, set, way * sizeof *set);
    set[0] = line + 1;
    cache->misses += !hit;
    return hit;
}

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)vcpu, (void)data;
    uint64_t bytes = UINT64_C(1) << qemu_plugin_mem_size_shift(info);
    *(qemu_plugin_mem_is_store(info) ? &stored_bytes : &loaded_bytes) += bytes;
    uint64_t last = (address + bytes - 1) / line_bytes;
    for (uint64_t line = address / line_bytes; line <= last; line++) {
        if (line == latest_line)
            continue; /* the most recently used line of its set already */
        latest_line = line;
        if (!touch(&l1, line))
            touch(&l2, line);
    }
}

static bool make_cache(struct cache *cache, uint64_t kib, uint64_t ways)
{
    cache->ways = ways;
    cache->sets = ways ? kib * 1024 / (ways * line_bytes) : 0;
    cache->lines = cache->sets ? calloc(cache->sets * ways, sizeof *cache->lines) : NULL;
    return cache->lines;
}

static bool make_caches(const char *sizes)
{
    uint64_t l1_kib, l1_ways, l2_kib, l2_ways;
    int fields = sscanf(sizes, "%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%" SCNu64, &l1_kib, &l1_ways, &l2_kib,
                        &l2_ways, &line_bytes);
    latest_line = UINT64_MAX;
    return fields == 5 && line_bytes && make_cache(&l1, l1_kib, l1_ways) && make_cache(&l2, l2_kib, l2_ways);
}

/* ---- markers ---- */

static void on_begin(unsigned vcpu, void *data)
{
    (void)vcpu, (void)data;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++)
        for (struct block *block = blocks[bucket]; block; block = block->next)
            block->executions = 0;
    loaded_bytes = stored_bytes = l1.misses = l2.misses = 0;
    begun = true;
}

/* Written under another name and renamed, so that whoever finds the file finds it whole. */
static void on_end(unsigned vcpu, void *data)
{
    (void)vcpu, (void)data;
    if (!begun)
        return;
    begun = false;
    char partial[4096];
    snprintf(partial, sizeof partial, "%s.partial", out);
    FILE *file = fopen(partial, "w");
    if (!file) {
        perror(partial);
        return;
    }
    fprintf(file, "threads=%" PRIu64, threads);
    if (line_bytes)
        fprintf(file, " loaded_bytes=%" PRIu64 " stored_bytes=%" PRIu64 " l1d_misses=%" PRIu64 " l2_misses=%" PRIu64,
                loaded_bytes, stored_bytes, l1.misses, l2.misses);
    fputc('\n', file);
    for (size_t bucket = 0; bucket < BUCKETS; bucket++)
        for (struct block *block = blocks[bucket]; block; block = block->next) {
            if (!block->executions)
                continue;
            fprintf(file, "%" PRIx64 " %" PRIu64, block->address, block->executions);
            for (size_t i = 0; i < block->length; i++)
                fprintf(file, " %08" PRIx32, block->words[i]);
            fputc('\n', file);
        }
    bool written = !ferror(file);
    if (fclose(file) || !written || rename(partial, out))
        perror(out);
}

/* ---- translation ---- */

/* A marker splits a block, and belongs to neither side: what stands before it in its block is not what it measures. */
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    uint32_t words[LONGEST_BLOCK];
    struct qemu_plugin_insn *first = NULL;
    size_t length = 0, count = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i <= count; i++) {
        struct qemu_plugin_insn *instruction = i < count ? qemu_plugin_tb_get_insn(tb, i) : NULL;
        uint32_t word = 0;
        if (instruction)
            memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
        bool marker = word == BEGIN || word == END;
        if (length && (marker || !instruction || length == LONGEST_BLOCK)) {
            struct block *block = block_of(qemu_plugin_insn_vaddr(first), words, length);
            qemu_plugin_register_vcpu_insn_exec_inline(first, QEMU_PLUGIN_INLINE_ADD_U64, &block->executions, 1);
            length = 0;
        }
        if (marker) {
            qemu_plugin_vcpu_udata_cb_t callback = word == BEGIN ? on_begin : on_end;
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, QEMU_PLUGIN_CB_NO_REGS, NULL);
        } else if (instruction) {
            if (!length)
                first = instruction;
            words[length++] = word;
            if (line_bytes)
                qemu_plugin_register_vcpu_mem_cb(instruction, on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
                                                 NULL);
        }
    }
}

static void on_thread(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id, (void)vcpu;
    threads++;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        bool known = true;
        if (!strncmp(argv[i], "out=", 4))
            out = strdup(argv[i] + 4);
        else
            known = !strncmp(argv[i], "cache=", 6) && make_caches(argv[i] + 6);
        if (!known) {
            fprintf(stderr, "counter: cannot use the argument %s\n", argv[i]);
            return -1;
        }
    }
    if (!out) {
        fprintf(stderr, "counter: out=FILE is missing\n");
        return -1;
    }
    qemu_plugin_register_vcpu_init_cb(id, on_thread);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
