/* Pairs of groups that AVX2 may sum in 16 bits.
 *
 * In 16 bits two neighbouring weights of a group give at most 255 times what is positive of them,
 * and at least minus 255 times what is negative. Two groups fit together where, at each of the 32
 * places of a block (16 outputs, two neighbours each), both sums are at most QS_PAIR:
 * 255 * 128 = 32,640 < 2^15. The largest group is paired with the smallest that fits, and so on;
 * groups that fit with no other stay alone.
 */
#include <stdlib.h>
#include <string.h>

#include "linear.h"

enum { PLACES = 2 * QS_BLOCK };

typedef struct {
    uint8_t above[PLACES]; /* what is positive; at most QS_PAIR, as the loader has checked */
    uint8_t below[PLACES];
    uint8_t largest;
    uint8_t taken;
    uint16_t group;
} group_sums;

static group_sums sums_of(const int8_t *group, int index) {
    group_sums found = {.group = (uint16_t)index};
    for (int place = 0; place < PLACES; place++) {
        int above = 0, below = 0;
        for (int i = 0; i < 2; i++) {
            int weight = group[2 * place + i];
            above += weight > 0 ? weight : 0;
            below -= weight < 0 ? weight : 0;
        }
        found.above[place] = (uint8_t)above;
        found.below[place] = (uint8_t)below;
        int larger = above > below ? above : below;
        if (larger > found.largest) found.largest = (uint8_t)larger;
    }
    return found;
}

static int fit(const group_sums *a, const group_sums *b) {
    int excess = 0;
    for (int place = 0; place < PLACES; place++)
        excess |= (a->above[place] + b->above[place] > QS_PAIR) |
                  (a->below[place] + b->below[place] > QS_PAIR);
    return !excess;
}

static int by_size(const void *a, const void *b) {
    const group_sums *one = a, *other = b;
    if (one->largest != other->largest) return other->largest - one->largest;
    return one->group - other->group;
}

/* A block's order: how many pairs there are, the paired groups, those that stay alone. */
static void order_block(group_sums *sums, int groups, uint16_t *order) {
    qsort(sums, (size_t)groups, sizeof *sums, by_size);
    int pairs = 0, alone = 0;
    for (int i = 0; i < groups; i++) {
        if (sums[i].taken) continue;
        int partner = groups - 1;
        while (partner > i && (sums[partner].taken || !fit(&sums[i], &sums[partner]))) partner--;
        sums[i].taken = 1;
        if (partner > i) {
            sums[partner].taken = 1;
            order[1 + 2 * pairs] = sums[i].group;
            order[2 + 2 * pairs++] = sums[partner].group;
        } else {
            sums[i].taken = 2;
            alone++;
        }
    }
    order[0] = (uint16_t)pairs;
    for (int i = 0, at = 1 + 2 * pairs; i < groups && alone; i++)
        if (sums[i].taken == 2) order[at++] = sums[i].group;
}

int qs_order(const int8_t *packed, int outputs, int inputs, uint16_t *order) {
    int groups = inputs / QS_GROUP;
    group_sums *sums = malloc((size_t)groups * sizeof *sums);
    if (sums == NULL) return 0;
    for (int block = 0; block < outputs / QS_BLOCK; block++, order += QS_ORDER(groups)) {
        for (int g = 0; g < groups; g++, packed += QS_BLOCK * QS_GROUP) sums[g] = sums_of(packed, g);
        order_block(sums, groups, order);
    }
    free(sums);
    return 1;
}

int qs_reorder(int8_t *packed, int outputs, int inputs, const uint16_t *order) {
    int groups = inputs / QS_GROUP;
    size_t bytes = (size_t)groups * QS_BLOCK * QS_GROUP;
    int8_t *before = malloc(bytes);
    if (before == NULL) return 0;
    for (int block = 0; block < outputs / QS_BLOCK; block++, order += QS_ORDER(groups)) {
        memcpy(before, packed, bytes);
        for (int g = 0; g < groups; g++, packed += QS_BLOCK * QS_GROUP)
            memcpy(packed, before + (size_t)order[1 + g] * QS_BLOCK * QS_GROUP,
                   QS_BLOCK * QS_GROUP);
    }
    free(before);
    return 1;
}
